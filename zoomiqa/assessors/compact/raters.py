"""What rates in the embedded assessors: a network, or a regressor on features. It must not word anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zoomiqa.assessors.compact.diagnosis import NO_LIMITS
from zoomiqa.assessors.compact.features import RegionChoice, choose_region, crop_copy, extract_features
from zoomiqa.assessors.compact.network import NetworkLook, RatingNetwork, combined, shipped_network
from zoomiqa.assessors.compact.rating import Rating, RatingModel
from zoomiqa.assessors.compact.tones import limits as tone_limits
from zoomiqa.assessors.compact.tones import tones

PixelArray = NDArray[np.uint8]

DOUBT_WEIGHT = 3.0
"""How much a place that looks a rating point worse than the rest counts beside detail (log of the Laplacian)."""

IN_DETAIL = ("sharpness", "noise")
"""Attributes that the closer look decides; the others are those of the whole picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a rater made of the viewing copy."""

    rating: Rating
    region: RegionChoice
    """Where to look closer."""

    features: NDArray[np.float32] | None = None
    network: NetworkLook | None = None
    attributes: Mapping[str, float] = field(default_factory=dict)


class Rater(Protocol):
    """Rates the viewing copy, then the same picture with one region in full resolution."""

    @property
    def limits(self) -> Mapping[str, float]:
        """Limits of rules for the signals that `tones` tells, see `zoomiqa.assessors.compact.diagnosis.diagnose`."""
        ...

    def first(self, view: PixelArray) -> Look:
        """The viewing copy alone."""
        ...

    def tones(self, view: PixelArray) -> Mapping[str, float | None]:
        """Signals of the viewing copy that this rater tells better than measurement does."""
        ...

    def second(
        self, first: Look, pixels: PixelArray, box_fraction: Sequence[float]
    ) -> tuple[Rating, Mapping[str, float]]:
        """Rating and attributes after the region `box_fraction` of the whole picture `pixels` was looked at."""
        ...


class SignalsRater:
    """Kernel regression and trees over hand-made features."""

    limits: Mapping[str, float] = NO_LIMITS

    @cached_property
    def _model(self) -> RatingModel:
        return RatingModel.load()

    def first(self, view: PixelArray) -> Look:
        """See `Rater`."""
        features = extract_features(view)
        return Look(self._model.first(features), choose_region(view), features)

    def tones(self, view: PixelArray) -> Mapping[str, float | None]:  # noqa: ARG002
        """See `Rater`; none."""
        return {}

    def second(
        self, first: Look, pixels: PixelArray, box_fraction: Sequence[float]
    ) -> tuple[Rating, Mapping[str, float]]:
        """See `Rater`."""
        assert first.features is not None  # noqa: S101 - its own look
        crop = extract_features(crop_copy(pixels, box_fraction))
        return self._model.second(first.features, crop, box_fraction), {}


class NetworkRater:
    """The rating network; its map chooses the region, its spreads say how far the second look moves the rating.

    Args:
        path: A model file, read at once; without one the shipped network, read when it is first needed.

    Raises:
        ValueError: the file is no rating network.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._own = None if path is None else RatingNetwork(path)

    @property
    def _network(self) -> RatingNetwork:
        return self._own or shipped_network()

    @property
    def limits(self) -> Mapping[str, float]:
        """See `Rater`."""
        return tone_limits()

    def first(self, view: PixelArray) -> Look:
        """See `Rater`."""
        look = self._network.look(view)
        return Look(look.rating, region_by_map(view, look), network=look, attributes=look.attributes)

    def tones(self, view: PixelArray) -> Mapping[str, float | None]:
        """See `Rater`; exposure and cast."""
        return tones(self._network, view)

    def second(
        self, first: Look, pixels: PixelArray, box_fraction: Sequence[float]
    ) -> tuple[Rating, Mapping[str, float]]:
        """See `Rater`."""
        crop = self._network.look(crop_copy(pixels, box_fraction))
        decided = {name: crop.attributes[name] for name in IN_DETAIL}
        return combined(first.rating, crop.rating), {**first.attributes, **decided}


def region_by_map(view: PixelArray, look: NetworkLook) -> RegionChoice:
    """The region with the most fine detail and the lowest quality for its picture."""
    plain = choose_region(view)
    doubt = DOUBT_WEIGHT * (float(np.median(look.quality)) - look.quality)
    chosen = choose_region(view, doubt)
    is_moved = chosen.box_fraction != plain.box_fraction and chosen.reason == "most_detail"
    return replace(chosen, reason="most_doubt") if is_moved else chosen
