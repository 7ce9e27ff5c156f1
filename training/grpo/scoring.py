"""From trajectories to rewards to advantages, over the global batch (Zoom-IQA Eq. 3 to 6 and Sec. 10.2).

Rewards are `zoomiqa.rewards`; here it is decided which apply, with what weight, and that every process computes the
same numbers from the same global batch: the rank reward depends on all pictures of a rollout, wherever they were
sampled. An unreadable reply earns 0, never a number drawn at random. A conversation that failed in the engine (no
memory, a prompt too long) is no reply: it has no reward, no advantage, and no part in its group.

Switches of the second and third source, all off by default but harmless where nothing carries their labels:

- `perception` (Refine-IQA, first stage): tasks with known answers, under their own weight beside the format's.
- `thinking` (Refine-IQA, second stage): the probability difference, in proportion to format and score; and the
  advantage rule `lift` (where a sample of a group is fully right, negative advantages become 0).
- `attributes` (MG-IQA): the rank reward of single qualities.

It must not know models, tokens or engines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from zoomiqa.errors import OptionInvalid
from zoomiqa.rewards import (
    Trajectory,
    attribute_reward,
    format_reward,
    fully_right,
    lift_advantages,
    perception_reward,
    rank_reward,
    score_reward,
    thinking_reward,
    total_reward,
)
from zoomiqa.rewards.attributes import EQUAL_WEIGHTS
from zoomiqa.rewards.format import Demand
from zoomiqa.rewards.rank import Form
from zoomiqa.rewards.score import SIGMA, TOLERANCE
from zoomiqa.rewards.thinking import Share

from ..objectives.advantages import EPSILON, group_advantages  # noqa: TID252


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Weights and options of the rewards; a weight of 0 leaves a reward out. Zoom-IQA Sec. 10.1: 1, 1 and 2."""

    format: float = 1.0
    score: float = 1.0
    rank: float = 2.0
    perception: float = 1.0
    """Refine-IQA; applies to perception tasks only."""

    thinking: float = 0.0
    """Refine-IQA; each sample then takes two short forward passes more."""

    attributes: float = 0.0
    """MG-IQA; needs a prompt set that asks for attributes, and labels of them."""

    sections: Demand = "all"
    """Headings that the format reward asks for."""

    sigma: float = SIGMA
    """Of the score reward, rating points."""

    rank_form: Form = "sample"
    attribute_weights: Mapping[str, float] = field(default_factory=lambda: dict(EQUAL_WEIGHTS))
    thinking_share: Share = "proportional"
    lift: bool = False
    """Refine-IQA's advantage rule."""

    tolerance: float = TOLERANCE
    """Error of a fully right sample at most, rating points."""

    epsilon: float = EPSILON
    """Added to the standard deviation of a group."""

    def __post_init__(self) -> None:
        weights = {**self._all(), **{f"attribute {name}": value for name, value in self.attribute_weights.items()}}
        wrong = {name: value for name, value in weights.items() if not 0 <= value < math.inf}
        if wrong:
            raise OptionInvalid("weights of rewards must be at least 0", wrong, "0 leaves a reward out")
        if not any(self._all().values()):
            raise OptionInvalid("all rewards have the weight 0", None, "give one of them a weight")

    def _all(self) -> dict[str, float]:
        names = ("format", "score", "rank", "perception", "thinking", "attributes")
        return {name: getattr(self, name) for name in names}

    @property
    def weights(self) -> dict[str, float]:
        """Of the rewards in use."""
        return {name: weight for name, weight in self._all().items() if weight > 0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one draw: all that rewards need, small enough to be sent to every process."""

    group: int
    """Place of its picture in the rollout."""

    trajectory: Trajectory | None
    has_failed: bool = False
    """In the engine."""

    with_thinking: float | None = None
    """Probability of the true first decimal after the sample's reasoning, where measured."""

    without_thinking: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it is rewarded at all."""
        return self.trajectory is not None and not self.has_failed


@dataclass(frozen=True, slots=True)
class Scored:
    """Rewards and advantages of a global batch, one entry per outcome; `None` where a reward does not apply."""

    parts: Mapping[str, list[float | None]]
    totals: list[float | None]
    advantages: list[float]


def score(outcomes: Sequence[Outcome], settings: RewardSettings) -> Scored:
    """Rewards, their sum and the advantages of a global batch. Every process gets the same from the same batch."""
    counted = [place for place, outcome in enumerate(outcomes) if outcome.counts]
    trajectories = [trajectory for place in counted if (trajectory := outcomes[place].trajectory) is not None]
    weights = settings.weights
    earned = _parts([outcomes[place] for place in counted], trajectories, settings)
    sums = total_reward(earned, weights) if counted else []

    parts: dict[str, list[float | None]] = {name: [None] * len(outcomes) for name in weights}
    totals: list[float | None] = [None] * len(outcomes)
    for number, place in enumerate(counted):
        totals[place] = sums[number]
        for name in weights:
            parts[name][place] = earned[name][number]
    groups = [outcome.group for outcome in outcomes]
    rewards = torch.tensor([math.nan if total is None else total for total in totals], dtype=torch.float64)
    advantages: list[float] = group_advantages(rewards, torch.tensor(groups), epsilon=settings.epsilon).tolist()
    if settings.lift:
        right = dict(zip(counted, fully_right(trajectories, tolerance=settings.tolerance), strict=True))
        is_right = [right.get(place, False) for place in range(len(outcomes))]
        advantages = lift_advantages(advantages, groups, is_right).tolist()
    return Scored(parts, totals, advantages)


def _parts(
    outcomes: Sequence[Outcome], trajectories: Sequence[Trajectory], settings: RewardSettings
) -> dict[str, list[float | None]]:
    formats = format_reward(trajectories, sections=settings.sections)
    scores = score_reward(trajectories, sigma=settings.sigma)
    # A task's answer is no rating, though a rating may be read in it.
    parts: dict[str, list[float | None]] = {}
    for name in settings.weights:
        if name == "format":
            parts[name] = formats
        elif name == "score":
            parts[name] = scores
        elif name == "rank":
            parts[name] = rank_reward(trajectories, form=settings.rank_form)
        elif name == "perception":
            parts[name] = perception_reward(trajectories)
        elif name == "attributes":
            parts[name] = attribute_reward(trajectories, weights=settings.attribute_weights, form=settings.rank_form)
        else:
            parts[name] = _thinking(outcomes, formats, scores, settings)
    return parts


def _thinking(
    outcomes: Sequence[Outcome],
    formats: Sequence[float | None],
    scores: Sequence[float | None],
    settings: RewardSettings,
) -> list[float | None]:
    """The rule reward, in whose proportion the thinking is paid for, is that of format and score."""
    rules = [
        None if form is None or near is None else settings.format * form + settings.score * near
        for form, near in zip(formats, scores, strict=True)
    ]
    return thinking_reward(
        rules,
        [outcome.with_thinking for outcome in outcomes],
        [outcome.without_thinking for outcome in outcomes],
        rule_maximum=settings.format + settings.score,
        share=settings.thinking_share,
    )
