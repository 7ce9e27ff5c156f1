"""Motion blur along a line: find its direction and length in the spectrum, then undo it. It must not know words.

A photograph's power falls as a power of frequency; a motion of L pixels multiplies it by sinc²(L·u), u being the
frequency along the motion, whose dark stripes tell direction and length. Stripes that explain the spectrum no better
than a round blur does are no motion, and nothing is undone.

What the motion took is brought back under a prior of sparse edges (total variation), with the noise that the spectrum
shows. Lightness alone is worth that: of colour differences, which are smooth, a Wiener filter is enough. What lies
beyond the borders is taken to be what the sharp picture, blurred again, would show there.

Sources: Field (JOSA A 1987) for the power law; Wang, Yang, Yin and Zhang (SIAM J. Imaging Sciences 2008) for splitting
total variation; Krishnan and Fergus (NIPS 2009) for the schedule; borders are tapered as Matlab's `edgetaper` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from restore_bridge.restorers.operations.sharpness import FALL, ROUNDING
from restore_bridge.restorers.operations.transform import Floats

ANGLES = np.arange(0.0, 180.0, 5.0)
LENGTHS = np.geomspace(3.0, 36.0, 24)
"""Degrees counter-clockwise from horizontal, and pixels, that are tried first."""

ROUND_SIGMAS = np.linspace(0.0, 4.0, 17)
"""Widths in pixels of the round blurs that a motion must explain the spectrum better than."""

FLOORS = (1.0, 6.0, 36.0)
"""Multiples of the measured noise power that are tried for the floor: compression and mixed flaws raise it."""

LEAST_MARGIN = 0.15
"""By how much (mean absolute error of logarithms) a motion must be the better explanation. On 11 photographs of the
training part nothing but motion exceeds .13, and every motion of 4 to 21 pixels without other damage exceeds .22."""

LEAST_SIDE_PX, LEAST_STRIPES = 64, 6
"""A shorter side shows too few stripes, and so does a motion of more than the side over that number."""

TILE_PX, MOST_TILES = 256, 5
"""Side of the windows whose spectra are averaged, and how many there are at most along each side of a picture."""

LOWEST, COARSE_TO, FINE_TO = 0.016, 0.28, 0.45
"""Cycles per pixel that are looked at, when searching and when refining."""

COARSE_EVERY, FINALISTS = 3, 8
"""When searching, one frequency of so many is looked at, and so many motions are looked at again at all of them."""

STRONGEST = 0.2
"""Share of the frequencies, those with most signal, that tell the signal's power."""

DEEPEST = 2e-4
"""The least of sinc² that a windowed spectrum shows."""

EDGE_SCALE = 0.03
"""Typical height of an edge between neighbouring pixels, 0..1 scale: the scale of the prior."""

EDGE_WEIGHT = 2.0
"""Weight of the prior against the noise: of .5 to 4 the best over motions of 5 to 21 pixels, on 11 photographs of the
training part."""

ROUNDS, TIGHTENING = 10, 1.5
"""Rounds of splitting, and by how much each holds slopes closer to the sparse ones. Six rounds that double gain .5 to
1.1 dB less on 6 photographs; without looking beyond the borders it is 1.6 to 3.3 dB less."""

COLOR_CAUTION = 30.0
"""Multiplies the noise power in the Wiener filter of colour differences."""

TO_OPPONENT = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
"""R, G, B to luma and two colour differences (ITU-R BT.601)."""

FROM_OPPONENT = np.linalg.inv(TO_OPPONENT).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Motion:
    """A motion along a line, as the spectrum shows it."""

    angle: float
    """Degrees counter-clockwise from horizontal, 0..180."""

    length: float
    """Pixels."""

    power: float
    """Signal power at one cycle per pixel: S(f) = power · f^−FALL."""

    noise: float
    """Standard deviation of the floor under the signal, 0..1 scale."""

    margin: float
    """By how much it explains the spectrum better than a round blur; see `LEAST_MARGIN`."""


class _Fit(NamedTuple):
    """How well each of several blurs explains a spectrum, and with which power and floor."""

    error: NDArray[np.float32]
    log_power: NDArray[np.float32]
    log_floor: NDArray[np.float32]


class _Found(NamedTuple):
    """One motion and how it explains a spectrum, the error first, so that the least is the best."""

    error: float
    angle: float
    length: float
    log_power: float
    log_floor: float


