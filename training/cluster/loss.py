"""The loss of a micro-batch in a worker: the clipped objective and KL-Coverage, from row tensors of `updates`.

Zoom-IQA Eq. 7 through `training.objectives`; nothing is computed here but their sum. verl adds the micro-batches of an
update and averages over data-parallel processes, so the loss is multiplied by their number. It must not know rewards,
nor how tokens were selected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..grpo.loss import LossSettings  # noqa: TID252
from ..objectives.coverage import penalty  # noqa: TID252
from ..objectives.grpo import clipped_loss  # noqa: TID252

SELECTED, TOKENS, TRAJECTORIES, COUNT = (
    "zoomiqa_selected",
    "zoomiqa_tokens",
    "zoomiqa_trajectories",
    "zoomiqa_selected_count",
)
"""Names, in verl's batch, of `updates.Prepared`'s selected, tokens, trajectories and selected_count."""

_FIELDS = ("response_mask", "old_log_probs", "advantages", SELECTED, TOKENS, TRAJECTORIES, COUNT)
_REFERENCE = "ref_log_prob"


def policy_loss(
    log_probs: Tensor, data: Mapping[str, Tensor], settings: LossSettings
) -> tuple[Tensor, dict[str, float]]:
    """One micro-batch's share of its update's loss; the shares add up, over processes too.

    Args:
        log_probs: (rows, T) of the replies' tokens under the policy that is trained, with gradient.
        data: (rows, T) or (rows,) under the names above; the reference's log-probabilities where it has a weight.
        settings: Of the loss.

    Returns:
        A scalar, and its parts: shares of the mean over the update, except `clipped_share`, of these tokens.
    """
    valid, old = data["response_mask"].bool(), data["old_log_probs"]
    clipped = clipped_loss(
        log_probs,
        old,
        data["advantages"],
        valid,
        data[TOKENS],
        float(data[TRAJECTORIES].max()),
        clip=settings.clip,
        clip_high=settings.clip_high,
        reference_log_probs=data[_REFERENCE] if settings.reference_weight > 0 else None,
        reference_weight=settings.reference_weight,
    )
    regulariser = penalty(log_probs, old, data[SELECTED].bool() & valid, int(data[COUNT].max()))
    figures = {
        "pg_loss": float(clipped.loss.detach()),
        "kl_coverage": float(regulariser.detach()),
        "reference_kl": clipped.reference_kl,
        "clipped_share": clipped.clipped / max(clipped.tokens, 1),
    }
    return clipped.loss + settings.coverage.weight * regulariser, figures


def verl_loss(
    model_output: Mapping[str, Any],
    data: Any,
    dp_group: Any = None,  # noqa: ARG001
    *,
    settings: LossSettings,
) -> tuple[Tensor, dict[str, Any]]:
    """`policy_loss` in the form that verl's engines call (`set_loss_fn`).

    Args:
        model_output: `log_probs` of all tokens, without padding.
        data: verl's `TensorDict` of a micro-batch, replies without padding.
        dp_group: Not needed: what is decided over processes was decided by the controller.
        settings: Of the loss; bound with `functools.partial`.
    """
    from verl.utils.metric import AggregationType, Metric
    from verl.workers.utils.padding import no_padding_2_padding

    log_probs = no_padding_2_padding(model_output["log_probs"], data)
    names = (*_FIELDS, _REFERENCE) if settings.reference_weight > 0 else _FIELDS
    loss, figures = policy_loss(log_probs, data.select(*names).to_padded_tensor(), settings)
    copies = data["dp_size"]
    metrics = {
        # verl averages a metric over processes: what adds up is multiplied first, like the loss.
        name: Metric(AggregationType.SUM, value * copies)
        if name != "clipped_share"
        else Metric(AggregationType.MEAN, value)
        for name, value in figures.items()
    }
    return loss * copies, metrics
