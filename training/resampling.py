"""Progressive re-sampling: rare scores are drawn more often from stage to stage. Zoom-IQA Sec. 3.2.

The paper trains on the data's own distribution first and then raises the frequency of under-represented score
intervals, without saying how. Choices, all of them options or stated here:

- Scores fall into bins of half a rating point. In stage s an item's weight is count(bin)^(-γ_s), γ rising from 0 to 1
  in equal steps: the last stage gives every bin that holds anything the same number of draws.
- The length of an epoch is kept, and so is the share of each data set: bins are counted and filled within it.
- Draws are dealt, not thrown: a bin's draws differ from their expectation by less than one, its items differ by one at
  most within an epoch, and over epochs all of them come equally often. So stage 0 is exactly the data set, shuffled.

The same seed gives the same order on every machine. It must not know pictures, models or trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import OptionInvalid
from zoomiqa.types import RATING_MAX, RATING_MIN

Integers = NDArray[np.int64]

HALF_POINTS = tuple(float(edge) for edge in np.linspace(RATING_MIN, RATING_MAX, 9))


@dataclass(frozen=True, slots=True)
class Stages:
    """How the distribution changes over training."""

    gammas: tuple[float, ...] = (0.0, 0.5, 1.0)
    """γ of each stage; `Stages.rising` makes others."""

    edges: tuple[float, ...] = HALF_POINTS
    """Borders of the bins, rising; each bin holds its lower border, the last one its upper border too."""

    def __post_init__(self) -> None:
        if not self.gammas or not all(0 <= gamma <= 1 for gamma in self.gammas):
            raise OptionInvalid("every stage needs a gamma of 0 to 1", self.gammas, "0 keeps the data as it is")
        if len(self.edges) < 2 or not all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise OptionInvalid("bins need at least two rising borders", self.edges, "leave the default")

    @classmethod
    def rising(cls, count: int, edges: tuple[float, ...] = HALF_POINTS) -> Stages:
        """`count` stages with γ from 0 to 1 in equal steps; one stage is the data as it is."""
        if count < 1:
            raise OptionInvalid("there must be at least one stage", count, "3 is the default")
        return cls(tuple(stage / max(count - 1, 1) for stage in range(count)), edges)

    def stage_at(self, progress: float) -> int:
        """The stage at a share of the training, 0..1; all stages are equally long."""
        if not 0 <= progress <= 1:
            raise OptionInvalid("progress lies in 0..1", progress, "divide the step by the number of steps")
        return min(int(progress * len(self.gammas)), len(self.gammas) - 1)

    def to_dict(self) -> dict[str, Any]:
        """For a run's settings."""
        return {"gammas": list(self.gammas), "edges": list(self.edges)}


@dataclass(frozen=True, slots=True)
class BinCount:
    """One bin of one data set."""

    dataset: str
    low: float
    high: float
    items: int
    expected: tuple[float, ...]
    """Draws in an epoch of each stage, by the formula; the real ones differ by less than one."""

    drawn: tuple[int, ...]


def epoch_indices(
    ratings: Sequence[float], stages: Stages, stage: int, *, seed: int, epoch: int = 0, datasets: Sequence[str] = ()
) -> Integers:
    """What an epoch shows, in order.

    Args:
        ratings: True rating of each item.
        stages: How the distribution changes.
        stage: Which one, from 0.
        seed: Of the run.
        epoch: From 0, counted within the stage; another one gives another order, and other items of bins that are not
            drawn whole.
        datasets: Data set of each item; empty for a single one.

    Returns:
        As many indices into `ratings` as it has items.

    Raises:
        OptionInvalid: a rating lies outside the bins, or there is no such stage.
    """
    gamma = _gamma(stages, stage)
    drawn: list[Integers] = []
    for number, (_, members, bins) in enumerate(_binned(ratings, datasets, stages)):
        quotas = _deal(np.bincount(bins, minlength=len(stages.edges) - 1), gamma)
        for place, quota in enumerate(quotas.tolist()):
            items = members[bins == place]
            if quota:
                order = np.random.default_rng([seed, stage, number, place]).permutation(items)
                # Going on where the last epoch stopped deals every item equally often in the long run.
                drawn.append(order[(epoch * quota + np.arange(quota)) % len(order)])
    indices = np.concatenate(drawn)
    np.random.default_rng([seed, stage, epoch]).shuffle(indices)
    return indices


