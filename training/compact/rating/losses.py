"""What the rating network is taught by. It must not know where the pictures come from.

Ratings are on 1..5. The rank loss is Thurstone's model as UNIQUE uses it (Zhang et al., IEEE TIP 2021): the chance
that one picture is the better one, by the normal law, against the chance that the scores give; pairs are formed inside
one data set only, as scores of two sets cannot be compared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

RATERS_DEVIATION = 0.35
"""Of a mean opinion score, in rating points: what two scores must differ by to tell two pictures apart."""

RANK_SCALE = 0.5
"""Of a difference of ratings in the rank loss."""

BEND = 0.3
"""Rating points from which the regression loss grows linearly."""


def regression(rating: Tensor, score: Tensor) -> Tensor:
    """Huber's loss, per picture."""
    return functional.smooth_l1_loss(rating, score, beta=BEND, reduction="none")


def ranking(rating: Tensor, score: Tensor, group: Tensor, *, other_groups: float) -> Tensor:
    """Mean over the pairs of one data set.

    Args:
        rating: N ratings.
        score: N scores.
        group: N numbers of subsets.
        other_groups: Weight of a pair from two subsets of the set; 1 within a subset.
    """
    first, second = torch.triu_indices(len(rating), len(rating), 1)
    known = 0.5 * (1 + torch.erf((score[first] - score[second]) / (2 * RATERS_DEVIATION)))
    said = (rating[first] - rating[second]) / RANK_SCALE
    weight = torch.where(group[first] == group[second], 1.0, other_groups)
    loss = functional.binary_cross_entropy_with_logits(said, known, reduction="none")
    return (weight * loss).sum() / weight.sum()


def disagreement(rating: Tensor, score: Tensor) -> Tensor:
    """Half of one less the linear correlation over the batch."""
    a, b = rating - rating.mean(), score - score.mean()
    return 0.5 * (1 - (a * b).sum() / torch.sqrt((a * a).sum() * (b * b).sum() + 1e-6))


def likelihood(spread: Tensor, error: Tensor) -> Tensor:
    """Negative log likelihood of absolute errors under a Laplace law of mean absolute error `spread`."""
    return error / spread + spread.log()


def order(better: Tensor, worse: Tensor, sureness: float = 0.97) -> Tensor:
    """Cross entropy of "the better one is rated higher", per pair."""
    target = torch.full_like(better, sureness)
    return functional.binary_cross_entropy_with_logits((better - worse) / RANK_SCALE, target, reduction="none")


def lowered(value: Tensor, source: Tensor, share: Tensor) -> Tensor:
    """Huber's loss against the source's own value (not trained by it) with a share of what is above 1 left."""
    return regression(value, 1 + (source.detach() - 1) * share)


def inside_worse(source: Tensor, changed: Tensor, mask: Tensor) -> Tensor:
    """ "The map fell more inside the changed place than outside", per picture with such a place.

    Args:
        source: N x h x w map of the source.
        changed: The same of the changed picture.
        mask: N x h x w share of each cell that was changed.
    """
    fall = source.detach() - changed
    outside = 1 - mask
    inner = (fall * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1e-3)
    outer = (fall * outside).sum((1, 2)) / outside.sum((1, 2)).clamp(min=1e-3)
    return functional.softplus(-(inner - outer - 0.3) / RANK_SCALE) / math.log(2)
