"""How far ratings agree with people. It must not know where either comes from.

Raw correlations come first, as nothing in them is fitted on the labels. Two fits stand beside them because the field
reports them: a logistic curve (VQEG) and an isotonic one (the released evaluator's only figure). Both are fitted on the
very labels they are compared with. The isotonic fit has as many free values as the labels support, so that even noise
gains by it, in SRCC as well: it is named for what it is.

A figure that is not defined (all predictions equal, a curve that does not converge) is `None` with a reason, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import OptionInvalid

Floats = NDArray[np.float64]

LEAST_PAIRS = 3
"""Pairs from which a correlation says anything."""

RESAMPLES = 1_000
"""Bootstrap resamples. Measured: the end points then vary with the seed by 1 to 3 % of the interval's width."""

_DRAWS_AT_ONCE = 1_000_000
"""Drawn indices held in memory at a time: about 100 MB with the work on them."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Raw correlations of predictions with mean opinion scores; nothing is fitted on the labels."""

    count: int
    srcc: float | None
    """Spearman's rank correlation, -1..1; `None` where it is not defined."""

    plcc: float | None
    """Pearson's linear correlation, -1..1."""

    krcc: float | None
    """Kendall's rank correlation (tau-b), -1..1."""

    rmse: float
    """Root mean squared error, in rating points."""

    undefined: str | None = None
    """Why the correlations are `None`."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "srcc": self.srcc,
            "plcc": self.plcc,
            "krcc": self.krcc,
            "rmse": self.rmse,
            "undefined": self.undefined,
        }


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % percentile interval of a correlation over resampled images."""

    low: float
    high: float
    resamples: int
    """Resamples in which the correlation was defined."""

    def to_dict(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "resamples": self.resamples}


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """Agreement after a 4-parameter logistic curve, fitted on the labels it is compared with."""

    parameters: tuple[float, float, float, float] | None
    """(upper, lower, centre, width) of `lower + (upper - lower) / (1 + exp(-(x - centre) / width))`; width > 0. Upper
    is the smaller one where the curve falls."""

    plcc: float | None
    rmse: float | None
    """In points of the labels."""

    is_rising: bool | None
    """False where higher predictions go with lower labels: the curve turns them round, and its PLCC hides that."""

    undefined: str | None = None
    """Why there is no fit, or no correlation after it."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameters": list(self.parameters) if self.parameters else None,
            "plcc": self.plcc,
            "rmse": self.rmse,
            "is_rising": self.is_rising,
            "undefined": self.undefined,
        }


@dataclass(frozen=True, slots=True)
class IsotonicFit:
    """Agreement after an isotonic fit on the test set itself: what the released evaluator calls fit_plcc, fit_srcc."""

    plcc: float | None
    srcc: float | None
    undefined: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"plcc": self.plcc, "srcc": self.srcc, "undefined": self.undefined}


def agreement(predicted: Sequence[float], scores: Sequence[float]) -> Agreement:
    """Compare predictions with scores.

    Raises:
        OptionInvalid: fewer than three pairs, unequal lengths, or a value that is not finite (a failed prediction must
            be counted by the caller, never passed as a number).
    """
    from scipy import stats

    left, right = _pairs(predicted, scores)
    rmse = float(np.sqrt(np.mean((left - right) ** 2)))
    if (reason := _why_undefined(left, right)) is not None:
        return Agreement(int(left.size), None, None, None, rmse, reason)
    return Agreement(
        count=int(left.size),
        srcc=_pearson(stats.rankdata(left), stats.rankdata(right)),
        plcc=_pearson(left, right),
        krcc=float(stats.kendalltau(left, right).statistic),
        rmse=rmse,
    )


def bootstrap(
    predicted: Sequence[float], scores: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """95 % percentile intervals of "plcc" and "srcc".

    Images are resampled with replacement, each with its prediction and its score, and ranked anew in every resample.
    What varies is therefore the choice of images alone: not the raters, and not the model's own sampling. Kendall's
    correlation gets no interval: it needs a sort per resample, and moves with Spearman's.

    Args:
        predicted: One figure per image.
        scores: Their labels.
        resamples: How many; 1,000 on 10,000 images take about a second.
        seed: The same seed gives the same intervals.

    Returns:
        `None` for a correlation that is not defined, or was so in fewer than half of the resamples (tiny or nearly
        constant sets).

    Raises:
        OptionInvalid: as in `agreement`, or no resamples.
    """
    if resamples < 1:
        raise OptionInvalid("resamples must be at least 1", resamples, "1000 is usual")
    left, right = _pairs(predicted, scores)
    if _why_undefined(left, right) is not None:
        return {"plcc": None, "srcc": None}
    generator = np.random.default_rng(seed)
    plcc, srcc = [], []
    rows = max(1, min(resamples, _DRAWS_AT_ONCE // left.size))
    one, other = _Ranker(left), _Ranker(right)
    for start in range(0, resamples, rows):
        some = min(rows, resamples - start)
        drawn = generator.integers(0, left.size, (some, left.size), dtype=np.int32)
        counts = _count(drawn, left.size)
        plcc.append(_weighted_pearson(left[None, :], right[None, :], counts))
        srcc.append(_weighted_pearson(one.ranks(counts), other.ranks(counts), counts))
    return {"plcc": _interval(np.concatenate(plcc)), "srcc": _interval(np.concatenate(srcc))}


def logistic(x: Floats, upper: float, lower: float, centre: float, width: float) -> Floats:
    """The 4-parameter logistic curve of VQEG's reports; `width` counts by its size, not its sign."""
    from scipy.special import expit

    curve = lower + (upper - lower) * expit((x - centre) / max(abs(width), 1e-12))
    return np.asarray(curve, np.float64)


