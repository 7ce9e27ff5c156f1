"""Colour casts and dull colour: measured, then corrected in the named direction. It must not know boxes.

Source: van de Weijer, Gevers & Gijsenij, "Edge-based color constancy" (IEEE TIP 2007): grey-edge and shades-of-grey are
one family of estimates of the light's colour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from restore_bridge.restorers.operations.light import LINEAR_LUMA, to_coded, to_linear
from restore_bridge.restorers.operations.transform import Floats

HUES: dict[str, tuple[float, float, float]] = {
    "red": (1, -1, -1),
    "orange": (1, 0, -1),
    "yellow": (1, 1, -1),
    "green": (-1, 1, -1),
    "cyan": (-1, 1, 1),
    "blue": (-1, -1, 1),
    "magenta": (1, -1, 1),
    "purple": (0.5, -1, 0.5),
    "pink": (1, -1, 0),
    "warm": (1, 0, -1),
    "cool": (-1, 0, 1),
}
"""The direction in log R, G, B of each cast that text names."""

ORDINARY_LIGHT = np.array([0.177, 0.077, -0.254], np.float32)
"""What `light_colour` reads on ordinary photographs (base-2 logarithms): they lean to warm."""

ORDINARY_SPREAD = np.array([[0.042, 0.008, -0.049], [0.008, 0.016, -0.024], [-0.049, -0.024, 0.073]], np.float32)
"""Covariance of that reading between photographs: how far the scene's own colours mislead it."""

CAST_AIM = 1.0
"""Stops of a severe cast; a slight or moderate one is taken for its strength squared, near 0.2 and 0.5 stops."""

CHROMA_AIM = 16.5
"""Mean CIELAB chroma of an ordinary photograph (median of the tuning half)."""


def light_colour(pixels: Floats) -> Floats:
    """Logarithm (base 2) of the light's red, green and blue by grey-edge (norm 6), mean zero."""
    import cv2

    light = to_linear(np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.0), np.float32))
    brightest = pixels.max(axis=2)
    seen = (brightest < 0.98) & (brightest > 0.04)
    if seen.sum() < 64:
        return np.zeros(3, np.float32)
    edges = []
    for channel in range(3):
        plane = np.ascontiguousarray(light[:, :, channel])
        edge = np.hypot(cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1))[seen]
        edges.append(float(np.power(np.mean(np.square(np.square(edge) * edge, dtype=np.float64)), 1 / 6)))
    estimate = np.log2(np.maximum(edges, 1e-6))
    return np.asarray(estimate - estimate.mean(), np.float32)


def neutralise(pixels: Floats, strength: float, hue: str = "") -> tuple[Floats, float]:
    """Take a colour cast out.

    Args:
        pixels: H×W×3 RGB, 0..1.
        strength: 0..1; bounds the correction.
        hue: The cast's colour as the text names it; the correction then keeps to that direction.

    Returns:
        (corrected picture, size of the correction in stops).
    """
    seen = light_colour(pixels) - ORDINARY_LIGHT
    if hue in HUES:
        direction = np.array(HUES[hue], np.float32)
        direction -= direction.mean()
    else:
        direction = seen
    length = float(np.linalg.norm(direction))
    if length < 1e-3:
        return pixels, 0.0
    direction = direction / length
    # The reading and the word are two estimates of one amount; each counts by how far it can be trusted.
    aim = CAST_AIM * strength**2
    doubt_of_word = (0.5 * aim) ** 2
    doubt_of_reading = float(direction @ ORDINARY_SPREAD @ direction)
    reading = float(seen @ direction)
    size = (aim * doubt_of_reading + reading * doubt_of_word) / (doubt_of_reading + doubt_of_word)
    size = float(np.clip(size, 0.0, 1.7 * aim))
    light = to_linear(pixels)
    scale = np.exp2(-direction * size).astype(np.float32)
    scale *= float((light @ LINEAR_LUMA).mean() / max(float(((light * scale) @ LINEAR_LUMA).mean()), 1e-6))
    return to_coded(light * scale), size


def enrich(pixels: Floats, strength: float) -> Floats:
    """Raise chroma in CIELAB towards that of ordinary photographs; hues and lightness stay."""
    return _scale_chroma(pixels, lambda mean: float(np.clip(CHROMA_AIM / max(mean, 1.0), 1.0, 1.0 + 1.2 * strength)))


def calm(pixels: Floats, strength: float) -> Floats:
    """Lower chroma in CIELAB of an oversaturated picture."""
    return _scale_chroma(
        pixels, lambda mean: float(np.clip(1.4 * CHROMA_AIM / max(mean, 1.0), 1 - 0.5 * strength, 1.0))
    )


def _scale_chroma(pixels: Floats, gain_for: Callable[[float], float]) -> Floats:
    import cv2

    lab = np.array(cv2.cvtColor(np.clip(pixels, 0, 1).astype(np.float32), cv2.COLOR_RGB2LAB), np.float32)
    gain = gain_for(float(np.hypot(lab[:, :, 1], lab[:, :, 2]).mean()))
    lab[:, :, 1:] *= gain
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.float32)
