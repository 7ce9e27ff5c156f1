"""The compact rating network at work: pixels to rating, spread, attributes and a map, through onnxruntime.

The network (made by `training/compact/rating`) takes pictures of any size, with their hand-made features; what it says
comes in cells of 32 pixels. A look with a map tells where the picture is worse than elsewhere. Ratings, attributes and
maps are on the human scale, 1 (bad) .. 5 (excellent); spreads are expected absolute errors in the same unit. It must
not know rounds, flaws or words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.assessors.compact.features import HANDMADE_COUNT, enlarged, measured_features
from zoomiqa.assessors.compact.rating import HIGHEST, LOWEST, Rating

if TYPE_CHECKING:
    import onnxruntime

CELL = 32
ATTRIBUTES = ("sharpness", "color_fidelity", "noise", "exposure")
"""What is rated beside the whole; "noise" counts compression, "exposure" counts contrast and veil."""

WEIGHTS = "rating_network.onnx"
INPUTS = ("pixels", "measured")
OUTPUTS = ("rating", "spread", "attributes", "quality", "weight", "shown")
SHOWN = 1056
"""Figures of what a picture shows."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class NetworkLook:
    """What the network says of one picture or crop."""

    rating: Rating
    attributes: dict[str, float]
    """Ratings 1..5 of `ATTRIBUTES`."""

    quality: FloatArray
    """Rows x columns of cells: the rating of each part."""

    weight: FloatArray
    """Rows x columns: the share of each part in the rating; sums to 1."""


class RatingNetwork:
    """The network in a session of its own. Read-only, safe to share between threads.

    Args:
        path: A model file.

    Raises:
        ValueError: the file cannot be read, or is another kind of model.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read the rating network {path}: {error}") from error
        self._session = _open(data, str(path))

    def look(self, rgb: NDArray[np.uint8]) -> NetworkLook:
        """Look at a picture or crop as it is.

        Args:
            rgb: H x W x 3 uint8 sRGB, any size; less than 64 px is enlarged, and a side that is no multiple of
                `CELL` is continued by its mirror image.
        """
        found = self._run(OUTPUTS[:-1], rgb, measured_features(rgb))
        rating, spread, attributes, quality, weight = found
        return NetworkLook(
            rating=Rating(float(np.clip(rating, LOWEST, HIGHEST)), float(spread)),
            attributes={name: float(value) for name, value in zip(ATTRIBUTES, attributes, strict=True)},
            quality=np.clip(quality, LOWEST, HIGHEST),
            weight=weight,
        )

    def shown(self, rgb: NDArray[np.uint8]) -> FloatArray:
        """What a picture shows, as `SHOWN` figures of about -1..1, for other networks to read.

        Args:
            rgb: H x W x 3 uint8 sRGB, as in `look`.
        """
        return self._run(OUTPUTS[-1:], rgb, np.zeros(HANDMADE_COUNT, np.float32))[0]

    def _run(self, outputs: Sequence[str], rgb: NDArray[np.uint8], measured: FloatArray) -> list[FloatArray]:
        rgb = enlarged(rgb)
        height, width = rgb.shape[:2]
        below, right = -height % CELL, -width % CELL
        if below or right:
            rgb = np.asarray(cv2.copyMakeBorder(rgb, 0, below, 0, right, cv2.BORDER_REFLECT_101), np.uint8)
        given = {"pixels": np.ascontiguousarray(rgb)[None], "measured": measured[None]}
        return [np.asarray(part, np.float32)[0] for part in self._session.run(outputs, given)]


def _open(data: bytes, name: str) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Several processes share the cores where there are many pictures; one thread also keeps the sums in one order.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        raise ValueError(f"{name} is no model that onnxruntime can run: {error}") from error
    names = [[each.name for each in ends] for ends in (session.get_inputs(), session.get_outputs())]
    if names != [list(INPUTS), list(OUTPUTS)]:
        raise ValueError(f"{name} is a model of another kind: it must turn {_list(INPUTS)} into {_list(OUTPUTS)}")
    return session


@lru_cache(maxsize=1)
def shipped_network() -> RatingNetwork:
    """The network that the package holds, opened once."""
    with resources.as_file(resources.files(__package__).joinpath("data", WEIGHTS)) as path:
        return RatingNetwork(path)


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def combined(first: Rating, second: Rating) -> Rating:
    """The rating of two looks, each weighted by its certainty, so that an uncertain first look moves further.

    The move is limited to twice the first look's spread: what one region shows cannot overturn a sure rating.
    """
    certainty = first.spread**2 / (first.spread**2 + second.spread**2)
    move = float(np.clip(certainty * (second.value - first.value), -2 * first.spread, 2 * first.spread))
    # The looks share their errors in part (one network, one picture): the spread shrinks less than independence says.
    spread = first.spread * (1 - 0.5 * certainty) if second.spread < first.spread else first.spread
    return Rating(float(np.clip(first.value + move, LOWEST, HIGHEST)), spread)
