"""Exposure, contrast and veil, from the reduced picture. It must not know severity."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import PixelArray, Plane

SHADOW_LEVEL, HIGHLIGHT_LEVEL, HIGHLIGHT_LUMA = 5, 252, 200
DARK_PATCH_SHARE = 0.03
"""Side of the dark channel's patch as a share of the long side (15 pixels of 512 in the paper)."""

MAP_CELL_PX = 44
Values = dict[str, float | None]
Maps = dict[str, Plane]


def cell_means(plane: NDArray[np.floating]) -> Plane:
    """Means over even cells of about `MAP_CELL_PX`."""
    counts = [max(1, round(size / MAP_CELL_PX)) for size in plane.shape]
    means = cv2.resize(plane, (counts[1], counts[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32).reshape(counts)


def measure_tone(rgb: PixelArray) -> tuple[Values, Maps]:
    """Measure the tones of HxWx3 uint8 pixels."""
    levels = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    luma = levels.astype(np.float32)
    counts = np.bincount(levels.ravel(), minlength=256)
    reached = np.cumsum(counts) / levels.size
    p01, p05, p50, p95, p99 = (float(np.searchsorted(reached, q)) / 255 for q in (0.01, 0.05, 0.5, 0.95, 0.99))
    red, green, blue = cv2.split(rgb)
    dark = (levels <= SHADOW_LEVEL).astype(np.float32)
    highest = cv2.max(cv2.max(red, green), blue)
    bright = ((highest >= HIGHLIGHT_LEVEL) & (levels >= HIGHLIGHT_LUMA)).astype(np.float32)
    side = max(3, round(DARK_PATCH_SHARE * max(luma.shape)) | 1)
    lowest = cv2.min(cv2.min(red, green), blue)
    channel = np.asarray(cv2.erode(lowest, np.ones((side, side), np.uint8)), np.float32) / 255
    mean, square = cell_means(luma / 255), cell_means(np.square(luma / 255))
    values: Values = {
        "brightness": float(luma.mean()) / 255,
        "luma_p05": p05,
        "luma_p50": p50,
        "luma_p95": p95,
        "luma_p99": p99,
        "shadows_clipped": float(dark.mean()),
        "highlights_clipped": float(bright.mean()),
        "contrast_rms": float(luma.std()) / 255,
        "contrast_range": p99 - p01,
        "haze": float(np.quantile(channel, 0.05)),
        "dark_channel": float(channel.mean()),
    }
    maps: Maps = {
        "brightness": mean,
        "shadows_clipped": cell_means(dark),
        "highlights_clipped": cell_means(bright),
        "contrast_rms": np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32),
        "haze": cell_means(channel),
    }
    return values, maps