def fit_logistic(predicted: Sequence[float], scores: Sequence[float]) -> LogisticFit:
    """Fit the curve by least squares from the usual start: the labels' maximum and minimum, the predictions' mean and a
    quarter of their standard deviation (VQEG; DeQA-Score's evaluation does the same).

    Raises:
        OptionInvalid: as in `agreement`.
    """
    from scipy import optimize

    left, right = _pairs(predicted, scores)
    reason = _why_undefined(left, right)
    if reason is None and left.size < 5:
        reason = "four parameters need at least five pairs"
    if reason is not None:
        return LogisticFit(None, None, None, None, reason)
    start = [right.max(), right.min(), left.mean(), left.std() / 4]
    found = optimize.least_squares(lambda values: logistic(left, *values) - right, start, method="lm", max_nfev=20_000)
    if found.status <= 0 or not np.isfinite(found.x).all():
        return LogisticFit(None, None, None, None, "the fit did not converge")
    upper, lower, centre, width = (float(value) for value in found.x)
    curve = logistic(left, *found.x)
    return LogisticFit(
        (upper, lower, centre, abs(width)),
        plcc=None if _is_constant(curve) else _pearson(curve, right),
        rmse=float(np.sqrt(np.mean((curve - right) ** 2))),
        is_rising=upper > lower,
        undefined="the fitted curve is flat" if _is_constant(curve) else None,
    )


def isotonic_on_test_set(predicted: Sequence[float], scores: Sequence[float]) -> IsotonicFit:
    """Fit the best rising step curve to the labels, then compare it with those same labels.

    Equal predictions are pooled before the fit, and the fitted values are rounded to 32-bit floats, as the released
    evaluator does: steps that differ in the last bit only would else break ties.

    Raises:
        OptionInvalid: as in `agreement`.
    """
    from scipy import optimize, stats

    left, right = _pairs(predicted, scores)
    if (reason := _why_undefined(left, right)) is not None:
        return IsotonicFit(None, None, reason)
    _, place, sizes = np.unique(left, return_inverse=True, return_counts=True)
    means = np.bincount(place, right) / sizes
    steps = optimize.isotonic_regression(means, weights=sizes).x.astype(np.float32)
    fitted = steps[place].astype(np.float64)
    if _is_constant(fitted):
        return IsotonicFit(None, None, "the best rising curve is flat")
    return IsotonicFit(_pearson(fitted, right), _pearson(stats.rankdata(fitted), stats.rankdata(right)))


