"""From an assessment to guidance: what is wanted, what is wrong, where, and how strongly. It must not know encoders.

*Directions for Improvement* gives the positive phrases, *Issues to Avoid* the negative ones. Every phrase keeps the
words it came from and their place in the section, so that a reader can check it. Standard library only.

Where a phrase belongs:

- whole-frame words ("across the entire image") → the whole picture;
- a place in the frame ("in the upper left") → that box; in a later round, that part of what was shown;
- otherwise a later round's text belongs to the box that the round looked at, and the first round's to the whole picture.
"""  # noqa: E501

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from restore_bridge.places import at_each_place, find_places, without_places
from restore_bridge.textclean import sanitise
from restore_bridge.wishes import asked_flaws, positive_phrases
from restore_bridge.wording import negative_phrases
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.statements import LONGEST_CLAUSE, asserted, praises, sentences, without_denial, without_label
from zoomiqa.types import Assessment, BoxFraction, Finding, Note
from zoomiqa.vocabulary import REGIONS, TERMS, Flaw, Severity, find_flaws

Side = Literal["positive", "negative"]
Origin = Literal["user", "model", "default"]

DEFAULT_POSITIVE = (
    "sharp focus and crisp fine detail",
    "clean, smooth surfaces",
    "natural colour",
    "well-exposed light",
)
"""Used when there is no direction at all; wanted states that suit any photograph."""

DEFAULT_NEGATIVE = ("blur", "noise and grain", "compression blocking", "ringing halos")
"""Used when no issue is given at all. They fill a prompt; nothing is repaired on their account."""

LONGEST_OWN = 4_000
"""Characters of the user's own words that are read."""

_SEVERE = re.compile(
    r"\b(?:sever\w+|strong\w*|heav(?:y|ily)|extrem\w+|pervasive\w*|excessiv\w+|significant\w*|pronounced|intens\w+|massive\w*|major"
    r"|harsh\w*|very|badly|completely|overwhelming\w*|serious\w*|substantial\w*|too)\b",
    re.IGNORECASE,
)
_SLIGHT = re.compile(
    r"\b(?:slight\w*|minor|subtl\w+|mild\w*|faint\w*|light(?=\s+(?:noise|grain|blur|haz\w+|cast|banding))|a little|a bit|somewhat|barely"  # noqa: E501
    r"|minimal\w*|not (?:\w+ly |very |too |that )?(?:sever|strong|heav|extrem|excessiv|pronounced|serious)\w*"
    r"|small amounts?|hint of|touch of|marginal\w*)\b",
    re.IGNORECASE,
)
_MODERATE = re.compile(
    r"\b(?:moderat\w+|visibl\w+|noticeabl\w+|some|clear(?:ly)?|apparent|evident|distinct|obvious\w*|general(?:i[sz]ed)?)\b",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    r"\b(?:(?:whole|entire|full|overall|complete|rest of the) (?:image|frame|picture|photo\w*|scene|composition)"
    r"|(?:across|throughout) (?:the )?(?:image|frame|picture|photo\w*|scene)|globally|frame-wide|everywhere)\b",
    re.IGNORECASE,
)
_HUE = re.compile(
    r"\b(red|green|blue|yellow|cyan|magenta|orange|purple|pink|warm|cool)(?:dish|ish|lish)?\b(?=[\s,/-]*(?:\w+[\s-]+){0,2}?"
    r"(?:cast|tint|tone|shift|hue))",
    re.IGNORECASE,
)
_DIRECTION = re.compile(r"\b(horizontal|vertical|diagonal)(?:ly)?\b", re.IGNORECASE)
_WORTH = {Severity.SEVERE: 0.9, Severity.MODERATE: 0.65, Severity.SLIGHT: 0.4, None: 0.6}


