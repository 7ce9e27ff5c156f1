"""Does the text say what the picture shows? Stated flaws against measured ones, without a judge.

Two shares answer it: of the flaws that *Issues to Avoid* states, those that measurement bears out; of the strong flaws
that measurement finds, those that the text states. What counts as measured is the embedded assessor's diagnosis, with
its limits (`zoomiqa.assessors.compact.diagnosis.RULES`): they are set so that clean photographs stay below, and a flaw
that a sharp eye sees may stay below too. So the first share is a lower bound, and it is there to compare texts about
the same pictures. For text that was written from the same measurements, both shares are circular; the result says so.

It must not know how a record came about.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from zoomiqa.assessors.compact.diagnosis import MODERATE_FROM, WHOLE, diagnose
from zoomiqa.imaging.picture import Picture, crop
from zoomiqa.imaging.signals import measure
from zoomiqa.statements import stated_flaws
from zoomiqa.types import Box
from zoomiqa.vocabulary import Flaw

Record = Mapping[str, Any]

STRONG_FROM = MODERATE_FROM
"""Strength from which a measured flaw should be in the text: that of a synthetic distortion of severity 3."""

KINDRED: Mapping[Flaw, frozenset[Flaw]] = {
    Flaw.BLUR: frozenset({Flaw.MOTION_BLUR, Flaw.LOW_RESOLUTION}),
    Flaw.LOW_RESOLUTION: frozenset({Flaw.BLUR}),
    Flaw.RINGING: frozenset({Flaw.OVERSHARPENING}),
    Flaw.OVERSHARPENING: frozenset({Flaw.RINGING}),
    Flaw.LOW_CONTRAST: frozenset({Flaw.HAZE, Flaw.UNDEREXPOSURE}),
    Flaw.DULL_COLOR: frozenset({Flaw.HAZE, Flaw.LOW_CONTRAST, Flaw.UNDEREXPOSURE}),
}
"""Measured flaws that bear out a stated one besides itself: the diagnosis names only the cause (a veil takes contrast
and colour), and words overlap (a halo is ringing or sharpening)."""

HIDDEN_BY: Mapping[Flaw, frozenset[Flaw]] = {
    Flaw.BLUR: frozenset({Flaw.NOISE, Flaw.BANDING, Flaw.BLOCKING, Flaw.RINGING}),
    Flaw.MOTION_BLUR: frozenset({Flaw.NOISE, Flaw.BANDING, Flaw.RINGING, Flaw.LOW_RESOLUTION}),
    Flaw.LOW_RESOLUTION: frozenset({Flaw.NOISE, Flaw.BANDING, Flaw.RINGING}),
    Flaw.RINGING: frozenset({Flaw.NOISE, Flaw.BANDING}),
    Flaw.OVERSHARPENING: frozenset({Flaw.NOISE}),
    Flaw.BANDING: frozenset({Flaw.BLOCKING}),
    Flaw.COLOR_CAST: frozenset({Flaw.HAZE}),
    Flaw.OVERSATURATION: frozenset({Flaw.COLOR_CAST}),
}
"""Measured flaws beside which the diagnosis does not look for another one (noise has the spectrum of detail): whether
that one is there is then not known, and a text that states it is neither borne out nor refuted."""

CIRCULAR_NOTE = (
    "These texts were written from the same measurements that they are compared with: the shares say how well the text"
    " passes its measurements on, not whether it is right."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one record's text states, beside what its picture measures."""

    stated: tuple[Flaw, ...]
    measured: Mapping[Flaw, float]
    """Strength 0..1 of each measured flaw, where it is strongest."""

    def supports(self, flaw: Flaw) -> bool | None:
        """Whether measurement bears out `flaw`, by its own name or a kindred one; `None` where it cannot tell."""
        if flaw in self.measured or not KINDRED.get(flaw, frozenset()).isdisjoint(self.measured):
            return True
        return False if HIDDEN_BY.get(flaw, frozenset()).isdisjoint(self.measured) else None

    def mentions(self, flaw: Flaw) -> bool:
        """Whether the text states the measured `flaw`, by its own name or as one that it bears out."""
        return flaw in self.stated or any(flaw in KINDRED.get(other, ()) for other in self.stated)

    @property
    def strong(self) -> tuple[Flaw, ...]:
        """Measured flaws that a text should not pass over."""
        return tuple(flaw for flaw, strength in self.measured.items() if strength >= STRONG_FROM)


