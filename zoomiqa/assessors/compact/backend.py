"""The embedded assessor: measured signals and a rating fitted on human scores, speaking as a model would.

It answers the requests of the one conversation, so that prompts, crops, records and reports need no second path. It
must not know rounds beyond "the whole picture" and "a region": which one it is shown stands in the request.

What it is, said plainly: no language model and no deep network (one tiny network estimates the colour of the light).
It looks twice as the method does - first at a viewing copy, then at one region in full resolution - and writes down
what its signals support.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from weakref import WeakKeyDictionary

import numpy as np
from threadpoolctl import ThreadpoolController

from zoomiqa.assessors.compact.diagnosis import diagnose
from zoomiqa.assessors.compact.features import (
    VIEW_SIDE,
    RegionChoice,
    choose_region,
    crop_copy,
    extract_features,
    viewing_copy,
)
from zoomiqa.assessors.compact.rating import Rating, RatingModel
from zoomiqa.assessors.compact.wording import Verdict, closer_look, first_look
from zoomiqa.backends.base import Capabilities
from zoomiqa.errors import BackendFailed, ZoomIQAError
from zoomiqa.imaging.picture import Picture, crop
from zoomiqa.imaging.signals import Signals, measure
from zoomiqa.types import Box, Finding, ImagePart, Reply, Request
from zoomiqa.vocabulary import name_region


def _weights_mark() -> str:
    """Eight digits that change with the fitted parts, so that a run is not resumed with others."""
    package = resources.files("zoomiqa")
    mark = hashlib.sha256((package / "assessors" / "compact" / "data" / "compact_rating.json").read_bytes())
    for part in sorted((package / "imaging" / "signals" / "data").iterdir(), key=lambda item: item.name):
        mark.update(part.read_bytes())
    return mark.hexdigest()[:8]


NOTHING_MORE = 1.02
"""A picture at most this many times its viewing copy's size shows nothing new from close by."""


@dataclass(frozen=True, slots=True)
class _FirstLook:
    """What the whole picture showed; kept while the picture lives, as later looks build on it."""

    view_px: int
    features: np.ndarray
    signals: Signals
    findings: tuple[Finding, ...]
    rating: Rating
    region: RegionChoice
    is_complete: bool
    """Whether the viewing copy shows all there is."""


class CompactBackend:
    """Rates pictures by signals and a fitted regressor. Needs no download, no GPU and no settings.

    Source: the behaviour is the Zoom-IQA paper's Sec. 3 (uncertainty, zoom, refinement); the signals' papers stand in
    `zoomiqa.imaging.signals`, the rating's in `zoomiqa.assessors.compact.rating`.
    """

    capabilities = Capabilities(
        name="compact",
        version=f"1+{_weights_mark()}",
        description=(
            "Measured signals and a regressor fitted on human scores (BIQ2021, official training part); no language"
            " model, and one tiny network for the colour of the light."
        ),
        batch_size=1,
        deterministic=True,
        parallel=True,
    )

    def __init__(self) -> None:
        self._looks: WeakKeyDictionary[Picture, _FirstLook] = WeakKeyDictionary()

    @cached_property
    def _linear_algebra(self) -> ThreadpoolController:
        return ThreadpoolController()

    @cached_property
    def _model(self) -> RatingModel:
        return RatingModel.load()

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        # The products here are small: threads of the linear algebra library only wait for each other (measured on two
        # cores: 120 ms a photo with one thread, 305 ms with two).
        with self._linear_algebra.limit(limits=1, user_api="blas"):
            return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Reply:
        picture = request.picture
        if not isinstance(picture, Picture):
            error = BackendFailed(
                "this backend needs a decoded picture", type(picture).__name__, "open it with zoomiqa.open_picture"
            )
            return Reply("", finish_reason="error", error=error.to_dict())
        try:
            first = self._looks.get(picture)
            if first is None:
                first = self._looks[picture] = self._look_at_whole(picture)
            box = _region_shown(request)
            return self._report_whole(first) if box is None else self._look_closer(picture, first, box)
        except ZoomIQAError as error:
            return Reply("", finish_reason="error", error=error.to_dict())

    def _look_at_whole(self, picture: Picture) -> _FirstLook:
        view = viewing_copy(picture.pixels)
        scale = max(view.shape[:2]) / max(picture.size)
        is_complete = scale * NOTHING_MORE >= 1
        signals = measure(view, scale=1.0 if is_complete else scale)
        features = extract_features(view)
        return _FirstLook(
            view_px=max(view.shape[:2]),
            features=features,
            signals=signals,
            findings=diagnose(signals, signals if is_complete else None, (0.0, 0.0, 1.0, 1.0)),
            rating=self._model.first(features),
            region=choose_region(view),
            is_complete=is_complete,
        )

    def _report_whole(self, first: _FirstLook) -> Reply:
        region = name_region(first.region.box_fraction)
        zoom = None if first.is_complete else _why_zoom(first)
        rationale = first_look(
            first.findings,
            Verdict(first.rating.value, first.rating.spread),
            view_px=first.view_px,
            detail_region=region,
            zoom=zoom,
        )
        box = first.region.box_fraction if zoom else (0, 0, 0, 0)
        return _reply(rationale, first.rating, first.findings, box, "crop" if zoom else "final")

    def _look_closer(self, picture: Picture, first: _FirstLook, box: Box) -> Reply:
        box_fraction = box.to_fraction(picture.size)
        signals = measure(np.ascontiguousarray(crop(picture, box)), is_detail=True)
        findings = diagnose(first.signals, signals, box_fraction)
        features = extract_features(crop_copy(picture.pixels, box_fraction))
        rating = self._model.second(first.features, features, box_fraction)
        rationale = closer_look(
            first.findings,
            findings,
            Verdict(first.rating.value, first.rating.spread),
            Verdict(rating.value, rating.spread),
            crop_region=name_region(box_fraction),
            crop_size=(box.width, box.height),
        )
        return _reply(rationale, rating, findings, (0, 0, 0, 0), "final")


def _region_shown(request: Request) -> Box | None:
    """The region of the newest message, or `None` for the whole picture."""
    parts = [part for part in request.messages[-1].parts if isinstance(part, ImagePart)]
    return parts[-1].box if parts else None


def _why_zoom(first: _FirstLook) -> str:
    reason = (
        "No part holds clearly more fine detail than the centre, so the centre speaks for all."
        if first.region.reason == "uniform_centre"
        else "That region holds the most fine detail, where such flaws would show."
    )
    return (
        f"At {VIEW_SIDE} pixels, fine focus, noise and compression cannot be judged, which leaves the rating open by"
        f" about {first.rating.spread:.2f}. {reason}"
    )


def _reply(
    rationale: str, rating: Rating, findings: tuple[Finding, ...], box_fraction: Sequence[float], tool: str
) -> Reply:
    answer = json.dumps(
        {"bbox_2d": [round(edge, 4) for edge in box_fraction], "rating": round(rating.value, 2), "tool": tool}
    )
    return Reply(
        f"<think>\n{rationale}\n</think>\n<answer>{answer}</answer>", spread=round(rating.spread, 4), findings=findings
    )