@dataclass(frozen=True, slots=True)
class Phrase:
    """One piece of guidance, ready to stand in a prompt."""

    text: str
    """Plain words; never holds weighting syntax, control or bidirectional characters."""

    side: Side
    origin: Origin
    source: str = ""
    """The words that it came from, as written."""

    span: tuple[int, int] | None = None
    """Where those words stand in the section (characters, half-open); `None` for the user's and for defaults."""

    round_index: int | None = None
    box_fraction: BoxFraction | None = None
    """The part of the upright original that it is about; `None` is the whole picture."""

    region: str = "whole frame"
    """Name of that place: one of `zoomiqa.vocabulary.REGIONS`, or "looked-at region"."""

    flaws: tuple[Flaw, ...] = ()
    """The flaws that it reports as present, or (positive) that it wants gone. Empty for a warning and a plain wish."""

    severity: Severity | None = None
    """As its words say; `None` when they say nothing."""

    detail: str = ""
    """A named hue or direction."""

    worth: float = 0.0
    """0..1 for the model's and default phrases, 2 for the user's; a budget keeps the worthiest."""

    @property
    def flaw(self) -> Flaw | None:
        """The first flaw."""
        return self.flaws[0] if self.flaws else None

    @property
    def scope(self) -> Literal["global", "regional"]:
        return "global" if self.box_fraction is None else "regional"

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "side": self.side,
            "origin": self.origin,
            "source": self.source,
            "span": list(self.span) if self.span else None,
            "round_index": self.round_index,
            "scope": self.scope,
            "box_fraction": list(self.box_fraction) if self.box_fraction else None,
            "region": self.region,
            "flaws": [str(flaw) for flaw in self.flaws],
            "severity": str(self.severity) if self.severity else None,
            "detail": self.detail,
            "worth": round(self.worth, 3),
        }


@dataclass(frozen=True, slots=True)
class Guidance:
    """Everything an assessment says to a restorer, best first on either side."""

    positive: tuple[Phrase, ...] = ()
    negative: tuple[Phrase, ...] = ()
    notes: tuple[Note, ...] = field(default_factory=tuple)

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        return self.positive + self.negative

    @property
    def regional(self) -> tuple[Phrase, ...]:
        return tuple(phrase for phrase in self.phrases if phrase.box_fraction is not None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "positive": [phrase.to_dict() for phrase in self.positive],
            "negative": [phrase.to_dict() for phrase in self.negative],
            "notes": [note.to_dict() for note in self.notes],
        }


def split_guidance(
    assessment: Assessment, *, prompt: str | None = None, negative: str | None = None, limits: Limits = LOCAL
) -> Guidance:
    """Split every round of `assessment` into guidance.

    Earlier and later words add up, as a model's later look speaks of one region. An assessor that measures (its looks
    carry findings) states in its last look everything that still holds, and names places of the whole frame: only that
    look is read, so that a flaw it refuted is not repaired, and a flaw's box is that of its finding.

    Args:
        prompt: The user's own words for the positive side; put first, never dropped.
        negative: The user's own words for the negative side.
        limits: `reply_characters` bounds the text of one section that is read.
    """
    parts = [_own(prompt, "positive"), _own(negative, "negative")]
    size = (assessment.image.width, assessment.image.height) if assessment.image else None
    notes: list[Note] = []
    is_measured = any(look.findings for look in assessment.rounds)
    for look in assessment.rounds[-1:] if is_measured else assessment.rounds:
        box = None
        if look.shown_box is not None and not is_measured:
            if size is None:
                notes.append(
                    Note(
                        "guidance-box-lost",
                        "a round looked at a region, but the picture's size is unknown; "
                        "its text is taken for the whole picture",
                    )
                )
            else:
                box = look.shown_box.to_fraction(size)
        part = _read(look.sections.directions, look.sections.issues, box, look.index, limits)
        if is_measured:
            part = replace(
                part,
                positive=_placed(part.positive, look.findings),
                negative=_placed(part.negative, look.findings),
            )
        parts.append(part)
    return _joined([*parts, Guidance(notes=tuple(notes))])


def _placed(phrases: tuple[Phrase, ...], findings: tuple[Finding, ...]) -> tuple[Phrase, ...]:
    """Phrases with the measured box of the flaw that they state or turn, in place of the one read from words."""
    placed = []
    for phrase in phrases:
        about = (each for each in findings if each.flaw is phrase.flaw or TERMS[each.flaw].wanted in phrase.text)
        finding = next(about, None)
        if finding is not None:
            box = None if finding.region == "whole frame" else finding.box_fraction
            phrase = replace(phrase, box_fraction=box, region=finding.region)
        placed.append(phrase)
    return tuple(placed)