@dataclass(frozen=True, slots=True)
class Share:
    """A count out of another, with its 95 % interval (Wilson's; `None` of nothing).

    Flaws of one picture are taken as independent, which makes the interval of a total a little too narrow; a single
    flaw is stated once per picture at most.
    """

    count: int
    total: int

    @property
    def value(self) -> float | None:
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        if not self.total:
            return None
        z, share = 1.959964, self.count / self.total
        scale = 1 + z * z / self.total
        centre = (share + z * z / (2 * self.total)) / scale
        half = z * math.sqrt(share * (1 - share) / self.total + z * z / (4 * self.total**2)) / scale
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "of": self.total,
            "share": self.value,
            "interval_95": list(self.interval) if self.interval else None,
        }


def stated_in(record: Record) -> tuple[Flaw, ...] | None:
    """The flaws that a record's *Issues to Avoid* states; `None` where no look has that section.

    Looks add up, as a later one speaks of one region; of an assessor that measures, the last look holds all that still
    stands (as `restore_bridge.guidance` reads them).
    """
    looks = record["rounds"][-1:] if _is_measured(record) else record["rounds"]
    texts = [look["sections"]["issues"] for look in looks]
    if all(text is None for text in texts):
        return None
    return tuple(dict.fromkeys(flaw for text in texts for flaw in stated_flaws(text or "")))


def measured_in(picture: Picture, boxes: Iterable[Box] = ()) -> dict[Flaw, float]:
    """The measured flaws of a picture with their strength: of the whole in native pixels, and of each of `boxes`.

    A region may show what the whole hides; the stronger figure counts.
    """
    # Threads of the linear algebra only wait for each other in products this small (measured: 0.10 s against 0.75 s).
    with _linear_algebra().limit(limits=1, user_api="blas"):
        whole = measure(picture.pixels)
        findings = list(diagnose(whole, whole, WHOLE))
        for box in boxes:
            detail = measure(np.ascontiguousarray(crop(picture, box)), is_detail=True)
            findings += diagnose(whole, detail, box.to_fraction(picture.size))
    strengths: dict[Flaw, float] = {}
    for finding in findings:
        strengths[finding.flaw] = max(finding.strength, strengths.get(finding.flaw, 0.0))
    return strengths


@cache
def _linear_algebra() -> ThreadpoolController:
    return ThreadpoolController()


def compare(record: Record, picture: Picture) -> Comparison | None:
    """Compare a record's text with its picture; `None` where the record has no *Issues to Avoid*.

    Args:
        record: One that `zoomiqa.evaluation.reading.check_record` accepts.
        picture: Its picture, as `zoomiqa.evaluation.subjects.open_subject` opens it.

    Raises:
        ZoomIQAError: a look's region is none of this picture.
    """
    stated = stated_in(record)
    if stated is None:
        return None
    boxes = [Box(*look["shown_box"]) for look in record["rounds"] if look["shown_box"]]
    return Comparison(stated, measured_in(picture, boxes))


def is_circular(record: Record) -> bool:
    """Whether a record's text was written from measurements of this project."""
    return (record["assessor"] or {}).get("name") == "compact" or _is_measured(record)


def summarize(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Both shares, in all and for each flaw that is stated or strongly measured somewhere, as JSON."""
    flaws = {
        str(flaw): _shares(comparisons, (flaw,))
        for flaw in Flaw
        if any(flaw in one.stated or flaw in one.strong for one in comparisons)
    }
    return {**_shares(comparisons, tuple(Flaw)), "flaws": flaws}


def _shares(comparisons: Sequence[Comparison], among: Collection[Flaw]) -> dict[str, Any]:
    """Both shares over the flaws `among`, and how many stated ones could not be told."""
    verdicts = [one.supports(flaw) for one in comparisons for flaw in one.stated if flaw in among]
    known = [verdict for verdict in verdicts if verdict is not None]
    mentioned = [one.mentions(flaw) for one in comparisons for flaw in one.strong if flaw in among]
    return {
        "stated_supported": Share(sum(known), len(known)).to_dict(),
        "stated_untold": len(verdicts) - len(known),
        "measured_mentioned": Share(sum(mentioned), len(mentioned)).to_dict(),
    }


def _is_measured(record: Record) -> bool:
    return any(look["findings"] for look in record["rounds"])
