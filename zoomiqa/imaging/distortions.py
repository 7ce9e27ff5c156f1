"""Known distortions for tests, calibration and training. It must not know how a flaw is measured or worded.

Every distortion has five severities: 1 is about just noticeable on a 768x512 photograph, 3 clearly visible, 5 strong.
The formulas are in the docstrings; the parameters of each severity are in `DISTORTIONS`. "Linear" means sRGB decoded to
linear light (IEC 61966-2-1). Randomness comes from the seed alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import ImageValuesInvalid, OptionInvalid
from zoomiqa.types import BoxFraction
from zoomiqa.vocabulary import Flaw

PixelArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Operation = Callable[[PixelArray, float, np.random.Generator], tuple[FloatArray, str]]

SEVERITIES = (1, 2, 3, 4, 5)

HUES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "red": (1.0, -0.5, -0.5),
        "orange": (1.0, 0.0, -1.0),
        "yellow": (0.5, 0.5, -1.0),
        "green": (-0.5, 1.0, -0.5),
        "cyan": (-1.0, 0.5, 0.5),
        "blue": (-0.5, -0.5, 1.0),
        "magenta": (0.5, -1.0, 0.5),
    }
)
"""Direction of each named cast in linear RGB gains."""


@dataclass(frozen=True, slots=True)
class Distortion:
    """One known operation."""

    name: str
    flaw: Flaw
    """What a careful person would call the result."""

    parameters: tuple[float, float, float, float, float]
    """The operation's parameter at severities 1 to 5."""

    meaning: str
    """What the parameter is."""

    operation: Operation


@dataclass(frozen=True, slots=True, eq=False)
class Distorted:
    """A distorted picture with its ground truth."""

    pixels: PixelArray
    """HxWx3 uint8 RGB."""

    mask: FloatArray
    """HxW in 0..1: the weight of the distortion at each pixel; all ones without a box or a mask."""

    name: str
    flaw: Flaw
    severity: int
    parameter: float
    detail: str
    """The hue of a cast or the angle of a motion in words; else empty."""

    box_fraction: BoxFraction
    """Where it is: the box asked for, or the one around all pixels that the mask gives half the weight or more."""


def _linear(values: NDArray[np.floating] | PixelArray) -> FloatArray:
    """SRGB 0..255 to linear light 0..1."""
    v = np.asarray(values, np.float32) / np.float32(255)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encode(linear: FloatArray) -> FloatArray:
    """Linear light to sRGB 0..255, clipped."""
    v = np.clip(linear, 0, 1)
    return np.where(v <= 0.0031308, v * 12.92, 1.055 * v ** (1 / 2.4) - 0.055).astype(np.float32) * np.float32(255)


def _luma(rgb: FloatArray) -> FloatArray:
    return (rgb @ np.array([0.299, 0.587, 0.114], np.float32))[..., None].astype(np.float32)


