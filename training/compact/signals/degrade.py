"""Known degradations and their undoing, with the share of quality that each leaves. It must not know features.

The shares follow the mean scores per level of KADID-10k (Lin, Hosu and Saupe, QoMEX 2019; its published label file),
for Gaussian blur, white noise, JPEG, darkening and colour shift: `(score - 1) / (clean score - 1)`. Pictures are
`H x W x 3` uint8 sRGB.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np

from .looks import Floats, PixelArray

STRENGTHS: dict[str, tuple[float, ...]] = {
    "blur": (1.0, 2.0, 3.0, 4.0),
    "noise": (8.0, 15.0, 25.0, 40.0),
    "jpeg": (40.0, 25.0, 15.0, 8.0),
    "dark": (0.25, 0.2, 0.15, 0.1),
    "cast": (1.15, 1.25, 1.35, 1.5),
}
"""Strengths at which the ordering is reported, rising: see `degrade` for their units."""

UNDOINGS: dict[str, str] = {"deblur": "blur", "denoise": "noise", "relight": "dark", "uncast": "cast"}
"""Undoings, each with the degradation that it starts from."""

WON_BACK = {"denoise": 0.45, "deblur": 0.45, "relight": 0.75, "uncast": 0.75}
"""Share of the lost quality that an undoing is taken to win back."""

SHRINK, SCALE = "shrink", 0.7
"""A change that leaves the score as it is, and the size it leaves of a side."""

UNDONE = 0.3
"""Share of the drawn operations that are undoings."""

SHRUNK_BEFORE = 0.6
"""Share of compressions of a smaller copy."""

DARK_GAMMA, DARK_NOISE = 1.3, 2.0
"""Of `dark`: the curve, and the noise in grey levels."""


def degrade(rgb: PixelArray, name: str, strength: float, rng: np.random.Generator) -> PixelArray:
    """One degradation.

    Args:
        rgb: The picture.
        name: `blur`, `noise`, `jpeg`, `dark` or `cast`.
        strength: Sigma in pixels; sigma in grey levels; quality, 1..100; the mean of linear light that the picture is
            brought down to, 0..1; the ratio of one channel's gain to the others'.
        rng: Of the noise, and of the channel of a cast.

    Raises:
        ValueError: there is no degradation of this name.
    """
    if name == "blur":
        return np.asarray(cv2.GaussianBlur(rgb, (0, 0), strength), np.uint8)
    if name == "noise":
        return _clip(rgb + strength * rng.standard_normal(rgb.shape, dtype=np.float32))
    if name == "jpeg":
        _, code = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(strength)])
        return np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1])
    if name == "dark":
        linear = (rgb / np.float32(255)) ** np.float32(DARK_GAMMA)
        gain = min(1.0, strength / max(float(linear.mean()), 1e-3))
        return _clip(255 * gain * linear + DARK_NOISE * rng.standard_normal(rgb.shape, dtype=np.float32))
    if name == "cast":
        gains = np.full(3, 1 / strength**0.5, np.float32)
        gains[int(rng.integers(3))] = strength**0.5
        return _clip(rgb * gains)
    raise ValueError(f"no degradation called {name!r}")


def undo(bad: PixelArray, clean: PixelArray, name: str, strength: float) -> PixelArray:
    """A plausible, imperfect restoration of `bad`, which was degraded by `strength`.

    The clean picture only supplies its mean light and colours.

    Raises:
        ValueError: there is no undoing of this name.
    """
    if name == "denoise":
        # OpenCV takes None for a result of its own, whatever its types say.
        found = cv2.fastNlMeansDenoisingColored(bad, None, 0.7 * strength, 0.7 * strength, 5, 13)
        return np.asarray(found, np.uint8)
    if name == "deblur":
        return _wiener(bad, strength)
    if name == "relight":
        real = bad / np.float32(255)
        gamma = math.log(max(float(clean.mean()) / 255, 0.05)) / math.log(max(float(real.mean()), 0.01))
        return _clip(255 * real ** np.float32(np.clip(gamma, 0.2, 1.0)))
    if name == "uncast":
        return _clip(bad * (clean.mean((0, 1)) / np.maximum(bad.mean((0, 1)), 1)).astype(np.float32))
    raise ValueError(f"no undoing called {name!r}")


def _wiener(bad: PixelArray, sigma: float) -> PixelArray:
    """The Wiener filter of a Gaussian blur."""
    height, width = bad.shape[:2]
    pad = int(4 * sigma)
    mode: Literal["reflect", "edge"] = "reflect" if min(height, width) > pad else "edge"
    padded = np.pad(bad.astype(np.float32), ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    fy, fx = np.fft.fftfreq(padded.shape[0])[:, None], np.fft.rfftfreq(padded.shape[1])[None]
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (fx**2 + fy**2))
    inverse = (transfer / (transfer**2 + 0.01)).astype(np.float32)[:, :, None]
    out = np.fft.irfft2(np.fft.rfft2(padded, axes=(0, 1)) * inverse, padded.shape[:2], axes=(0, 1))
    return _clip(out[pad : pad + height, pad : pad + width])


def kept(name: str, strength: float) -> float:
    """Share of quality (0..1) that a degradation of this strength leaves.

    Raises:
        ValueError: there is no degradation of this name.
    """
    if name == "blur":
        return float(1 / (1 + (strength / 1.05) ** 1.8))
    if name == "noise":
        return math.exp(-strength / 25)
    if name == "jpeg":
        # Steeper above quality 25 than KADID-10k, so that mild compression is told from none.
        return 1 - math.exp(-((strength / 19) ** 1.3))
    if name == "dark":
        return min(1.0, 0.1 + 2.5 * strength)
    if name == "cast":
        return math.exp(-1.3 * (strength - 1))
    raise ValueError(f"no degradation called {name!r}")


def draw(rng: np.random.Generator) -> tuple[str, float]:
    """A random operation (a degradation, an undoing or `SHRINK`) with a strength within `STRENGTHS`.

    JPEG is drawn three times as often as the rest, and `SHRINK` leaves the score as it is: all training photos were
    compressed before, and without both the rating would take a picture that never was compressed for an odd one.
    """
    operations = list(UNDOINGS) if rng.random() < UNDONE else [*STRENGTHS, "jpeg", "jpeg", SHRINK]
    name = operations[int(rng.integers(len(operations)))]
    if name == SHRINK:
        return name, SCALE
    ends = STRENGTHS[UNDOINGS.get(name, name)]
    return name, float(ends[0] + (ends[-1] - ends[0]) * rng.random())


def apply(rgb: PixelArray, name: str, strength: float, rng: np.random.Generator) -> tuple[PixelArray, float]:
    """The picture changed by what `draw` gave, and the share of quality (0..1) that it kept."""
    if name == SHRINK:
        return _shrunk(rgb, strength), 1.0
    if name == "jpeg" and rng.random() < SHRUNK_BEFORE:
        rgb = _shrunk(rgb, SCALE)
    cause = UNDOINGS.get(name, name)
    bad = degrade(rgb, cause, strength, rng)
    if name == cause:
        return bad, kept(name, strength)
    share = kept(cause, strength)
    return undo(bad, rgb, name, strength), share + WON_BACK[name] * (1 - share)


def _shrunk(rgb: PixelArray, scale: float) -> PixelArray:
    """A smaller copy, in which the block grid of an earlier compression is gone."""
    return np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _clip(real: Floats) -> PixelArray:
    return np.clip(np.rint(real), 0, 255).astype(np.uint8)
