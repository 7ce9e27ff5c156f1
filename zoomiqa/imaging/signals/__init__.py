"""Measured signals of a photograph: each with a paper, a unit, a range and, where one exists, a map.

It must not know severity, words or ratings: it says how wide an edge is, not that a picture is blurred.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from zoomiqa.errors import ImageValuesInvalid, OptionInvalid
from zoomiqa.imaging.signals.canvas import PixelArray, Plane, canvas_of, luma_of, reduced
from zoomiqa.imaging.signals.color import COLOR_LONG_SIDE_PX, hasler_colorfulness, hue_name, measure_color
from zoomiqa.imaging.signals.compression import measure_banding, measure_blocking
from zoomiqa.imaging.signals.exposure import measure_exposure
from zoomiqa.imaging.signals.noise import chen_sigma, quiet_level, sigma_map
from zoomiqa.imaging.signals.registry import NATIVE_SCALE, SIGNALS, SignalInfo, Signals
from zoomiqa.imaging.signals.resolution import measure_resolution
from zoomiqa.imaging.signals.sharpness import measure_sharpness
from zoomiqa.imaging.signals.tone import measure_tone

__all__ = ["NATIVE_SCALE", "SIGNALS", "Hints", "SignalInfo", "Signals", "hints", "hue_name", "measure"]


@dataclass(frozen=True, slots=True)
class Hints:
    """The four low-level indicators that KonIQ-10k samples by and the paper's consistency filter reads."""

    brightness: float
    """Mean luma, 0..1."""

    contrast: float
    """Standard deviation of luma (RMS contrast), 0..0.5."""

    colorfulness: float
    """Hasler and Suesstrunk's M, about 0..150."""

    sharpness: float
    """Variance of the Laplacian of the 8-bit luma (Pech-Pacheco 2000); 0 in a picture under 3 x 3."""


def _check(rgb: PixelArray) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ImageValuesInvalid("pixels must be uint8 of shape (height, width, 3)", rgb.shape, "convert it first")


def hints(rgb: PixelArray) -> Hints:
    """The four indicators of HxWx3 uint8 RGB; always finite."""
    _check(rgb)
    luma = luma_of(rgb)
    sharpness = float(cv2.Laplacian(luma, cv2.CV_32F).var()) if min(luma.shape) >= 3 else 0.0
    return Hints(float(luma.mean()) / 255, float(luma.std()) / 255, hasler_colorfulness(rgb), sharpness)


def measure(rgb: PixelArray, *, scale: float = 1.0, is_detail: bool = False) -> Signals:
    """Measure every signal that can be told from these pixels.

    Args:
        rgb: HxWx3 uint8 RGB, any size from 1x1.
        scale: How much the picture was reduced before: 1.0 is native, 0.5 is half the side. Below `NATIVE_SCALE` the
            signals that live in single pixels (noise, blocking, banding, halos, enlargement) are `None`, and edge
            widths and resolution are those of the reduced picture.
        is_detail: Leave out tones and colours, which a look at the whole picture has told already; they are `None`.

    Returns:
        Every name of `SIGNALS` with a finite figure or `None`. A picture of more than 1.5 Mpx is measured natively on
        an even grid of tiles, never on a reduced copy.
    """
    _check(rgb)
    if not 0 < scale <= 1:
        raise OptionInvalid("a scale lies in 0..1, above 0", scale, "give reduced side / native side")
    values: dict[str, float | None] = dict.fromkeys(SIGNALS)
    maps: dict[str, Plane] = {}
    if not is_detail:
        tone, tone_maps = measure_tone(reduced(rgb))
        small = reduced(rgb, COLOR_LONG_SIDE_PX)
        values |= tone | measure_color(small) | measure_exposure(small)
        maps |= tone_maps
    canvas = canvas_of(rgb)
    green = np.ascontiguousarray(canvas.rgb[..., 1], np.float32)
    sigma = chen_sigma(green, is_tiled=canvas.is_tiled)
    is_native = scale >= NATIVE_SCALE
    sharp, sharp_maps = measure_sharpness(canvas, sigma or 0.0, is_native=is_native)
    values |= sharp
    maps |= sharp_maps
    spectral, spectral_maps = measure_resolution(canvas, sigma or 0.0, is_native=is_native)
    values |= spectral
    maps |= spectral_maps
    if is_native:
        values["noise_sigma"] = sigma
        difference = (canvas.rgb[..., 0] - green) * np.float32(0.5**0.5)
        values["chroma_noise_sigma"] = chen_sigma(difference, is_tiled=canvas.is_tiled, samples=4000)
        maps["noise_sigma"] = sigma_map(green, canvas)
        maps["chroma_noise_sigma"] = sigma_map(difference, canvas)
        values["noise_floor"] = quiet_level(maps["noise_sigma"], canvas)
        for found, found_maps in (
            measure_blocking(canvas),
            measure_banding(canvas),
        ):
            values |= found
            maps |= found_maps
    finite = {name: value if value is not None and np.isfinite(value) else None for name, value in values.items()}
    return Signals((int(rgb.shape[1]), int(rgb.shape[0])), float(scale), finite, maps)
