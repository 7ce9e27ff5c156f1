"""How far the light of a photograph is off, in stops, by small trained networks. It must not know severity.

A dark scene is not underexposed and a bright one not overexposed, so no single quantile decides. What speaks is how the
tones end: an exposure that is too short leaves the light tones empty, one too long piles them up at white, takes their
texture and their colour. The networks read the quantiles of luma and of the largest and smallest channel, the shares
at both ends, texture and colour per band of tones, and where the light lies. Each was trained without a third of the
photographs, to the smallest absolute error on known exposures, and so leans to 0 where a scene may explain its tones.
Trained by `training/compact/diagnosis`.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from zoomiqa.imaging.signals.canvas import PixelArray, Plane
from zoomiqa.imaging.signals.light import LINEAR
from zoomiqa.imaging.signals.stored import network_count, stored_arrays

WEIGHTS = "exposure.npz"
MOST_STOPS = 6.0
"""The estimate ends here; no network saw more than 4.2."""

QUANTILES = (0.002, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.998)
BAND_EDGES = (0.25, 0.5, 0.75, 0.93)
"""Luma between the five bands of tones."""

NEAR_WHITE, NEAR_BLACK = 250, 6
LEAST_IN_BAND = 20
ABSENT = -1.0
"""What stands for the texture and the colour of a band with fewer pixels than `LEAST_IN_BAND`."""

GRID = 4
FEATURES = 4 * len(QUANTILES) + 4 + GRID * GRID + 2 * (len(BAND_EDGES) + 1)


def features(rgb: PixelArray) -> Plane:
    """What the networks read of HxWx3 uint8 pixels: `FEATURES` figures, finite for every picture."""
    luma = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    highest, lowest = rgb.max(2), rgb.min(2)
    found: list[float] = []
    for plane in (luma, highest, lowest):
        reached = np.cumsum(np.bincount(plane.ravel(), minlength=256)) / plane.size
        levels = np.minimum(np.searchsorted(reached, QUANTILES), 255)
        found += list(levels / 255)
        if plane is luma:
            found += list((np.log(LINEAR[levels] + 0.003) + 3) / 3)
    ends = (lowest >= NEAR_WHITE, highest >= NEAR_WHITE, highest <= NEAR_BLACK, luma <= NEAR_BLACK)
    found += [float(np.sqrt(end.mean())) for end in ends]
    light = luma.astype(np.float32) / 255
    found += list(cv2.resize(light, (GRID, GRID), interpolation=cv2.INTER_AREA).ravel())
    texture = np.abs(cv2.Laplacian(light, cv2.CV_32F))
    color = highest.astype(np.float32) - lowest
    band = np.searchsorted(BAND_EDGES, light)
    for index in range(len(BAND_EDGES) + 1):
        inside = band == index
        is_known = int(inside.sum()) > LEAST_IN_BAND
        found.append(float(np.log(texture[inside].mean() + 0.003)) + 4 if is_known else ABSENT)
        found.append(float(color[inside].mean()) / 100 if is_known else ABSENT)
    return np.array(found, np.float32)


def weights() -> Mapping[str, Plane]:
    """The shipped networks, read once."""
    return stored_arrays(__package__, WEIGHTS)


def stops_of(arrays: Mapping[str, Plane], read: Plane, number: int | None = None) -> float:
    """The networks in `arrays` on one picture's `features`: stops of light, below 0 too few.

    All networks in the mean, or network `number` alone.
    """
    scaled = (read - arrays["mean"]) / arrays["deviation"]
    outputs = []
    for each in range(network_count(arrays)) if number is None else (number,):
        values = scaled
        for layer in ("one", "two"):
            matrix, bias = arrays[f"{each}.{layer}.weight"], arrays[f"{each}.{layer}.bias"]
            values = np.maximum(matrix @ values + bias, 0)
        outputs.append(float(arrays[f"{each}.out.weight"][0] @ values + arrays[f"{each}.out.bias"][0]))
    return float(np.clip(np.mean(outputs), -MOST_STOPS, MOST_STOPS))


def measure_exposure(rgb: PixelArray) -> dict[str, float | None]:
    """Measure the exposure of HxWx3 uint8 pixels (the reduced picture)."""
    return {"exposure": stops_of(weights(), features(np.ascontiguousarray(rgb)))}
