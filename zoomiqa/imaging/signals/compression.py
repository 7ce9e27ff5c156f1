"""Blocking and banding: they live in single pixels of the native picture. It must not know severity.

The 8-pixel grid may start anywhere, because a crop may: the phase with the largest excess is taken on each axis.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import TILE_PX, BoolPlane, Canvas, PixelArray, Plane

BLOCK = 8
EXCESS_CLIP = 16.0
"""Differences count up to this many levels: an edge of the scene on the grid is not blocking."""

BAND_STEPS = (3, 64)
"""Levels by which neighbouring bands differ: less is not seen, more is an edge."""

MAX_BLOCKS = 2500
ZERO_LEVELS = 0.7
"""A coefficient below this is zero but for the rounding of the pixels (deviation 0.29 levels)."""

Values = dict[str, float | None]
Maps = dict[str, Plane]


def _excess(luma: Plane, keep: BoolPlane) -> tuple[Plane, Plane]:
    """(excess of each difference over its two neighbours, clipped; the difference itself), HxW, left to right.

    Entry i is about the border between i and i + 1; places that `keep` excludes are 0.
    """
    difference = np.asarray(cv2.copyMakeBorder(cv2.absdiff(luma[:, 1:], luma[:, :-1]), 0, 0, 0, 1, cv2.BORDER_CONSTANT))
    difference = np.minimum(difference, np.float32(2 * EXCESS_CLIP), dtype=np.float32)
    excess = np.asarray(cv2.filter2D(difference, cv2.CV_32F, np.array([[-0.5, 1.0, -0.5]], np.float32)))
    clipped = np.clip(excess, -EXCESS_CLIP, EXCESS_CLIP, dtype=np.float32)
    weight = keep.astype(np.float32)
    return np.asarray(clipped * weight, np.float32), np.asarray(difference * weight, np.float32)


def _phase(profile: NDArray[np.floating]) -> tuple[int, float]:
    """(phase of the grid, excess there over the median phase) of the profile along one axis."""
    phases = np.array([profile[start::BLOCK].mean() for start in range(BLOCK)])
    best = int(phases.argmax())
    return best, float(phases[best] - np.median(phases))


def _transform() -> Plane:
    k, n = np.mgrid[:BLOCK, :BLOCK]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


_BASIS = _transform()


def _zero_share(luma: Plane, top: int, left: int, *, is_tiled: bool) -> float:
    """Share of the block transform's coefficients that are zero, for blocks that start at (top, left)."""
    rows, columns = np.arange(top, luma.shape[0] - 7, BLOCK), np.arange(left, luma.shape[1] - 7, BLOCK)
    if is_tiled:
        rows, columns = (axis[axis % TILE_PX <= TILE_PX - BLOCK] for axis in (rows, columns))
    if not rows.size or not columns.size:
        return 0.0
    stride = max(1, int(np.sqrt(rows.size * columns.size / MAX_BLOCKS)))
    blocks = sliding_window_view(luma, (BLOCK, BLOCK))[np.ix_(rows[::stride], columns[::stride])].reshape(
        -1, BLOCK, BLOCK
    )
    coefficients = np.abs(_BASIS @ blocks @ _BASIS.T)
    return float((coefficients < ZERO_LEVELS).mean())


def _grid_on_axis(
    canvas: Canvas, luma: Plane, keep: BoolPlane, *, turned: bool
) -> tuple[int, float, float, Plane, Plane]:
    """(phase, step, activity, step per cell, activity per cell) of the borders from left to right.

    `turned` says that `luma` and `keep` are transposed, so that the borders are those from top to bottom.
    """
    excess, plain = _excess(luma, keep)
    weight = keep.astype(np.float32)
    per_line = np.maximum(weight.sum(0), 1)
    profile = excess.sum(0) / per_line
    inside = np.nonzero(keep.any(0))[0]
    first = int(inside[0])
    phase, step = _phase(profile[first : int(inside[-1]) + 1])
    phase = (phase + first) % BLOCK
    on = (np.arange(profile.size) % BLOCK == phase).astype(np.float32)
    off = 1 - on
    activity = float(plain.sum(0) @ off) / max(float(weight.sum(0) @ off), 1.0)

    def sums(plane: Plane, weights: Plane) -> Plane:
        return canvas.sums(plane.T, row_weight=weights) if turned else canvas.sums(plane, column_weight=weights)

    on_count, off_count = np.maximum(sums(weight, on), 1), np.maximum(sums(weight, off), 1)
    cell_step = sums(excess, on) / on_count - sums(excess, off) / off_count
    cell_activity = sums(plain, off) / off_count
    return phase, step, activity, cell_step.astype(np.float32), cell_activity.astype(np.float32)


