"""Attribute rewards (MG-IQA): the rank reward of each attribute, weighted and summed.

Choices, as the formula is published in words only:

- Equal weights by default. They are brought to a sum of 1 over the attributes that a picture has labels for and
  something to compare with, so that data sets with fewer labels are neither punished nor favoured.
- A reply that does not rate an attribute its picture has a label for earns 0 for that attribute.
- Everything else (comparison set, data sets, ε, forms) is `zoomiqa.rewards.rank`'s.

It must not know what an attribute means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zoomiqa.errors import OptionInvalid
from zoomiqa.rewards.rank import EPSILON, Form, rank_rewards
from zoomiqa.rewards.trajectory import Trajectory
from zoomiqa.vocabulary import ATTRIBUTES

EQUAL_WEIGHTS: Mapping[str, float] = dict.fromkeys(ATTRIBUTES, 1.0)


def attribute_reward(
    trajectories: Sequence[Trajectory],
    *,
    weights: Mapping[str, float] = EQUAL_WEIGHTS,
    form: Form = "sample",
    epsilon: float = EPSILON,
) -> list[float | None]:
    """The weighted mean of the attributes' rank rewards, 0..1 (up to 1.001 by ε).

    Args:
        trajectories: The global batch.
        weights: By attribute, at least 0; one with weight 0 is left out.
        form: As in `rank_reward`.
        epsilon: As in `rank_reward`.

    Returns:
        `None` for a picture none of whose attributes can be compared.

    Raises:
        OptionInvalid: a weight is below 0 or not finite.
    """
    wrong = {name: weight for name, weight in weights.items() if not 0 <= weight < float("inf")}
    if wrong:
        raise OptionInvalid("weights of attributes must be at least 0", wrong, "choose other weights")
    groups = [trajectory.group for trajectory in trajectories]
    datasets = [trajectory.dataset for trajectory in trajectories]
    sums, shares = [0.0] * len(trajectories), [0.0] * len(trajectories)
    for name, weight in weights.items():
        if not weight:
            continue
        earned = rank_rewards(
            [trajectory.attributes.get(name) for trajectory in trajectories],
            [trajectory.truth.attributes.get(name) for trajectory in trajectories],
            groups,
            datasets,
            form=form,
            epsilon=epsilon,
        )
        for row, value in enumerate(earned):
            if value is not None:
                sums[row] += weight * value
                shares[row] += weight
    return [total / share if share else None for total, share in zip(sums, shares, strict=True)]
