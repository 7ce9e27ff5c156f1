"""Making untrusted text safe to show. It must not know where it is shown.

A reply is written by a model that may have read words in the picture: it is never trusted with a terminal, a page or a
prompt as it stands.
"""

from __future__ import annotations

import re
import unicodedata

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?"  # operating system commands (titles, links, clipboard)
    r"|\x1b[P^_X][^\x1b]{0,4096}(?:\x1b\\)?"  # device control and other strings
    r"|\x1b\[[0-?]{0,64}[ -/]{0,16}[@-~]"  # control sequences
    r"|\x1b[ -/]{0,4}[0-~]?"
)
_DROPPED_CATEGORIES = {"Cc", "Cf", "Zl", "Zp"}
"""Unicode general categories (UAX #44): controls, format characters (bidirectional marks, joiners, soft hyphens, tags),
line and paragraph separators."""


def plain(text: str) -> str:
    """`text` without terminal escapes, control characters (line feed and tab stay) and invisible format characters.

    Applying it twice changes nothing more. It takes time in proportion to the text's length.
    """
    if text.isprintable():
        return text
    return "".join(filter(_is_harmless, _ESCAPES.sub("", text.replace("\r\n", "\n"))))


def _is_harmless(character: str) -> bool:
    if character in "\n\t":
        return True
    # Unassigned places among the invisible operators and the tags are kept for more of their kind.
    if "\u2060" <= character <= "\u206f" or "\U000e0000" <= character <= "\U000e007f":
        return False
    return unicodedata.category(character) not in _DROPPED_CATEGORIES
