"""The clipped GRPO objective with validity mask. Zoom-IQA Sec. 10.2, Eq. 7, as a loss to be minimised.

For trajectory k, the mean over its valid tokens of min(r·Â, clip(r, 1 - ε, 1 + ε)·Â); over trajectories, the mean.
Valid are tokens that the model generated: 1 in `<think>` and `<answer>`, 0 in prompts, crops and padding.

Choices:

- A trajectory may be several training rows (a rewritten later look is a row of its own). 1 / Σ V of Eq. 7 counts the
  valid tokens of **all** rows of the trajectory: rows of one trajectory share one mean, not one each.
- ε = 0.2 (GRPO's usual figure; the paper gives none). `clip_high` allows more upwards (DAPO); default is the same.
- The β of Eq. 7 belongs to KL-Coverage (`training.objectives.coverage`). A KL to a reference model is an option, off by
  default; its estimator is GRPO's, q - 1 - log q with q = π_ref / π, averaged as the objective is.
- Log-ratios are held within ±20, so that no token makes an infinity; nothing within a trust region is near that.

It must not know where advantages come from, nor what a token means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoomiqa.errors import OptionInvalid

CLIP = 0.2
LOG_RATIO_LIMIT = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class ClippedLoss:
    """The share of one micro-batch in the loss of the optimizer batch, and what it was made of (without gradient)."""

    loss: Tensor
    """Scalar; the parts add up."""

    tokens: int
    """Valid tokens here."""

    clipped: int
    """Of these, the ones whose advantage pushes them further out of the clipping range: they get no gradient."""

    reference_kl: float
    """This part's share of the mean KL to the reference; 0 without one."""


def trajectory_tokens(valid: Tensor, trajectories: Tensor) -> Tensor:
    """Σ V of Eq. 7 for each row: the valid tokens of all rows of its trajectory.

    Args:
        valid: (rows, T) 1 for generated tokens.
        trajectories: (rows,) integers, equal for rows of one trajectory. Hand in whole trajectories.

    Returns:
        (rows,) integers. Row tensors of this kind survive shuffling and splitting.
    """
    _, place = torch.unique(trajectories, return_inverse=True)
    counts = valid.bool().sum(1)
    return counts.new_zeros(len(counts)).index_add(0, place, counts)[place]


def trajectory_share(valid: Tensor, tokens_of_trajectory: Tensor) -> float:
    """How many trajectories these rows are, by their valid tokens: a whole number where all rows of each are here.

    Summed over the optimizer batch it is what `clipped_loss` divides by. A trajectory without a token counts nothing.
    """
    share = valid.bool().sum(1).double() / tokens_of_trajectory.clamp(min=1)
    return float(share.sum())


def clipped_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    valid: Tensor,
    tokens_of_trajectory: Tensor,
    trajectories: float,
    *,
    clip: float = CLIP,
    clip_high: float | None = None,
    reference_log_probs: Tensor | None = None,
    reference_weight: float = 0.0,
) -> ClippedLoss:
    """Eq. 7 without its regulariser, negated, for one micro-batch.

    Args:
        log_probs: (rows, T) of the tokens under the policy that is trained.
        old_log_probs: (rows, T) under the policy that drew them.
        advantages: (rows,) or (rows, T).
        valid: (rows, T) 1 for generated tokens, 0 for prompt, tool output and padding. Whatever stands elsewhere
            (infinities of padding too) reaches neither value nor gradient.
        tokens_of_trajectory: (rows,) from `trajectory_tokens`.
        trajectories: Trajectories in the whole optimizer batch: the sum of `trajectory_share` over its parts.
        clip: ε, below.
        clip_high: ε above; that below where `None`.
        reference_log_probs: (rows, T) under the reference model; needed with a weight.
        reference_weight: Weight of the KL to it.

    Raises:
        OptionInvalid: an option is outside its range.
    """
    upper = clip if clip_high is None else clip_high
    if not (0 <= clip < 1 and upper >= 0):
        raise OptionInvalid("the clipping range must lie in 0..1", (clip, upper), f"{CLIP:g} is the default")
    if not trajectories > 0:
        raise OptionInvalid("the optimizer batch must hold a trajectory", trajectories, "leave out empty batches")
    if reference_weight < 0 or (reference_weight > 0 and reference_log_probs is None):
        raise OptionInvalid(
            "a KL to the reference needs its log-probabilities and a weight above 0", reference_weight, "give both"
        )
    mask = valid.bool()
    advantage = (advantages if advantages.ndim == 2 else advantages[:, None]).detach()
    ratio = _log_ratio(log_probs, old_log_probs.detach(), mask).exp()
    bounded = ratio.clamp(1 - clip, 1 + upper)
    objective = torch.minimum(ratio * advantage, bounded * advantage)
    clipped = mask & (bounded * advantage < ratio * advantage)

    each = 1 / (tokens_of_trajectory.clamp(min=1).to(log_probs.dtype) * trajectories)[:, None]
    loss = -_masked_sum(objective * each, mask)
    kl = 0.0
    if reference_weight > 0 and reference_log_probs is not None:
        away = _log_ratio(reference_log_probs.detach(), log_probs, mask)
        reference_kl = _masked_sum((torch.expm1(away) - away) * each, mask)
        loss = loss + reference_weight * reference_kl
        kl = float(reference_kl.detach())
    return ClippedLoss(loss, int(mask.sum()), int(clipped.sum()), kl)


def _log_ratio(log_probs: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """log_probs - others where `mask` is set, within ±20, and 0 elsewhere; nothing outside the mask has a gradient."""
    difference = torch.where(mask, log_probs, 0.0) - torch.where(mask, others.to(log_probs.dtype), 0.0)
    return difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum()
