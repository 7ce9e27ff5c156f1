"""What English sentences about pictures are made of: subjects, places, attributes. It must not know flaws or wishes."""

from __future__ import annotations

import re

from restore_bridge.places import find_places
from zoomiqa.statements import FINITE

_I = re.IGNORECASE
FINITE_VERB = re.compile(rf"\b{FINITE}\b", _I)
DETERMINER = re.compile(r"^(?:(?:an?|the|some|any|this|these|those|its|their|all|such)\s+)+", _I)
GENERIC = (
    r"(?:it|this|which|(?:(?:the|this|an?|your|its)\s+)?(?:[\w'-]+\s+){0,3}?(?:image|photo|photograph|picture|frame|crop|shot"
    r"|scene|version|rendition|result|composition|(?:cropped|zoomed|selected|magnified) (?:region|area)))"
)
"""A subject that is the picture itself."""

GENERIC_ONLY = re.compile(rf"^{GENERIC}$", _I)
PREPOSITION = (
    r"(?:across|in|on|along|around|throughout|over|within|at|near|towards?|against|between|behind|under|among|inside)"
)
PLACE = re.compile(rf"\b{PREPOSITION}\s+.+", _I)
"""Where something is, to the end of the text; a sky or a roof as well as a part of the frame."""

EVERYWHERE = re.compile(
    r"\s*\b(?:across|throughout|over|in|on|within)\s+(?:the\s+)?(?:entire|whole|overall|full|complete)?\s*(?:of\s+the\s+)?"
    r"(?:image|photo|photograph|picture|frame|scene|composition|shot)\b",
    _I,
)

FLAW_ING = (
    r"(?:blocking|ringing|banding|ghosting|aliasing|posteri[sz]ing|clipping|fringing|smearing|haloing|oversharpening"
    r"|moir\w*)"
)
"""Flaws that end like a verb."""


def is_generic(subject: str) -> bool:
    """Whether a subject is the picture itself ("the ideal image")."""
    return GENERIC_ONLY.match(subject) is not None and not find_places(subject)


def with_attribute(noun: str, words: str) -> str:
    """ "sky" + "too bright in the corner" → "too bright sky in the corner"; long attributes follow a comma."""
    place = re.search(rf"\s+{PREPOSITION}\s+(?:the|an?)\s.+$", words, _I)
    quality, where = (words[: place.start()], place[0]) if place else (words, "")
    quality = re.split(r"\s+(?:and|but)\s+(?=\w+s\s)", quality)[0]
    if quality.startswith("of "):
        return f"{noun} {quality}{where}"
    if noun == "image" and re.search(r"\b(?:out of focus|in focus)\b", quality):
        return quality + where
    if (
        len(quality.split()) <= 3
        and len(noun.split()) <= 6
        and not re.search(rf"\b(?:with|by|{PREPOSITION[3:-1]})\b", quality, _I)
    ):
        return f"{quality} {noun}{where}"
    return f"{noun}, {quality}{where}"


def noun_phrase(text: str) -> str:
    """`text` without its article and with plain spaces."""
    text = DETERMINER.sub("", text.strip(" ,.")).strip()
    text = re.sub(r"^(?:presence|amount|level|degree) of\s+", "", text, flags=_I)
    return " ".join(re.sub(r"\s+,", ",", text).split())


def gerund(verb: str) -> str:
    """ "make" → "making"."""
    verb = verb.lower()
    if verb in ("let", "set", "cut", "put", "get", "stop"):
        return f"{verb}{verb[-1]}ing"
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    return f"{verb[:-1]}ing" if verb.endswith("e") and not verb.endswith("ee") else f"{verb}ing"
