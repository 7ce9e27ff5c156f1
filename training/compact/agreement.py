"""How well ratings agree with people's. It must not know where they come from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Values = NDArray[np.floating]

FEWEST = 6
"""Photos of a part that has figures."""

DIGITS = 4


def correlation(rating: Values, score: Values) -> dict[str, float]:
    """Spearman and Pearson correlation."""
    return {
        "srcc": round(float(spearmanr(rating, score).statistic), DIGITS),
        "plcc": round(float(np.corrcoef(rating, score)[0, 1]), DIGITS),
    }


def by_subset(rating: Values, score: Values, subset: NDArray[np.str_]) -> dict[str, dict[str, float]]:
    """Correlations over all and, where there are several subsets, within each; parts of a few photos are left out."""
    names = np.unique(subset)
    parts = {"all": np.ones(len(score), bool)}
    if len(names) > 1:
        parts |= {str(name): subset == name for name in names}
    return {
        name: correlation(rating[chosen], score[chosen]) for name, chosen in parts.items() if chosen.sum() >= FEWEST
    }
