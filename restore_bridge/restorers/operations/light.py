"""Brightness, contrast and haze: measured on the picture, corrected in linear light. It must not know words or boxes.

Each correction aims at what photographs measure when nothing is wrong; the targets are medians over the odd-numbered
half of Kodak24 and of 60 BSDS500 photos.

Source of the haze model: He, Sun & Tang, "Single image haze removal using dark channel prior" (CVPR 2009), and their
"Guided image filtering" (ECCV 2010) for the transmission.
"""

from __future__ import annotations

import numpy as np

from restore_bridge.restorers.operations.transform import Floats

LINEAR_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
WHITE_AIM, MEAN_AIM = 0.80, 0.40
"""Linear luma of the 99.5th percentile, and mean sRGB-coded luma, of an ordinary photograph."""

BRIGHT_AIM = 0.45
"""Mean coded luma that an over-bright picture is brought down to."""

HIGHLIGHT_BEND = 6.0
"""Power with which darkened light returns to white at the end of the scale."""

CONTRAST_AIM = (0.11, 0.87)
"""1st and 99th percentile of coded luma of an ordinary photograph."""

HAZE_KEEP = 0.05
"""Share of the veil that is left at full strength; air without any looks unreal."""

SHOULDER = 0.8
"""Linear level from which lifted highlights bend towards white instead of clipping."""


def to_linear(pixels: Floats) -> Floats:
    """sRGB-coded 0..1 → linear light 0..1 (IEC 61966-2-1)."""
    return np.where(pixels <= 0.04045, pixels / 12.92, ((np.maximum(pixels, 0) + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def to_coded(light: Floats) -> Floats:
    """Inverse of `to_linear`; clips to 0..1."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def lift(pixels: Floats, strength: float) -> tuple[Floats, float]:
    """Brighten a dark picture: a gain that brings the brightest parts to white, then a gamma for the middle.

    Args:
        pixels: H×W×3 RGB, 0..1.
        strength: 0..1; bounds gain and gamma, so that a slight flaw gets a slight correction.

    Returns:
        (brightened picture, how much the shadows were multiplied).
    """
    light = to_linear(pixels)
    white = float(np.percentile(light @ LINEAR_LUMA, 99.5))
    gain = float(np.clip(WHITE_AIM / max(white, 1e-4), 1.0, 2.0 ** (1.0 + 3.5 * strength**2)))
    lifted = light * gain
    lifted = np.where(
        lifted > SHOULDER, SHOULDER + (1 - SHOULDER) * np.tanh((lifted - SHOULDER) / (1 - SHOULDER)), lifted
    )
    coded = to_coded(lifted)
    gamma = _gamma_for_mean(float((coded @ LINEAR_LUMA).mean()), MEAN_AIM)
    gamma = float(np.clip(gamma, 1.0 - 0.65 * strength, 1.0))
    if gamma < 1.0:
        coded = np.power(coded, gamma)
    return coded.astype(np.float32), gain / gamma


def tame(pixels: Floats, strength: float) -> Floats:
    """Darken an over-bright picture in linear light; what was clipped stays the brightest.

    Light is scaled by `keep` where it is far from white and bends up to white at the end of the scale.
    """
    light = to_linear(np.clip(pixels, 0, 1))

    def darker(keep: float) -> Floats:
        return to_coded(light * keep + (1 - keep) * light**HIGHLIGHT_BEND)

    low, high = 1.0 - 0.75 * strength, 1.0
    if float((darker(low) @ LINEAR_LUMA).mean()) >= BRIGHT_AIM:
        return darker(low)
    if float((pixels @ LINEAR_LUMA).mean()) <= BRIGHT_AIM:
        return pixels
    for _ in range(7):
        middle = (low + high) / 2
        if float((darker(middle)[::4, ::4] @ LINEAR_LUMA).mean()) > BRIGHT_AIM:
            high = middle
        else:
            low = middle
    return darker((low + high) / 2)


def stretch(pixels: Floats, strength: float) -> Floats:
    """Widen a narrow tonal range: the 1st and 99th percentile of brightness move towards those of ordinary photos."""
    luma = pixels @ LINEAR_LUMA
    low, high = (float(value) for value in np.percentile(luma, (1, 99)))
    gain = (CONTRAST_AIM[1] - CONTRAST_AIM[0]) / max(high - low, 0.02)
    gain = float(np.clip(gain, 1.0, 1.0 + 2.0 * strength))
    middle = float(luma.mean())
    return np.asarray(middle + (pixels - middle) * gain, np.float32)


def dehaze(pixels: Floats, strength: float) -> Floats:
    """Undo a veil of scattered light by the dark channel prior, with a guided filter on the transmission."""
    import cv2

    dark = cv2.erode(pixels.min(axis=2), np.ones((15, 15), np.uint8))
    brightest = dark >= np.quantile(dark, 0.999)
    air = np.maximum(pixels[brightest].mean(axis=0), 0.5).astype(np.float32)
    veil = cv2.erode((pixels / air).min(axis=2), np.ones((15, 15), np.uint8))
    keep = HAZE_KEEP + (1 - HAZE_KEEP) * (1 - strength) * 0.5
    clear_level = float(np.quantile(veil, 0.02))
    rough = 1 - (1 - keep) * veil - keep * min(clear_level, 0.6) * strength
    transmission = np.clip(guided(pixels @ LINEAR_LUMA, rough.astype(np.float32), 30, 1e-3), 0.25, 1)
    return np.asarray((pixels - air) / transmission[:, :, None] + air, np.float32)


def guided(guide: Floats, values: Floats, radius: int, epsilon: float) -> Floats:
    """Guided filter of `values` (H×W) by the grey `guide` (H×W) in box-filter form."""
    import cv2

    size = (2 * radius + 1, 2 * radius + 1)

    def mean(field: Floats) -> Floats:
        return np.asarray(cv2.blur(field, size, borderType=cv2.BORDER_REFLECT), np.float32)

    guide = np.ascontiguousarray(guide, dtype=np.float32)
    mean_guide, mean_values = mean(guide), mean(values)
    slope = (mean(guide * values) - mean_guide * mean_values) / (mean(guide * guide) - mean_guide**2 + epsilon)
    return np.asarray(mean(slope) * guide + mean(mean_values - slope * mean_guide), np.float32)


def _gamma_for_mean(mean: float, aim: float) -> float:
    mean = float(np.clip(mean, 0.01, 0.99))
    return float(np.log(aim) / np.log(mean))
