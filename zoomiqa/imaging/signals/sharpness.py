"""Edge widths, motion and halos, in pixels of the measured picture. It must not know severity.

Edge width (Zhuo, Sim 2011): at an edge, the gradient after smoothing by `s1` divided by that after `s2` depends on the
edge's own Gaussian width alone, so the width follows without knowing the step's height. Only maxima of the gradient
that stand well above the noise count, so noise cannot read as sharpness. A picture's width is that of its sharpest
quarter of edges: an unsharp background beside a sharp subject is not blur. Texture is finer than a step and reads 0.

Motion: the gradient tensor at a fine scale over that at a coarse scale (generalised eigenvalues). A scene's own
direction is in both and cancels; motion takes only fine detail along its path.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import BoolPlane, Canvas, Plane

FINE_SIGMA, WIDE_SIGMA = 0.8, 1.8
SIGMA_MAX_PX = 12.0
LEAST_EDGES = 40
"""Fewer reliable edges than this say nothing of a whole picture."""

LEAST_CELL_EDGES = 8
_NOISE_GRADIENT = 1 / math.sqrt(8 * math.pi)
"""Standard deviation of one gradient component of unit white noise after smoothing by 1 pixel."""

_DIFFERENCE_VARIANCE = 0.35
"""Width that the central difference itself adds (variance, px²), found on ideal steps."""

Values = dict[str, float | None]
Maps = dict[str, Plane]


def _gradients(plane: Plane, sigma: float) -> tuple[Plane, Plane]:
    smooth = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    along_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REFLECT)
    along_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REFLECT)
    return np.asarray(along_x, np.float32), np.asarray(along_y, np.float32)


def _edge_points(gx: Plane, gy: Plane, magnitude: Plane, threshold: float, keep: BoolPlane) -> BoolPlane:
    """Maxima of the gradient across the edge, along the nearer of the two axes."""
    centre = magnitude[1:-1, 1:-1]
    horizontal = np.abs(gx[1:-1, 1:-1]) >= np.abs(gy[1:-1, 1:-1])
    is_top_x = (centre >= magnitude[1:-1, :-2]) & (centre > magnitude[1:-1, 2:])
    is_top_y = (centre >= magnitude[:-2, 1:-1]) & (centre > magnitude[2:, 1:-1])
    points = np.zeros(magnitude.shape, bool)
    points[1:-1, 1:-1] = np.where(horizontal, is_top_x, is_top_y) & (centre > threshold)
    return points & keep


def _tensor_ratio(
    fine: tuple[Plane, Plane], coarse: tuple[Plane, Plane], keep: BoolPlane, noise: float
) -> tuple[float, float]:
    """(ratio of widths, angle in degrees) from the generalised eigenvalues of the two gradient tensors."""
    weights = keep.astype(np.float32)

    def tensor(pair: tuple[Plane, Plane], floor: float) -> NDArray[np.float64]:
        gx, gy = pair[0] * weights, pair[1] * weights
        xx, yy, xy = cv2.norm(gx) ** 2, cv2.norm(gy) ** 2, float(np.vdot(gx, gy))
        count = max(float(weights.sum()), 1.0)
        return np.array([[xx, xy], [xy, yy]]) / count - floor * np.eye(2)

    floor = (noise**2 + 1 / 12) / (8 * math.pi)
    above = tensor(fine, floor)
    below = tensor(coarse, floor / WIDE_SIGMA**4)
    if np.linalg.eigvalsh(below)[0] < 0.02 or np.linalg.eigvalsh(above)[0] <= 0.0:
        return 1.0, 0.0
    lower = np.linalg.inv(np.linalg.cholesky(below))
    values, vectors = np.linalg.eigh(lower @ above @ lower.T)
    direction = lower.T @ vectors[:, 0]
    angle = math.degrees(math.atan2(-direction[1], direction[0])) % 180
    return math.sqrt(max(float(values[1]), 1e-9) / max(float(values[0]), 1e-9)), angle


def _halo_share(luma: Plane, points: BoolPlane, gx: Plane, gy: Plane, canvas: Canvas) -> tuple[float | None, Plane]:
    """Share of strong edges with an undershoot and an overshoot beside them."""
    rows, columns = np.nonzero(points)
    empty = np.full(canvas.grid, np.nan, np.float32)
    if rows.size < LEAST_EDGES:
        return None, empty
    step = max(1, rows.size // 6000)
    rows, columns = rows[::step], columns[::step]
    ax, ay = gx[rows, columns], gy[rows, columns]
    is_x = np.abs(ax) >= np.abs(ay)
    sign = np.where(np.where(is_x, ax, ay) >= 0, 1, -1)
    dx, dy = np.where(is_x, sign, 0), np.where(is_x, 0, sign)
    profile = [luma[rows + k * dy, columns + k * dx] for k in (-6, -5, -3, -2, -1, 1, 2, 3, 5, 6)]
    low, high = (profile[0] + profile[1]) / 2, (profile[8] + profile[9]) / 2
    height = high - low
    over = np.maximum(np.maximum(profile[5], profile[6]), profile[7]) - high
    under = low - np.minimum(np.minimum(profile[2], profile[3]), profile[4])
    strong = height > 16
    halo = strong & (np.minimum(over, under) > 0.12 * height)
    if int(strong.sum()) < LEAST_EDGES // 2:
        return None, empty
    plane = np.zeros(luma.shape, np.float32)
    plane[rows[halo], columns[halo]] = 1
    all_strong = np.zeros(luma.shape, np.float32)
    all_strong[rows[strong], columns[strong]] = 1
    counts = canvas.sums(all_strong)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(counts >= 4, canvas.sums(plane) / counts, np.nan)
    return float(halo.sum() / strong.sum()), shares.astype(np.float32)


def measure_sharpness(canvas: Canvas, noise_sigma: float, *, is_native: bool) -> tuple[Values, Maps]:
    """Measure edge width, motion and halos; `noise_sigma` (levels) gates what counts as an edge."""
    luma = canvas.luma
    values: Values = dict.fromkeys(
        ("edge_sigma", "edge_sigma_median", "motion_ratio", "motion_sigma", "motion_angle", "oversharp_share")
    )
    values["edge_share"] = 0.0
    maps: Maps = {}
    keep = canvas.inner(7)
    if min(luma.shape) < 24 or not keep.any():
        return values, maps
    fine, wide = _gradients(luma, FINE_SIGMA), _gradients(luma, WIDE_SIGMA)
    magnitude = np.asarray(cv2.magnitude(*fine), np.float32)
    strongest = float(np.quantile(magnitude[keep][::7], 0.995))
    threshold = max(0.9, 6.5 * _NOISE_GRADIENT * noise_sigma, 0.15 * strongest)
    points = _edge_points(fine[0], fine[1], magnitude, threshold, keep)
    where = np.nonzero(points)
    values["edge_share"] = where[0].size / max(int(keep.sum()), 1)
    across = np.hypot(wide[0][where], wide[1][where])
    ratio = np.square(np.maximum(magnitude[where] / np.maximum(across, 1e-6), 1.0001))
    one, two = FINE_SIGMA**2 + _DIFFERENCE_VARIANCE, WIDE_SIGMA**2 + _DIFFERENCE_VARIANCE
    width = np.sqrt(np.clip((two - ratio * one) / (ratio - 1), 0, SIGMA_MAX_PX**2))
    maps["edge_share"] = (canvas.sums(points) / np.maximum(canvas.sums(keep), 1)).astype(np.float32)
    row = np.searchsorted(canvas.rows, where[0], side="right") - 1
    column = np.searchsorted(canvas.columns, where[1], side="right") - 1
    cell = row * canvas.grid[1] + column
    ranked = width[np.lexsort((width, cell))]
    counts = np.bincount(cell, minlength=canvas.grid[0] * canvas.grid[1])
    starts = np.cumsum(counts) - counts
    enough = counts >= LEAST_CELL_EDGES
    per_cell = np.full(counts.size, np.nan, np.float32)
    per_cell[enough] = ranked[(starts + counts // 4)[enough]]
    maps["edge_sigma"] = per_cell.reshape(canvas.grid)
    if where[0].size < LEAST_EDGES:
        return values, maps
    values["edge_sigma"] = float(np.quantile(width, 0.25))
    values["edge_sigma_median"] = float(np.median(width))
    motion, angle = _tensor_ratio(fine, wide, keep, noise_sigma)
    values["motion_ratio"], values["motion_angle"] = motion, angle
    direction = np.degrees(np.arctan2(-fine[1][where], fine[0][where])) % 180
    away = np.abs((direction - angle + 90) % 180 - 90)
    along = width[away < 30]
    values["motion_sigma"] = float(np.quantile(along, 0.3)) if along.size >= LEAST_EDGES // 2 else None
    if is_native:
        values["oversharp_share"], maps["oversharp_share"] = _halo_share(luma, points, fine[0], fine[1], canvas)
    return values, maps
