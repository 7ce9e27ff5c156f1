"""The KL-Coverage regulariser. Zoom-IQA Sec. 3.2, Eq. 1 and 2.

cov_t = (log π(y_t) - mean log π) · (A_t - mean A), without gradient. Candidates are the numeric tokens inside
`<answer>` (`training.objectives.tokens`). The share p = 0.02 of them with the greatest cov is penalised with the mean
of KL(π_old ‖ π); weight β = 0.04 (Eq. 7).

In three steps, since a micro-batch is far too small to rank in (4 rows hold some 80 numeric tokens; 2 % of that is the
one token of the floor, in each):

    parts = [collect(log_probs, advantages, numeric, valid, settings) for each micro-batch, without gradient]
    selection = select(parts, settings, gather=..., rank=...)               # once per optimizer step
    loss += settings.weight * penalty(log_probs, old, mask, selection.count)    # for each micro-batch and its mask

Choices, each open in the paper:

- Means of Eq. 1: over the candidates (`centring="numeric"`, default) or over all generated tokens (`"all"`; Eq. 1's
  "N rollout tokens", read to the letter).
- Scope of the ranking: what is handed to `select`. The whole optimizer batch (all micro-batches, and all processes
  through `gather`) is meant; one token is selected at least. Ties are decided by place, so that exactly the share is
  taken even when all are equal, and the choice does not depend on how the batch was split.
- p is a fraction (0.02 = 2 %), not PRIME-RL's percentage.
- Estimator of the KL: r - 1 - log r with r = π / π_old of the drawn token (`"k3"`, default: unbiased under π_old and
  never negative; its gradient is (r - 1) times the score), or the exact KL of the two distributions over the numeric
  sub-vocabulary, renormalised to it (`"exact"`). |Δ log p| of the released KL-Cov codes is another quantity: its
  gradient is far larger at the same drift, so the weight 0.04 would not carry over.
- log π in Eq. 1 is that of whichever log-probabilities are collected. Those of the current policy need one more forward
  pass per optimizer step; those of π_old need none and are the same at the first step, an approximation afterwards.

**It is exactly zero, in value and gradient, while π = π_old.** With one optimizer step per rollout it never does
anything: `refuse_inert`. It must not know models, rewards or engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zoomiqa.errors import OptionInvalid

from .grpo import LOG_RATIO_LIMIT

Centring = Literal["numeric", "all"]
Estimator = Literal["k3", "exact"]
Gather = Callable[[Tensor], Sequence[Tensor]]
"""From a vector of this process to the vectors of all, in order of rank; lengths may differ."""


@dataclass(frozen=True, slots=True)
class CoverageSettings:
    """What decides the regulariser."""

    share: float = 0.02
    """p of Eq. 2, a fraction of the candidates, 0 to 1."""

    weight: float = 0.04
    """β of Eq. 7; 0 switches the regulariser off."""

    centring: Centring = "numeric"
    estimator: Estimator = "k3"
    """Whether the engine calls `penalty` ("k3") or `exact_penalty` ("exact"), which needs scores of a vocabulary."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise OptionInvalid("share is a fraction above 0 and at most 1", self.share, "0.02 is the paper's figure")
        if not 0 <= self.weight < math.inf:
            raise OptionInvalid("weight must be at least 0", self.weight, "0.04 is the paper's figure")
        for name, allowed in (("centring", Centring), ("estimator", Estimator)):
            if getattr(self, name) not in get_args(allowed):
                raise OptionInvalid(
                    f"unknown {name}", getattr(self, name), f"use one of {', '.join(get_args(allowed))}"
                )


def updates_per_rollout(*, iterations: int, micro_batches: int, accumulation_steps: int) -> float:
    """Optimizer steps between two rollouts.

    Args:
        iterations: How often a rollout is gone through (TRL: `num_iterations`; verl: `ppo_epochs`).
        micro_batches: Micro-batches per process in a rollout (TRL: `steps_per_generation`).
        accumulation_steps: Micro-batches per process in an optimizer step.
    """
    return iterations * micro_batches / accumulation_steps


