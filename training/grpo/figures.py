"""What is logged of a rollout, and the early warnings. It must not know models or trainers.

Figures are of the global batch. Warnings need more samples than a small rollout has, so they look at a window of the
last ones; it is part of a checkpoint, so that a resumed run warns as an uninterrupted one would.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from zoomiqa.protocol.geometry import as_numbers
from zoomiqa.rewards import Trajectory
from zoomiqa.types import BoxFraction

from ..monitors import LEAST_SAMPLES, Alarm, alarms, crop_figures, entropy_figures, group_figures, score_figures  # noqa: TID252
from .scoring import Outcome, Scored

WINDOW = 256
"""Trajectories, and numeric tokens in sixteens, that the warnings look at."""


def reward_figures(outcomes: Sequence[Outcome], scored: Scored) -> dict[str, float]:
    """Means of the rewards over the samples they apply to, and what happened in the rollout."""
    figures: dict[str, float] = {}
    for name, values in scored.parts.items():
        if earned := [value for value in values if value is not None]:
            figures[f"rewards/{name}"] = fmean(earned)
    totals = [total for total in scored.totals if total is not None]
    if totals:
        figures |= {"reward": fmean(totals), "reward_std": pstdev(totals)}
    rated = [outcome.trajectory for outcome in outcomes if outcome.trajectory and not outcome.trajectory.truth.task]
    if rated:
        figures["rollout/second_round_share"] = fmean(len(trajectory.texts) > 1 for trajectory in rated)
        figures["rollout/unreadable_share"] = fmean(trajectory.rating is None for trajectory in rated)
        ratings = [round(trajectory.rating, 2) for trajectory in rated if trajectory.rating is not None]
        if ratings:
            figures["rollout/rating"] = fmean(ratings)
            figures["rollout/unique_scores"] = len(set(ratings)) / len(ratings)
    figures["rollout/failed_share"] = fmean(outcome.has_failed for outcome in outcomes)
    figures["rollout/equal_groups"] = 1 - _live_share(scored.totals, [outcome.group for outcome in outcomes])
    return figures


def _live_share(totals: Sequence[float | None], groups: Sequence[int]) -> float:
    known = [(total, group) for total, group in zip(totals, groups, strict=True) if total is not None]
    if not known:
        return 0.0
    return group_figures(*zip(*known, strict=True), least=1)["live_group_share"] or 0.0


class Warnings:
    """The last samples, and what is alarming about them."""

    def __init__(self, *, size: int = WINDOW, least: int = LEAST_SAMPLES) -> None:
        self._least = least
        self._looks: deque[int] = deque(maxlen=size)
        self._boxes: deque[BoxFraction] = deque(maxlen=size)
        self._ratings: deque[tuple[float | None, float]] = deque(maxlen=size)
        self._rewards: deque[tuple[float, int]] = deque(maxlen=size)
        self._entropies: deque[float] = deque(maxlen=16 * size)
        self._entropy_at_start: float | None = None
        self._rollouts = 0

    def add(self, outcomes: Sequence[Outcome], scored: Scored) -> None:
        """Take in a rollout."""
        seen: set[int] = set()
        for outcome, total in zip(outcomes, scored.totals, strict=True):
            if total is not None:
                self._rewards.append((total, self._rollouts * len(outcomes) + outcome.group))
            trajectory = outcome.trajectory
            if trajectory is None or trajectory.truth.task is not None:
                continue
            self._looks.append(len(trajectory.texts))
            if (box := _asked_box(trajectory)) is not None:
                self._boxes.append(box)
            if outcome.group not in seen and trajectory.truth.rating is not None:
                seen.add(outcome.group)
                self._ratings.append((trajectory.rating, trajectory.truth.rating))
        self._rollouts += 1

    def add_entropies(self, entropies: Sequence[float]) -> None:
        """Take in the policy's entropy (nats) at numeric tokens of answers; those of the first call are the start's."""
        if self._entropy_at_start is None and entropies:
            self._entropy_at_start = fmean(entropies)
        self._entropies.extend(entropies)

    def figures(self) -> dict[str, float | None]:
        """Of the window; `None` where it holds too few samples."""
        ratings, truths = zip(*self._ratings, strict=True) if self._ratings else ((), ())
        rewards, groups = zip(*self._rewards, strict=True) if self._rewards else ((), ())
        return {
            **crop_figures(self._looks, self._boxes, least=self._least),
            **score_figures(ratings, truths, least=self._least),
            **entropy_figures(self._entropies, self._entropy_at_start, least=self._least),
            **group_figures(rewards, groups, least=self._least),
        }

    def alarms(self) -> list[Alarm]:
        """What is beyond its limit."""
        return alarms(self.figures())

    def state(self) -> dict[str, Any]:
        """For a checkpoint, in JSON's types."""
        return {
            "looks": list(self._looks),
            "boxes": [list(box) for box in self._boxes],
            "ratings": [list(pair) for pair in self._ratings],
            "rewards": [list(pair) for pair in self._rewards],
            "entropies": list(self._entropies),
            "entropy_at_start": self._entropy_at_start,
            "rollouts": self._rollouts,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's `state`."""
        self._looks.extend(state["looks"])
        self._boxes.extend(tuple(box) for box in state["boxes"])
        self._ratings.extend((rating, truth) for rating, truth in state["ratings"])
        self._rewards.extend((reward, group) for reward, group in state["rewards"])
        self._entropies.extend(state["entropies"])
        self._entropy_at_start = state["entropy_at_start"]
        self._rollouts = state["rollouts"]


def _asked_box(trajectory: Trajectory) -> BoxFraction | None:
    """The box of the first closer look, where one was taken and it was given in fractions."""
    if len(trajectory.texts) < 2:
        return None
    box = as_numbers(trajectory.replies[0].box_model)
    return box if box is not None and all(0 <= edge <= 1 and math.isfinite(edge) for edge in box) else None