def split_text(
    directions: str | None,
    issues: str | None,
    box: BoxFraction | None = None,
    *,
    prompt: str | None = None,
    negative: str | None = None,
    limits: Limits = LOCAL,
) -> Guidance:
    """Split two loose texts into guidance.

    Args:
        directions: What is wanted (*Directions for Improvement*), or `None`.
        issues: What is wrong (*Issues to Avoid*), or `None`.
        box: The part of the picture that the texts are about, as fractions; `None` is the whole picture.
    """
    own = [_own(prompt, "positive"), _own(negative, "negative")]
    return _joined([*own, _read(directions, issues, box, 0, limits)])


def severity_of(text: str) -> Severity | None:
    """How strong `text` says its flaw is; a weakening word wins ("slight but visible")."""
    if _SLIGHT.search(text):
        return Severity.SLIGHT
    if _SEVERE.search(text):
        return Severity.SEVERE
    return Severity.MODERATE if _MODERATE.search(text) else None


def _read(
    directions: str | None, issues: str | None, box: BoxFraction | None, round_index: int, limits: Limits
) -> Guidance:
    notes: list[Note] = []
    sides: dict[Side, list[Phrase]] = {"positive": [], "negative": []}
    for side, text in (("positive", directions), ("negative", issues)):
        if text is None:
            continue
        if len(text) > limits.reply_characters:
            notes.append(_cut(limits.reply_characters, "a section"))
            text = text[: limits.reply_characters]
        for start, end in sentences(text):
            if end - start > LONGEST_CLAUSE:
                notes.append(_cut(LONGEST_CLAUSE, "a clause"))
            clause = sanitise(without_label(text[start : min(end, start + LONGEST_CLAUSE)]))
            sides[side] += _phrases(clause, side, text[start:end], (start, end), box, round_index)  # type: ignore[index, arg-type]
    return Guidance(tuple(sides["positive"]), tuple(sides["negative"]), tuple(notes))


@dataclass(frozen=True, slots=True)
class _Saying:
    """One phrase before it has a place."""

    text: str
    flaws: tuple[Flaw, ...]
    words: str
    """The part of the clause that says it."""

    is_alone: bool
    """Whether nothing else comes from those words."""


def _phrases(
    clause: str, side: Side, source: str, span: tuple[int, int], box: BoxFraction | None, round_index: int
) -> list[Phrase]:
    made = []
    for said in _wanted(clause) if side == "positive" else _wrong(clause):
        severity = severity_of(said.words) if said.is_alone else None
        if side == "positive":  # the wanted state says nothing of how strong the flaw is
            severity = severity if said.flaws else None
        else:
            severity = severity_of(said.text) or severity
        for text, where, region in _placed_in(said.text, said.words, box):
            made.append(
                Phrase(
                    text=text,
                    side=side,
                    origin="model",
                    source=source,
                    span=span,
                    round_index=round_index,
                    box_fraction=where,
                    region=region,
                    flaws=said.flaws,
                    severity=severity,
                    detail=_detail(text, said.words, said.flaws),
                    worth=_worth(severity, bool(said.flaws), where is not None, round_index),
                )
            )
    return made


def _wanted(clause: str) -> list[_Saying]:
    if not find_flaws(clause) and not without_denial(clause):
        return []
    wishes = [replace(wish, text=sanitise(wish.text)) for wish in positive_phrases(clause)]
    return [
        _Saying(wish.text, wish.flaws, wish.words, sum(other.words == wish.words for other in wishes) == 1)
        for wish in wishes
        if wish.text
    ]


def _wrong(clause: str) -> list[_Saying]:
    if praises(clause):
        return []
    said = []
    for part in asserted(without_denial(clause)):
        texts, is_stated = negative_phrases(part)
        for text in filter(None, map(sanitise, texts)):
            flaws = tuple(dict.fromkeys(flaw for flaw, _ in find_flaws(text))) if is_stated else ()
            said.append(_Saying(text, flaws, part, len(texts) == 1))
    return said


