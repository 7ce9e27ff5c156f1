"""Large pictures in tiles: a plan of overlapping tiles, weights that sum to one, smaller tiles when memory runs out.

It must not know what is done in a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Box, Note

Blend = Literal["linear", "gaussian"]
Floats = NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Tiles that cover a picture; neighbours share at least `overlap` pixels."""

    size: tuple[int, int]
    """(width, height) of the picture."""

    tile: int
    overlap: int
    boxes: tuple[Box, ...]
    """Row by row. All have the same size, unless the picture is smaller than a tile."""

    margin: int = 0
    """Pixels along an edge shared with a neighbour that count for nothing: what is computed there lacks context."""


def plan_tiles(
    size: tuple[int, int], tile: int, overlap: int, *, margin: int = 0, align: int = 1, is_snug: bool = False
) -> TilePlan:
    """Cover `size` (width, height) with tiles of side `tile`; the last of a row or column moves back to fit.

    Args:
        size: Width and height of the picture.
        tile: Side of a tile.
        overlap: Least number of pixels that neighbours share.
        margin: See `TilePlan.margin`; at most half the overlap.
        align: Every tile starts at a multiple of it, so that a network sees its own grid (windows, strides) in the same
            place in every tile. Where the picture exceeds a tile, both must be multiples of it (`pad_to_multiple`).
        is_snug: Make tiles as small, each way, as the same number of them allows: less is computed twice. For networks
            to which the size of a tile means nothing.

    Raises:
        OptionInvalid: a tile below 1, an overlap that is negative or leaves no step forward, a margin of more than half
            the overlap, or sizes that do not fit `align`.
    """
    if tile < 1 or not 0 <= overlap < tile:
        raise OptionInvalid("tiles need tile >= 1 and 0 <= overlap < tile", (tile, overlap), "choose a larger tile")
    if not 0 <= 2 * margin <= overlap:
        raise OptionInvalid("a margin must lie in 0..overlap/2", (margin, overlap), "choose a larger overlap")
    larger = [side for side in size if side > tile]
    if align < 1 or tile - overlap < align or any(side % align for side in (tile, *larger)):
        raise OptionInvalid(
            "picture and tile must be multiples of the alignment, and the step from tile to tile at least as large",
            (size, tile, overlap, align),
            "pad the picture, or choose a smaller overlap",
        )
    width, height = (_snug(side, tile, overlap, align) if is_snug else tile for side in size)
    columns, rows = _starts(size[0], width, overlap, align), _starts(size[1], height, overlap, align)
    boxes = tuple(Box(x, y, min(x + width, size[0]), min(y + height, size[1])) for y in rows for x in columns)
    return TilePlan(size, tile, overlap, boxes, margin)


def tile_weights(plan: TilePlan, box: Box, blend: Blend = "linear", scale: int = 1) -> Floats:
    """Unnormalised weights (height, width) of `box`: high inside, low towards edges that it shares with a neighbour.

    Edges on the picture's border do not fall off, so a single tile weighs 1 everywhere (linear).
    """
    width, height = plan.size
    return np.outer(
        _ramp(box.y1, box.y2, height, plan, blend, scale),
        _ramp(box.x1, box.x2, width, plan, blend, scale),
    ).astype(np.float32)


def run_tiled(
    pixels: NDArray[np.uint8],
    work: Callable[[NDArray[np.uint8]], np.ndarray],
    *,
    tile: int,
    overlap: int,
    scale: int = 1,
    blend: Blend = "linear",
    margin: int = 0,
    align: int = 1,
) -> NDArray[np.uint8]:
    """Apply `work` tile by tile and blend.

    Args:
        pixels: H×W×3 uint8.
        work: Tile (h, w, 3) uint8 → (h·scale, w·scale, 3), uint8 or float 0..255.
        tile, overlap, margin, align: As in `plan_tiles`.
        scale: Factor of width and height that `work` gives.
        blend: Form of the weights.

    Returns:
        (H·scale)×(W·scale)×3 uint8; exactly what `work` gives where it treats every pixel alike, and up to rounding
        where it looks no further than `margin` pixels around each.

    Raises:
        OptionInvalid: `work` gave another size, or as `plan_tiles`.
    """
    height, width = pixels.shape[:2]
    plan = plan_tiles((width, height), tile, overlap, margin=margin, align=align)
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


def pad_to_multiple(pixels: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """`pixels` (H×W×C) continued right and down to the next multiples of `multiple`.

    The picture is mirrored (its last row or column is not repeated), or, along a side no longer than what is missing,
    its last row or column is repeated. Nothing is copied where nothing is missing.
    """
    for axis in (0, 1):
        side = pixels.shape[axis]
        missing = -side % multiple
        if missing:
            widths = [(0, 0)] * pixels.ndim
            widths[axis] = (0, missing)
            pixels = np.pad(pixels, widths, mode="reflect" if missing < side else "edge")
    return pixels


def halving_on_memory_error(
    work: Callable[[int, int], Result], tile: int, overlap: int, *, least: int = 1
) -> tuple[Result, tuple[Note, ...]]:
    """The project's one answer to memory running out: once more with tiles of half the side, and a note that says so.

    Args:
        work: Tile side and overlap → result; called once, or twice.
        tile, overlap: What it is called with first.
        least: Tile sides are multiples of it.

    Raises:
        MemoryError: it was not enough, or the tile cannot be made smaller.
    """
    try:
        return work(tile, overlap), ()
    except MemoryError:
        half = max(least, tile // 2 // least * least)
        if half == tile:
            raise
    # Outside the handler: within it, the error would hold on to what the first attempt had in memory.
    note = Note("tiles-halved", f"Memory ran out; the picture was worked on in tiles of {half} pixels.")
    return work(half, min(overlap // 2, half - least)), (note,)


def _starts(length: int, tile: int, overlap: int, align: int) -> list[int]:
    if length <= tile:
        return [0]
    step = (tile - overlap) // align * align
    count = -(-(length - tile) // step) + 1
    return [round(index * (length - tile) / (count - 1) / align) * align for index in range(count)]


def _snug(length: int, tile: int, overlap: int, align: int) -> int:
    """The least side of a tile, up to `tile`, of which no more are needed than of `tile`."""
    count = len(_starts(length, tile, overlap, align))
    side = -(-(length + (count - 1) * overlap) // count)
    return min(tile, -(-side // align) * align)


def _ramp(start: int, stop: int, length: int, plan: TilePlan, blend: Blend, scale: int) -> np.ndarray:
    """Weights along one axis; within the margin of a shared edge they are 0."""
    count, margin = (stop - start) * scale, plan.margin * scale
    place = np.arange(count) + 0.5
    depth = np.full(count, np.inf)  # pixels to the nearest shared edge
    if start > 0:
        depth = np.minimum(depth, place)
    if stop < length:
        depth = np.minimum(depth, count - place)
    if blend == "gaussian":
        middle, sigma = count / 2, count * GAUSSIAN_WIDTH
        weights = np.exp(-((place - middle) ** 2) / (2 * sigma**2)) + 1e-3
    else:
        weights = np.clip((depth - margin) / max(plan.overlap * scale - 2 * margin, 1), 1e-3, 1)
    return np.where(depth < margin, 0.0, weights)


GAUSSIAN_WIDTH = 0.25
"""Standard deviation of the Gaussian blend, as a share of the tile."""


def _slices(box: Box, scale: int) -> tuple[slice, slice]:
    return slice(box.y1 * scale, box.y2 * scale), slice(box.x1 * scale, box.x2 * scale)
