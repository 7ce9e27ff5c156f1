"""Known changes of light, tone and colour as curves (256 x 3, sRGB 0..1). It must not know photographs or networks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import PixelArray
from zoomiqa.imaging.signals.light import LINEAR

LUMA = np.array([0.299, 0.587, 0.114])
LINEAR_LUMA = np.array([0.2126, 0.7152, 0.0722])
LEVEL = np.arange(256) / 255
Curves = NDArray[np.float64]


def identity() -> Curves:
    """Curves that change nothing."""
    return np.repeat(LEVEL[:, None], 3, 1)


def encode(linear: NDArray[np.floating]) -> NDArray[np.float64]:
    """Linear light to sRGB, 0..1."""
    clipped = np.clip(np.asarray(linear, np.float64), 0, 1)
    return np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)


def decode(curves: Curves) -> Curves:
    """SRGB 0..1 to linear light."""
    return np.interp(curves, LEVEL, LINEAR)


def applied(picture: PixelArray, curves: Curves) -> PixelArray:
    """HxWx3 uint8 pixels through the three curves."""
    table = np.clip(np.round(curves * 255), 0, 255).astype(np.uint8).reshape(1, 256, 3)
    return np.asarray(cv2.LUT(picture, table), np.uint8)


def part_of(picture: PixelArray, least: float, rng: np.random.Generator) -> PixelArray:
    """A random part of a square picture, each side at least the share `least` of it."""
    side = len(picture)
    height, width = (int(side * rng.uniform(least, 1)) for _ in range(2))
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def contrast(curves: Curves, low: float, high: float, rng: np.random.Generator) -> Curves:
    """Distances from mid grey scaled by `low` to `high`."""
    return np.clip((curves - 0.5) * rng.uniform(low, high) + 0.5, 0, 1)


def veil(curves: Curves, least: float, rng: np.random.Generator) -> Curves:
    """Light of the air over the picture, whose own light stays at the share `least` or more."""
    clear = rng.uniform(least, 1)
    return encode(decode(curves) * clear + 0.85 * (1 - clear))
