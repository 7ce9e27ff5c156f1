"""How much of the spectrum holds signal, in which direction, and how it ends. It must not know severity.

Three ends of a spectrum differ: defocus rolls off gently, a sharp filter stops at a cliff, and enlarging leaves a
periodic trace in the second differences besides.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import TILE_PX, Canvas, Plane

WINDOW_PX = 64
Values = dict[str, float | None]
Maps = dict[str, Plane]

CUT_SHARE = 0.03
"""The band ends where the whitened spectrum (power times frequency squared) stays below this share of its level at
0.05 to 0.15 cycles per pixel."""

SECTORS = 8
BINS = 34

_HANN = np.outer(np.hanning(WINDOW_PX), np.hanning(WINDOW_PX)).astype(np.float32)
_FY, _FX = np.fft.fftfreq(WINDOW_PX)[:, None], np.fft.rfftfreq(WINDOW_PX)[None, :]
_RADIUS = np.minimum(np.round(np.hypot(_FY, _FX) * WINDOW_PX), BINS - 1).astype(np.intp).ravel()
_ANGLE = np.degrees(np.arctan2(-_FY, _FX + 1e-9)).ravel() % 180
_SECTOR = (np.floor(_ANGLE / (180 / SECTORS) + 0.5).astype(np.intp)) % SECTORS
_COUNTS = np.bincount(_RADIUS, minlength=BINS).astype(np.float64)
_SECTOR_COUNTS = np.maximum(np.bincount(_RADIUS + BINS * _SECTOR, minlength=BINS * SECTORS), 1)
_FREQUENCY = np.arange(BINS) / WINDOW_PX


def _whitened(spectrum: NDArray[np.floating], floor: float) -> NDArray[np.float64]:
    return np.asarray(np.maximum(spectrum - floor, 0) * _FREQUENCY**2, np.float64)


def _cutoff(spectrum: NDArray[np.floating], floor: float, level: float | None = None) -> float:
    """Highest frequency that holds signal, as a share of Nyquist, of one radial spectrum; NaN where there is none."""
    whitened = _whitened(spectrum, floor)
    level = float(whitened[3:10].max()) if level is None else level
    if level <= 0 or float(spectrum[3:10].max()) < 4 * floor:
        return math.nan
    held = np.nonzero((whitened[:33] > CUT_SHARE * level) & (spectrum[:33] > 1.5 * floor))[0]
    return float(min(held[-1] / 32, 1.0)) if held.size else math.nan


def _cliff(spectrum: NDArray[np.floating], floor: float) -> float:
    """Largest fall of the spectrum within four bins, in decibels, less its mean fall per four bins below that."""
    logs = 10 * np.log10(np.maximum(spectrum[:33], floor))
    falls = logs[4:29] - logs[8:33]
    where = int(falls.argmax())
    before = float(logs[2] - logs[4 + where]) / (where + 2) * 4
    return max(0.0, float(falls[where]) - max(before, 0.0))


def measure_resolution(canvas: Canvas, noise_sigma: float, *, is_native: bool) -> tuple[Values, Maps]:
    """Spectral cut-off over all windows, per direction and per cell; the cliff; the trace of enlargement."""
    luma = canvas.luma
    height, width = luma.shape
    names = ("resolution", "resolution_least", "resolution_angle", "cutoff_cliff", "interpolation")
    values: Values = dict.fromkeys(names)
    if min(height, width) < WINDOW_PX:
        return values, {}
    windows = []
    for top, bottom in zip(canvas.rows[:-1], canvas.rows[1:], strict=True):
        for left, right in zip(canvas.columns[:-1], canvas.columns[1:], strict=True):
            y = min(max((top + bottom - WINDOW_PX) // 2, 0), height - WINDOW_PX)
            x = min(max((left + right - WINDOW_PX) // 2, 0), width - WINDOW_PX)
            window = luma[y : y + WINDOW_PX, x : x + WINDOW_PX]
            windows.append((window - window.mean()) * _HANN)
    power = np.abs(np.fft.rfft2(np.stack(windows))) ** 2
    radial = np.stack([np.bincount(_RADIUS, p.ravel(), BINS) for p in power]) / _COUNTS
    energy = float((_HANN**2).sum())
    floor = (noise_sigma**2 * 0.5 + 1 / 12) * energy
    cells = np.array([_cutoff(row, floor) for row in radial], np.float32)
    mean = radial.mean(0)
    whole = _cutoff(mean, floor)
    if not math.isnan(whole):
        sectors = np.bincount(_RADIUS + BINS * _SECTOR, power.mean(0).ravel(), BINS * SECTORS) / _SECTOR_COUNTS
        # Two neighbouring sectors at a time: 45 degrees wide, so that one strong line of the scene cannot decide.
        spectra = sectors.reshape(SECTORS, BINS)
        cuts = [
            _cutoff((spectra[k] * 2 + spectra[k - 1] + spectra[(k + 1) % SECTORS]) / 4, floor) for k in range(SECTORS)
        ]
        cuts = [whole if math.isnan(cut) else cut for cut in cuts]
        least = int(np.argmin(cuts))
        values["resolution"], values["resolution_least"] = whole, cuts[least]
        values["resolution_angle"] = least * 180 / SECTORS
        values["cutoff_cliff"] = _cliff(mean, floor)
    if is_native:
        values["interpolation"] = max(_periodicity(luma, axis, canvas.is_tiled) for axis in (0, 1))
    return values, {"resolution": cells.reshape(canvas.grid)}


def _periodicity(luma: Plane, axis: int, is_tiled: bool) -> float:
    """Largest peak of the second differences' spectrum over its surroundings, away from the compression grid's lines.

    Enlarging by k leaves second differences whose mean repeats every k pixels; an 8-pixel grid leaves lines at all
    multiples of 1/8, so a peak at 1/4 or 1/2 counts only well above those at 1/8 and 3/8.
    """
    second = np.minimum(np.abs(np.diff(luma, n=2, axis=axis)), 12)
    profile = np.asarray(second.mean(1 - axis), np.float64)
    length = TILE_PX if is_tiled else profile.size // 24 * 24
    if length < 48:
        return 0.0
    if is_tiled:  # the two differences across each seam are not of the picture
        profile = np.append(profile, [0.0, 0.0]).reshape(-1, length)[:, : length - 2]
        runs = np.zeros((profile.shape[0], length))
        runs[:, : length - 2] = (profile - profile.mean(1, keepdims=True)) * np.hanning(length - 2)
    else:
        runs = ((profile[:length] - profile[:length].mean()) * np.hanning(length))[None]
    spectrum = np.sqrt((np.abs(np.fft.rfft(runs, axis=1)) ** 2).mean(0))
    frequency = np.arange(spectrum.size) / length
    reach = max(4, length // 16)
    around = np.pad(spectrum, reach, mode="reflect")
    medians = np.median(sliding_window_view(around, 2 * reach + 1)[::4], 1)
    usual = np.interp(np.arange(spectrum.size), np.arange(medians.size) * 4, medians)
    usual += 0.05 * float(np.median(spectrum)) + 1e-6
    height = spectrum / usual

    def peak(at: float) -> float:
        return float(height[np.abs(frequency - at) < 1.5 / length].max(initial=0))

    near_grid = np.abs(frequency * 8 - np.round(frequency * 8)) < 8 * 1.5 / length
    free = float(height[~near_grid & (frequency > 0.12)].max(initial=0))
    even, grid = max(peak(0.25), peak(0.5)), max(peak(0.125), peak(0.375))
    return max(free, even if even > 2 * grid else 0.0)
