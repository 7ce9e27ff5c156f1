"""From measured findings to the four sections. It must not know how anything is measured.

Every statement of a flaw is made from one `Finding`, so each can be traced to a signal, a value and a place; a flaw
without a finding cannot be written. Directions hold wanted properties only, Issues hold flaws only (the paper's
supplement, table 4), so that each can serve as a prompt by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoomiqa.types import Finding
from zoomiqa.vocabulary import TERMS, where

_VERDICTS = ((4.25, "excellent"), (3.5, "good"), (2.75, "fair"), (2.0, "poor"), (0.0, "bad"))

MAX_STATED = 4
"""Flaws stated in one look; a reader keeps no more in mind, and a prompt has room for no more."""


def verdict(rating: float) -> str:
    """The word for a rating of 1..5 (the five grades of ITU-R BT.500: bad, poor, fair, good, excellent)."""
    return next(word for bound, word in _VERDICTS if rating >= bound)


def issue(finding: Finding) -> str:
    """One flaw as a sentence."""
    return f"{_named(finding).capitalize()} is visible {where(finding.region)}."


def direction(finding: Finding) -> str:
    """The state wanted in place of a flaw, as a sentence."""
    return f"The picture would show {TERMS[finding.flaw].wanted} {where(finding.region)}."


def _named(finding: Finding) -> str:
    return " ".join(f"{finding.severity} {finding.detail} {TERMS[finding.flaw].phrase}".split())


def _listed(findings: Sequence[Finding]) -> str:
    names = [_named(finding) for finding in findings]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rating with its uncertainty, in rating points."""

    rating: float
    spread: float

    def __str__(self) -> str:
        return f"{self.rating:.2f} ± {self.spread:.2f}"


def first_look(
    findings: Sequence[Finding], opinion: Verdict, *, view_px: int, detail_region: str, zoom: str | None
) -> str:
    """The rationale of the look at the whole picture.

    Args:
        findings: What was measured, most important first.
        opinion: The rating so far.
        view_px: Longer side of the viewing copy, in pixels.
        detail_region: Name of the region with the finest detail.
        zoom: Why that region is to be looked at closely; `None` when this look is the last.
    """
    stated = findings[:MAX_STATED]
    seen = (
        f"Seen whole at {view_px} pixels, the picture shows {_listed(stated)}."
        if stated
        else (
            f"Seen whole at {view_px} pixels, the picture shows no measurable flaw: exposure, contrast and colour are"
            " balanced."
        )
    )
    if zoom:
        decision = (
            f"The rating so far is {opinion}. {zoom} Therefore a closer view {where(detail_region)} is needed before"
            " a final rating."
        )
    else:
        decision = (
            f"The rating is {opinion}. The picture holds no more detail than this view shows, so no closer view is"
            " needed."
        )
    return _rationale(
        ("Image Quality Summary", f"{seen} Overall quality looks {verdict(opinion.rating)}."),
        ("Directions for Improvement", _directions(stated, detail_region)),
        ("Issues to Avoid", _issues(stated)),
        ("Decision & Rationale", decision),
    )


def closer_look(
    before: Sequence[Finding],
    findings: Sequence[Finding],
    first: Verdict,
    final: Verdict,
    *,
    crop_region: str,
    crop_size: tuple[int, int],
) -> str:
    """The rationale of a look at a region in full resolution.

    Args:
        before: What the look at the whole picture stated.
        findings: What holds now, most important first.
        first: The rating before.
        final: The rating now.
        crop_region: Name of the region shown.
        crop_size: Its (width, height) in original pixels.
    """
    stated = findings[:MAX_STATED]
    known, now = {item.flaw for item in before}, {item.flaw for item in findings}
    confirmed = [item for item in stated if item.flaw in known]
    new = [item for item in stated if item.flaw not in known]
    refuted = [item for item in before if item.flaw not in now]
    clauses = [
        f"{verb} {_listed(items)}"
        for verb, items in (("confirms", confirmed), ("newly shows", new), ("refutes", refuted))
        if items
    ]
    found = "; it ".join(clauses) if clauses else "shows clean detail and no measurable flaw"
    summary = (
        f"The view {where(crop_region)}, {crop_size[0]} by {crop_size[1]} pixels at full resolution, with fine detail"
        f" measured over the whole frame, {found}."
        f" Overall quality is {verdict(final.rating)}."
    )
    move = final.rating - first.rating
    action = "kept at" if abs(move) < 0.05 else ("raised to" if move > 0 else "lowered to")
    reason = {
        "kept at": "the closer view agrees with the first",
        "raised to": "the detail there is better than the whole picture suggested",
        "lowered to": "the detail there is worse than the whole picture suggested",
    }[action]
    decision = (
        f"The first rating was {first}, open because fine detail, noise and compression cannot be judged at viewing"
        f" size. Because {reason}, the rating is {action} {final}."
    )
    return _rationale(
        ("Crop Inspection Summary", summary),
        ("Directions for Improvement", _directions(stated, crop_region)),
        ("Issues to Avoid", _issues(stated)),
        ("Final Decision & Rationale", decision),
    )


def _directions(stated: Sequence[Finding], detail_region: str) -> str:
    if stated:
        return " ".join(dict.fromkeys(direction(finding) for finding in stated))
    return (
        f"The fine detail {where(detail_region)} stays crisp and natural. Tones and colours across the whole frame stay"
        " balanced as they are."
    )


def _issues(stated: Sequence[Finding]) -> str:
    return " ".join(issue(finding) for finding in stated) if stated else "No flaw is measurable in any region."


def _rationale(*sections: tuple[str, str]) -> str:
    return "\n".join(f"{heading}: {text}" for heading, text in sections)
