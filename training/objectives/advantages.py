"""Advantages: total rewards standardised within their group. Zoom-IQA Sec. 10.2 (GRPO), N = 8 samples per picture.

Choices, where the paper is silent: the standard deviation is unbiased (ddof 1), and 1e-4 is added to it, as in the GRPO
code that the field uses (TRL, VLM-R1). A group whose rewards are all equal teaches nothing: its advantages are exactly
0, not rounding noise divided by 1e-4. A sample without a reward (NaN) gets 0 and is no part of its group.

A trajectory of two looks has one reward and one advantage, which both of its training rows share. It must not know what
the rewards pay for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoomiqa.errors import OptionInvalid

EPSILON = 1e-4

_EQUAL = 1e-9
"""Rewards whose range is below this (relative to their size, at least 1) are equal."""


def group_advantages(rewards: Tensor, groups: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """(reward - group mean) / (group standard deviation + epsilon).

    Args:
        rewards: (n,) one per trajectory; NaN where no reward applies.
        groups: (n,) integers, equal for samples of one picture, in any order. Hand in whole groups.
        epsilon: Added to the standard deviation; above 0.

    Returns:
        (n,) in the type of `rewards`, without gradient.
    """
    if rewards.shape != groups.shape or rewards.ndim != 1:
        raise OptionInvalid(
            "every reward needs one group",
            (tuple(rewards.shape), tuple(groups.shape)),
            "pass two vectors of one length",
        )
    if not epsilon > 0:
        raise OptionInvalid("epsilon must be above 0", epsilon, f"{EPSILON:g} is the default")
    if torch.isinf(rewards).any():
        raise OptionInvalid("rewards must be finite", "an infinite one", "use NaN where no reward applies")
    advantages = torch.zeros_like(rewards, requires_grad=False)
    known = ~torch.isnan(rewards)
    if not known.any():
        return advantages
    values = rewards.detach()[known].double()
    _, place = torch.unique(groups[known], return_inverse=True)
    count = int(place.max()) + 1
    sizes = torch.bincount(place, minlength=count).double()
    zeros = values.new_zeros(count)
    centred = values - (zeros.index_add(0, place, values) / sizes)[place]
    variance = zeros.index_add(0, place, centred.square()) / (sizes - 1).clamp(min=1)
    highest, lowest = (zeros.scatter_reduce(0, place, values, mode, include_self=False) for mode in ("amax", "amin"))
    differs = highest - lowest > _EQUAL * torch.maximum(highest.abs(), lowest.abs()).clamp(min=1)
    standardised = torch.where(differs[place], centred / (variance.sqrt() + epsilon)[place], 0.0)
    advantages[known] = standardised.to(rewards.dtype)
    return advantages
