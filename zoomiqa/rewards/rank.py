"""Rank reward: whether better pictures get higher ratings, by Thurstone's model. Zoom-IQA Eq. 5.

For picture i, the mean over other pictures j of the fidelity √(p̂·p + ε) + √((1 - p̂)(1 - p) + ε), where p is 1, 0 or
0.5 by the order of the true ratings and p̂ = Φ((μ_i - μ_j) / √(v_i + v_j + ε)); μ and v are mean and variance of the
ratings sampled for a picture.

Choices, where the paper is silent (VisualQuality-R1, on which it builds, decides most):

- `form="sample"` (default): a sample's own rating stands in place of μ_i, so that samples of one picture can differ.
  `form="mean"` is Eq. 5 to the letter: all samples of a picture get the same.
- v is unbiased (ddof 1) and holds the sample itself (no leave-one-out); 0 where only one rating could be read.
- ε = 1e-6 inside the roots and under the variance. With it the reward may exceed 1 by up to 0.001.
- The comparison set is everything handed in: gather the **global** batch first (`rank_rewards` takes plain columns,
  which are cheap to send), or the reward depends on how many processes share the work.
- Pictures of different data sets are never compared (MG-IQA, cross-domain alignment).
- A sample without a rating gets 0, where a comparison exists. It is no part of μ and v, and a picture none of whose
  samples could be read is not compared with.

It must not know texts, and nothing of the rating beyond its number.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from zoomiqa.errors import OptionInvalid
from zoomiqa.rewards.trajectory import Trajectory

Form = Literal["sample", "mean"]

EPSILON = 1e-6
"""VisualQuality-R1."""

Floats = NDArray[np.float64]


def rank_reward(
    trajectories: Sequence[Trajectory], *, form: Form = "sample", epsilon: float = EPSILON
) -> list[float | None]:
    """The rank reward of each trajectory within this batch, 0..1 (up to 1.001 by ε).

    Args:
        trajectories: The global batch; samples of one picture share `group` (and `dataset`), in any order.
        form: "sample" or "mean"; see above.
        epsilon: 0 gives Eq. 5 without any guard; it stays finite.

    Returns:
        `None` for a picture without a true rating, or with none of its data set to compare with.

    Raises:
        OptionInvalid: samples of one picture disagree about its true rating, or an option is outside its range.
    """
    return rank_rewards(
        [trajectory.rating for trajectory in trajectories],
        [trajectory.truth.rating for trajectory in trajectories],
        [trajectory.group for trajectory in trajectories],
        [trajectory.dataset for trajectory in trajectories],
        form=form,
        epsilon=epsilon,
    )


def rank_rewards(
    ratings: Sequence[float | None],
    truths: Sequence[float | None],
    groups: Sequence[Hashable],
    datasets: Sequence[str] | None = None,
    *,
    form: Form = "sample",
    epsilon: float = EPSILON,
) -> list[float | None]:
    """`rank_reward` of plain columns, one entry per sample; `datasets=None` compares all with all."""
    if form not in get_args(Form):
        raise OptionInvalid("unknown form of the rank reward", form, f"use one of {', '.join(get_args(Form))}")
    if not 0 <= epsilon < 1:
        raise OptionInvalid("epsilon must lie in 0..1", epsilon, f"{EPSILON:g} is the default")
    names = datasets if datasets is not None else [""] * len(groups)
    lengths = (len(ratings), len(truths), len(groups), len(names))
    if len(set(lengths)) > 1:
        raise OptionInvalid("columns must cover the same samples", lengths, "gather all of them alike")
    rewards: list[float | None] = [None] * len(groups)
    rows = [row for row, truth in enumerate(truths) if truth is not None]
    if not rows:
        return rewards

    pictures: dict[tuple[str, Hashable], int] = {}
    picture = np.array([pictures.setdefault((names[row], groups[row]), len(pictures)) for row in rows])
    truth = _truth_of_pictures(np.array([truths[row] for row in rows], np.float64), picture, len(pictures))
    rating = np.array([ratings[row] for row in rows], np.float64)  # None becomes NaN
    readable = np.isfinite(rating)
    mean, variance, counts = _moments(rating[readable], picture[readable], len(pictures))

    _, domain = np.unique([name for name, _ in pictures], return_inverse=True)
    comparable = (domain[:, None] == domain) & (counts > 0)
    np.fill_diagonal(comparable, val=False)
    partners = comparable.sum(1)

    if form == "mean":
        values = _fidelities(mean, np.arange(len(pictures)), mean, variance, truth, comparable, epsilon)[picture]
    else:
        values = _fidelities(np.where(readable, rating, 0.0), picture, mean, variance, truth, comparable, epsilon)
    earned = np.where(readable, values, 0.0).tolist()
    for row, value, others in zip(rows, earned, partners[picture].tolist(), strict=True):
        rewards[row] = value if others else None
    return rewards


def _truth_of_pictures(truths: Floats, picture: NDArray[np.int_], count: int) -> Floats:
    truth = np.empty(count)
    truth[picture] = truths
    if differing := np.flatnonzero(truth[picture] != truths).size:
        raise OptionInvalid(
            "samples of one picture have different true ratings", f"{differing} samples",
            "give every picture of a data set its own group",
        )  # fmt: skip
    return truth


def _moments(rating: Floats, picture: NDArray[np.int_], count: int) -> tuple[Floats, Floats, Floats]:
    """Mean, unbiased variance and number of the ratings of each picture; 0 where they are not defined."""
    counts = np.bincount(picture, minlength=count).astype(np.float64)
    mean = np.bincount(picture, rating, count) / np.maximum(counts, 1)
    variance = np.bincount(picture, (rating - mean[picture]) ** 2, count) / np.maximum(counts - 1, 1)
    return mean, variance, counts


def _fidelities(
    level: Floats,
    picture: NDArray[np.int_],
    mean: Floats,
    variance: Floats,
    truth: Floats,
    comparable: NDArray[np.bool_],
    epsilon: float,
) -> Floats:
    """Mean fidelity of each of n levels (n,) against the m pictures it may be compared with; 0 where there is none.

    Args:
        level: (n,) what stands in the place of μ_i.
        picture: (n,) the picture of each.
        mean, variance, truth: (m,) of the pictures.
        comparable: (m, m).
        epsilon: Guard of roots and variance.
    """
    lead = level[:, None] - mean
    scale = np.sqrt(variance[picture][:, None] + variance + epsilon)
    # Only without epsilon can the scale be 0: then the order is certain, or open between equals.
    z = np.divide(lead, scale, out=np.where(lead == 0, 0.0, np.copysign(np.inf, lead)), where=scale > 0)
    preferred = (0.5 + 0.5 * np.sign(truth[:, None] - truth))[picture]
    fidelity = np.sqrt(ndtr(z) * preferred + epsilon) + np.sqrt(ndtr(-z) * (1 - preferred) + epsilon)
    allowed = comparable[picture]
    total: Floats = np.where(allowed, fidelity, 0.0).sum(1) / np.maximum(allowed.sum(1), 1)
    return total
