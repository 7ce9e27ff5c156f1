"""The rating network: a frozen backbone, and trained heads for rating, spread, attributes and map.

Pixels enter as ``N x H x W x 3`` uint8 with sides that are multiples of 32, with the hand-made features of the same
picture (`zoomiqa.assessors.compact.features.measured_features`). The backbone keeps its ImageNet weights. Its lower
five stages, the trunk, give the means and deviations of their channels in every cell of 32 pixels, as those tell noise,
grain and sharpness; the upper two give their channels, which tell what is shown. Heads read both; what they say of the
picture as a whole also follows the hand-made features, which tell deliberate degradations better. Most of what
describes the whole is hidden by chance in training (dropout), as 3,600 scores are few.

The rating is the mean of a quality for each cell, weighted by what the network learned to look at, plus one term for
the picture as a whole. The map is the quality of each cell plus the same term, so that its weighted mean *is* the
rating and a cell worse than the rest stands out. It must not know where pictures or scores come from.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoomiqa.assessors.compact.features import HANDMADE_COUNT
from zoomiqa.assessors.compact.network import OUTPUTS

from .backbone import MEAN, SCALE, STAGES, Backbone

CELL = 32
"""Pixels of a cell of the map."""

ATTRIBUTES = ("sharpness", "color_fidelity", "noise", "exposure")
"""What is rated beside the whole, 1..5 with 5 best; "noise" counts compression, "exposure" counts contrast and veil."""

TRUNK_STAGES = 5
TRUNK_WIDTH = STAGES[TRUNK_STAGES - 1].width
TRUNK_STRIDE = 16
STATISTICS = 2 * sum(stage.width for stage in STAGES[:TRUNK_STAGES])
LOCAL = STATISTICS + sum(stage.width for stage in STAGES[TRUNK_STAGES:])
WHOLE = 2 * LOCAL + HANDMADE_COUNT
"""What describes a picture: means and deviations of the local features over its cells, and the hand-made features."""

HIDDEN = 96
LARGEST, LARGEST_WHOLE = 6.0, 4.0
"""Deviations from the mean at which a standardised feature is cut: of a cell, of the whole."""

HIDDEN_WHOLE, HIDDEN_INSIDE = 0.6, 0.5
"""Shares that dropout hides: of what describes the whole, of the hidden layers."""

DOUBTS = 4
"""What the spread follows: the rating, its square, how uneven the map is, how unusual the features are."""

MIDDLE, HALF_RANGE = 3.0, 2.0
"""Of the scale 1..5."""


class Trunk(nn.Module):
    """Pixels to the last map of the frozen stages and cell statistics of them all."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.stem, self.stages = backbone.stem, backbone.stages[:TRUNK_STAGES]
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """``N x H x W x 3`` uint8 to ``N x 112 x H/16 x W/16`` and ``N x 544 x H/32 x W/32``."""
        x = (pixels.permute(0, 3, 1, 2).float() - MEAN) / SCALE
        x = self.stem(x)
        statistics, side = [], CELL // 2
        for stage, shape in zip(self.stages, STAGES, strict=False):
            x, side = stage(x), side // shape.stride
            mean = functional.avg_pool2d(x, side)
            square = functional.avg_pool2d(x * x, side)
            statistics += [mean, torch.sqrt(functional.relu(square - mean * mean) + 1e-4)]
        return x, torch.cat(statistics, 1)


class Outcome(NamedTuple):
    """What the network says of a batch."""

    rating: Tensor
    """N, about 1..5."""

    spread: Tensor
    """N, expected absolute error in rating points, above 0."""

    attributes: Tensor
    """N x 4 in 1..5, in the order of `ATTRIBUTES`."""

    quality: Tensor
    """N x H/32 x W/32: the map, on the scale of the rating."""

    weight: Tensor
    """N x H/32 x W/32: share of each cell in the rating; sums to 1."""

    shown: Tensor
    """N x LOCAL: the standardised local features in the mean, which tell what the picture shows and in which light."""

    doubts: Tensor
    """N x DOUBTS: what the spread follows."""