class _Band:
    """The part of a spectrum between two frequencies."""

    def __init__(self, spectrum: NDArray[np.float32], noise: float, highest: float, every: int = 1) -> None:
        side = spectrum.shape[0]
        down, right = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
        radius = np.hypot(down, right)
        is_within = (radius > LOWEST) & (radius < highest) & ~((right == 0) & (down < 0))
        self.down, self.right, self.radius = (
            part[is_within][::every].astype(np.float32) for part in (down, right, radius)
        )
        self.log_power = np.log(np.maximum(spectrum[is_within][::every], np.float32(1e-14)))
        self.log_falling = np.float32(-FALL) * np.log(self.radius)
        self.log_floors = [np.float32(2 * math.log(noise) + math.log(floor)) for floor in FLOORS]

    def line(self, angle: float, lengths: Sequence[float] | NDArray[np.float64]) -> Floats:
        """Transfer of motions of one direction, lengths x frequencies."""
        return line_transfer(self.down, self.right, angle, np.asarray(lengths, np.float32)[:, None])

    def round(self, sigmas: NDArray[np.float64]) -> Floats:
        """Transfer of Gaussian blurs, sigmas x frequencies."""
        widths = sigmas.astype(np.float32)[:, None]
        return np.asarray(np.exp(np.float32(-2 * np.pi**2) * np.square(widths * self.radius)), np.float32)

    def fit(self, transfer: Floats) -> _Fit:
        """Errors are means over frequencies, each by the share of signal that an unblurred picture would have there."""
        log_seen = np.log(np.maximum(transfer * transfer, np.float32(DEEPEST))) + self.log_falling
        few = round(STRONGEST * log_seen.shape[1])
        strong = np.argpartition(log_seen, -few, axis=1)[:, -few:]
        log_power = (self.log_power[strong] - np.take_along_axis(log_seen, strong, 1)).mean(1)
        log_seen += log_power[:, None]
        errors = []
        for log_floor in self.log_floors:
            share = 1 / (np.sqrt(self.radius) * (1 + np.exp(log_floor - self.log_falling - log_power[:, None])))
            missed = np.abs(self.log_power - np.logaddexp(log_seen, log_floor))
            errors.append((missed * share).sum(1) / share.sum(1))
        best = np.argmin(errors, 0)
        return _Fit(np.min(errors, 0), log_power, np.asarray(self.log_floors)[best])


def line_transfer(down: Floats, right: Floats, angle: float, length: Floats | float) -> Floats:
    """What a motion along a line leaves of each frequency (cycles per pixel), drawn on a grid of pixels."""
    turn = math.radians(angle)
    along = right * np.float32(math.cos(turn)) - down * np.float32(math.sin(turn))
    across = right * np.float32(math.sin(turn)) + down * np.float32(math.cos(turn))
    return np.asarray(np.sinc(length * along) * np.sinc(along) * np.sinc(across) ** 2, np.float32)


def find(luma: Floats, noise: float) -> Motion | None:
    """The motion in a picture; `None` where nothing shows it.

    Args:
        luma: H×W, 0..1.
        noise: Standard deviation of the noise, 0..1 scale.
    """
    if min(luma.shape) < LEAST_SIDE_PX:
        return None
    motion = explain(luma, noise)
    return motion if motion.margin >= LEAST_MARGIN else None


