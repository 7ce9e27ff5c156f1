"""The two packaged networks, run by onnxruntime, the large one in tiles. It must not know words.

Only ONNX is read: a graph and numbers, nothing that can be executed (no pickle, no torch). A place that nothing is said
of is never computed, and comes out as it went in.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from restore_bridge.restorers.compact.condition import Floats
from restore_bridge.restorers.compact.tone import quantiles_of, thumbnail_of
from restore_bridge.tiling import plan_tiles, tile_weights

STRIDE = 8
"""Sides of what the detail network sees are multiples of it; also the grid of JPEG, which so keeps its place in a tile."""  # noqa: E501

MARGIN = 32
"""Pixels at a tile's inner edges that count for nothing."""


@cache
def _session(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def packaged(name: str) -> Path:
    """The packaged file `name`."""
    return Path(str(files("restore_bridge.restorers.compact") / "data" / name))


class Networks:
    """The detail and the tone network of one folder.

    Args:
        folder: Where `detail.onnx` and `tone.onnx` lie; the packaged ones without it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def _run(self, name: str, **inputs: Floats) -> Floats:
        path = self._folder / name if self._folder else packaged(name)
        return np.asarray(_session(str(path)).run(None, inputs)[0], np.float32)

    def curve(self, pixels: Floats, strength: float) -> Floats:
        """The tone curve (see `apply_curve`) for H×W×3 RGB 0..1 that is called dark with a word of `strength`."""
        thumbnail = thumbnail_of(pixels)[None]
        told = np.full((1, 1), strength, np.float32)
        return np.asarray(self._run("tone.onnx", thumbnail=thumbnail, quantiles=quantiles_of(thumbnail), told=told)[0])

    def detail(self, pixels: Floats, guess: Floats, condition: Floats, *, tile: int, overlap: int) -> Floats:
        """Repair detail where `condition` names a flaw.

        Args:
            pixels: H×W×3 RGB 0..1.
            guess: The same with round blur undone (see `first_guess`).
            condition: len(CHANNELS)×H×W, 0..1 (see `condition_maps`).
            tile: Side of a tile; rounded down to a multiple of `STRIDE`.
            overlap: What neighbours share.

        Returns:
            H×W×3, 0..1, equal to `pixels` wherever the condition is 0.
        """
        height, width = pixels.shape[:2]
        tile = max(STRIDE, tile // STRIDE * STRIDE)
        overlap = min(overlap, tile - STRIDE)
        grid = (-(-width // STRIDE) * STRIDE, -(-height // STRIDE) * STRIDE)
        plan = plan_tiles(grid, tile, overlap, margin=min(MARGIN, overlap // 2), align=STRIDE, is_snug=True)
        result, total = np.zeros_like(pixels), np.zeros((height, width, 1), np.float32)
        for box in plan.boxes:
            inside = (slice(box.y1, min(box.y2, height)), slice(box.x1, min(box.x2, width)))
            part, told = pixels[inside], condition[:, inside[0], inside[1]]
            made = self._tile(part, guess[inside], told) if told.any() else part
            weight = tile_weights(plan, box)[: part.shape[0], : part.shape[1], None]
            result[inside] += weight * (made - part)
            total[inside] += weight
        result /= total
        result += pixels
        return np.asarray(np.clip(result, 0, 1, out=result), np.float32)

    def _tile(self, part: Floats, guess: Floats, told: Floats) -> Floats:
        height, width = part.shape[:2]
        beyond = ((0, 0), (0, -height % STRIDE), (0, -width % STRIDE))

        def whole(planes: Floats) -> Floats:
            return np.pad(planes, beyond, mode="edge")[None]

        made = self._run(
            "detail.onnx",
            pixels=whole(part.transpose(2, 0, 1)),
            guess=whole(guess.transpose(2, 0, 1)),
            condition=whole(told),
        )[0]
        return np.ascontiguousarray(made[:, :height, :width].transpose(1, 2, 0))
