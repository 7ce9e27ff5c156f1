"""The embedded assessors: measured signals and a rating taught by human scores, speaking as a model would.

They answer the requests of the one conversation, so that prompts, crops, records and reports need no second path. They
must not know rounds beyond "the whole picture" and "a region": which one is shown stands in the request.

What they are, said plainly: no language models. Both look twice as the method does - first at a viewing copy, then at
one region in full resolution - and write down what their signals support. They differ in what rates: `CompactBackend`
asks a small network, whose map and uncertainty say where to look closer and how far that may move the rating, and which
helps to tell a bright scene from too much light; `SignalsBackend` asks a regressor on hand-made features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from weakref import WeakKeyDictionary

from threadpoolctl import ThreadpoolController

from zoomiqa.assessors.compact.diagnosis import WHOLE, diagnose
from zoomiqa.assessors.compact.features import VIEW_SIDE, RegionChoice, viewing_copy
from zoomiqa.assessors.compact.raters import Look, NetworkRater, Rater, SignalsRater
from zoomiqa.assessors.compact.rating import Rating
from zoomiqa.assessors.compact.wording import Verdict, closer_look, first_look
from zoomiqa.backends.base import Capabilities
from zoomiqa.errors import BackendFailed, OptionInvalid, ZoomIQAError
from zoomiqa.imaging.picture import Picture
from zoomiqa.imaging.signals import Signals, measure
from zoomiqa.types import Box, Finding, ImagePart, Reply, Request, TextPart
from zoomiqa.vocabulary import name_region


def _weights_mark(*cards: str) -> str:
    """Eight digits that change with the fitted parts, so that a run is not resumed with others."""
    package, mark = resources.files("zoomiqa"), hashlib.sha256()
    for card in cards:
        mark.update((package / "assessors" / "compact" / "data" / card).read_bytes())
    for part in sorted((package / "imaging" / "signals" / "data").iterdir(), key=lambda item: item.name):
        mark.update(part.read_bytes())
    return mark.hexdigest()[:8]


NETWORK_CARD, TONES_CARD, REGRESSOR_CARD = "rating_network.json", "tones.json", "compact_rating.json"
"""Cards of the shipped weights; they hold the weights' hashes."""

NOTHING_MORE = 1.02
"""A picture at most this many times its viewing copy's size shows nothing new from close by."""


@dataclass(frozen=True, slots=True)
class _FirstLook:
    """What the whole picture showed; kept while the picture lives, as later looks build on it."""

    view_px: int
    signals: Signals
    findings: tuple[Finding, ...]
    look: Look
    is_complete: bool
    """Whether the viewing copy shows all there is."""


class LookingBackend:
    """Looks, measures, rates and says so. No download, no GPU.

    Source: the behaviour is the Zoom-IQA paper's Sec. 3 (uncertainty, zoom, refinement); the signals' papers stand in
    `zoomiqa.imaging.signals`.

    Args:
        rater: What rates.
    """

    def __init__(self, rater: Rater) -> None:
        self._looks: WeakKeyDictionary[Picture, _FirstLook] = WeakKeyDictionary()
        self._rater = rater

    @cached_property
    def _linear_algebra(self) -> ThreadpoolController:
        return ThreadpoolController()

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
            asked = _asks_for_attributes(request)
            return self._report_whole(first, asked) if box is None else self._look_closer(picture, first, box, asked)
        except ZoomIQAError as error:
            return Reply("", finish_reason="error", error=error.to_dict())

    def _look_at_whole(self, picture: Picture) -> _FirstLook:
        view = viewing_copy(picture.pixels)
        scale = max(view.shape[:2]) / max(picture.size)
        is_complete = scale * NOTHING_MORE >= 1
        signals = measure(view, scale=1.0 if is_complete else scale)
        signals = replace(signals, values={**signals.values, **self._rater.tones(view)})
        return _FirstLook(
            view_px=max(view.shape[:2]),
            signals=signals,
            findings=diagnose(signals, signals if is_complete else None, WHOLE, self._rater.limits),
            look=self._rater.first(view),
            is_complete=is_complete,
        )

    def _report_whole(self, first: _FirstLook, asks_for_attributes: bool) -> Reply:
        rating, region = first.look.rating, first.look.region
        name = name_region(region.box_fraction)
        zoom = None if first.is_complete else _why_zoom(rating, region)
        rationale = first_look(
            first.findings,
            Verdict(rating.value, rating.spread),
            view_px=first.view_px,
            detail_region=name,
            zoom=zoom,
        )
        box = region.box_fraction if zoom else (0, 0, 0, 0)
        attributes = first.look.attributes if asks_for_attributes else {}
        return _reply(rationale, rating, first.findings, box, "crop" if zoom else "final", attributes)

    def _look_closer(self, picture: Picture, first: _FirstLook, box: Box, asks_for_attributes: bool) -> Reply:
        box_fraction = box.to_fraction(picture.size)
        # Detail is measured everywhere, tile by tile, as a local flaw may lie outside the region.
        findings = diagnose(first.signals, measure(picture.pixels, is_detail=True), WHOLE, self._rater.limits)
        rating, attributes = self._rater.second(first.look, picture.pixels, box_fraction)
        rationale = closer_look(
            first.findings,
            findings,
            Verdict(first.look.rating.value, first.look.rating.spread),
            Verdict(rating.value, rating.spread),
            crop_region=name_region(box_fraction),
            crop_size=(box.width, box.height),
        )
        return _reply(rationale, rating, findings, (0, 0, 0, 0), "final", attributes if asks_for_attributes else {})