def explain(luma: Floats, noise: float) -> Motion:
    """The motion that explains the spectrum of `luma` better than other motions do, whether there is one or not.

    Args:
        luma: H×W, 0..1; sides of `LEAST_SIDE_PX` at least.
        noise: Standard deviation of the noise, 0..1 scale.
    """
    noise = max(noise, ROUNDING)
    spectrum = _mean_spectrum(luma)
    lengths = LENGTHS[min(luma.shape) / LEAST_STRIPES >= LENGTHS]
    coarse, fine = _Band(spectrum, noise, COARSE_TO, COARSE_EVERY), _Band(spectrum, noise, FINE_TO)
    errors = np.stack([coarse.fit(coarse.line(angle, lengths)).error for angle in ANGLES])
    likely = np.argsort(errors, axis=None)[:FINALISTS]
    tried = [(float(ANGLES[at // len(lengths)]), lengths[[at % len(lengths)]]) for at in likely]
    found = _best(fine, tried)
    turn, ratio = float(ANGLES[1] - ANGLES[0]), float(LENGTHS[1] / LENGTHS[0])
    for _ in range(3):
        turn, ratio = turn / 2, math.sqrt(ratio)
        near = found.length * np.array([1 / ratio, 1, ratio])
        found = _best(fine, [(found.angle + turn * step, near) for step in (-1, 0, 1)])
    margin = float(fine.fit(fine.round(ROUND_SIGMAS)).error.min()) - found.error
    return Motion(found.angle % 180, found.length, math.exp(found.log_power), math.exp(found.log_floor / 2), margin)


def _best(band: _Band, tried: Sequence[tuple[float, NDArray[np.float64]]]) -> _Found:
    """The motion that explains `band` best, of some directions with some lengths each."""
    found = []
    for angle, lengths in tried:
        fit = band.fit(band.line(angle, lengths))
        for error, length, log_power, log_floor in zip(fit.error, lengths, fit.log_power, fit.log_floor, strict=True):
            found.append(_Found(float(error), angle, float(length), float(log_power), float(log_floor)))
    return min(found)


def _mean_spectrum(luma: Floats) -> NDArray[np.float32]:
    """Power of windows of one side, averaged: side x (side // 2 + 1)."""
    from scipy import fft

    side = min(TILE_PX, *luma.shape)
    ramp = np.hanning(side + 2)[1:-1].astype(np.float32)
    window = ramp[:, None] * ramp[None, :]
    starts = [
        np.unique(np.linspace(0, length - side, min(MOST_TILES, math.ceil(2 * length / side) - 1)).astype(int))
        for length in luma.shape
    ]
    tiles = np.stack([luma[y : y + side, x : x + side] for y in starts[0] for x in starts[1]])
    tiles = (tiles - tiles.mean((1, 2), keepdims=True)) * window
    return np.asarray(np.square(np.abs(fft.rfft2(tiles))).mean(0) / np.square(window).sum(), np.float32)


def undo(pixels: Floats, motion: Motion) -> Floats:
    """Take a motion out of a picture.

    Args:
        pixels: H×W×3 RGB, float32 0..1.
        motion: From `find`.

    Returns:
        The same shape, not clipped.
    """
    from scipy import fft

    height, width = pixels.shape[:2]
    border = math.ceil(1.5 * motion.length) + 16
    full = (
        fft.next_fast_len(height + 2 * border, real=True),
        fft.next_fast_len(width + 2 * border, real=True),
    )
    down = np.fft.fftfreq(full[0]).astype(np.float32)[:, None]
    right = np.fft.rfftfreq(full[1]).astype(np.float32)[None, :]
    transfer = line_transfer(down, right, motion.angle, motion.length)
    after = ((border, full[0] - height - border), (border, full[1] - width - border))
    planes = np.pad((pixels @ TO_OPPONENT.T).transpose(2, 0, 1), ((0, 0), *after), mode="symmetric")
    planes = _tapered(planes, transfer, after)
    seen = fft.rfft2(planes, workers=-1)
    noise_to_signal = np.float32(COLOR_CAUTION * motion.noise**2 / motion.power)
    gain = transfer / (transfer * transfer + noise_to_signal * np.maximum(down**2 + right**2, 1e-8) ** (FALL / 2))
    gain[0, 0] = 1
    colors = fft.irfft2(seen[1:] * gain, s=full, workers=-1)
    inside = (slice(border, border + height), slice(border, border + width))
    sharp = _with_sparse_edges(planes[0], inside, transfer, (down, right), motion.noise)
    made = np.stack((sharp[inside], *colors[:, *inside]), axis=-1)
    return np.asarray(made @ FROM_OPPONENT.T, np.float32)


def _tapered(planes: Floats, transfer: Floats, after: Sequence[tuple[int, int]]) -> Floats:
    """`planes` with borders that go over into their own blurred wrap-around, as the transform takes them to do."""
    from scipy import fft

    ramps = []
    for length, (before, behind) in zip(planes.shape[1:], after, strict=True):
        place = np.arange(length, dtype=np.float32)
        ramp = np.clip(np.minimum((place + 1) / before, (length - place) / behind), 0, 1)
        ramps.append(ramp * ramp * (3 - 2 * ramp))
    weight = np.outer(*ramps).astype(np.float32)
    result = planes
    for _ in range(2):
        soft = fft.irfft2(fft.rfft2(result, workers=-1) * transfer, s=planes.shape[1:], workers=-1)
        result = weight * planes + (1 - weight) * soft
    return result


def _with_sparse_edges(
    plane: Floats, inside: tuple[slice, slice], transfer: Floats, frequency: tuple[Floats, Floats], noise: float
) -> Floats:
    """The plane x of least |k∗x - plane|² / 2 noise² + `EDGE_WEIGHT` Σ|∇x| / `EDGE_SCALE`, the first sum taken inside.

    Args:
        plane: H×W, what was seen, with tapered borders.
        inside: The part of it that was seen indeed.
        transfer: Of the kernel k, H x (W // 2 + 1).
        frequency: Down and right, cycles per pixel.
        noise: Standard deviation.
    """
    from scipy import fft

    steepness = sum(np.square(2 * np.sin(np.float32(np.pi) * axis)) for axis in frequency)
    kept, seen = transfer * transfer, fft.rfft2(plane, workers=-1)
    sharp, coupling = plane, 0.5 / EDGE_SCALE**2
    for _ in range(ROUNDS):
        down, right = (sharp - np.roll(sharp, 1, axis) for axis in (0, 1))
        height = np.sqrt(down * down + right * right) + np.float32(1e-8)
        shrunk = np.maximum(0, 1 - np.float32(EDGE_WEIGHT / EDGE_SCALE / coupling) / height)
        down *= shrunk
        right *= shrunk
        pulled = fft.rfft2(down - np.roll(down, -1, 0) + right - np.roll(right, -1, 1), workers=-1)
        force = np.float32(coupling * noise**2)
        found = (transfer * seen + force * pulled) / (kept + force * steepness)
        found[0, 0] = seen[0, 0]
        sharp = fft.irfft2(found, s=plane.shape, workers=-1)
        blurred_again = fft.irfft2(found * transfer, s=plane.shape, workers=-1)
        blurred_again[inside] = plane[inside]
        seen = fft.rfft2(blurred_again, workers=-1)
        coupling *= TIGHTENING
    return np.asarray(sharp, np.float32)
