"""Colourfulness, saturation and the colour of the light, from the reduced picture. It must not know severity.

A dominant colour (a forest, a sky) is not a cast. A cast is the colour of the light (`zoomiqa.imaging.signals.light`);
`cast` is the length of its log gains in hundredths, and leans to zero where the scene may explain its colours.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import PixelArray
from zoomiqa.imaging.signals.light import log_gains

HUE_NAMES: tuple[tuple[float, str], ...] = (
    (44.0, "red"), (86.0, "orange"), (124.0, "yellow"), (170.0, "green"),
    (246.0, "cyan"), (310.0, "blue"), (354.0, "magenta"), (360.0, "red"),
)  # fmt: skip
"""Upper ends of the hue angles (CIELAB, degrees) that each name covers, midway between the tints of those lights."""

COLOR_LONG_SIDE_PX = 144
"""Colour is measured on a picture reduced to this: light and palette are wide, noise is not."""

LEAST_PIXELS = 100
"""Pixels neither black nor clipped below which nothing is said of the light."""

DAYLIGHT_WEIGHT = 0.7
"""What a gain of red against blue counts beside one of green: a scene's own light varies from orange to blue."""

Values = dict[str, float | None]


def hue_name(degrees: float) -> str:
    """The name of a CIELAB hue angle."""
    angle = degrees % 360
    return next((name for end, name in HUE_NAMES if angle < end), "red")


def hasler_colorfulness(rgb: PixelArray) -> float:
    """Colourfulness M of Hasler, Suesstrunk 2003: 0 grey, 15 slight, 33 moderate, 59 quite, 109 extreme."""
    values = rgb.astype(np.float32)
    rg = values[..., 0] - values[..., 1]
    yb = (values[..., 0] + values[..., 1]) / 2 - values[..., 2]
    return math.hypot(float(rg.std()), float(yb.std())) + 0.3 * math.hypot(float(rg.mean()), float(yb.mean()))


def cast_of_gains(gains: NDArray[np.floating]) -> tuple[float, float]:
    """(strength, CIELAB hue angle in degrees) of a light with these log gains (R, G, B); the strength as `cast`."""
    daylight, other = float(gains @ np.array([1, 0, -1]) / 2**0.5), float(gains @ np.array([1, -2, 1]) / 6**0.5)
    light = np.exp(gains)
    pixel = np.clip(light / float(light @ np.array([0.2126, 0.7152, 0.0722])) * 0.25, 0, 1)
    encoded = np.where(pixel <= 0.0031308, pixel * 12.92, 1.055 * pixel ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(encoded.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB)
    hue = math.degrees(math.atan2(float(lab[0, 0, 2]), float(lab[0, 0, 1]))) % 360
    return 100 * math.hypot(DAYLIGHT_WEIGHT * daylight, other), hue


def has_color_to_tell(rgb: PixelArray) -> bool:
    """Whether enough of HxWx3 uint8 pixels is neither black nor clipped to say anything of the light."""
    highest = rgb.max(2)
    return bool(((highest > 12) & (highest < 250)).sum() >= LEAST_PIXELS)


def measure_color(rgb: PixelArray) -> Values:
    """Measure the colours of HxWx3 uint8 pixels."""
    lab = np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    strong = chroma > 30
    clipped = strong & ((rgb.min(2) <= 2) | (rgb.max(2) >= 253))
    values: Values = {
        "colorfulness": hasler_colorfulness(rgb),
        "saturation": float(chroma.mean()),
        "saturation_p95": float(np.quantile(chroma, 0.95)),
        "gamut_clipped": float(clipped.mean()),
        "cast": None,
        "cast_hue": None,
    }
    if has_color_to_tell(rgb):
        values["cast"], values["cast_hue"] = cast_of_gains(log_gains(rgb))
    return values