class CompactBackend(LookingBackend):
    """Measured signals for the words, a small network for the rating. Needs no settings.

    Source: the network's papers stand in `training/compact/rating`.

    Args:
        network: A rating network's file, made by `training/compact/rating`; the shipped one without it.

    Raises:
        OptionInvalid: the file is no such network.
    """

    capabilities = Capabilities(
        name="compact",
        version=f"2+{_weights_mark(NETWORK_CARD, TONES_CARD)}",
        description=(
            "Measured signals, and a small rating network taught by human scores (BIQ2021, official training part) and"
            " known degradations; no language model."
        ),
        batch_size=1,
        deterministic=True,
        parallel=True,
    )

    def __init__(self, network: str | Path | None = None) -> None:
        try:
            super().__init__(NetworkRater(network))
        except ValueError as error:
            raise OptionInvalid(
                "the rating network cannot be used", str(error), "train one, or leave it out"
            ) from error
        if network is not None:
            mark = hashlib.sha256(Path(network).read_bytes()).hexdigest()[:8]
            self.capabilities = replace(self.capabilities, version=f"{self.capabilities.version}+{mark}")


class SignalsBackend(LookingBackend):
    """Measured signals for the words, and a regressor on hand-made features for the rating; no deep network.

    Source: the rating's papers stand in `zoomiqa.assessors.compact.rating`.
    """

    capabilities = Capabilities(
        name="signals",
        version=f"1+{_weights_mark(REGRESSOR_CARD)}",
        description=(
            "Measured signals and a regressor fitted on human scores (BIQ2021, official training part); no language"
            " model, and no network but tiny ones for exposure and the colour of the light."
        ),
        batch_size=1,
        deterministic=True,
        parallel=True,
    )

    def __init__(self) -> None:
        super().__init__(SignalsRater())


def _asks_for_attributes(request: Request) -> bool:
    """Whether the newest message wants ratings of attributes in the answer."""
    texts = (part.text for part in request.messages[-1].parts if isinstance(part, TextPart))
    return any('"attributes"' in text for text in texts)


def _region_shown(request: Request) -> Box | None:
    """The region of the newest message, or `None` for the whole picture."""
    parts = [part for part in request.messages[-1].parts if isinstance(part, ImagePart)]
    return parts[-1].box if parts else None


_REASONS = {
    "uniform_centre": "No part holds clearly more fine detail than the centre, so the centre speaks for all.",
    "most_detail": "That region holds the most fine detail, where such flaws would show.",
    "most_doubt": "That region looks worse than the rest, so it decides whether the rating holds.",
}


def _why_zoom(rating: Rating, region: RegionChoice) -> str:
    return (
        f"At {VIEW_SIDE} pixels, fine focus, noise and compression cannot be judged, which leaves the rating open by"
        f" about {rating.spread:.2f}. {_REASONS[region.reason]}"
    )


def _reply(
    rationale: str,
    rating: Rating,
    findings: tuple[Finding, ...],
    box_fraction: Sequence[float],
    tool: str,
    attributes: Mapping[str, float],
) -> Reply:
    answer: dict[str, object] = {
        "bbox_2d": [round(edge, 4) for edge in box_fraction],
        "rating": round(rating.value, 2),
        "tool": tool,
    }
    if attributes:
        answer["attributes"] = {name: round(value, 2) for name, value in attributes.items()}
    text = f"<think>\n{rationale}\n</think>\n<answer>{json.dumps(answer)}</answer>"
    return Reply(text, spread=round(rating.spread, 4), findings=findings)
