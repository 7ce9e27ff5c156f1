"""Makes text from a model safe and plain for a prompt. It must not know what the text says.

A model's reply is untrusted: it may carry control and bidirectional characters, terminal escapes, Markdown, and the
weighting syntax of prompt encoders (`(word:1.4)`, `[word]`, `<lora:name:1>`). Phrases leave here as plain words.
"""

from __future__ import annotations

import re
import unicodedata

FORBIDDEN = '()[]<>{}+:;|\\"*_#`~^=\u201c\u201d\u201e\u00ab\u00bb'
"""Characters that no phrase contains: weighting and embedding syntax, quotation marks, Markdown."""

_TAG = re.compile(r"<[^<>\n]{0,80}>")
_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]{0,32}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)?|.)?", re.DOTALL)
_WEIGHT = re.compile(r":\s?[-+]?\d{0,4}(?:\.\d{0,4})?(?=\s?[)\]>}])")
_MARKER = re.compile(r"^\s*(?:[-–—•·*+]+|\(?\d{1,2}[.)]|\(?[a-zA-Z][.)])\s+")
_REPEATED = re.compile(r"([,.!?+\-])[,.!?+\-]+")
_TRAILING_HYPHEN = re.compile(r"-+(?=[\s,.]|$)")
_DANGLING = re.compile(r"\s+(?=[,.!?])")
_PLAIN = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201b": "'",
        "\u2032": "'",
        "\u00a0": " ",
        "\u2010": "-",
        "\u2011": "-",
        "\u2012": "-",
        "\u2013": "-",
        "\u2014": ",",
        "\u2015": ",",
        "\u2026": ".",
        "\u3000": " ",
        "\t": " ",
        "\n": " ",
        "\r": " ",
    }
)


def sanitise(text: str) -> str:
    """One line of plain words: no control, bidirectional or weighting characters. Applying it twice changes nothing."""
    previous = None
    while previous != text:  # every pass only shortens or normalises, so it ends
        previous, text = text, _pass(text)
    return text


def _pass(text: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    text = _ESCAPE.sub(" ", text).translate(_PLAIN)
    text = "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in text)
    text = _MARKER.sub("", _WEIGHT.sub(" ", _TAG.sub(" ", text)))
    text = "".join(" " if sign in FORBIDDEN else sign for sign in text)
    text = _TRAILING_HYPHEN.sub("", _MARKER.sub("", " ".join(text.split())))
    return " ".join(_REPEATED.sub(r"\1", _DANGLING.sub("", text)).split()).strip(" ,.!?-'")
