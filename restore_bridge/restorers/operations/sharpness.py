"""Blur: measure its width in the spectrum, then undo it with a Wiener filter. It must not know words or boxes.

A photograph's power falls as a power of frequency; a Gaussian blur bends that line down by exp(−4π²σ²f²). The bend
gives σ, the line gives the signal's power for the Wiener filter, and frequencies under the noise are left alone.

Sources: Field (JOSA A 1987) for the power law; Wiener filter as in Gonzalez & Woods, *Digital Image Processing*, 5.8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore_bridge.restorers.operations.transform import Floats

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
FALL = 2.4
"""Exponent of the power law of photographs (2 to 3); fitted so that the measured σ is right on clean, blurred photos."""  # noqa: E501

ROUNDING = 0.45 / 255
"""Standard deviation taken for the rounding to 8 bits and what comes with it; the least noise that is assumed."""

CLEAR = 4.0
"""A frequency takes part in the fit while its power is this many times the noise."""

BORDER_PX = 24
"""Mirrored border around a picture in the Fourier domain."""

RINGS = np.linspace(0.02, 0.5, 49)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What the spectrum of a picture says about its sharpness."""

    sigma: float
    """Width of the Gaussian blur in pixels, 0 when none shows."""

    power: float
    """Signal power at one cycle per pixel: S(f) = power · f^−FALL."""

    noise: float
    """Standard deviation of the noise taken, 0..1 scale."""


def luminance(pixels: Floats) -> Floats:
    """H×W×3 RGB → H×W luma, same scale."""
    return np.asarray(pixels @ LUMA, np.float32)


def measure(luma: Floats, noise: float = 0.0) -> Spectrum:
    """Fit blur width and signal power to the spectrum of `luma` (H×W, 0..1), given its noise."""
    noise = max(noise, ROUNDING)
    power, radius = _power(luma)
    return _fit(power, radius, noise)


def _power(luma: Floats) -> tuple[np.ndarray, np.ndarray]:
    """Windowed power and frequency (cycles per pixel) of the half spectrum."""
    height, width = luma.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    power = np.abs(np.fft.rfft2((luma - luma.mean()) * window)) ** 2 / (window**2).sum()
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    return power, np.hypot(down, right)


def _fit(power: np.ndarray, radius: np.ndarray, noise: float) -> Spectrum:
    ring = np.digitize(radius, RINGS).ravel()
    order = np.argsort(ring, kind="stable")
    edges = np.searchsorted(ring[order], np.arange(1, len(RINGS) + 1))
    values = power.ravel()[order]
    middles, medians = [], []
    for index in range(len(RINGS) - 1):
        members = values[edges[index] : edges[index + 1]]
        if members.size >= 3:
            middles.append((RINGS[index] + RINGS[index + 1]) / 2)
            medians.append(
                float(np.median(members)) / 0.69
            )  # the median of an exponential variable is 0.69 of its mean
    frequency, level = np.array(middles), np.maximum(np.array(medians), 1e-14)
    if frequency.size < 6:
        return Spectrum(0.0, 1e-4, noise)
    clear = level > CLEAR * noise**2
    count = max(6, frequency.size if clear.all() else int(np.argmin(clear)))
    frequency, level = frequency[:count], level[:count]
    weight = np.sqrt(frequency)
    terms = np.stack([np.ones(count), -4 * np.pi**2 * frequency**2], axis=1)
    constant, square = np.linalg.lstsq(
        terms * weight[:, None], (np.log(level) + FALL * np.log(frequency)) * weight, rcond=None
    )[0]
    return Spectrum(float(np.sqrt(max(square, 0.0))), float(np.exp(constant)), noise)


def wiener(
    pixels: Floats, spectrum: Spectrum, *, sigma: float, caution: float = 1.0, calms_noise: bool = True
) -> Floats:
    """Undo a round Gaussian blur.

    Args:
        pixels: H×W×3 RGB, float32 0..1.
        spectrum: Signal power and noise, from `measure`.
        sigma: Width to undo, in pixels.
        caution: Multiplies the noise power; above 1 sharpens less and rings less.
        calms_noise: Whether frequencies under the noise are weakened, as the least squared error asks for; else they
            are left as they are.
    """
    from scipy import fft

    height, width = pixels.shape[:2]
    full = tuple(fft.next_fast_len(size + 2 * BORDER_PX, real=True) for size in (height, width))
    extra = ((BORDER_PX, full[0] - height - BORDER_PX), (BORDER_PX, full[1] - width - BORDER_PX), (0, 0))
    padded = np.pad(pixels, extra, mode="symmetric")
    down, right = np.fft.fftfreq(full[0])[:, None], np.fft.rfftfreq(full[1])[None, :]
    transfer = np.exp(-2 * np.pi**2 * sigma**2 * (down**2 + right**2))
    noise_to_signal = caution * spectrum.noise**2 * np.maximum(down**2 + right**2, 1e-8) ** (FALL / 2) / spectrum.power
    gain = (transfer / (transfer**2 + noise_to_signal)).astype(np.float32)
    if not calms_noise:
        gain = np.maximum(gain, 1)
    gain[0, 0] = 1.0
    restored = fft.irfft2(fft.rfft2(padded, axes=(0, 1)) * gain[:, :, None], s=full, axes=(0, 1))
    return np.asarray(restored[BORDER_PX : BORDER_PX + height, BORDER_PX : BORDER_PX + width], np.float32)


def hold_overshoot(sharp: Floats, soft: Floats, room: float, reach: int = 2) -> Floats:
    """Keep `sharp` within the local range of `soft` widened by `room` of that range: halos cannot run away."""
    import cv2

    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    low, high = cv2.erode(soft, kernel), cv2.dilate(soft, kernel)
    slack = room * (high - low)
    return np.asarray(np.clip(sharp, low - slack, high + slack), np.float32)
