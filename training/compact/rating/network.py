"""The rating network: a frozen backbone, and trained heads for rating, spread, attributes and map.

Pixels enter as ``N x H x W x 3`` uint8 with sides that are multiples of 32. The backbone keeps its ImageNet weights.
Its lower five stages, the trunk, give the means and deviations of their channels in every cell of 32 pixels, as those
tell noise, grain and sharpness; the upper two give their channels, which tell what is shown. Heads read both.

The rating is the mean of a quality for each cell, weighted by what the network learned to look at, plus one term for
the picture as a whole. The map is the quality of each cell plus the same term, so that its weighted mean *is* the
rating and a cell worse than the rest stands out. It must not know where pictures or scores come from.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

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
HIDDEN = 96
LARGEST = 6.0
"""Deviations from the mean at which a standardised feature is cut."""

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


class Heads(nn.Module):
    """From local features to the outcome."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(LOCAL))
        self.register_buffer("scale", torch.ones(LOCAL))
        self.local = nn.Linear(LOCAL, HIDDEN)
        self.cell = nn.Linear(HIDDEN, 2)
        self.whole = nn.Linear(2 * LOCAL, HIDDEN)
        self.term = nn.Linear(HIDDEN, 1)
        self.error = nn.Linear(HIDDEN + 2, 1)
        self.attribute = nn.Sequential(nn.Linear(2 * LOCAL, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(ATTRIBUTES)))
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.cell.weight.mul_(0.3)
            self.term.weight.mul_(0.3)
            self.error.bias.fill_(-1.1)

    def describe(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``N x LOCAL x h x w`` to standardised cells ``N x hw x LOCAL``, and their means and deviations."""
        count, channels, height, width = features.shape
        cells = features.permute(0, 2, 3, 1).reshape(count, height * width, channels)
        cells = ((cells - self.mean) / self.scale).clamp(-LARGEST, LARGEST)
        mean = cells.mean(1)
        deviation = torch.sqrt(((cells - mean[:, None]) ** 2).mean(1) + 1e-4)
        return cells, torch.cat([mean, deviation], 1)

    def judge(self, cells: Tensor, whole: Tensor) -> Outcome:
        """Cells (all of a picture, or some) and what describes the whole to the outcome, maps as ``N x cells``."""
        whole = self.dropout(whole)
        hidden = self.dropout(functional.relu(self.whole(whole)))
        term = self.term(hidden)
        local = self.cell(self.dropout(functional.relu(self.local(cells))))
        quality = MIDDLE + HALF_RANGE * (0.5 * local[..., 0] + term)
        weight = torch.softmax(local[..., 1], 1)
        rating = (weight * quality).sum(1)
        uneven = torch.sqrt((weight * (quality - rating[:, None]) ** 2).sum(1) + 1e-4)
        seen = torch.stack([(rating - MIDDLE) / HALF_RANGE, uneven], 1).detach()
        spread = functional.softplus(self.error(torch.cat([hidden.detach(), seen], 1)))[:, 0] + 0.05
        attributes = MIDDLE + HALF_RANGE * torch.tanh(self.attribute(whole))
        return Outcome(rating, spread, attributes, quality, weight)

    def forward(self, features: Tensor) -> Outcome:
        """``N x LOCAL x h x w`` to the outcome."""
        out = self.judge(*self.describe(features))
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

    def forward(self, maps: Tensor, statistics: Tensor) -> Outcome:
        """The trunk's maps to the outcome."""
        return self.heads(self.features(maps, statistics))  # type: ignore[no-any-return]


class RatingNetwork(nn.Module):
    """Pixels to the outcome; what is exported."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.trunk, self.upper = Trunk(backbone), Upper(backbone)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``N x H x W x 3`` uint8 to the parts of an `Outcome`."""
        return tuple(self.upper(*self.trunk(pixels)))
