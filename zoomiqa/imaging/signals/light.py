"""The colour of the light, estimated by small trained networks from log-chroma histograms. It must not know severity.

Light of another colour shifts every log-chroma by the same step, so the estimate is a convolution over a histogram of
them (Barron, ICCV 2015), here one histogram per band of tones and one of plain places, beside the quantiles of each
channel: a clipped or a coloured white says most. Three networks, each trained without a third of the photographs, are
averaged. Each leans to "no cast" where a scene explains its colours, since most of what it learned on had none. No
framework is needed: a view costs two small convolutions in NumPy. Trained by `training/compact_diagnosis/fit.py`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.signals.canvas import PixelArray, Plane

WEIGHTS = "color_light.npz"
SIDE_PX, BINS, SPAN = 48, 32, 1.6
"""Side of the square that the histograms are taken from, their bins per axis, and the log-chroma they end at."""

OPPONENTS: NDArray[np.float32] = np.array(
    [[2**-0.5, -(2**-0.5), 0], [6**-0.5, 6**-0.5, -2 * 6**-0.5]], np.float32
)
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
    chroma = _LOG[small].reshape(-1, 3) @ OPPONENTS.T
    position = np.clip((chroma / SPAN + 1) / 2 * (BINS - 1), 0, BINS - 1.001)
    first = position.astype(np.int64)
    rest = position - first
    near = (1 - rest[:, 0], rest[:, 0]), (1 - rest[:, 1], rest[:, 1])
    index = np.concatenate([(first[:, 0] + i) * BINS + first[:, 1] + j for i in (0, 1) for j in (0, 1)])
    share = np.concatenate([near[0][i] * near[1][j] for i in (0, 1) for j in (0, 1)])
    band = np.tile(np.searchsorted(BAND_EDGES, luma.ravel(), side="right"), 4)
    bands = np.bincount(index + band * BINS * BINS, share, minlength=(HISTOGRAMS - 1) * BINS * BINS)
    plain = np.bincount(index, share * np.tile(steps.ravel() < PLAIN_BELOW, 4), minlength=BINS * BINS)
    shares = np.concatenate([bands, plain]).reshape(HISTOGRAMS, BINS, BINS) / SIDE_PX**2
    return (np.sqrt(shares + 1e-6) * 4).astype(np.float32)


def _convolve(planes: Plane, weights: Plane, bias: Plane) -> Plane:
    """Convolution of CxHxW with OxCx5x5, stride 2, zero border, rectified."""
    edge = KERNEL // 2
    padded = np.pad(planes, ((0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), (1, 2))[:, ::STRIDE, ::STRIDE]
    rows, columns = windows.shape[1:3]
    patches = windows.transpose(1, 2, 0, 3, 4).reshape(rows * columns, -1)
    found = patches @ weights.reshape(len(weights), -1).T + bias
    return np.asarray(np.maximum(found, 0).T.reshape(-1, rows, columns), np.float32)


def network(arrays: Mapping[str, Plane], number: int, planes: Plane, levels: Plane) -> Plane:
    """The cast on the `OPPONENTS` axes by one network."""

    def dense(values: Plane, layer: str) -> Plane:
        return np.asarray(arrays[f"{number}.{layer}.weight"] @ values + arrays[f"{number}.{layer}.bias"], np.float32)

    for layer in ("conv1", "conv2"):
        planes = _convolve(planes, arrays[f"{number}.{layer}.weight"], arrays[f"{number}.{layer}.bias"])
    shape = np.maximum(dense(planes.ravel(), "shape"), 0)
    tones = np.maximum(dense(np.maximum(dense(2 * levels - 1, "levels1"), 0), "levels2"), 0)
    return dense(np.maximum(dense(np.concatenate([shape, tones]), "joint"), 0), "out")[:2]


@lru_cache(maxsize=1)
def weights() -> Mapping[str, Plane]:
    """The shipped networks, read once."""
    stored = resources.files(__package__).joinpath("data", WEIGHTS).read_bytes()
    with np.load(io.BytesIO(stored), allow_pickle=False) as archive:
        return {name: archive[name].astype(np.float32) for name in archive.files}


def log_gains(rgb: PixelArray) -> NDArray[np.float64]:
    """Natural logarithms of the gains (red, green, blue; linear light) that the light puts on HxWx3 uint8 pixels."""
    arrays = weights()
    planes, levels = histograms(rgb), level_features(rgb)
    count = 1 + max(int(name.split(".")[0]) for name in arrays)
    casts = [network(arrays, number, planes, levels) for number in range(count)]
    return np.asarray(np.mean(casts, 0) @ OPPONENTS, np.float64)
