"""Visual Reliance Filter: drop a trajectory whose answer can be given without looking (Zoom-IQA, Sec. 3.1.1, 6.2).

A model answers twice: with picture and rationale, and with the rationale alone. Where the two answers are too much
alike, the picture was not needed. Two ways of reading the answers:

- `LogProbabilities`, on a local transformers model: the greedy answer, and the mean entropy of its numbers' tokens.
- `SampledAgreement`, on anything: several sampled answers; their mean rating, their boxes, and the entropy of a normal
  distribution fitted to the ratings.

It must not know files.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import starmap
from statistics import fmean, pstdev
from typing import Any, Literal, Protocol

from zoomiqa.assessors.compact.diagnosis import overlap
from zoomiqa.backends.base import Backend
from zoomiqa.backends.processor import load_processor
from zoomiqa.errors import OptionInvalid, ReplyUnusable
from zoomiqa.evaluation.judge import escape
from zoomiqa.imaging import Picture
from zoomiqa.protocol import parse_reply
from zoomiqa.protocol.geometry import as_numbers
from zoomiqa.types import BoxFraction, Reply, Request, Sampling

from .filtering import Talk, answered, text_only, with_picture
from .trajectories import Decision
from .words import Words

STEP = "visual-reliance"
GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=256, stop=("</answer>",))
SAMPLED = replace(GREEDY, temperature=1.0)

_LEAST_DEVIATION = 0.05
"""Deviation of ratings (points) below which sampled answers count as one: the threshold on ratings."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When two answers are too much alike. The figures are the paper's."""

    rating: float = 0.05
    """Difference of ratings (points) below which they are."""

    box: float = 0.5
    """Intersection over union of boxes above which they are."""

    entropy: float = 0.01
    """Difference of entropies (nats) below which they are."""

    combine: Literal["any", "all"] = "any"
    """Whether one likeness drops, or all that apply must hold together."""

    def __post_init__(self) -> None:
        if self.combine not in ("any", "all"):
            raise OptionInvalid("combine must be 'any' or 'all'", self.combine, "use one of them")
        for name in ("rating", "box", "entropy"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionInvalid(f"the threshold {name} must be 0 or more", getattr(self, name), "see the paper's")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answers under one condition."""

    rating: float
    boxes: tuple[BoxFraction | None, ...]
    """One per sample; `None` where no closer view is asked for."""

    entropy: float
    """Nats."""

    def to_dict(self) -> dict[str, Any]:
        boxes = [None if box is None else [round(edge, 4) for edge in box] for box in self.boxes]
        return {"rating": round(self.rating, 4), "boxes": boxes, "entropy": round(self.entropy, 5)}


class Reading(Protocol):
    """How an answer is asked for and read."""

    name: str
    sampling: Sampling

    def ask(self, request: Request) -> Generator[Request, Reply, Answer]:
        """Yield as many requests as it takes.

        Raises:
            ReplyUnusable: a reply holds no rating.
            AskedInVain: the backend failed.
        """
        ...

    def to_dict(self) -> dict[str, Any]: ...


class LogProbabilities:
    """The greedy answer and the entropy of its numbers.

    Args:
        backend: A `TransformersBackend`: its model is asked for the distribution of every token.
        sampling: Greedy.
    """

    name = "log-probabilities"

    def __init__(self, backend: Any, sampling: Sampling = GREEDY) -> None:
        if not all(hasattr(backend, part) for part in ("load", "prepare")):
            raise OptionInvalid(
                "log-probabilities need a local model",
                backend.capabilities.name,
                "use transformers, or --method sampled",
            )
        self._backend, self.sampling = backend, sampling

    @cached_property
    def _tokenizer(self) -> Any:
        return load_processor(self._backend.model_id, self._backend.revision).tokenizer

    def ask(self, request: Request) -> Generator[Request, Reply, Answer]:
        from .entropy import number_entropy

        text = answered((yield request))
        rating, box = read_answer(text, request.picture.size)
        return Answer(rating, (box,), number_entropy(self._backend, self._tokenizer, request, text))

    def to_dict(self) -> dict[str, Any]:
        return {"method": self.name, "sampling": self.sampling.to_dict()}


class SampledAgreement:
    """Several sampled answers.

    Args:
        samples: How many, per condition; at least 2.
        sampling: With a temperature above 0.
    """

    name = "sampled"

    def __init__(self, samples: int = 5, sampling: Sampling = SAMPLED) -> None:
        if samples < 2 or sampling.temperature == 0:
            raise OptionInvalid(
                "sampled agreement needs at least two samples and a temperature above 0",
                (samples, sampling.temperature),
                "5 samples at temperature 1 are the default",
            )
        self.samples, self.sampling = samples, sampling

    def ask(self, request: Request) -> Generator[Request, Reply, Answer]:
        ratings, boxes = [], []
        for number in range(self.samples):
            drawn = replace(self.sampling, seed=self.sampling.seed + number)
            text = answered((yield replace(request, sampling=drawn)))
            rating, box = read_answer(text, request.picture.size)
            ratings.append(rating)
            boxes.append(box)
        deviation = math.hypot(pstdev(ratings), _LEAST_DEVIATION)
        return Answer(fmean(ratings), tuple(boxes), math.log(deviation * math.sqrt(2 * math.pi * math.e)))

    def to_dict(self) -> dict[str, Any]:
        return {"method": self.name, "samples": self.samples, "sampling": self.sampling.to_dict()}


def choose_reading(method: str, backend: Backend, samples: int, sampling: Sampling | None = None) -> Reading:
    """The reading called `method`; "auto" takes log-probabilities where the backend is a local model."""
    if method == "auto":
        method = LogProbabilities.name if backend.capabilities.name == "transformers" else SampledAgreement.name
    if method == LogProbabilities.name:
        return LogProbabilities(backend, sampling or GREEDY)
    return SampledAgreement(samples, sampling or SAMPLED)


def read_answer(text: str, size: tuple[int, int]) -> tuple[float, BoxFraction | None]:
    """Rating and box (fractions; `None` where there is none, or all zero) of an answer.

    Raises:
        ReplyUnusable: it holds no rating.
    """
    parsed = parse_reply(text)
    if parsed.rating is None:
        raise ReplyUnusable("the answer holds no rating", None, "ask again, or another model")
    values = as_numbers(parsed.box_model)
    if values is None or not any(values) or parsed.tool == "final":
        return parsed.rating, None
    if not all(0 <= value <= 1 for value in values):
        width, height = size
        values = (values[0] / width, values[1] / height, values[2] / width, values[3] / height)
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in values)
    return parsed.rating, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def rationale_of(record: Mapping[str, Any], *, full: bool) -> str:
    """The first look's rationale; without its decision, which states the answer, unless `full`."""
    titles = {
        "summary": "Image Quality Summary",
        "directions": "Directions for Improvement",
        "issues": "Issues to Avoid",
        "decision": "Decision & Rationale",
    }
    sections = record["rounds"][0]["sections"]
    names = [name for name in titles if sections.get(name) and (full or name != "decision")]
    if not names:
        raise ReplyUnusable("the first look has no rationale", record["id"], "make the trajectory again")
    return "\n".join(f"{titles[name]}: {sections[name]}" for name in names)


def compare(
    record: Mapping[str, Any],
    picture: Picture,
    reading: Reading,
    words: Words,
    thresholds: Thresholds,
    *,
    full_rationale: bool = False,
) -> Talk:
    """Ask under both conditions, then decide."""
    text = words.fill("text", rationale=escape(rationale_of(record, full=full_rationale)))
    seen = yield from reading.ask(with_picture(picture, text, reading.sampling))
    blind = yield from reading.ask(text_only(text, reading.sampling))
    return decide(seen, blind, thresholds)


def decide(seen: Answer, blind: Answer, thresholds: Thresholds) -> Decision:
    """Drop where the answers with and without the picture are too much alike."""
    rating = abs(seen.rating - blind.rating)
    entropy = abs(seen.entropy - blind.entropy)
    box = mean_overlap(seen.boxes, blind.boxes)
    alike = {
        "rating-alike": rating < thresholds.rating,
        "box-alike": None if box is None else box > thresholds.box,
        "entropy-alike": entropy < thresholds.entropy,
    }
    applying = {reason: holds for reason, holds in alike.items() if holds is not None}
    drops = any(applying.values()) if thresholds.combine == "any" else all(applying.values())
    details = {
        "rating_difference": round(rating, 4),
        "box_overlap": None if box is None else round(box, 4),
        "entropy_difference": round(entropy, 5),
        "with_picture": seen.to_dict(),
        "without_picture": blind.to_dict(),
    }
    reasons = tuple(reason for reason, holds in applying.items() if holds) if drops else ()
    return Decision(STEP, "drop" if drops else "keep", reasons, details)


def mean_overlap(ours: Sequence[BoxFraction | None], others: Sequence[BoxFraction | None]) -> float | None:
    """Mean intersection over union of all pairs of boxes; a box and none do not overlap; `None` without any box."""
    pairs = [(one, other) for one in ours for other in others if one is not None or other is not None]
    if not pairs:
        return None
    return fmean(starmap(_overlap, pairs))


def _overlap(one: BoxFraction | None, other: BoxFraction | None) -> float:
    return 0.0 if one is None or other is None else overlap(one, other)
