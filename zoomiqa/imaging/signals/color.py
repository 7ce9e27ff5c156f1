"""Colourfulness, saturation and the colour of the light, from the reduced picture. It must not know severity.

A dominant colour (a forest, a sky) is not a cast. A cast is the colour of the light, on which independent estimates
are weighed: bright surfaces are grey on average (shades of grey), edges are grey on average (grey-edge), the palest,
the brightest and the deepest pixels are grey. `cast` is the length of their weighed sum in CIELAB, less what is usual.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import PixelArray, Plane

HUE_NAMES: tuple[tuple[float, str], ...] = (
    (44.0, "red"), (86.0, "orange"), (124.0, "yellow"), (170.0, "green"),
    (246.0, "cyan"), (310.0, "blue"), (354.0, "magenta"), (360.0, "red"),
)  # fmt: skip
"""Upper ends of the hue angles (CIELAB, degrees) that each name covers, midway between the tints of those lights."""

COLOR_LONG_SIDE_PX = 144
"""Colour is measured on a picture reduced to this: light and palette are wide, noise is not."""

LIGHT_NAMES = (
    "shade", "edge", "pale", "median", "bright", "deep", "white 90 %", "white 98 %", "white 99.5 %",
    "black 0.5 % red", "black 0.5 % blue", "black 5 % red", "black 5 % blue", "clipped red", "clipped blue",
)  # fmt: skip
"""The estimates of the light: tints in (a, b), then differences of red and of blue from green, in levels."""

# fmt: off
LIGHT_WEIGHTS: tuple[tuple[float, ...], tuple[float, ...]] = (
    (0.456, -0.155, 0.161, 0.138, -0.038, -0.044, 0.026, 0.021, 0.323, 0.003, 0.096, 0.099, 0.015, 0.134, 0.144),
    (0.261, 0.044, -0.066, 0.062, -0.106, 0.198, -0.183, 0.068, 0.42, 0.181, -0.246, -0.249, 0.082, 0.138, -0.49),
)
# fmt: on
"""Weight of each estimate for the a and the b axis: ridge regression on known casts of the odd-numbered Kodak and BSDS
photographs (`training/compact_diagnosis/fit.py`). The whites and shades of grey lead, the others correct them."""

LIGHT_OFFSET = (3.21, -7.38)
"""What the same fit takes off: an ordinary scene is a little green and yellow."""

SHADE_POWER = 6
"""Minkowski norm of shades of grey (Finlayson and Trezzi found 6 best)."""
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


def to_linear(rgb: PixelArray) -> Plane:
    """SRGB uint8 to linear light 0..1."""
    levels = np.arange(256) / 255
    table = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return np.asarray(table[rgb], np.float32)


def _tint(light: NDArray[np.floating]) -> NDArray[np.float64]:
    """(a, b) of a light's colour (linear RGB) at middle lightness."""
    peak = float(light @ np.array([0.2126, 0.7152, 0.0722]))
    if peak <= 0:
        return np.zeros(2)
    pixel = np.clip(light / peak * 0.3, 0, 1)
    encoded = np.where(pixel <= 0.0031308, pixel * 12.92, 1.055 * pixel ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(encoded.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB)
    return np.asarray(lab[0, 0, 1:], np.float64)


def _levels_tint(levels: NDArray[np.floating]) -> NDArray[np.float64]:
    """(a, b) of a colour given by encoded levels 0..255, at middle lightness."""
    encoded = np.maximum(levels, 1) / 255
    encoded = np.clip(encoded / float(encoded @ np.array([0.299, 0.587, 0.114])) * 0.5, 0, 1)
    lab = cv2.cvtColor(encoded.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB)
    return np.asarray(lab[0, 0, 1:], np.float64)


def light_estimates(rgb: PixelArray, lab: Plane) -> NDArray[np.float64] | None:
    """The estimates of `LIGHT_NAMES` for the a and the b axis, shape (2, 15); `None` without enough usable pixels."""
    usable = (rgb.max(2) < 250) & (rgb.max(2) > 12)
    lightness, ab = lab[..., 0], lab[..., 1:]
    middle = usable & (lightness > 15) & (lightness < 95)
    if middle.sum() < 100:
        return None
    linear = to_linear(rgb)[usable]
    squares = linear * linear
    shade = np.asarray((squares * squares * squares).mean(0, dtype=np.float64) ** (1 / SHADE_POWER))
    smooth = cv2.GaussianBlur(rgb.astype(np.float32) / 255, (0, 0), 1.5)
    gx, gy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    edge = np.sqrt((gx * gx + gy * gy)[usable].mean(0, dtype=np.float64))
    points, light = ab[middle], lightness[middle]
    chroma = np.hypot(points[:, 0], points[:, 1])
    low, high = np.quantile(light, (0.15, 0.95))
    tints = [
        _tint(shade),
        _tint(edge**2.2),  # ratios of encoded slopes to ratios of linear light
        points[chroma <= np.quantile(chroma, 0.05)].mean(0),
        np.median(points, 0),
        np.median(points[light >= high], 0),
        np.median(points[light <= low], 0),
    ]
    pixels = rgb.reshape(-1, 3)
    darkest, dark, white90, white98, white995 = np.quantile(pixels, (0.005, 0.05, 0.9, 0.98, 0.995), axis=0)
    tints += [_levels_tint(white) for white in (white90, white98, white995)]
    clipped = (pixels >= 253).mean(0) * 100
    differences = [end[channel] - end[1] for end in (darkest, dark, clipped) for channel in (0, 2)]
    return np.stack([np.array([tint[axis] for tint in tints] + differences, np.float64) for axis in (0, 1)])


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
        "cast_shade": None,
        "cast_pale": None,
        "cast_hue": None,
    }
    estimates = light_estimates(rgb, lab)
    if estimates is None:
        return values
    a, b = (np.array(LIGHT_WEIGHTS) * estimates).sum(1) + np.array(LIGHT_OFFSET)
    values["cast"] = math.hypot(a, b)
    values["cast_hue"] = math.degrees(math.atan2(b, a)) % 360
    values["cast_shade"] = math.hypot(estimates[0, 0], estimates[1, 0])
    values["cast_pale"] = math.hypot(estimates[0, 2], estimates[1, 2])
    return values
