"""The colour of the light, estimated by small trained networks from log-chroma histograms. It must not know severity.

Light of another colour shifts every log-chroma by the same step, so the estimate is a convolution over a histogram of
them (Barron, ICCV 2015), here one histogram per band of tones and one of plain places, beside the quantiles of each
channel: a clipped or a coloured white says most. Three networks, each trained without a third of the photographs, are
averaged. Each leans to "no cast" where a scene explains its colours, since most of what it learned on had none. No
framework is needed: a view costs two small convolutions in NumPy. Trained by `training/compact/diagnosis`.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import PixelArray, Plane
from zoomiqa.imaging.signals.stored import network_count, stored_arrays

WEIGHTS = "color_light.npz"
SIDE_PX, BINS, SPAN = 48, 32, 1.6
"""Side of the square that the histograms are taken from, their bins per axis, and the log-chroma they end at."""

OPPONENTS: NDArray[np.float32] = np.array([[2**-0.5, -(2**-0.5), 0], [6**-0.5, 6**-0.5, -2 * 6**-0.5]], np.float32)
"""Orthonormal axes of log chroma: red against green, and both against blue. Grey is the origin."""

QUANTILES = (0.002, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.998)
BAND_EDGES = (0.22, 0.5, 0.78)
"""Luma between the four bands of tones."""

PLAIN_BELOW = 0.03
"""Luma step to the right and lower neighbour below which a place is plain."""

LEVELS = 3 * (len(QUANTILES) + 5)
HISTOGRAMS = len(BAND_EDGES) + 2
STRIDE, KERNEL = 2, 5

LINEAR: NDArray[np.float64] = np.where(
    np.arange(256) / 255 <= 0.04045, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
)
"""Linear light 0..1 of each sRGB level."""

_LOG = np.log(LINEAR + 0.004).astype(np.float32)


def level_features(rgb: PixelArray) -> Plane:
    """Per channel: `QUANTILES`, highest and lowest level, and the shares at the highest, at white and at black."""
    features: list[float] = []
    size = rgb.shape[0] * rgb.shape[1]
    for channel in range(3):
        counts = np.bincount(rgb[..., channel].ravel(), minlength=256)
        present = np.nonzero(counts)[0]
        low, high = int(present[0]), int(present[-1])
        levels = np.searchsorted(np.cumsum(counts) / size, QUANTILES) / 255
        shares = (counts[max(high - 1, 0) : high + 1].sum(), counts[254:].sum(), counts[:2].sum())
        features += [*levels, high / 255, low / 255, *(4 * share / size for share in shares)]
    return np.array(features, np.float32)


def histograms(rgb: PixelArray) -> Plane:
    """Log-chroma histograms (`HISTOGRAMS` x `BINS` x `BINS`, square roots of shares), linearly shared among bins."""
    small = cv2.resize(rgb, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2GRAY)
    steps = np.zeros_like(luma)
    steps[:, :-1] += np.abs(np.diff(luma, axis=1))
    steps[:-1] += np.abs(np.diff(luma, axis=0))
    chroma = OPPONENTS @ _LOG[small].reshape(-1, 3).T
    position = np.clip((chroma / SPAN + 1) / 2 * (BINS - 1), 0, BINS - 1.001)
    first = position.astype(np.int64)
    rest = position - first
    near = (1 - rest[0], rest[0]), (1 - rest[1], rest[1])
    index = np.concatenate([(first[0] + i) * BINS + first[1] + j for i in (0, 1) for j in (0, 1)])
    share = np.concatenate([near[0][i] * near[1][j] for i in (0, 1) for j in (0, 1)])
    band = np.tile(np.searchsorted(BAND_EDGES, luma.ravel(), side="right"), 4)
    bands = np.bincount(index + band * BINS * BINS, share, minlength=(HISTOGRAMS - 1) * BINS * BINS)
    plain = np.bincount(index, share * np.tile(steps.ravel() < PLAIN_BELOW, 4), minlength=BINS * BINS)
    shares = np.concatenate([bands, plain]).reshape(HISTOGRAMS, BINS, BINS) / SIDE_PX**2
    return (np.sqrt(shares + 1e-6) * 4).astype(np.float32)


def _patches(planes: Plane) -> Plane:
    """What each place of a convolution (5x5, stride 2, zero border) over CxHxW sees: places x values."""
    edge = KERNEL // 2
    channels, rows, columns = (planes.shape[0], planes.shape[1] // STRIDE, planes.shape[2] // STRIDE)
    padded = np.pad(planes, ((0, 0), (edge, edge), (edge, edge)))
    found = np.empty((channels, KERNEL, KERNEL, rows, columns), np.float32)
    for y in range(KERNEL):
        for x in range(KERNEL):
            found[:, y, x] = padded[:, y : y + STRIDE * rows : STRIDE, x : x + STRIDE * columns : STRIDE]
    return found.reshape(channels * KERNEL * KERNEL, rows * columns)


def _layer(arrays: Mapping[str, Plane], name: str, values: Plane) -> Plane:
    """A linear layer on a vector or on the columns of a matrix."""
    matrix, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    return np.asarray(
        matrix.reshape(len(matrix), -1) @ values + (bias if values.ndim == 1 else bias[:, None]), np.float32
    )


def network(arrays: Mapping[str, Plane], number: int, patches: Plane, levels: Plane) -> Plane:
    """The cast on the `OPPONENTS` axes by one network, from the patches of the histograms and the level features."""

    def rectified(layer: str, values: Plane) -> Plane:
        return np.maximum(_layer(arrays, f"{number}.{layer}", values), 0)

    side = BINS // STRIDE
    shape = rectified("conv2", _patches(rectified("conv1", patches).reshape(-1, side, side)))
    tones = rectified("levels2", rectified("levels1", 2 * levels - 1))
    joint = rectified("joint", np.concatenate([rectified("shape", shape.ravel()), tones]))
    return _layer(arrays, f"{number}.out", joint)[:2]


def weights() -> Mapping[str, Plane]:
    """The shipped networks, read once."""
    return stored_arrays(__package__, WEIGHTS)


def log_gains(rgb: PixelArray, number: int | None = None) -> NDArray[np.float64]:
    """Natural logarithms of the gains (red, green, blue; linear light) that the light puts on HxWx3 uint8 pixels.

    By all networks in the mean, or by network `number` alone.
    """
    arrays = weights()
    patches, levels = _patches(histograms(rgb)), level_features(rgb)
    numbers = range(network_count(arrays)) if number is None else (number,)
    casts = [network(arrays, each, patches, levels) for each in numbers]
    return np.asarray(np.mean(casts, 0) @ OPPONENTS, np.float64)
