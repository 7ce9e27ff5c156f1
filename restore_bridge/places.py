"""Places in a frame as people write them: "in the upper left and at the bottom". It must not know flaws or phrases.

Objects have no box: neither "the foreground" nor "the left side of the car", "the right eye" or "the middle tones".
Standard library only; every function takes time in proportion to the text's length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from zoomiqa.statements import FINITE
from zoomiqa.vocabulary import where

_I = re.IGNORECASE
_FRAME = r"(?:image|frame|picture|photo(?:graph)?|scene|shot|composition|crop)"
_PART = r"(?:corner|part|area|side|quarter|quadrant|region|half|third|edge|portion|section|border|margin)s?"
_ITEM = re.compile(
    r"\b(?:(?P<at>(?:on|at|along|in|to|near|towards?|around|from|across)\s+(?:the|both)\s+)|the\s+)?"
    r"(?:(?:very|far|extreme)\s+)?(?:(?P<row>upper|top|lower|bottom)[- ](?P<column>left|right)"
    r"|(?P<one>left|right|top|bottom|upper|lower|cent(?:re|er)|middle|central))\b"
    rf"(?:[- ]hand(?=[- ]{_PART}\b))?(?P<part>[- ]{_PART}\b)?(?P<frame>\s+of\s+(?:the|this)\s+{_FRAME}\b)?",
    _I,
)
_AND = re.compile(r"\s*[,/&]\s*(?:(?:and|or)\s+)?|\s+(?:and|or|as well as)\s+", _I)
_OWNED = re.compile(r"(?:['’]s?|\b(?:his|her|its|their|your|my|our))\s+$", _I)
_OF = re.compile(r"\s+of\b", _I)
_STANDS_ALONE = re.compile(
    r"\s*(?:$|[^\w\s'’-])|\s+(?:and|or|but|nor|yet|as|at|because|by|due|for|from|if|in|near|of|on|only|so|than|that|to|too"
    r"|also|very|more|most|less|under|over|behind|between|through|when|where|whereas|which|while|with|without|makes?"
    rf"|leaves?|hides?|gives?|loses?|stays?|becomes?|feels?|turns?|\w+ly|{FINITE})\b",
    _I,
)
"""What may follow the bare name of a side: "on the left, ..." but not "on the left wing"."""

_ROWS = {"upper": "upper", "top": "upper", "lower": "lower", "bottom": "lower"}
_SINGLE = {
    "left": "left side",
    "right": "right side",
    "top": "top",
    "upper": "top",
    "bottom": "bottom",
    "lower": "bottom",
}


@dataclass(frozen=True, slots=True)
class PlaceMention:
    """One or several places that a text names in a row."""

    names: tuple[str, ...]
    """Keys of `zoomiqa.vocabulary.REGIONS`, in reading order, each once."""

    span: tuple[int, int]
    """Characters of the text, half-open, from the preposition to the last name."""

    noun: str = ""
    """"image" where the place stands for its part of the picture ("the left side of the photo is dark")."""


def find_places(text: str) -> list[PlaceMention]:
    """The places that `text` names, in reading order; those of one list ("left, right and centre") together."""
    found: list[PlaceMention] = []
    run: list[re.Match[str]] = []
    for item in [each for each in _ITEM.finditer(text) if _is_place(text, each)]:
        if run and not _AND.fullmatch(text, run[-1].end(), item.start()):
            found += _mention(run)
            run = []
        run.append(item)
    return found + _mention(run)


def at_each_place(text: str) -> list[tuple[str, str]]:
    """`text` once for each place that it names, with that place alone, and the place's name; nothing without one."""
    mentions = find_places(text)
    named = [(mention, name) for mention in mentions for name in mention.names]
    if len(named) == 1:
        return [(text, named[0][1])]
    return [
        (_replaced(text, [(each, where(name) if each is mention else "") for each in mentions]), name)
        for mention, name in named
    ]


def without_places(text: str) -> str:
    """`text` less the places that it names."""
    return _replaced(text, [(mention, "") for mention in find_places(text)])


def as_tail(text: str) -> str:
    """The places of a text that names nothing else, in words that follow a noun; "" where it names more."""
    mentions = find_places(text)
    if len(mentions) != 1 or _replaced(text, [(replace(mentions[0], noun=""), "")]).strip(" ,"):
        return ""
    return " and ".join(where(name) for name in mentions[0].names)


def _is_place(text: str, item: re.Match[str]) -> bool:
    if _OF.match(text, item.end()) or _OWNED.search(text, max(0, item.start() - 12), item.start()):
        return False
    return bool(item["row"] or item["part"] or item["frame"]) or _STANDS_ALONE.match(text, item.end()) is not None


def _mention(run: list[re.Match[str]]) -> list[PlaceMention]:
    """A run of names is a place where one of them is more than a bare "left" or "top"."""
    if not any(item["at"] or item["row"] or item["part"] or item["frame"] for item in run):
        return []
    names = tuple(dict.fromkeys(_name(item) for item in run))
    noun = "image" if run[-1]["frame"] and not run[0]["at"] else ""
    return [PlaceMention(names, (run[0].start(), run[-1].end()), noun)]


def _name(item: re.Match[str]) -> str:
    if item["row"]:
        return f"{_ROWS[item['row'].lower()]} {item['column'].lower()}"
    return _SINGLE.get(item["one"].lower(), "centre")


def _replaced(text: str, changes: list[tuple[PlaceMention, str]]) -> str:
    parts, last = [], 0
    for mention, words in changes:
        parts += [text[last : mention.span[0]], f" {mention.noun} {words} "]
        last = mention.span[1]
    joined = " ".join(" ".join([*parts, text[last:]]).split())
    return re.sub(r"\s+(?=[,.])|(?:^|,)\s*(?=,)|^,\s*|(?:\s+(?:and|or)|\s*,)+\s*$", "", joined).strip()
