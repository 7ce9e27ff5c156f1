"""From trained weights to the shipped ONNX file, and the check that both say the same. It must not train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from zoomiqa.assessors.compact.features import HANDMADE_COUNT, measured_features
from zoomiqa.assessors.compact.network import INPUTS, OUTPUTS
from zoomiqa.assessors.compact.network import RatingNetwork as Runtime

from ..files import write_halved  # noqa: TID252 - in a wheel it is zoomiqa.training
from .network import RatingNetwork

ALLOWED = 0.02
"""Largest difference in rating points that half precision may make."""

STORED_AS_IS = 128
"""Tensors with fewer values keep single precision."""


def export(network: RatingNetwork, path: Path) -> None:
    """Write the network as one ONNX file."""
    examples = {
        "pixels": torch.zeros(1, 96, 128, 3, dtype=torch.uint8),
        "measured": torch.zeros(1, HANDMADE_COUNT),
    }
    free = {"pixels": {0: "n", 1: "h", 2: "w"}, "measured": {0: "n"}}
    free |= {name: {0: "n"} for name in OUTPUTS} | {name: {0: "n", 1: "y", 2: "x"} for name in ("quality", "weight")}
    write_halved(path, network, {name: examples[name] for name in INPUTS}, OUTPUTS, free, smallest=STORED_AS_IS)


def difference(network: RatingNetwork, path: Path, pictures: list[NDArray[np.uint8]]) -> float:
    """Largest difference of a rating between the trained network and the file, in rating points."""
    runtime, worst = Runtime(path), 0.0
    for picture in pictures:
        with torch.inference_mode():
            measured = torch.from_numpy(measured_features(picture)[None])
            expected = float(network(torch.from_numpy(picture[None].copy()), measured)[0])
        worst = max(worst, abs(runtime.look(picture).rating.value - min(max(expected, 1.0), 5.0)))
    return worst
