"""Score rewards: how near the final rating is to the truth. They must not know other trajectories.

Zoom-IQA Eq. 4: exp(-(r_pred - r_gt)² / 2σ²), σ = 0.35 (Sec. 10.1). Refine-IQA's scoring stage (and Q-Insight) pay a
fixed 1 within a tolerance instead: `near_reward`.

Choice: a trajectory without a rating earns 0; some codes draw a random rating for it, which pays for noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoomiqa.errors import OptionInvalid
from zoomiqa.rewards.trajectory import Trajectory

SIGMA = 0.35
"""Rating points. Zoom-IQA Sec. 10.1."""

TOLERANCE = 0.5
"""Rating points. Refine-IQA's released script; Q-Insight uses 0.35."""


def score_reward(trajectories: Sequence[Trajectory], *, sigma: float = SIGMA) -> list[float | None]:
    """The Gaussian of the error, 0..1; `None` for a picture without a true rating.

    Raises:
        OptionInvalid: `sigma` is not above 0.
    """
    if not 0 < sigma < math.inf:
        raise OptionInvalid("sigma must be above 0", sigma, f"the paper's figure is {SIGMA}")
    return [
        None if error is None else math.exp(-0.5 * (error / sigma) ** 2)
        for error in (_error(trajectory) for trajectory in trajectories)
    ]


def near_reward(trajectories: Sequence[Trajectory], *, tolerance: float = TOLERANCE) -> list[float | None]:
    """1.0 for an error of at most `tolerance` rating points, else 0.0; `None` for a picture without a true rating."""
    return [
        None if error is None else float(error <= tolerance)
        for error in (_error(trajectory) for trajectory in trajectories)
    ]


def _error(trajectory: Trajectory) -> float | None:
    """Rating points between rating and truth; infinite without a rating, `None` without a truth."""
    if trajectory.truth.rating is None:
        return None
    return math.inf if trajectory.rating is None else abs(trajectory.rating - trajectory.truth.rating)