def _gaussian(rgb: PixelArray | FloatArray, sigma: float) -> FloatArray:
    return np.asarray(
        cv2.GaussianBlur(np.asarray(rgb, np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32
    )


def _gaussian_blur(rgb: PixelArray, sigma: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Convolve with a Gaussian of `sigma` pixels (defocus)."""
    del rng
    return _gaussian(rgb, sigma), ""


def _motion_blur(rgb: PixelArray, length: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Convolve with a line of `length` pixels at a random angle (camera shake)."""
    angle = float(rng.uniform(0, 180))
    half = math.ceil(length / 2)
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    along = columns * math.cos(math.radians(angle)) - rows * math.sin(math.radians(angle))
    across = columns * math.sin(math.radians(angle)) + rows * math.cos(math.radians(angle))
    kernel = np.clip(length / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    kernel /= kernel.sum()
    blurred = cv2.filter2D(rgb.astype(np.float32), -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32), f"{angle:.0f}°"


def _gaussian_noise(rgb: PixelArray, sigma: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Add independent normal noise of standard deviation `sigma` (levels of 255) to every channel."""
    return rgb + rng.standard_normal(rgb.shape, np.float32) * np.float32(sigma), ""


def _camera_noise(rgb: PixelArray, gain: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Heteroscedastic sensor noise in linear light: variance = gain * x + (0.6 * gain) ** 2 (Foi et al. 2008)."""
    linear = _linear(rgb)
    deviation = np.sqrt(np.float32(gain) * linear + np.float32((0.6 * gain) ** 2))
    return _encode((linear + deviation * rng.standard_normal(rgb.shape, np.float32)).astype(np.float32)), ""


def _jpeg(rgb: PixelArray, quality: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Save as baseline JPEG with 4:2:0 chroma at `quality` and open again (Pillow)."""
    from PIL import Image

    del rng
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=int(quality), subsampling=2)
    with Image.open(io.BytesIO(buffer.getvalue())) as decoded:
        return np.asarray(decoded.convert("RGB"), np.float32), ""


def _ringing(rgb: PixelArray, cutoff: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Cut the spectrum off at `cutoff` cycles per pixel with no roll-off (sinc kernel), on a mirrored frame."""
    del rng
    pad = min(32, rgb.shape[0], rgb.shape[1])
    framed = np.pad(rgb.astype(np.float32), ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    height, width = framed.shape[:2]
    keep = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]) <= cutoff
    cut = np.fft.irfft2(np.fft.rfft2(framed, axes=(0, 1)) * keep[..., None], s=(height, width), axes=(0, 1))
    return cut[pad:-pad, pad:-pad].astype(np.float32), ""


def _banding(rgb: PixelArray, levels: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Round every channel to `levels` evenly spaced values after smoothing by 1 pixel (so that steps are clean)."""
    del rng
    step = np.float32(255 / (levels - 1))
    return (np.round(_gaussian(rgb, 0.6) / step) * step).astype(np.float32), ""


def _low_light(rgb: PixelArray, gain: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Multiply linear light by `gain`, deepen by gamma 1.1, and add sensor noise that grows as light falls."""
    dark = _encode((np.float32(gain) * _linear(rgb) ** np.float32(1.1)).astype(np.float32))
    deviation = np.float32(0.8 * math.log2(1 / gain))
    return dark + rng.standard_normal(rgb.shape, np.float32) * deviation, ""


def _overexposure(rgb: PixelArray, gain: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Multiply linear light by `gain` and clip."""
    del rng
    return _encode((np.float32(gain) * _linear(rgb)).astype(np.float32)), ""


def _low_contrast(rgb: PixelArray, factor: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Scale the distance from the mean luma by `factor`, with half of the mean pulled to mid grey."""
    del rng
    values = rgb.astype(np.float32)
    mean = float(_luma(values).mean())
    return ((values - mean) * factor + mean + (127.5 - mean) * 0.5 * (1 - factor)).astype(np.float32), ""


def _haze(rgb: PixelArray, transmission: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Koschmieder: J t + A (1 - t), linear light, A near white, depth 1.3 (top) to 0.7 (bottom) of the mean."""
    air = np.float32(rng.uniform(0.72, 0.88)) * np.array([0.97, 0.99, 1.0], np.float32)
    depth = np.linspace(1.3, 0.7, rgb.shape[0], dtype=np.float32)[:, None, None]
    t = np.exp(np.float32(math.log(transmission)) * depth)
    return _encode((_linear(rgb) * t + air * (1 - t)).astype(np.float32)), ""


def _color_cast(rgb: PixelArray, strength: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Von Kries gains exp(strength * direction) in linear light, mean luma kept; the hue is drawn from `HUES`."""
    name = str(rng.choice(list(HUES)))
    gains = np.exp(np.float32(strength) * np.array(HUES[name], np.float32))
    gains /= float(gains @ np.array([0.2126, 0.7152, 0.0722], np.float32))
    return _encode((_linear(rgb) * gains).astype(np.float32)), name


def _saturation(rgb: PixelArray, factor: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Scale the distance of every pixel from its luma by `factor`."""
    del rng
    values = rgb.astype(np.float32)
    luma = _luma(values)
    return (luma + (values - luma) * np.float32(factor)).astype(np.float32), ""


def _low_resolution(rgb: PixelArray, factor: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Reduce by `factor` (area average) and enlarge back (bicubic)."""
    del rng
    height, width = rgb.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    reduced = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(reduced, (width, height), interpolation=cv2.INTER_CUBIC), np.float32), ""


def _oversharpen(rgb: PixelArray, amount: float, rng: np.random.Generator) -> tuple[FloatArray, str]:
    """Unsharp mask: x + amount * (x - blur(x, 1.2 pixels))."""
    del rng
    values = rgb.astype(np.float32)
    return (values + np.float32(amount) * (values - _gaussian(values, 1.2))).astype(np.float32), ""


DISTORTIONS: Mapping[str, Distortion] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Distortion("gaussian_blur", Flaw.BLUR, (1.0, 1.6, 2.5, 4.0, 6.0), "sigma in px", _gaussian_blur),
            Distortion("motion_blur", Flaw.MOTION_BLUR, (5, 9, 14, 21, 31), "length in px", _motion_blur),
            Distortion("gaussian_noise", Flaw.NOISE, (5, 10, 17, 27, 42), "sigma in levels", _gaussian_noise),
            Distortion("camera_noise", Flaw.NOISE, (0.001, 0.003, 0.009, 0.022, 0.05), "shot gain", _camera_noise),
            Distortion("jpeg", Flaw.BLOCKING, (40, 26, 17, 11, 6), "JPEG quality", _jpeg),
            Distortion("ringing", Flaw.RINGING, (0.32, 0.25, 0.19, 0.14, 0.10), "cut-off in cycles/px", _ringing),
            Distortion("banding", Flaw.BANDING, (26, 18, 12, 8, 5), "levels per channel", _banding),
            Distortion("low_light", Flaw.UNDEREXPOSURE, (0.5, 0.32, 0.2, 0.12, 0.06), "linear gain", _low_light),
            Distortion("overexposure", Flaw.OVEREXPOSURE, (1.5, 2.1, 3.0, 4.2, 6.5), "linear gain", _overexposure),
            Distortion("low_contrast", Flaw.LOW_CONTRAST, (0.72, 0.55, 0.4, 0.28, 0.18), "factor", _low_contrast),
            Distortion("haze", Flaw.HAZE, (0.82, 0.66, 0.5, 0.36, 0.24), "mean transmission", _haze),
            Distortion("color_cast", Flaw.COLOR_CAST, (0.15, 0.26, 0.4, 0.58, 0.8), "log gain", _color_cast),
            Distortion("desaturation", Flaw.DULL_COLOR, (0.65, 0.45, 0.3, 0.18, 0.08), "chroma factor", _saturation),
            Distortion("oversaturation", Flaw.OVERSATURATION, (1.4, 1.8, 2.4, 3.2, 4.5), "chroma factor", _saturation),
            Distortion("low_resolution", Flaw.LOW_RESOLUTION, (1.5, 2.0, 3.0, 4.0, 6.0), "reduction", _low_resolution),
            Distortion("oversharpen", Flaw.OVERSHARPENING, (0.9, 1.6, 2.7, 4.2, 6.5), "amount", _oversharpen),
        )
    }
)
"""Every known distortion by name."""


def soft_mask(shape: tuple[int, int], box_fraction: BoxFraction) -> FloatArray:
    """A mask (height, width) of 1 inside `box_fraction` and 0 outside, feathered over 2 % of the shorter side."""
    height, width = shape
    feather = max(0.02 * min(height, width), 0.5)

    def ramp(size: int, low: float, high: float) -> NDArray[np.float64]:
        centre = np.arange(size) + 0.5
        rising = np.clip((centre - low * size) / feather + 0.5, 0, 1) if low > 0 else np.ones(size)
        falling = np.clip((high * size - centre) / feather + 0.5, 0, 1) if high < 1 else np.ones(size)
        return np.minimum(rising, falling)

    x1, y1, x2, y2 = box_fraction
    return np.outer(ramp(height, y1, y2), ramp(width, x1, x2)).astype(np.float32)


def box_of_mask(mask: FloatArray) -> BoxFraction:
    """The box around the pixels of `mask` (height, width) with a weight of a half or more, as fractions.

    Raises:
        OptionInvalid: there is none.
    """
    height, width = mask.shape
    inside = mask >= 0.5
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise OptionInvalid("a mask needs pixels with a weight of at least 0.5", float(mask.max()), "make it stronger")
    x1, x2 = float(columns[0]) / width, float(columns[-1] + 1) / width
    return (x1, float(rows[0]) / height, x2, float(rows[-1] + 1) / height)


def distort(
    rgb: PixelArray,
    name: str,
    severity: int,
    seed: int = 0,
    box_fraction: BoxFraction | None = None,
    *,
    mask: FloatArray | None = None,
) -> Distorted:
    """Apply one known distortion.

    Args:
        rgb: HxWx3 uint8 RGB, any size.
        name: A key of `DISTORTIONS`.
        severity: 1 (about just noticeable) to 5 (strong).
        seed: Fixes the noise, the angle of a motion and the hue of a cast.
        box_fraction: Where to apply it, as fractions (x1, y1, x2, y2); the border is feathered. `None` is everywhere.
        mask: Where to apply it instead, of any shape: HxW in 0..1, the share of the distorted pixel in the result.

    Raises:
        OptionInvalid: an unknown name, a severity outside 1..5, a box out of order or outside 0..1, or a mask of
            another size, outside 0..1, nowhere at a half, or beside a box.
        ImageValuesInvalid: not a non-empty HxWx3 uint8 array.
    """
    if name not in DISTORTIONS:
        raise OptionInvalid("unknown distortion", name, f"choose one of {', '.join(DISTORTIONS)}")
    if severity not in SEVERITIES:
        raise OptionInvalid("a severity is a whole number from 1 to 5", severity, "choose one of them")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ImageValuesInvalid("pixels must be uint8 of shape (height, width, 3)", rgb.shape, "convert it first")
    if mask is not None:
        box_fraction = _checked_box(mask, rgb.shape[:2], box_fraction)
    box = (0.0, 0.0, 1.0, 1.0) if box_fraction is None else box_fraction
    if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise OptionInvalid("a box needs 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1", box, "order its corners")
    entry = DISTORTIONS[name]
    parameter = float(entry.parameters[severity - 1])
    changed, detail = entry.operation(np.ascontiguousarray(rgb), parameter, np.random.default_rng(seed))
    if mask is None:
        mask = soft_mask((rgb.shape[0], rgb.shape[1]), box)
    blended = rgb + (changed - rgb) * mask[..., None]
    pixels = np.clip(np.round(blended), 0, 255).astype(np.uint8)
    return Distorted(pixels, mask, name, entry.flaw, severity, parameter, detail, box)


def _checked_box(mask: FloatArray, shape: tuple[int, ...], box_fraction: BoxFraction | None) -> BoxFraction:
    if box_fraction is not None:
        raise OptionInvalid("a distortion is placed by a box or by a mask", box_fraction, "leave one of them out")
    if mask.shape != shape or mask.dtype != np.float32:
        given = (mask.dtype, mask.shape)
        raise OptionInvalid("a mask must be float32 of the picture's size", given, f"make it {shape}")
    if not (np.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1):
        raise OptionInvalid("a mask holds weights of 0..1", (float(mask.min()), float(mask.max())), "scale it")
    return box_of_mask(mask)