def unique_ratio(values: Sequence[float]) -> float:
    """Share of different values after rounding to two decimals, 0..1: near 0 where the scores have collapsed.

    It depends on the scale: KonIQ-10k's test labels have 79 % on 0..100 and 16 % on 1..5. Compare only what is on one
    scale. Source: Zoom-IQA paper Sec. 3.2 (its 71.34 % for KonIQ's labels is on 0..100).

    Raises:
        OptionInvalid: no values.
    """
    if not len(values):
        raise OptionInvalid("a ratio needs at least one value", 0, "count failures apart")
    return len({round(float(value), 2) for value in values}) / len(values)


def _pairs(predicted: Sequence[float], scores: Sequence[float]) -> tuple[Floats, Floats]:
    left, right = np.asarray(predicted, float), np.asarray(scores, float)
    if left.shape != right.shape or left.ndim != 1 or left.size < LEAST_PAIRS:
        raise OptionInvalid("agreement needs two equal lists of at least three", (left.shape, right.shape), "pair them")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise OptionInvalid("agreement needs finite values", None, "leave failures out and count them")
    return left, right


def _why_undefined(left: Floats, right: Floats) -> str | None:
    for name, values in (("predictions", left), ("labels", right)):
        if _is_constant(values):
            return f"all {name} are equal"
    return None


def _is_constant(values: Floats) -> bool:
    """Whether values differ by rounding at most: their correlation would be that of the rounding."""
    return float(np.ptp(values)) <= 1e-9 * max(1.0, float(np.abs(values).max()))


def _pearson(left: Floats, right: Floats) -> float | None:
    one, other = left - left.mean(), right - right.mean()
    scale = math.sqrt(float(one @ one) * float(other @ other))
    return min(1.0, max(-1.0, float(one @ other) / scale)) if scale > 0 else None


class _Ranker:
    """Ranks of one list in many resamples of it, without a sort for each."""

    def __init__(self, values: Floats) -> None:
        distinct, self._group = np.unique(values, return_inverse=True)  # groups in rising order
        self._groups = len(distinct)
        self._order = np.argsort(self._group, kind="stable")
        self._starts = np.searchsorted(self._group[self._order], np.arange(self._groups))

    def ranks(self, counts: Floats) -> Floats:
        """Mid-ranks (resamples x images) where each image was drawn `counts` times."""
        in_group = np.add.reduceat(counts[:, self._order], self._starts, axis=1)
        middle = np.cumsum(in_group, axis=1) - (in_group - 1) / 2
        return np.asarray(middle[:, self._group], np.float64)


def _count(drawn: NDArray[np.int32], size: int) -> Floats:
    """How often each image was drawn: resamples x images."""
    rows = drawn.shape[0]
    flat = drawn + (np.arange(rows, dtype=np.int64) * size)[:, None]
    return np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def _weighted_pearson(left: Floats, right: Floats, weights: Floats) -> Floats:
    """Pearson's correlation per row with whole-number weights; NaN where one side is constant."""
    total = weights.sum(axis=1, keepdims=True)
    one = left - (weights * left).sum(axis=1, keepdims=True) / total
    other = right - (weights * right).sum(axis=1, keepdims=True) / total
    covariance = np.einsum("ij,ij,ij->i", weights, one, other)
    variances = [np.einsum("ij,ij,ij->i", weights, side, side) for side in (one, other)]
    scale = np.sqrt(variances[0] * variances[1])
    known = scale > 1e-9
    return np.where(known, covariance / np.where(known, scale, 1.0), np.nan)


def _interval(values: Floats) -> Interval | None:
    known = values[np.isfinite(values)]
    if known.size * 2 < values.size:
        return None
    low, high = np.quantile(known, (0.025, 0.975))
    return Interval(float(low), float(high), int(known.size))