def histogram(ratings: Sequence[float], stages: Stages, *, datasets: Sequence[str] = ()) -> list[BinCount]:
    """What every stage does to every bin that holds anything, by data set and score."""
    rows = []
    for name, _, bins in _binned(ratings, datasets, stages):
        counts = np.bincount(bins, minlength=len(stages.edges) - 1)
        expected = [_expected(counts, gamma) for gamma in stages.gammas]
        drawn = [_deal(counts, gamma) for gamma in stages.gammas]
        rows += [
            BinCount(
                name, stages.edges[place], stages.edges[place + 1], int(counts[place]),
                tuple(float(stage[place]) for stage in expected), tuple(int(stage[place]) for stage in drawn),
            )
            for place in np.flatnonzero(counts).tolist()
        ]  # fmt: skip
    return rows


def table(rows: Sequence[BinCount], stages: Stages) -> str:
    """The histogram as lines of text: items, then draws per epoch in each stage."""
    width = max([len("data set"), *(len(row.dataset) for row in rows)])
    heads = [f"γ {gamma:.2f}" for gamma in stages.gammas]
    lines = [f"{'data set':<{width}}  {'ratings':<9}  {'items':>7}" + "".join(f"  {head:>7}" for head in heads)]
    for row in rows:
        draws = "".join(f"  {count:>7}" for count in row.drawn)
        lines.append(f"{row.dataset:<{width}}  {row.low:.2f}-{row.high:.2f}  {row.items:>7}{draws}")
    return "\n".join(lines)


def _gamma(stages: Stages, stage: int) -> float:
    if not 0 <= stage < len(stages.gammas):
        raise OptionInvalid("there is no such stage", stage, f"stages are 0 to {len(stages.gammas) - 1}")
    return stages.gammas[stage]


def _binned(
    ratings: Sequence[float], datasets: Sequence[str], stages: Stages
) -> list[tuple[str, Integers, NDArray[np.intp]]]:
    """For each data set, by name: its items and the bin of each."""
    values = np.asarray(ratings, np.float64)
    names = np.asarray(datasets if len(datasets) else [""] * len(values), str)
    if not len(values) or len(names) != len(values):
        raise OptionInvalid(
            "every item needs a rating and a data set", (len(values), len(names)), "pass one of each per item"
        )
    outside = ~((values >= stages.edges[0]) & (values <= stages.edges[-1]))  # NaN is outside
    if outside.any():
        raise OptionInvalid(
            f"{int(outside.sum())} ratings lie outside the bins", values[outside][0],
            f"bring the labels to {stages.edges[0]:g}..{stages.edges[-1]:g}, or choose other borders",
        )  # fmt: skip
    bins = np.minimum(np.searchsorted(stages.edges, values, side="right") - 1, len(stages.edges) - 2)
    return [(str(name), np.flatnonzero(names == name), bins[names == name]) for name in np.unique(names)]


def _expected(counts: Integers, gamma: float) -> NDArray[np.float64]:
    """Draws of each bin: in proportion to count · count^(-γ), as many in all as there are items."""
    mass = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** (1 - gamma), 0.0)
    share: NDArray[np.float64] = mass / mass.sum()
    return share * int(counts.sum())


def _deal(counts: Integers, gamma: float) -> Integers:
    """Whole draws, by largest remainder; of equal ones the lower score first."""
    expected = _expected(counts, gamma)
    draws = np.floor(expected + 1e-9).astype(np.int64)
    missing = int(counts.sum() - draws.sum())
    draws[np.argsort(draws - expected, kind="stable")[:missing]] += 1
    return draws
