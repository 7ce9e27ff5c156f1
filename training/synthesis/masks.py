"""Soft-edged places without meaning: where a local distortion is put. It must not know pictures or distortions.

Each shape is a signed distance in pixels (negative inside), turned into weights of 0..1 over a feather of 2 % to 6 % of
the shorter side, so that no hard border gives the place away.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
_Distance = Callable[[FloatArray, FloatArray, float, float, np.random.Generator], FloatArray]

LEAST_AREA, MOST_AREA = 0.04, 0.30
"""Share of the picture that a shape covers (weight of a half or more), as aimed at; a border may cut some of it off."""

LEAST_FEATHER, MOST_FEATHER = 0.02, 0.06
"""Width of the soft edge as a share of the shorter side."""


def _ellipse(x: FloatArray, y: FloatArray, a: float, b: float, rng: np.random.Generator) -> FloatArray:
    """An ellipse with the half axes `a` and `b` (first-order distance)."""
    del rng
    radius = np.hypot(x / a, y / b)
    return np.asarray((radius - 1) * min(a, b), np.float32)


def _round_box(x: FloatArray, y: FloatArray, a: float, b: float, rng: np.random.Generator) -> FloatArray:
    """A rectangle with round corners."""
    corner = float(rng.uniform(0.1, 0.45)) * min(a, b)
    dx, dy = np.abs(x) - (a - corner), np.abs(y) - (b - corner)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return (outside + np.minimum(np.maximum(dx, dy), 0) - corner).astype(np.float32)


def _blob(x: FloatArray, y: FloatArray, a: float, b: float, rng: np.random.Generator) -> FloatArray:
    """An ellipse whose radius swings by a few low harmonics."""
    angle = np.arctan2(y / b, x / a)
    wave = np.zeros_like(angle)
    for order in (2, 3, 4):
        wave += float(rng.uniform(0.04, 0.14)) * np.cos(order * angle + float(rng.uniform(0, 2 * math.pi)))
    return np.asarray((np.hypot(x / a, y / b) - 1 - wave) * min(a, b), np.float32)


SHAPES: dict[str, _Distance] = {"ellipse": _ellipse, "round_box": _round_box, "blob": _blob}
"""Shapes by name."""


def draw_mask(shape: tuple[int, int], rng: np.random.Generator) -> tuple[FloatArray, str]:
    """A random place.

    Args:
        shape: (height, width) in pixels.
        rng: Where the shape, its size, its place, its turn and its feather come from.

    Returns:
        Weights HxW in 0..1, at least one of them 1, and the name of the shape.
    """
    height, width = shape
    name = str(rng.choice(list(SHAPES)))
    area = float(np.exp(rng.uniform(math.log(LEAST_AREA), math.log(MOST_AREA)))) * height * width
    ratio = float(np.exp(rng.uniform(-math.log(2), math.log(2))))
    filled = 4.0 if name == "round_box" else math.pi
    a, b = math.sqrt(area / filled * ratio), math.sqrt(area / filled / ratio)
    feather = float(rng.uniform(LEAST_FEATHER, MOST_FEATHER)) * min(height, width)
    # Round boxes stay upright: a turned rectangle fills its bounding box badly, and that box is the answer.
    turn = 0.0 if name == "round_box" else float(rng.uniform(0, math.pi))
    across = math.hypot(a * math.cos(turn), b * math.sin(turn))
    down = math.hypot(a * math.sin(turn), b * math.cos(turn))
    # The centre stays so far inside that at least three quarters of each side are in the picture.
    centre_x, centre_y = (_place(size, half, rng) for size, half in ((width, across), (height, down)))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = columns + 0.5 - centre_x, rows + 0.5 - centre_y
    x, y = (
        x * math.cos(turn) + y * math.sin(turn),
        y * math.cos(turn) - x * math.sin(turn),
    )
    distance = SHAPES[name](x.astype(np.float32), y.astype(np.float32), a, b, rng)
    ramp = np.clip(0.5 - distance / max(feather, 1.0), 0, 1)
    mask = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    return mask / mask.max(), name


def _place(size: int, half: float, rng: np.random.Generator) -> float:
    margin = min(half / 2, size / 2)
    return float(rng.uniform(margin, size - margin))
