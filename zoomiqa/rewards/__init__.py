"""What a trajectory is worth: plain functions over trajectories, each giving one number per trajectory.

`None` means that a reward does not apply (no label for it, nothing to compare with); 0 means that it applies and
nothing was earned. All are pure: no state, no randomness, no files. numpy (and scipy's normal distribution) do the
arithmetic; torch is never imported. They must not know trainers, models or how a trajectory was made.

Sources: Zoom-IQA Eq. 3-6 (format, score, rank, total), VisualQuality-R1 (the rank reward's per-sample form), MG-IQA
(attributes, data sets), Refine-IQA (perception tasks, thinking). Each module opens with its equation and says where it
departs.
"""

from zoomiqa.rewards.attributes import attribute_reward
from zoomiqa.rewards.format import format_reward, keeps_format
from zoomiqa.rewards.perception import intersection_over_union, perception_reward
from zoomiqa.rewards.rank import rank_reward, rank_rewards
from zoomiqa.rewards.score import near_reward, score_reward
from zoomiqa.rewards.thinking import (
    first_decimal,
    fully_right,
    lift_advantages,
    probability_difference,
    thinking_reward,
)
from zoomiqa.rewards.total import PAPER_WEIGHTS, total_reward
from zoomiqa.rewards.trajectory import Trajectory, Truth

__all__ = [
    "PAPER_WEIGHTS",
    "Trajectory",
    "Truth",
    "attribute_reward",
    "first_decimal",
    "format_reward",
    "fully_right",
    "intersection_over_union",
    "keeps_format",
    "lift_advantages",
    "near_reward",
    "perception_reward",
    "probability_difference",
    "rank_reward",
    "rank_rewards",
    "score_reward",
    "thinking_reward",
    "total_reward",
]
