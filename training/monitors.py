"""Early warnings: crops or scores that collapse, numbers that are no longer doubted, groups that teach nothing.

Zoom-IQA Sec. 3.2 names the collapse of scores (2.04 % unique scores for VisualQuality-R1 against 71.34 % of the labels
on KonIQ); others report the collapse of tool use (DeepEyes: calls fall to none; IQA-T1: 83 % of first tools are the
same). The figures of `Thresholds` are this project's choice, made to speak before it is too late.

Pure functions over what happened in one batch or window: each gives its figures, and `alarms` compares them with the
thresholds. They must not know trainers, models, or what is done about an alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoomiqa.evaluation.agreement import unique_ratio
from zoomiqa.types import BoxFraction


@dataclass(frozen=True, slots=True)
class Limit:
    """When a figure is alarming."""

    low: float
    """Below this."""

    high: float
    """Above this."""

    message: str
    """What it means, and what to look at."""


THRESHOLDS: Mapping[str, Limit] = {
    "crop_rate": Limit(
        0.02, 0.98, "closer looks are hardly ever, or always, asked for; compare their reward with that of one look"
    ),
    "same_place_share": Limit(
        0.0, 0.8, "nearly all crops show the same place; the choice no longer depends on the picture"
    ),
    "unique_score_share": Limit(
        0.25,
        float("inf"),
        "scores collapse to a few values; raise the weight or share of KL-Coverage, or the temperature",
    ),
    "score_spread_share": Limit(
        0.25, 4.0, "ratings vary far less, or more, than the labels; look at the score reward and at the format"
    ),
    "entropy_share": Limit(0.2, 5.0, "the model no longer doubts its numbers, or knows none; lower the learning rate"),
    "live_group_share": Limit(
        0.2,
        1.0,
        "most groups earn the same with all samples and teach nothing; raise the temperature or drop easy pictures",
    ),
}
"""Limits by figure."""

LEAST_SAMPLES = 32
"""Below this a figure is `None`: a small batch collapses by chance."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One figure beyond its limit."""

    figure: str
    value: float
    limit: float
    message: str

    def __str__(self) -> str:
        side = "below" if self.value < self.limit else "above"
        return f"{self.figure} {self.value:.3g} is {side} {self.limit:g}: {self.message}"


def crop_figures(
    looks: Sequence[int], boxes: Sequence[BoxFraction], *, least: int = LEAST_SAMPLES
) -> dict[str, float | None]:
    """How often and where closer looks are taken.

    Args:
        looks: Looks of each trajectory, 1 or more.
        boxes: The boxes that were asked for, as fractions of width and height.
        least: Samples a figure needs.

    Returns:
        `crop_rate`, the share of trajectories with a closer look; `same_place_share`, the share of boxes that are the
        commonest one when edges are rounded to tenths.
    """
    places = Counter(tuple(round(edge, 1) for edge in box) for box in boxes)
    commonest = max(places.values(), default=0)
    return {
        "crop_rate": float(np.mean(np.asarray(looks) > 1)) if len(looks) >= least else None,
        "same_place_share": commonest / len(boxes) if len(boxes) >= least else None,
    }


def score_figures(
    ratings: Sequence[float | None], truths: Sequence[float], *, least: int = LEAST_SAMPLES
) -> dict[str, float | None]:
    """How varied the ratings are, each beside the labels of the same pictures.

    Args:
        ratings: One sample per picture: repeated samples of one picture would pass for collapse. `None` for a failure.
        truths: The labels, in the same order.
        least: Samples a figure needs.

    Returns:
        `unique_score_ratio` (rounded to two decimals on 1..5; the paper's figures are on 0..100 and of a whole test
        set); `unique_score_share`, the same over that of the labels; `score_spread_share`, the standard deviation over
        that of the labels, `None` where labels are equal.
    """
    pairs = [(rating, truth) for rating, truth in zip(ratings, truths, strict=True) if rating is not None]
    if len(pairs) < least:
        return {"unique_score_ratio": None, "unique_score_share": None, "score_spread_share": None}
    given, wanted = (list(column) for column in zip(*pairs, strict=True))
    ratio, spread = unique_ratio(given), float(np.std(wanted))
    return {
        "unique_score_ratio": ratio,
        "unique_score_share": ratio / unique_ratio(wanted),
        "score_spread_share": float(np.std(given)) / spread if spread > 0 else None,
    }


def entropy_figures(
    entropies: Sequence[float], at_start: float | None, *, least: int = LEAST_SAMPLES
) -> dict[str, float | None]:
    """How much the model doubts its numbers.

    Args:
        entropies: Of the policy at numeric tokens of answers, in nats.
        at_start: The mean at the first step; `None` at that step.
        least: Tokens a figure needs.

    Returns:
        `numeric_entropy`, the mean; `entropy_share`, the same over that at the start.
    """
    if len(entropies) < least:
        return {"numeric_entropy": None, "entropy_share": None}
    mean = float(np.mean(entropies))
    return {"numeric_entropy": mean, "entropy_share": mean / at_start if at_start else None}


def group_figures(
    rewards: Iterable[float], groups: Iterable[Hashable], *, least: int = LEAST_SAMPLES
) -> dict[str, float | None]:
    """`live_group_share`: the share of groups whose samples do not all earn the same."""
    extremes: dict[Hashable, tuple[float, float]] = {}
    samples = 0
    for reward, group in zip(rewards, groups, strict=True):
        low, high = extremes.get(group, (reward, reward))
        extremes[group] = (min(low, reward), max(high, reward))
        samples += 1
    if samples < least:
        return {"live_group_share": None}
    return {"live_group_share": sum(high - low > 1e-9 for low, high in extremes.values()) / len(extremes)}


def alarms(figures: Mapping[str, float | None], thresholds: Mapping[str, Limit] = THRESHOLDS) -> list[Alarm]:
    """The figures beyond their limits, in order; those without a value or a limit are passed over."""
    found = []
    for name, value in figures.items():
        limit = thresholds.get(name)
        if value is None or limit is None or limit.low <= value <= limit.high:
            continue
        found.append(Alarm(name, value, limit.low if value < limit.low else limit.high, limit.message))
    return found