class Heads(nn.Module):
    """From local and hand-made features to the outcome."""

    def __init__(self) -> None:
        super().__init__()
        for name, width in (("", LOCAL), ("whole_", WHOLE)):
            self.register_buffer(f"{name}mean", torch.zeros(width))
            self.register_buffer(f"{name}scale", torch.ones(width))
        self.local = nn.Linear(LOCAL, HIDDEN)
        self.cell = nn.Linear(HIDDEN, 2)
        self.whole = nn.Linear(WHOLE, HIDDEN)
        self.term = nn.Linear(HIDDEN, 1)
        self.error = nn.Linear(DOUBTS, 1)
        self.attribute = nn.Sequential(nn.Linear(WHOLE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(ATTRIBUTES)))
        self.error.requires_grad_(False)
        self.hide_whole, self.hide_inside = nn.Dropout(HIDDEN_WHOLE), nn.Dropout(HIDDEN_INSIDE)
        with torch.no_grad():
            self.cell.weight.mul_(0.3)
            self.term.weight.mul_(0.3)
            self.error.weight.zero_()
            self.error.bias.fill_(-1.1)

    def standardise(self, features: Tensor) -> Tensor:
        """``N x LOCAL x h x w`` to standardised cells ``N x hw x LOCAL``."""
        count, channels, height, width = features.shape
        cells = features.permute(0, 2, 3, 1).reshape(count, height * width, channels)
        return ((cells - self.mean) / self.scale).clamp(-LARGEST, LARGEST)

    @staticmethod
    def gather(cells: Tensor, measured: Tensor) -> Tensor:
        """What describes the whole, ``N x WHOLE``, before it is standardised."""
        mean = cells.mean(1)
        deviation = torch.sqrt(((cells - mean[:, None]) ** 2).mean(1) + 1e-4)
        return torch.cat([mean, deviation, measured], 1)

    def describe(self, features: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
        """Local features ``N x LOCAL x h x w`` and hand-made ones to cells and what describes the whole."""
        cells = self.standardise(features)
        whole = (self.gather(cells, measured) - self.whole_mean) / self.whole_scale
        return cells, whole.clamp(-LARGEST_WHOLE, LARGEST_WHOLE)

    def judge(self, cells: Tensor, whole: Tensor) -> Outcome:
        """Cells (all of a picture, or some) and what describes the whole to the outcome, maps as ``N x cells``."""
        unusual = whole[:, 2 * LOCAL :].abs().mean(1)
        whole = self.hide_whole(whole)
        term = self.term(self.hide_inside(functional.relu(self.whole(whole))))
        local = self.cell(self.hide_inside(functional.relu(self.local(cells))))
        quality = MIDDLE + HALF_RANGE * (0.5 * local[..., 0] + term)
        weight = torch.softmax(local[..., 1], 1)
        rating = (weight * quality).sum(1)
        uneven = torch.sqrt((weight * (quality - rating[:, None]) ** 2).sum(1) + 1e-4)
        level = (rating - MIDDLE) / HALF_RANGE
        doubts = torch.stack([level, level * level, uneven, unusual], 1).detach()
        attributes = MIDDLE + HALF_RANGE * torch.tanh(self.attribute(whole))
        return Outcome(rating, self.spread(doubts), attributes, quality, weight, cells.mean(1), doubts)

    def spread(self, doubts: Tensor) -> Tensor:
        """``N x DOUBTS`` to expected absolute errors."""
        return functional.softplus(self.error(doubts))[:, 0] + 0.05

    def forward(self, features: Tensor, measured: Tensor) -> Outcome:
        """Local and hand-made features to the outcome."""
        out = self.judge(*self.describe(features, measured))
        shape = (features.shape[0], features.shape[2], features.shape[3])
        return out._replace(quality=out.quality.reshape(shape), weight=out.weight.reshape(shape))


class Upper(nn.Module):
    """From the trunk's maps to the outcome: the last two stages, which stay as they are, and the heads."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.stages = backbone.stages[TRUNK_STAGES:]
        self.heads = Heads()
        self.stages.requires_grad_(False)

    def features(self, maps: Tensor, statistics: Tensor) -> Tensor:
        """The trunk's maps to local features, ``N x LOCAL x H/32 x W/32``."""
        found, x = [statistics], maps
        for stage in self.stages:
            x = stage(x)
            found.append(x.float())
        return torch.cat(found, 1)

    def forward(self, maps: Tensor, statistics: Tensor, measured: Tensor) -> Outcome:
        """The trunk's maps and hand-made features to the outcome."""
        return self.heads(self.features(maps, statistics), measured)  # type: ignore[no-any-return]


class RatingNetwork(nn.Module):
    """Pixels to the outcome; what is exported."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.trunk, self.upper = Trunk(backbone), Upper(backbone)

    def forward(self, pixels: Tensor, measured: Tensor) -> tuple[Tensor, ...]:
        """``N x H x W x 3`` uint8 and ``N x HANDMADE_COUNT`` to the parts of an `Outcome`, less its doubts."""
        return tuple(self.upper(*self.trunk(pixels), measured))[: len(OUTPUTS)]
