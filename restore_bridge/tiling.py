"""Large pictures in tiles: a plan of overlapping tiles, and weights that sum to one. It must not know what is done in a tile."""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Box

Blend = Literal["linear", "gaussian"]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Tiles that cover a picture; neighbours share at least `overlap` pixels."""

    size: tuple[int, int]
    """(width, height) of the picture."""

    tile: int
    overlap: int
    boxes: tuple[Box, ...]
    """Row by row. All have the same size, unless the picture is smaller than a tile."""


def plan_tiles(size: tuple[int, int], tile: int, overlap: int) -> TilePlan:
    """Cover `size` (width, height) with tiles of side `tile`; the last of a row or column moves back to fit.

    Raises:
        OptionInvalid: a tile below 1, or an overlap that is negative or not smaller than the tile.
    """
    if tile < 1 or not 0 <= overlap < tile:
        raise OptionInvalid("tiles need tile >= 1 and 0 <= overlap < tile", (tile, overlap), "choose a larger tile")
    columns, rows = _starts(size[0], tile, overlap), _starts(size[1], tile, overlap)
    boxes = tuple(Box(x, y, min(x + tile, size[0]), min(y + tile, size[1])) for y in rows for x in columns)
    return TilePlan(size, tile, overlap, boxes)


def tile_weights(plan: TilePlan, box: Box, blend: Blend = "linear", scale: int = 1) -> Floats:
    """Unnormalised weights (height, width) of `box`: high inside, low towards edges that it shares with a neighbour.

    Edges on the picture's border do not fall off, so a single tile weighs 1 everywhere (linear).
    """
    width, height = plan.size
    return np.outer(
        _ramp(box.y1, box.y2, height, plan.overlap, blend, scale),
        _ramp(box.x1, box.x2, width, plan.overlap, blend, scale),
    ).astype(np.float32)


def normalised_weights(plan: TilePlan, blend: Blend = "linear", scale: int = 1) -> list[Floats]:
    """Weights of every tile, which sum to 1 at every pixel."""
    total = np.zeros((plan.size[1] * scale, plan.size[0] * scale), np.float64)
    weights = [tile_weights(plan, box, blend, scale) for box in plan.boxes]
    for box, weight in zip(plan.boxes, weights, strict=True):
        total[_slices(box, scale)] += weight
    return [
        (weight / total[_slices(box, scale)]).astype(np.float32)
        for box, weight in zip(plan.boxes, weights, strict=True)
    ]


def run_tiled(
    pixels: NDArray[np.uint8],
    work: Callable[[NDArray[np.uint8]], np.ndarray],
    *,
    tile: int,
    overlap: int,
    scale: int = 1,
    blend: Blend = "linear",
) -> NDArray[np.uint8]:
    """Apply `work` tile by tile and blend.

    Args:
        pixels: H×W×3 uint8.
        work: Tile (h, w, 3) uint8 → (h·scale, w·scale, 3), uint8 or float 0..255.
        scale: Factor of width and height that `work` gives.

    Returns:
        (H·scale)×(W·scale)×3 uint8; exactly what `work` gives where it treats every pixel alike.

    Raises:
        OptionInvalid: `work` gave another size.
    """
    height, width = pixels.shape[:2]
    plan = plan_tiles((width, height), tile, overlap)
    total = np.zeros((height * scale, width * scale, 3), np.float64)
    weights = np.zeros((height * scale, width * scale, 1), np.float64)
    for box in plan.boxes:
        result = np.asarray(work(np.ascontiguousarray(pixels[box.y1 : box.y2, box.x1 : box.x2])))
        expected = (box.height * scale, box.width * scale, 3)
        if result.shape != expected:
            raise OptionInvalid(f"a tile's result must have shape {expected}", result.shape, "check the scale")
        weight = tile_weights(plan, box, blend, scale)[:, :, None]
        total[_slices(box, scale)] += result * weight.astype(np.float64)
        weights[_slices(box, scale)] += weight
    return np.clip(np.rint(total / weights), 0, 255).astype(np.uint8)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def _ramp(start: int, stop: int, length: int, overlap: int, blend: Blend, scale: int) -> np.ndarray:
    count = (stop - start) * scale
    place = np.arange(count) + 0.5
    if blend == "gaussian":
        middle, sigma = count / 2, count * GAUSSIAN_WIDTH
        return np.asarray(np.exp(-((place - middle) ** 2) / (2 * sigma**2)) + 1e-3)
    reach = max(overlap * scale, 1)
    ramp = np.ones(count)
    if start > 0:
        ramp = np.minimum(ramp, place / reach)
    if stop < length:
        ramp = np.minimum(ramp, (count - place) / reach)
    return np.clip(ramp, 1e-3, 1)


GAUSSIAN_WIDTH = 0.25
"""Standard deviation of the Gaussian blend, as a share of the tile."""


def _slices(box: Box, scale: int) -> tuple[slice, slice]:
    return slice(box.y1 * scale, box.y2 * scale), slice(box.x1 * scale, box.x2 * scale)
