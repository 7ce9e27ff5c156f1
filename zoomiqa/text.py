"""Making untrusted text safe to show. It must not know where it is shown.

A reply is written by a model that may have read words in the picture: it is never trusted with a terminal, a page or a
prompt as it stands.
"""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?"  # operating system commands (titles, links, clipboard)
    r"|\x1b[P^_X][^\x1b]{0,4096}(?:\x1b\\)?"  # device control and other strings
    r"|\x1b\[[0-?]{0,64}[ -/]{0,16}[@-~]"  # control sequences
    r"|\x1b[ -/]{0,4}[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff]")


def plain(text: str) -> str:
    """`text` without terminal escapes, control characters (line feed and tab stay) and bidirectional overrides.

    Applying it twice changes nothing more.
    """
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))
