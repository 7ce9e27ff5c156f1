"""Exposure and cast of a picture by what it shows. It must not know flaws, words or ratings.

Tones alone leave much open: snow is bright and a sunset red by themselves. Here small networks read the same tones
beside what the rating network sees, and their estimates are averaged with the measured ones
(`zoomiqa.imaging.signals`), whose errors are others. Each network was trained without a third of the photographs and
leans to 0 where a scene may explain its tones. Trained by `training/compact/diagnosis`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from zoomiqa.assessors.compact.network import SHOWN, RatingNetwork
from zoomiqa.imaging.signals import exposure, light
from zoomiqa.imaging.signals.canvas import PixelArray, Plane, reduced
from zoomiqa.imaging.signals.color import COLOR_LONG_SIDE_PX, cast_of_gains, has_color_to_tell
from zoomiqa.imaging.signals.stored import network_count, stored_arrays

WEIGHTS = "tones.npz"
SIDE_PX = 256
"""Long side of the picture that the rating network sees here: light is wide, and noise and blocks are averaged out."""

FEATURES = SHOWN + exposure.FEATURES + light.LEVELS
_TONES = slice(SHOWN, SHOWN + exposure.FEATURES)
"""Those that `exposure` reads."""

LIMITED = ("cast", "overexposure", "dark")
"""Rules with a limit of their own for these signals."""

CAST, STOPS = slice(0, 2), 2
"""Of an estimate: log gains of the light on two axes (`light.OPPONENTS`), and stops."""


def small_copy(rgb: PixelArray) -> PixelArray:
    """The copy of HxWx3 uint8 pixels that tones are read from."""
    return np.ascontiguousarray(reduced(rgb, COLOR_LONG_SIDE_PX))


def features(network: RatingNetwork, rgb: PixelArray, small: PixelArray) -> Plane:
    """What the networks read of HxWx3 uint8 pixels and their `small_copy`: `FEATURES` figures."""
    shown = network.shown(np.ascontiguousarray(reduced(rgb, SIDE_PX)))
    return np.concatenate([shown, exposure.features(small), light.level_features(small)])


def estimate(arrays: Mapping[str, Plane], number: int, read: Plane) -> NDArray[np.float64]:
    """`CAST` and `STOPS` of a picture by one network, from its `features`."""

    def layer(name: str, values: Plane) -> Plane:
        return np.asarray(arrays[f"{number}.{name}.weight"] @ values + arrays[f"{number}.{name}.bias"], np.float32)

    def rectified(name: str, values: Plane) -> Plane:
        return np.maximum(layer(name, values), 0)

    scaled = np.clip((read - arrays["mean"]) / arrays["deviation"], -float(arrays["most"]), float(arrays["most"]))
    sight = rectified("sight", scaled[:SHOWN])
    tone = rectified("tone2", rectified("tone1", scaled[SHOWN:]))
    found = layer("out", rectified("joint", np.concatenate([sight, tone])))
    return np.asarray(found[:3], np.float64)


def weights() -> Mapping[str, Plane]:
    """The shipped networks, read once."""
    return stored_arrays(__package__, WEIGHTS)


def tones(network: RatingNetwork, rgb: PixelArray) -> dict[str, float | None]:
    """The signals `exposure`, `cast` and `cast_hue` of HxWx3 uint8 pixels, in place of the measured ones."""
    arrays = weights()
    small = small_copy(rgb)
    read = features(network, rgb, small)
    seen = np.mean([estimate(arrays, number, read) for number in range(network_count(arrays))], 0)
    measured = np.append(light.OPPONENTS @ light.log_gains(small), exposure.stops_of(exposure.weights(), read[_TONES]))
    cast, stops = combined(seen, measured)
    strength, hue = cast_of_gains(cast @ light.OPPONENTS) if has_color_to_tell(small) else (None, None)
    return {"exposure": stops, "cast": strength, "cast_hue": hue}


def combined(seen: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Cast (two axes) and stops from both estimates: their mean."""
    both = (seen + measured) / 2
    return both[CAST], float(np.clip(both[STOPS], -exposure.MOST_STOPS, exposure.MOST_STOPS))


def limits() -> dict[str, float]:
    """Limits of the rules that read these signals, by the rules' names (`zoomiqa.assessors.compact.diagnosis`).

    They are passed by as many untouched photographs as the rules' own limits are by measurement alone; as the means err
    less, they are stricter.
    """
    return {name: float(limit) for name, limit in zip(LIMITED, weights()["limits"], strict=True)}
