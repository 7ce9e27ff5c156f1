"""A dark picture as the tone network sees it, and the curve that it answers with. It must not know networks or words.

The curve is out = coded(e^a · linear(x)^p), the same for R, G and B: it undoes too little light (a) and a deepened
scale (p).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restore_bridge.restorers.operations.light import to_coded, to_linear

Floats = NDArray[np.float32]

THUMBNAIL = 48
"""Side in pixels of what the network sees."""

QUANTILES = np.linspace(0, 1, 17, dtype=np.float32)
DARKEST = 1.0 / 4096
"""Linear light below which a logarithm is not taken."""


def thumbnail_of(pixels: Floats) -> Floats:
    """H×W×3 RGB 0..1 → 3×THUMBNAIL×THUMBNAIL, by averaging."""
    import cv2

    small = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small.transpose(2, 0, 1), np.float32)


def quantiles_of(thumbnails: Floats) -> Floats:
    """N×3×h×w 0..1 → N×51 logarithms of linear light at `QUANTILES` of each channel, scaled to about -2..0."""
    ordered = np.sort(thumbnails.reshape(*thumbnails.shape[:2], -1), axis=2)
    places = np.rint(QUANTILES * (ordered.shape[2] - 1)).astype(int)
    light = np.maximum(to_linear(ordered[:, :, places]), DARKEST)
    return np.asarray(np.log(light) / 4, np.float32).reshape(len(thumbnails), -1)


def apply_curve(pixels: Floats, curve: Floats, strength: float = 1.0) -> Floats:
    """H×W×3 RGB 0..1 under `curve` (logarithm of the gain, logarithm of the exponent).

    Args:
        pixels: The picture.
        curve: Two numbers, as the network gives them.
        strength: 0 leaves the picture as it is, 1 is the whole curve.
    """
    gain = np.float32(np.exp(strength * curve[0]))
    exponent = np.float32(np.exp(strength * curve[1]))
    return to_coded(gain * to_linear(np.clip(pixels, 0, 1)) ** exponent)
