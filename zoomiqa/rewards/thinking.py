"""Rewarding the thinking (Refine-IQA, second stage): does the reasoning make the right rating more likely?

PD = clamp(p_with - p_without, 0, 1). p is the model's probability of the first decimal digit of the true rating, in the
place of the rating, after its own reasoning and without any. PD is added to the rule reward in proportion to it. And an
advantage rule: where some sample of a group is fully right, negative advantages of that group become 0.

Choices:

- `share="proportional"` (default): PD times the rule reward's share of its maximum. `share="full"` is the released
  script's: PD only where the rule reward is at its maximum (there 2: format and answer).
- Fully right: the format is kept and the error is at most 0.5 rating points (the released script).
- The advantage rule is applied to standardised advantages, whatever they were made from.

It must not know models: the probabilities are measured by whoever has one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoomiqa.errors import OptionInvalid
from zoomiqa.rewards.format import format_reward
from zoomiqa.rewards.score import TOLERANCE, near_reward
from zoomiqa.rewards.trajectory import Trajectory
from zoomiqa.types import RATING_MAX, RATING_MIN

Share = Literal["proportional", "full"]


def first_decimal(rating: float) -> str:
    """The digit whose probability is measured: the first decimal of a true rating written with two, as in "3.45".

    Raises:
        OptionInvalid: the rating is outside 1..5.
    """
    if not RATING_MIN <= rating <= RATING_MAX:
        raise OptionInvalid("a rating lies in 1..5", rating, "bring the labels to that scale")
    return f"{rating:.2f}"[2]


def probability_difference(with_thinking: float | None, without_thinking: float | None) -> float | None:
    """PD, 0..1; `None` if either probability was not measured.

    Raises:
        OptionInvalid: one of them is no probability.
    """
    if with_thinking is None or without_thinking is None:
        return None
    if not (0 <= with_thinking <= 1 and 0 <= without_thinking <= 1):
        raise OptionInvalid("probabilities lie in 0..1", (with_thinking, without_thinking), "exponentiate log-probs")
    return max(0.0, with_thinking - without_thinking)


def thinking_reward(
    rule_rewards: Sequence[float | None],
    with_thinking: Sequence[float | None],
    without_thinking: Sequence[float | None],
    *,
    rule_maximum: float,
    share: Share = "proportional",
) -> list[float | None]:
    """What the thinking earns on top of the rule reward, 0..1 for each sample.

    Args:
        rule_rewards: What each sample earned by rule, 0..`rule_maximum`.
        with_thinking: Probability of the true digit after the sample's own reasoning.
        without_thinking: The same without reasoning.
        rule_maximum: The most that can be earned by rule.
        share: How PD depends on the rule reward.

    Returns:
        `None` where a probability or the rule reward does not apply.
    """
    if share not in get_args(Share):
        raise OptionInvalid("unknown share of the rule reward", share, f"use one of {', '.join(get_args(Share))}")
    if not 0 < rule_maximum < float("inf"):
        raise OptionInvalid("the rule reward's maximum must be above 0", rule_maximum, "sum the weights of its parts")
    earned: list[float | None] = []
    for rule, after, before in zip(rule_rewards, with_thinking, without_thinking, strict=True):
        gain = probability_difference(after, before)
        if rule is None or gain is None:
            earned.append(None)
            continue
        part = min(max(rule / rule_maximum, 0.0), 1.0)
        earned.append(gain * (part if share == "proportional" else float(part >= 1)))
    return earned


def fully_right(trajectories: Sequence[Trajectory], *, tolerance: float = TOLERANCE) -> list[bool]:
    """Whether each trajectory keeps the format and is within `tolerance` rating points of the truth."""
    return [
        form == 1.0 and near == 1.0
        for form, near in zip(format_reward(trajectories), near_reward(trajectories, tolerance=tolerance), strict=True)
    ]


def lift_advantages(advantages: ArrayLike, groups: Sequence[Hashable], is_right: Sequence[bool]) -> NDArray[np.float64]:
    """The advantages with those below 0 set to 0 in every group that holds a fully right sample.

    Args:
        advantages: (n,) standardised within the groups.
        groups: The group of each sample; unique over data sets.
        is_right: Whether each sample is fully right.
    """
    values = np.array(advantages, np.float64)
    solved = {group for group, right in zip(groups, is_right, strict=True) if right}
    in_solved = np.array([group in solved for group in groups], bool)
    if values.shape != in_solved.shape:
        raise OptionInvalid(
            "every sample has one advantage and one group", (values.shape, in_solved.shape), "pass one row per sample"
        )
    values[in_solved & (values < 0)] = 0.0
    return values
