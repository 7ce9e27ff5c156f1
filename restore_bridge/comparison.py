"""Before against after, as rows: each metric's two figures, kind and direction. It computes no metric itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from restore_bridge.scoring import load_metric, score
from zoomiqa.assessors import Assessor
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import Picture
from zoomiqa.types import RATING_MAX, RATING_MIN, Assessment, Note

BASIC = ("psnr", "ssim", "consistency")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of a picture before and after."""

    metric: str
    kind: str
    """No-reference, full-reference (against the pristine picture), or consistency (against the picture before)."""

    before: float | None
    """`None` where the figure only exists for the later picture."""

    after: float | None
    direction: Literal["higher", "lower"]
    """Which way is better."""

    range: tuple[float | None, float | None] = (None, None)
    """Lowest and highest value; `None` where there is no bound."""

    is_range_rough: bool = False
    """Whether the range is where values usually lie, and no bound."""

    version: str = ""
    """Package and version that computed it, or the assessor's name and version."""

    notes: tuple[Note, ...] = ()

    @property
    def change(self) -> float | None:
        """After less before."""
        return None if self.before is None or self.after is None else self.after - self.before

    def to_dict(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "kind": self.kind,
            "before": None if self.before is None else round(self.before, 5),
            "after": None if self.after is None else round(self.after, 5),
            "direction": self.direction,
            "range": list(self.range),
            "is_range_rough": self.is_range_rough,
            "version": self.version,
            "notes": [note.to_dict() for note in self.notes],
        }

    def __str__(self) -> str:
        figures = " to ".join("-" if value is None else f"{value:.3f}" for value in (self.before, self.after))
        change = "" if self.change is None else f" ({self.change:+.3f})"
        by = f", by {self.version}" if self.version else ""
        return f"{self.metric}: {figures}{change}, {self.kind}, {self.direction} is better{by}"


def compare(
    before: Picture,
    after: Picture,
    *,
    reference: Picture | None = None,
    assessments: tuple[Assessment, Assessment] | None = None,
    assessor: Assessor | None = None,
    metrics: Sequence[str] | None = None,
) -> list[Comparison]:
    """Compare two states of one picture.

    Args:
        before: As it came.
        after: As it is now.
        reference: The pristine picture; full-reference metrics then judge both states against it. Without it they
            compare the two states with each other, and `before` stays empty.
        assessments: Ratings of both, if there are any already.
        assessor: Who rates them otherwise; without both there is no rating row.
        metrics: Names of metrics; `BASIC` without it.

    Raises:
        ZoomIQAError: a metric that cannot be loaded; see `restore_bridge.scoring.load_metric`.
    """
    rows: list[Comparison] = []
    if assessments is None and assessor is not None:
        first, second = assessor.assess([before, after])
        assessments = (first, second)
    if assessments is not None:
        rows.append(_rating_row(*assessments))
    for name in BASIC if metrics is None else metrics:
        kind = load_metric(name).kind
        if kind == "no-reference":
            rows.append(_row(name, (before, None), (after, None)))
        elif kind == "consistency" or reference is None:
            row = _row(name, None, (after, before))
            rows.append(row if kind == "consistency" else replace(row, kind="against the picture before"))
        else:
            rows.append(_row(name, (before, reference), (after, reference)))
    return rows


def _rating_row(before: Assessment, after: Assessment) -> Comparison:
    who = after.assessor or before.assessor
    version = f"{who.name} {who.version}" if who else ""
    limits = (RATING_MIN, RATING_MAX)
    return Comparison("rating", "no-reference", before.rating, after.rating, "higher", limits, version=version)


def _row(name: str, first: tuple[Picture, Picture | None] | None, second: tuple[Picture, Picture | None]) -> Comparison:
    metric = load_metric(name)
    values: list[float | None] = []
    notes: tuple[Note, ...] = ()
    for pair in (first, second):
        if pair is None:
            values.append(None)
            continue
        try:
            found = score(name, pair[0].pixels, pair[1].pixels if pair[1] else None)
        except OptionInvalid as error:
            values.append(None)
            notes += (Note("metric-not-applicable", f"{name}: {error}"),)
        else:
            values.append(found.value)
            notes += found.notes
    return Comparison(
        name,
        metric.kind,
        values[0],
        values[1],
        "higher" if metric.higher_is_better else "lower",
        metric.range,
        metric.is_range_rough,
        metric.version,
        tuple(dict.fromkeys(notes)),
    )
