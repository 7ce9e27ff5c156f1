"""Prompts as lines that a person can edit, and back to guidance. It must not know pictures, jobs or pages.

One phrase is one line; a place stands behind it in brackets, which no phrase contains:

    severe noise
    slight blur [upper left]

A line that stands for one of the assessment's phrases keeps all that is known of it: its box, severity and source. A
new or changed line is the user's own word. A line that was taken away is no longer asked for.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from restore_bridge.guidance import Guidance, Phrase, split_guidance
from restore_bridge.textclean import sanitise
from zoomiqa.types import Assessment, Note
from zoomiqa.vocabulary import REGIONS

MOST_LINES = 60

_LINE = re.compile(r"^(?P<words>.*?)\s*(?:\[(?P<region>[^\[\]]*)\])?\s*$")
Side = Literal["positive", "negative"]


def lines_of(phrases: tuple[Phrase, ...]) -> str:
    """Phrases as lines, each once."""
    return "\n".join(dict.fromkeys(_line(phrase) for phrase in phrases))


def edited_guidance(guidance: Guidance, positive: str | None, negative: str | None) -> Guidance:
    """`guidance` as the lines have it; `None` leaves a side as it is."""
    if positive is None and negative is None:
        return guidance
    sides = {
        "positive": guidance.positive if positive is None else _read(positive, "positive", guidance.positive),
        "negative": guidance.negative if negative is None else _read(negative, "negative", guidance.negative),
    }
    if sides["positive"] == guidance.positive and sides["negative"] == guidance.negative:
        return guidance
    note = Note("guidance-edited", "The phrases were edited before they were sent to the restorer.")
    return Guidance(sides["positive"], sides["negative"], (*guidance.notes, note))


def _line(phrase: Phrase) -> str:
    return phrase.text if phrase.box_fraction is None else f"{phrase.text} [{phrase.region}]"


def _read(text: str, side: Side, phrases: tuple[Phrase, ...]) -> tuple[Phrase, ...]:
    known: dict[str, list[Phrase]] = {}
    for phrase in phrases:
        known.setdefault(_line(phrase).casefold(), []).append(phrase)
    found: list[Phrase] = []
    for line in text.splitlines()[:MOST_LINES]:
        match = _LINE.match(line)
        if match is None or not (words := sanitise(match["words"])):
            continue
        region = (match["region"] or "").strip().casefold()
        kept = known.get(f"{words} [{region}]".casefold() if region else words.casefold())
        found += kept or _own(words, side, region, phrases)
    return tuple(dict.fromkeys(found))


def _own(words: str, side: Side, region: str, phrases: tuple[Phrase, ...]) -> tuple[Phrase, ...]:
    """The user's own words as phrases. A named place is one of `REGIONS` or that of a phrase there was."""
    spoken = split_guidance(
        Assessment((), None),
        prompt=words if side == "positive" else None,
        negative=words if side == "negative" else None,
    )
    own = tuple(
        phrase for phrase in (spoken.positive if side == "positive" else spoken.negative) if phrase.origin == "user"
    )
    places = {**REGIONS, **{phrase.region: phrase.box_fraction for phrase in phrases if phrase.box_fraction}}
    if region in places and region != "whole frame":
        return tuple(replace(phrase, box_fraction=places[region], region=region) for phrase in own)
    return own
