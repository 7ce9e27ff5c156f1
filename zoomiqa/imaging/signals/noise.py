"""Noise level from the eigenvalues of patch covariance. It must not know severity.

Chen, Zhu, Heng (ICCV 2015): the patches of a clean picture fill few dimensions, noise fills all. The eigenvalues of the
redundant dimensions scatter around the noise variance; the largest set whose mean is its median is that set.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import TILE_PX, Canvas, Plane

PATCH_PX, CELL_PATCH_PX, CELL_STEP = 8, 5, 4
SAMPLES = 9_000
"""Patches for the whole picture: more change the second decimal only."""


def _level(eigenvalues: NDArray[np.floating]) -> NDArray[np.float64]:
    """Noise deviation from ascending eigenvalues (..., n): the longest run from below with mean <= median."""
    ascending = np.maximum(np.asarray(eigenvalues, np.float64), 0)
    count = ascending.shape[-1]
    lengths = np.arange(1, count + 1)
    means = np.cumsum(ascending, -1) / lengths
    medians = (ascending[..., (lengths - 1) // 2] + ascending[..., lengths // 2]) / 2
    fits = means <= medians * (1 + 1e-9)
    last = count - 1 - np.argmax(fits[..., ::-1], -1)
    return np.sqrt(np.take_along_axis(means, last[..., None], -1)[..., 0])


def chen_sigma(plane: Plane, *, is_tiled: bool = False, samples: int = SAMPLES) -> float | None:
    """Noise deviation of a plane in its own unit; `None` below 16 x 16."""
    height, width = plane.shape
    if min(height, width) < 2 * PATCH_PX:
        return None
    step = max(1, math.isqrt(max(1, height * width // samples)))
    step += step % 2 == 0  # an odd step visits every phase of the compression grid
    origins = [np.arange(0, size - PATCH_PX + 1, step) for size in (height, width)]
    if is_tiled:
        origins = [axis[axis % TILE_PX <= TILE_PX - PATCH_PX] for axis in origins]
    windows = sliding_window_view(plane, (PATCH_PX, PATCH_PX))
    patches = np.ascontiguousarray(windows[np.ix_(*origins)]).reshape(-1, PATCH_PX * PATCH_PX)
    patches -= patches.mean(0)
    return float(_level(np.linalg.eigvalsh((patches.T @ patches) / len(patches))))


def sigma_map(plane: Plane, canvas: Canvas) -> Plane:
    """Noise deviation in every cell, from smaller patches; NaN in cells under 20 x 20. Few patches read 15 % low."""
    result = np.full(canvas.grid, np.nan, np.float32)
    if min(plane.shape) < CELL_PATCH_PX:
        return result
    windows = sliding_window_view(plane, (CELL_PATCH_PX, CELL_PATCH_PX))[::CELL_STEP, ::CELL_STEP]
    patches = np.ascontiguousarray(windows).reshape(*windows.shape[:2], CELL_PATCH_PX**2)

    def spans(edges: tuple[int, ...]) -> list[tuple[int, int]]:  # first and last patch that lie inside each cell
        return [
            (-(-start // CELL_STEP), (end - CELL_PATCH_PX) // CELL_STEP + 1) if end - start >= 20 else (0, 0)
            for start, end in pairwise(edges)
        ]

    covariances, places = [], []
    for row, (top, bottom) in enumerate(spans(canvas.rows)):
        for column, (left, right) in enumerate(spans(canvas.columns)):
            if bottom > top and right > left:
                inside = patches[top:bottom, left:right].reshape(-1, CELL_PATCH_PX**2)
                inside = inside - inside.mean(0)
                covariances.append((inside.T @ inside) / len(inside))
                places.append((row, column))
    if places:
        result[tuple(zip(*places, strict=True))] = _level(np.linalg.eigvalsh(np.stack(covariances)))
    return result


def quiet_level(sigmas: Plane, canvas: Canvas) -> float | None:
    """Noise of the quietest eighth of the cells, leaving out those near black or white, where noise is cut off."""
    area = np.outer(np.diff(canvas.rows), np.diff(canvas.columns))
    mean = canvas.sums(canvas.luma) / area
    usable = np.isfinite(sigmas) & (mean > 10) & (mean < 245)
    chosen = sigmas[usable] if usable.any() else sigmas[np.isfinite(sigmas)]
    return float(np.quantile(chosen, 0.125)) if chosen.size else None
