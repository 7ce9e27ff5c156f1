"""How far ratings agree with people. It must not know where either comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoomiqa.errors import OptionInvalid


@dataclass(frozen=True, slots=True)
class Agreement:
    """Raw correlations of predictions with mean opinion scores; nothing is fitted on the labels."""

    count: int
    srcc: float
    """Spearman's rank correlation, -1..1."""

    plcc: float
    """Pearson's linear correlation, -1..1."""

    krcc: float
    """Kendall's rank correlation (tau-b), -1..1."""

    rmse: float
    """Root mean squared error, in rating points."""


def agreement(predicted: Sequence[float], scores: Sequence[float]) -> Agreement:
    """Compare predictions with scores.

    Raises:
        OptionInvalid: fewer than three pairs, unequal lengths, or a value that is not finite (a failed prediction must
            be counted by the caller, never passed as a number).
    """
    from scipy import stats

    left, right = np.asarray(predicted, float), np.asarray(scores, float)
    if left.shape != right.shape or left.ndim != 1 or left.size < 3:
        raise OptionInvalid("agreement needs two equal lists of at least three", (left.shape, right.shape), "pair them")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise OptionInvalid("agreement needs finite values", None, "leave failures out and count them")
    return Agreement(
        count=int(left.size),
        srcc=float(stats.spearmanr(left, right).statistic),
        plcc=float(stats.pearsonr(left, right).statistic),
        krcc=float(stats.kendalltau(left, right).statistic),
        rmse=float(np.sqrt(np.mean((left - right) ** 2))),
    )
