"""The pixels that signals are measured on: whole, or an even set of native tiles. It must not know any signal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PixelArray = NDArray[np.uint8]
Plane = NDArray[np.float32]
BoolPlane = NDArray[np.bool_]

FULL_LIMIT_PX = 1_500_000
"""Up to this many pixels the whole picture is measured; above it, tiles."""

TILE_PX = 96
"""Side of a native tile of a large picture; a multiple of 8, so that the compression grid goes on across tiles."""

TILES_LONG_SIDE = 12
CELL_PX = 56
"""Wanted side of a map's cell."""

MOST_CELLS = 40
"""Cells along one side at most: those of a long strip grow."""

TONE_LONG_SIDE_PX = 384
"""Tone and colour are measured on a picture reduced to this: they do not live in single pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """Native pixels, their cells and which of them border on a seam."""

    rgb: PixelArray
    """HxWx3 uint8: the picture, or its tiles side by side."""

    luma: Plane
    """HxW float32, 0..255 (ITU-R BT.601)."""

    rows: tuple[int, ...]
    """Upper edges of the cells' rows, and the end."""

    columns: tuple[int, ...]
    is_tiled: bool

    def cells(self, plane: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """The cells of `plane`, row by row."""
        return [
            plane[top:bottom, left:right]
            for top, bottom in zip(self.rows[:-1], self.rows[1:], strict=True)
            for left, right in zip(self.columns[:-1], self.columns[1:], strict=True)
        ]

    @property
    def grid(self) -> tuple[int, int]:
        return len(self.rows) - 1, len(self.columns) - 1

    def sums(
        self, plane: NDArray[np.generic], row_weight: Plane | None = None, column_weight: Plane | None = None
    ) -> Plane:
        """Sum of `plane` in every cell, rows and columns weighted where weights are given."""
        rows, columns = _members(self.rows), _members(self.columns)
        if row_weight is not None:
            rows = rows * row_weight
        if column_weight is not None:
            columns = columns * column_weight
        return np.asarray(rows @ np.asarray(plane, np.float32) @ columns.T, np.float32)

    def inner(self, margin: int) -> BoolPlane:
        """Pixels at least `margin` away from the frame and from every seam between tiles."""
        height, width = self.luma.shape
        if not self.is_tiled:
            keep = np.zeros((height, width), bool)
            keep[margin : height - margin, margin : width - margin] = True
            return keep
        position = np.minimum(np.arange(TILE_PX), TILE_PX - 1 - np.arange(TILE_PX)) >= margin
        return np.outer(np.tile(position, height // TILE_PX), np.tile(position, width // TILE_PX))


def luma_of(rgb: PixelArray) -> Plane:
    """BT.601 luma of HxWx3 uint8 RGB, float32 0..255, not rounded."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb, np.float32), cv2.COLOR_RGB2GRAY), np.float32)


def _members(edges: tuple[int, ...]) -> Plane:
    """Cells x pixels: 1 where a pixel belongs to a cell."""
    pixel = np.arange(edges[-1])
    starts, ends = np.array(edges[:-1])[:, None], np.array(edges[1:])[:, None]
    return ((pixel >= starts) & (pixel < ends)).astype(np.float32)


def _edges(size: int) -> tuple[int, ...]:
    count = max(1, min(round(size / CELL_PX), MOST_CELLS))
    return tuple(round(index * size / count) for index in range(count + 1))


def canvas_of(rgb: PixelArray) -> Canvas:
    """Lay out native pixels: all of them, or evenly spaced tiles of a large picture (never a reduced one)."""
    height, width = rgb.shape[:2]
    if height * width <= FULL_LIMIT_PX or min(height, width) < TILE_PX:
        if height * width > FULL_LIMIT_PX:  # a very long strip: an even share of its middle part is enough
            half = FULL_LIMIT_PX // (2 * min(height, width))
            rgb = rgb[:, width // 2 - half : width // 2 + half] if width > height else (
                rgb[height // 2 - half : height // 2 + half]
            )  # fmt: skip
        values = np.ascontiguousarray(rgb)
        return Canvas(values, luma_of(values), _edges(rgb.shape[0]), _edges(rgb.shape[1]), False)
    long_side = max(height, width)
    tiles = [max(1, min(round(TILES_LONG_SIDE * side / long_side), side // TILE_PX)) for side in (height, width)]
    starts = [
        [int((index + 0.5) * side / count - TILE_PX / 2) // 8 * 8 for index in range(count)]
        for side, count in zip((height, width), tiles, strict=True)
    ]
    mosaic = np.empty((tiles[0] * TILE_PX, tiles[1] * TILE_PX, 3), np.uint8)
    for row, top in enumerate(starts[0]):
        for column, left in enumerate(starts[1]):
            mosaic[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX] = rgb[
                top : top + TILE_PX, left : left + TILE_PX
            ]
    edges = [tuple(range(0, count * TILE_PX + 1, TILE_PX)) for count in tiles]
    return Canvas(mosaic, luma_of(mosaic), edges[0], edges[1], True)


def reduced(rgb: PixelArray, long_side: int = TONE_LONG_SIDE_PX) -> PixelArray:
    """`rgb` area-averaged to a long side of at most `long_side`; never enlarged."""
    height, width = rgb.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return rgb
    step = math.floor(1 / scale / 2.5)
    if step > 1:  # thinning first: an area average over millions of pixels costs more than it tells
        rgb = rgb[::step, ::step]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_AREA), np.uint8)
