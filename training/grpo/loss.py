"""The loss of an optimizer step: Eq. 7's clipped objective and KL-Coverage (Eq. 1 and 2), over all its micro-batches
and processes.

What both divide by, and which tokens KL-Coverage penalises, is settled once per optimizer step (`begin_update`); the
micro-batches' parts then add up to the loss of the whole, however it was split. The formulas are
`training.objectives`; here they are put together.

Which log π stands in Eq. 1: by default the current policy's (`log_probs="current"`), as the equation has it, from a
pass without gradient over the micro-batches of the step. It costs a third of that step's training, but only from the
second step of a rollout on: in the first, π = π_old, so KL-Coverage is exactly zero, no pass is made and nothing is
selected. `"old"` takes the log-probabilities under which the tokens were drawn, costs nothing, and differs by the drift
of a few steps. It must not know models, trainers or where rewards come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from zoomiqa.errors import OptionInvalid

from ..objectives.coverage import (  # noqa: TID252
    Collected,
    CoverageSettings,
    Gather,
    Selection,
    collect,
    exact_penalty,
    penalty,
    select,
)
from ..objectives.grpo import CLIP, clipped_loss, trajectory_share  # noqa: TID252
from .rows import MicroBatch

Scope = Literal["micro", "batch", "global"]
Source = Literal["current", "old"]


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What the loss is made of."""

    clip: float = CLIP
    clip_high: float | None = None
    """Clipping range upwards, where it differs."""

    reference_weight: float = 0.0
    """Weight of a KL to the model at the start; the paper's β is KL-Coverage's, so 0 by default."""

    coverage: CoverageSettings = field(default_factory=CoverageSettings)
    scope: Scope = "global"
    """What KL-Coverage ranks over: the optimizer batch of all processes, that of each process ("batch"), or each
    micro-batch, where the floor of one token is nearly always all there is."""

    log_probs: Source = "current"
    """Whose log-probabilities stand in Eq. 1."""

    def __post_init__(self) -> None:
        for name, allowed in (("scope", Scope), ("log_probs", Source)):
            if getattr(self, name) not in get_args(allowed):
                raise OptionInvalid(
                    f"unknown {name}", getattr(self, name), f"use one of {', '.join(get_args(allowed))}"
                )
        if not (0 <= self.clip < 1 and (self.clip_high is None or self.clip_high >= 0)):
            raise OptionInvalid("the clipping range lies in 0..1", (self.clip, self.clip_high), f"{CLIP:g} is usual")
        if self.reference_weight < 0:
            raise OptionInvalid("reference_weight must be at least 0", self.reference_weight, "0 switches it off")


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What the micro-batches of an optimizer step share."""

    trajectories: float
    """In the whole optimizer batch."""

    masks: tuple[Tensor, ...] | None
    """For each micro-batch of this process, the tokens that are penalised; `None` in the first step of a rollout."""

    counts: tuple[int, ...] = ()
    """What each micro-batch's penalty is divided by."""

    selected: int = 0
    """Tokens penalised, over the whole scope."""

    candidates: int = 0
    """Numeric tokens in the scope."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A micro-batch's share in the loss of its optimizer step, and what it was made of (without gradient)."""

    loss: Tensor
    """Scalar; the parts add up."""

    policy: float
    coverage: float
    """Not weighted."""

    reference_kl: float
    tokens: int
    clipped: int


def begin_update(
    batches: Sequence[MicroBatch],
    settings: LossSettings,
    log_probs: Sequence[Tensor] | None,
    *,
    gather: Gather,
    rank: int,
) -> Update:
    """Settle what all micro-batches of an optimizer step share. Every process must call it.

    Args:
        batches: Those of this process, in order.
        settings: Of the loss.
        log_probs: For each (rows, T), what stands in Eq. 1; `None` in the first step of a rollout, or without
            KL-Coverage: nothing is selected then.
        gather: Brings vectors of all processes together.
        rank: This process's place among them.
    """
    share = sum(trajectory_share(batch.valid, batch.tokens_of_trajectory) for batch in batches)
    device = batches[0].valid.device
    shares = gather(
        torch.tensor([share], dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    )
    trajectories = max(float(torch.cat(list(shares)).sum()), 1e-9)
    if log_probs is None or settings.coverage.weight == 0:
        return Update(trajectories, None)
    parts = [
        collect(own, batch.advantages, batch.numeric, batch.valid, settings.coverage)
        for own, batch in zip(log_probs, batches, strict=True)
    ]
    selections, processes = _select(parts, settings, gather, rank)
    masks = tuple(mask for selection in selections for mask in selection.masks)
    # Each selection has a mean of its own; of several, the mean is taken.
    counts = tuple(selection.count * len(selections) * processes for selection in selections for _ in selection.masks)
    return Update(
        trajectories, masks, counts,
        selected=sum(selection.count for selection in selections),
        candidates=sum(selection.candidates for selection in selections),
    )  # fmt: skip


def _select(
    parts: Sequence[Collected], settings: LossSettings, gather: Gather, rank: int
) -> tuple[list[Selection], int]:
    """The selections of this process, and how many processes have selections of their own."""
    if settings.scope == "global":
        return [select(parts, settings.coverage, gather=gather, rank=rank)], 1
    processes = len(gather(torch.zeros(1, device=parts[0].candidates.device)))
    if settings.scope == "batch":
        return [select(parts, settings.coverage)], processes
    return [select([part], settings.coverage) for part in parts], processes


def part_of_loss(
    log_probs: Tensor,
    batch: MicroBatch,
    update: Update,
    place: int,
    settings: LossSettings,
    scores: Tensor | None = None,
) -> Part:
    """One micro-batch's share in the loss.

    Args:
        log_probs: (rows, T) under the policy that is trained, with gradient.
        batch: The micro-batch; its `old` is known.
        update: From `begin_update`.
        place: Of the micro-batch in its optimizer step.
        settings: Of the loss.
        scores: (numeric tokens, V) of the numeric sub-vocabulary, with gradient; for the exact KL.
    """
    old = log_probs.detach() if batch.old is None else batch.old
    advantages = batch.advantages if batch.weights is None else batch.advantages[:, None] * batch.weights
    clipped = clipped_loss(
        log_probs,
        old,
        advantages,
        batch.valid,
        batch.tokens_of_trajectory,
        update.trajectories,
        clip=settings.clip,
        clip_high=settings.clip_high,
        reference_log_probs=batch.reference,
        reference_weight=settings.reference_weight,
    )
    loss = clipped.loss
    policy = float(loss.detach()) - settings.reference_weight * clipped.reference_kl
    coverage = 0.0
    if update.masks is not None:
        mask, count = update.masks[place].to(log_probs.device), update.counts[place]
        if settings.coverage.estimator == "k3":
            value = penalty(log_probs, old, mask, count)
        else:
            if scores is None or batch.old_scores is None:
                raise OptionInvalid("the exact KL needs scores of the vocabulary", None, "hand them in")
            value = exact_penalty(scores[None], batch.old_scores[None], mask[batch.numeric][None], count)
        loss = loss + settings.coverage.weight * value
        coverage = float(value.detach())
    return Part(loss, policy, coverage, clipped.reference_kl, clipped.tokens, clipped.clipped)