def _placed_in(text: str, words: str, box: BoxFraction | None) -> list[tuple[str, BoxFraction | None, str]]:
    """`text` for each place that it names, or else that the words around it name, with the place's box and name.

    "Foreground" and objects have no box.
    """
    is_whole = _WHOLE.search(words) is not None
    places = at_each_place(text)
    if not places and not is_whole and len(find_flaws(words)) <= 1 and "," not in without_places(words):
        places = [(text, name) for mention in find_places(words) for name in mention.names]
    if places:
        return [(each, _inside(REGIONS[name], box), name) for each, name in places]
    return [(text, None, "whole frame") if box is None or is_whole else (text, box, "looked-at region")]


def _inside(part: BoxFraction, box: BoxFraction | None) -> BoxFraction:
    if box is None:
        return part
    width, height = box[2] - box[0], box[3] - box[1]
    return (
        box[0] + part[0] * width,
        box[1] + part[1] * height,
        box[0] + part[2] * width,
        box[1] + part[3] * height,
    )


def _detail(text: str, clause: str, flaws: tuple[Flaw, ...]) -> str:
    if Flaw.COLOR_CAST in flaws:
        hue = _HUE.search(text) or _HUE.search(clause)
        return hue[1].lower() if hue else ""
    if Flaw.MOTION_BLUR in flaws:
        direction = _DIRECTION.search(clause)
        return direction[1].lower() if direction else ""
    return ""


def _worth(severity: Severity | None, has_flaw: bool, regional: bool, round_index: int) -> float:
    """0..1: severity first, then whether a standard flaw is named; a later look weighs a little more, a part less."""
    return min(1.0, _WORTH[severity] + 0.08 * has_flaw + 0.02 * min(round_index, 2) - 0.05 * regional)


def _own(words: str | None, side: Side) -> Guidance:
    text = sanitise((words or "")[:LONGEST_OWN])
    if not text:
        return Guidance()
    flaws = asked_flaws(text) if side == "positive" else tuple(dict.fromkeys(flaw for flaw, _ in find_flaws(text)))
    _, where, region = _placed_in(text, text, None)[0]
    phrase = Phrase(
        text=text,
        side=side,
        origin="user",
        source=words or "",
        box_fraction=where,
        region=region,
        flaws=flaws,
        severity=severity_of(text),
        detail=_detail(text, text, flaws),
        worth=2.0,
    )
    return Guidance(
        (phrase,) if side == "positive" else (),
        (phrase,) if side == "negative" else (),
        (_cut(LONGEST_OWN, "your own words"),) if len(words or "") > LONGEST_OWN else (),
    )


def _cut(characters: int, of: str) -> Note:
    return Note("guidance-text-cut", f"only the first {characters} characters of {of} were read")


def _joined(parts: list[Guidance]) -> Guidance:
    positive = _ordered([phrase for part in parts for phrase in part.positive])
    negative = _ordered([phrase for part in parts for phrase in part.negative])
    notes = [note for part in parts for note in part.notes]
    if not positive:
        positive = tuple(Phrase(text, "positive", "default", worth=0.1) for text in DEFAULT_POSITIVE)
        notes.append(Note("guidance-default-positive", "no usable Directions for Improvement; default wishes stand in"))
    if not negative:
        negative = tuple(Phrase(text, "negative", "default", worth=0.1) for text in DEFAULT_NEGATIVE)
        notes.append(
            Note(
                "guidance-default-negative",
                "no usable Issues to Avoid; default flaws fill the negative prompt and "
                "nothing is repaired on their account",
            )
        )
    return Guidance(positive, negative, tuple(notes))


def _ordered(phrases: list[Phrase]) -> tuple[Phrase, ...]:
    """Worthiest first (reading order among equals), each wording once for a place; the whole picture takes in its parts."""  # noqa: E501
    kept: dict[tuple[str, BoxFraction | None], Phrase] = {}
    for phrase in phrases:
        words = phrase.text.casefold()
        key, whole = (words, phrase.box_fraction), kept.get((words, None))
        if whole is not None and (whole.origin == phrase.origin or phrase.origin == "model"):
            kept[words, None] = replace(whole, worth=max(phrase.worth, whole.worth))
        elif phrase.box_fraction is None:
            parts = [part for part in kept if part[0] == words and kept[part].origin == phrase.origin]
            kept[key] = replace(phrase, worth=max([phrase.worth, *(kept.pop(part).worth for part in parts)]))
        else:
            kept.setdefault(key, phrase)
    return tuple(sorted(kept.values(), key=lambda phrase: -phrase.worth))
