"""Banding: smooth the steps of flat gradients, then dither so that rounding does not bring them back."""

from __future__ import annotations

import numpy as np

from restore_bridge.restorers.operations.light import guided
from restore_bridge.restorers.operations.transform import Floats


def step_size(pixels: Floats) -> float:
    """The distance of neighbouring tones in brightness values that occur (0..1): 1/255 for an unbanded picture.

    The median distance between occupied levels of the green channel, whose rounding matters most.
    """
    levels = np.unique(np.rint(pixels[:, :, 1] * 255).astype(np.int16))
    return float(np.median(np.diff(levels))) / 255 if levels.size > 1 else 1 / 255


def deband(pixels: Floats, strength: float, seed: int) -> Floats:
    """Smooth within one step of the tone scale, strongest where the picture is calm.

    Args:
        seed: Of the dither, which is drawn by NumPy's PCG64.
    """
    import cv2

    step = max(step_size(pixels), (1 + 5 * strength) / 255)
    result = np.empty_like(pixels)
    for channel in range(3):
        plane = np.ascontiguousarray(pixels[:, :, channel])
        smooth = cv2.GaussianBlur(guided(plane, plane, 8, (0.8 * step) ** 2), (0, 0), 1.5)
        wide = cv2.GaussianBlur(plane, (0, 0), 6.0)
        calm = np.exp(-np.square(np.abs(wide - plane) / (0.8 * step)))
        result[:, :, channel] = np.clip(smooth, plane - step / 2, plane + step / 2) * calm + plane * (1 - calm)
    noise = np.random.default_rng(seed).triangular(-1, 0, 1, pixels.shape).astype(np.float32)
    return np.asarray(result + noise * (0.5 / 255), np.float32)
