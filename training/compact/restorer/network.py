"""The two networks: detail (a U-Net steered by condition maps) and tone (a curve from a thumbnail). No data, no files.

Detail: pixel-unshuffle by 2, three scales of plain residual blocks (EDSR's, without normalisation), each shifted before
its activation by a 1x1 convolution of the condition, which is FiLM without the factor (Perez et al., AAAI 2018). What
comes out is the first guess plus a residual, which is multiplied by the presence of the condition: where nothing is
named the output **is** the input.

Tone: a gain and an exponent in linear light from a thumbnail, the quantiles of its channels, and the word of strength.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from restore_bridge.restorers.compact.condition import CHANNELS, FULL
from restore_bridge.restorers.compact.tone import QUANTILES

WIDTHS = (48, 96, 128)
BLOCKS = (1, 2, 3)
"""Residual blocks on the way down at the first two scales (as many on the way up), and at the third."""

STRIDE = 8
"""Sides of the detail network's input are multiples of it."""


class Block(nn.Module):  # type: ignore[misc]
    """x + conv(relu(conv(x) + shift(condition)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.shift = nn.Conv2d(len(CHANNELS), width, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x) + self.shift(condition)))


class DetailNet(nn.Module):  # type: ignore[misc]
    """RGB 0..1 and a first guess of what it should be (both N×3×H×W), and a condition (N×len(CHANNELS)×H×W, 0..1) →
    RGB, not clipped. H, W: multiples of `STRIDE`.
    """

    def __init__(self, widths: tuple[int, int, int] = WIDTHS, blocks: tuple[int, int, int] = BLOCKS) -> None:
        super().__init__()
        near, middle, far = widths
        self.enter = nn.Conv2d(24 + len(CHANNELS), near, 3, padding=1)
        self.down = nn.ModuleList((nn.Conv2d(near, middle, 2, stride=2), nn.Conv2d(middle, far, 2, stride=2)))
        self.before = nn.ModuleList(
            nn.ModuleList(Block(width) for _ in range(count)) for width, count in zip(widths, blocks, strict=True)
        )
        self.up = nn.ModuleList((nn.Conv2d(middle, 4 * near, 1), nn.Conv2d(far, 4 * middle, 1)))
        self.after = nn.ModuleList(
            nn.ModuleList(Block(width) for _ in range(count))
            for width, count in zip(widths[:2], blocks[:2], strict=True)
        )
        self.leave = nn.Conv2d(near, 12, 3, padding=1)
        with torch.no_grad():
            self.leave.weight.mul_(0.1)

    def forward(self, pixels: Tensor, guess: Tensor, condition: Tensor) -> Tensor:
        told = [functional.avg_pool2d(condition, 2)]
        told += [functional.avg_pool2d(told[-1], 2)]
        told += [functional.avg_pool2d(told[-1], 2)]
        seen = functional.pixel_unshuffle(torch.cat((pixels - 0.5, guess - pixels), 1), 2)
        x = self.enter(torch.cat((seen, told[0]), 1))
        kept = []
        for scale, group in enumerate(self.before):
            for block in group:
                x = block(x, told[scale])
            if scale < 2:
                kept.append(x)
                x = self.down[scale](x)
        for scale in (1, 0):
            x = kept[scale] + functional.pixel_shuffle(self.up[scale](x), 2)
            for block in self.after[scale]:
                x = block(x, told[scale])
        residual = functional.pixel_shuffle(self.leave(x), 2)
        presence = torch.clamp(condition.amax(1, keepdim=True) / FULL, 0, 1)
        return guess + presence * residual


class ToneNet(nn.Module):  # type: ignore[misc]
    """(thumbnail N×3×48×48 in 0..1, quantiles N×51, strength N×1) → N×2: logarithms of gain and exponent."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 3 * width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.judge = nn.Sequential(
            nn.Linear(6 * width + 3 * len(QUANTILES) + 1, 128),
            nn.ReLU(),
            nn.Linear(128, 96),
            nn.ReLU(),
            nn.Linear(96, 2),
        )

    def forward(self, thumbnail: Tensor, quantiles: Tensor, told: Tensor) -> Tensor:
        seen = self.look(thumbnail - 0.5)
        whole = torch.cat((seen.mean((2, 3)), seen.amax((2, 3)), quantiles, told), 1)
        return torch.as_tensor(self.judge(whole))