def measure_blocking(canvas: Canvas) -> tuple[Values, Maps]:
    """Excess across the compression grid, against activity within the blocks."""
    luma = canvas.luma
    if min(luma.shape) < 4 * BLOCK:
        return dict.fromkeys(("blocking", "blocking_step", "grid_zeroed")), {}
    keep = canvas.inner(3)
    first = _grid_on_axis(canvas, luma, keep, turned=False)
    second = _grid_on_axis(canvas, np.ascontiguousarray(luma.T), np.ascontiguousarray(keep.T), turned=True)
    steps, activities = (first[1], second[1]), (first[2], second[2])
    starts = [(first[0] + 1) % BLOCK, (second[0] + 1) % BLOCK]
    cell_steps, cell_activities = (first[3], second[3]), (first[4], second[4])
    values: Values = {
        "blocking": max(0.0, sum(steps)) / (sum(activities) + 1.0),
        "blocking_step": max(0.0, sum(steps) / 2),
        "grid_zeroed": _zero_share(luma, starts[1], starts[0], is_tiled=canvas.is_tiled)
        - _zero_share(luma, (starts[1] + 4) % BLOCK, (starts[0] + 4) % BLOCK, is_tiled=canvas.is_tiled),
    }
    cells = np.maximum(sum(cell_steps), 0)
    return values, {
        "blocking": np.asarray(cells / (sum(cell_activities) + 1.0), np.float32),
        "blocking_step": np.asarray(cells / 2, np.float32),
    }


def _staircase(change: PixelArray, keep: BoolPlane) -> tuple[BoolPlane, BoolPlane]:
    """(lone steps between flat runs, all changes) of HxW changes between left and right neighbours."""
    busy = (change > 0).astype(np.uint8)
    beside = cv2.filter2D(busy, cv2.CV_8U, np.array([[1, 1, 1, 0, 1, 1, 1]], np.float32))
    changed = (busy > 0) & (change <= BAND_STEPS[1]) & keep
    return changed & (beside == 0) & (change >= BAND_STEPS[0]), changed


def measure_banding(canvas: Canvas) -> tuple[Values, Maps]:
    """Share of changes that are lone steps between two exactly flat runs of three pixels or more."""
    if min(canvas.luma.shape) < 16:
        return {"banding": None}, {}
    keep = canvas.inner(4)
    steps, changes = np.zeros(keep.shape, np.float32), np.zeros(keep.shape, np.float32)
    for turned in (False, True):
        rgb = np.ascontiguousarray(canvas.rgb.transpose(1, 0, 2)) if turned else canvas.rgb
        channels = cv2.split(cv2.absdiff(rgb[:, 1:], rgb[:, :-1]))
        change = np.pad(cv2.max(cv2.max(channels[0], channels[1]), channels[2]), ((0, 0), (0, 1)))
        lone, changed = _staircase(np.asarray(change, np.uint8), keep.T if turned else keep)
        steps += lone.T if turned else lone
        changes += changed.T if turned else changed
    total = float(changes.sum())
    if total < 200:
        return {"banding": 0.0}, {}
    cells = canvas.sums(steps) / np.maximum(canvas.sums(changes), 25)
    return {"banding": float(steps.sum()) / total}, {"banding": np.asarray(cells, np.float32)}