def refuse_inert(settings: CoverageSettings, updates: float) -> None:
    """Refuse settings under which the regulariser would never act.

    Args:
        settings: Of the regulariser.
        updates: Optimizer steps between two rollouts.

    Raises:
        OptionInvalid: it has a weight, but every step starts from π = π_old, where it is exactly zero.
    """
    if settings.weight > 0 and updates < 2:
        raise OptionInvalid(
            "KL-Coverage is exactly zero with fewer than 2 optimizer steps per rollout",
            f"{updates:g}",
            "go through each rollout twice or split it into several steps, or set the weight to 0",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """What one micro-batch contributes to the ranking."""

    candidates: Tensor
    """(rows, T) bool."""

    columns: Tensor
    """(3, n) of the tokens that count in the means: log-probability, advantage, 1 for a candidate."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Which tokens are penalised."""

    masks: tuple[Tensor, ...]
    """(rows, T) bool for each micro-batch of this process; M of Eq. 2."""

    count: int
    """Σ M over the whole scope, all processes: what the penalties are divided by. 0 without candidates."""

    candidates: int
    """Candidates in the whole scope."""

    least: float | None
    """The smallest cov that was selected; `None` without candidates."""


@torch.no_grad()
def collect(
    log_probs: Tensor, advantages: Tensor, numeric: Tensor, valid: Tensor, settings: CoverageSettings
) -> Collected:
    """First pass, for each micro-batch of an optimizer step.

    Args:
        log_probs: (rows, T) of the tokens under the current policy, or (see above) the old one.
        advantages: (rows,) or (rows, T).
        numeric: (rows, T) 1 for numeric tokens of answers.
        valid: (rows, T) 1 for generated tokens.
        settings: Of the regulariser.
    """
    candidates = numeric.bool() & valid.bool()
    members = candidates if settings.centring == "numeric" else valid.bool()
    spread = (advantages if advantages.ndim == 2 else advantages[:, None]).expand_as(log_probs)
    columns = torch.stack([_wide(values[members]) for values in (log_probs, spread, candidates)])
    return Collected(candidates, columns)


@torch.no_grad()
def select(
    parts: Sequence[Collected], settings: CoverageSettings, *, gather: Gather | None = None, rank: int = 0
) -> Selection:
    """Rank all candidates by cov and choose the top share; second pass, once per optimizer step.

    Args:
        parts: All micro-batches of this process, in order.
        settings: Of the regulariser.
        gather: Brings together what all processes collected; each must call this. `None`: there is one process.
        rank: Which of the gathered vectors is this process's.

    Raises:
        OptionInvalid: a log-probability or advantage of a token that counts is not finite.
    """
    if not parts:
        raise OptionInvalid("there is nothing to select from", "no micro-batch", "collect every micro-batch first")
    own = torch.cat([part.columns for part in parts], dim=1)
    everyone = [own] if gather is None else [flat.view(3, -1) for flat in gather(own.reshape(-1))]
    log_probs, advantages, flags = torch.cat(everyone, dim=1)
    if not (torch.isfinite(log_probs).all() and torch.isfinite(advantages).all()):
        raise OptionInvalid(
            "log-probabilities and advantages of generated tokens must be finite", "others", "check the forward pass"
        )
    covariance = (log_probs - log_probs.mean()) * (advantages - advantages.mean())
    candidates = flags.bool()
    places = candidates.nonzero()[:, 0]
    count = max(1, math.floor(settings.share * len(places) + 1e-9)) if len(places) else 0
    order = torch.sort(covariance[places], descending=True, stable=True)
    chosen = torch.zeros_like(candidates)
    chosen[places[order.indices[:count]]] = True

    start = sum(columns.shape[1] for columns in everyone[:rank])
    masks = []
    for part in parts:
        end = start + part.columns.shape[1]
        mask = torch.zeros_like(part.candidates)
        mask[part.candidates] = chosen[start:end][candidates[start:end]]
        masks.append(mask)
        start = end
    least = float(order.values[count - 1]) if count else None
    return Selection(tuple(masks), count, len(places), least)


def penalty(log_probs: Tensor, old_log_probs: Tensor, selected: Tensor, count: int) -> Tensor:
    """A micro-batch's share of Eq. 2 by r - 1 - log r; third pass, with gradient. Not weighted.

    Args:
        log_probs: (rows, T) of the tokens under the policy that is trained.
        old_log_probs: (rows, T) under the policy that drew them.
        selected: (rows, T) this micro-batch's mask.
        count: `Selection.count`.

    Returns:
        A scalar; those of all micro-batches and processes add up to Eq. 2. 0 where nothing is selected here.
    """
    drift = _wide(log_probs[selected]) - _wide(old_log_probs.detach()[selected])
    drift = drift.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return ((torch.expm1(drift) - drift).sum() / max(count, 1)).to(log_probs.dtype)


def exact_penalty(scores: Tensor, old_scores: Tensor, selected: Tensor, count: int) -> Tensor:
    """`penalty` with the exact KL(π_old ‖ π) over a sub-vocabulary.

    Args:
        scores: (rows, T, V) logits or log-probabilities of the V tokens of `training.objectives.tokens`'s numeric
            vocabulary under the policy that is trained. They are renormalised, so either gives the same.
        old_scores: (rows, T, V) under the policy that drew the tokens.
        selected: (rows, T).
        count: `Selection.count`.
    """
    new = torch.log_softmax(_wide(scores[selected]), dim=-1)
    old = torch.log_softmax(_wide(old_scores.detach()[selected]), dim=-1)
    return ((old.exp() * (old - new)).sum() / max(count, 1)).to(scores.dtype)


def _wide(values: Tensor) -> Tensor:
    """In double precision, where the device has it: small drifts cancel, and means must not depend on order."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)
