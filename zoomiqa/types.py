"""The values that travel between the rooms. It must not know how anything is computed.

All are frozen. Those that end in a record have `to_dict`; `zoomiqa schema` prints their JSON form.

Spaces of boxes are in the names: `box` is half-open integer pixels `(x1, y1, x2, y2)` of the upright original,
`box_fraction` is the same as fractions of width and height, `box_model` is what a model wrote, untouched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

from zoomiqa.errors import OptionInvalid, RecordCorrupt
from zoomiqa.vocabulary import Flaw, Severity

SCHEMA_VERSION = "1.1"
"""Version of the record's JSON form; the first figure changes when a reader must."""

RATING_MIN, RATING_MAX = 1.0, 5.0

BoxFraction = tuple[float, float, float, float]


def score_from_rating(rating: float | None) -> float | None:
    """Map a rating of 1..5 to a score of 0..100, (rating − 1) × 25. `None` stays `None`."""
    return None if rating is None else round((rating - RATING_MIN) * 25.0, 4)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in half-open integer pixels of the upright original: `x1 <= x < x2`, `y1 <= y < y2`."""

    x1: int
    y1: int
    x2: int
    y2: int

    def __post_init__(self) -> None:
        if not (0 <= self.x1 < self.x2 and 0 <= self.y1 < self.y2):
            raise OptionInvalid(
                "a box needs 0 <= x1 < x2 and 0 <= y1 < y2", (self.x1, self.y1, self.x2, self.y2), "order its corners"
            )

    @property
    def width(self) -> int:
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        return self.y2 - self.y1

    @property
    def area(self) -> int:
        return self.width * self.height

    def to_fraction(self, size: tuple[int, int]) -> BoxFraction:
        """The same rectangle as fractions of `size`, which is (width, height) in pixels."""
        width, height = size
        return (self.x1 / width, self.y1 / height, self.x2 / width, self.y2 / height)

    @classmethod
    def from_fraction(cls, box_fraction: BoxFraction, size: tuple[int, int]) -> Box:
        """The smallest pixel box that covers `box_fraction` inside `size` (width, height); at least one pixel."""
        width, height = size
        x1 = min(max(int(box_fraction[0] * width + 1e-9), 0), width - 1)
        y1 = min(max(int(box_fraction[1] * height + 1e-9), 0), height - 1)
        x2 = min(max(math.ceil(box_fraction[2] * width - 1e-9), x1 + 1), width)
        y2 = min(max(math.ceil(box_fraction[3] * height - 1e-9), y1 + 1), height)
        return cls(x1, y1, x2, y2)

    def to_list(self) -> list[int]:
        return [self.x1, self.y1, self.x2, self.y2]

    @classmethod
    def from_list(cls, corners: Iterable[Any]) -> Box:
        """The inverse of `to_list`.

        Raises:
            OptionInvalid, TypeError, ValueError: not four corners of a box.
        """
        return cls(*(int(corner) for corner in corners))


@dataclass(frozen=True, slots=True)
class Note:
    """A correction or a choice that a reader of the record should know of. Never an error."""

    code: str
    """Stable kebab-case name, e.g. `json-repaired`."""

    message: str
    """One sentence for a person."""

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Choice:
    """An automatic choice with its reason, e.g. ("cpu", "no CUDA device found")."""

    value: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {"value": self.value, "reason": self.reason}


class Sized(Protocol):
    """Anything with a size: what the conversation needs to know of a picture."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright."""
        ...


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture in a message, described by geometry: `zoomiqa.imaging.render` makes the pixels from the original."""

    box: Box | None = None
    """The region shown; `None` is the whole picture."""

    size: tuple[int, int] | None = None
    """(width, height) to which the region is resized (Lanczos); `None` keeps its own pixels."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[TextPart | ImagePart, ...]

    @property
    def text(self) -> str:
        """The text parts, joined without a separator."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a backend draws tokens. Defaults are the released evaluator's."""

    temperature: float = 1.0
    """0 is greedy."""

    top_p: float = 0.95
    top_k: int = 50
    max_new_tokens: int = 1024
    seed: int = 42
    stop: tuple[str, ...] = ()
    """Texts after which the reply ends; they stay in it."""

    def __post_init__(self) -> None:
        for name, ok, range_text in (
            ("temperature", 0 <= self.temperature < math.inf, "at least 0 and finite"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0 (0 is all tokens)"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
        ):
            if not ok:
                raise OptionInvalid(f"{name} must be {range_text}", getattr(self, name), "choose another value")

    def to_dict(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "stop": list(self.stop),
        }


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a backend: a chat about one decoded picture."""

    picture: Sized
    """The subject. Only decoded pictures reach a backend, never a path or URL."""

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    round_index: int = 0
    """0 for the first look."""

    looks: tuple[Round, ...] = ()
    """The looks before this one, as they were read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One measured flaw: what, where, how strong, and the figure that says so."""

    flaw: Flaw
    severity: Severity
    strength: float
    """0..1; how far the signal is beyond its limit, comparable between flaws."""

    signal: str
    """Name of the measured signal in `zoomiqa.imaging.signals`."""

    value: float
    """The signal's value, in its own unit."""

    limit: float
    """The value from which the flaw is stated."""

    box_fraction: BoxFraction = (0.0, 0.0, 1.0, 1.0)
    """Where it shows, as fractions of the upright original."""

    region: str = "whole frame"
    """Name of that place, one of `zoomiqa.vocabulary.REGIONS`."""

    detail: str = ""
    """What qualifies it in words: a hue ("yellow"), a direction ("horizontal"), or nothing."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "flaw": str(self.flaw),
            "severity": str(self.severity),
            "strength": round(self.strength, 4),
            "signal": self.signal,
            "value": round(self.value, 5),
            "limit": round(self.limit, 5),
            "box_fraction": [round(edge, 4) for edge in self.box_fraction],
            "region": self.region,
            "detail": self.detail,
        }

    @classmethod
    def from_dict(cls, finding: Mapping[str, Any]) -> Finding:
        """The inverse of `to_dict`, but for rounding.

        Raises:
            KeyError, TypeError, ValueError: a part is missing, of the wrong type, or not finite.
        """
        left, top, right, bottom = (_number(edge) for edge in finding["box_fraction"])
        return cls(
            flaw=Flaw(finding["flaw"]),
            severity=Severity(finding["severity"]),
            strength=_number(finding["strength"]),
            signal=str(finding["signal"]),
            value=_number(finding["value"]),
            limit=_number(finding["limit"]),
            box_fraction=(left, top, right, bottom),
            region=str(finding["region"]),
            detail=str(finding["detail"]),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a backend answered."""

    text: str
    finish_reason: Literal["stop", "length", "error"] = "stop"
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float | None = None
    spread: float | None = None
    """The backend's own expected error of the rating (in rating points), where it has one."""

    findings: tuple[Finding, ...] = ()
    """Measured evidence behind the text, where the backend measures."""

    notes: tuple[Note, ...] = ()
    """What the backend could not do as asked."""

    error: Mapping[str, str] | None = None
    """Set when `finish_reason` is "error": `code`, `type`, `message`."""


SECTION_TITLES = {
    "summary": "Summary",
    "directions": "Directions for Improvement",
    "issues": "Issues to Avoid",
    "decision": "Decision & Rationale",
}
"""What people read above each of `Sections`."""


@dataclass(frozen=True, slots=True)
class Sections:
    """The four sections of a rationale; an absent one is `None`."""

    summary: str | None = None
    directions: str | None = None
    issues: str | None = None
    decision: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        return {
            "summary": self.summary,
            "directions": self.directions,
            "issues": self.issues,
            "decision": self.decision,
        }

    @classmethod
    def from_dict(cls, sections: Mapping[str, Any]) -> Sections:
        """The inverse of `to_dict`.

        Raises:
            TypeError: a section is no text.
        """
        return cls(**{field.name: _text(sections.get(field.name)) for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Round:
    """One look: the reply, and what was read from it."""

    index: int
    text: str
    sections: Sections
    rating: float | None
    """1..5, or `None` when the reply holds none."""

    tool: str | None
    """The word as written, lower case; anything but "final" asks for a crop."""

    box: Box | None = None
    """The region that was looked at next (after limits), or `None` when this look was the last."""

    box_model: tuple[float, ...] | None = None
    """The box as the model wrote it."""

    shown_box: Box | None = None
    """The region this look was about; `None` for the whole picture."""

    attributes: Mapping[str, float] = field(default_factory=dict)
    """Ratings 1..5 by attribute (5 is best), where the prompt set asks for them."""

    spread: float | None = None
    findings: tuple[Finding, ...] = ()
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish_reason: str = "stop"
    """Why the reply ended: "stop" or "length"."""

    notes: tuple[Note, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "text": self.text,
            "sections": self.sections.to_dict(),
            "rating": self.rating,
            "tool": self.tool,
            "box": self.box.to_list() if self.box else None,
            "box_model": list(self.box_model) if self.box_model is not None else None,
            "shown_box": self.shown_box.to_list() if self.shown_box else None,
            "attributes": dict(self.attributes),
            "spread": self.spread,
            "findings": [finding.to_dict() for finding in self.findings],
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "finish_reason": self.finish_reason,
            "notes": [note.to_dict() for note in self.notes],
        }

    @classmethod
    def from_dict(cls, look: Mapping[str, Any]) -> Round:
        """What a record says of a look, without the reply itself: its text, tool, tokens and notes.

        Raises:
            AttributeError, KeyError, OptionInvalid, OverflowError, TypeError, ValueError: a part is missing or wrong.
        """
        shown = look["shown_box"]
        return cls(
            index=int(look["index"]),
            text="",
            sections=Sections.from_dict(look["sections"]),
            rating=_number_or_none(look["rating"]),
            tool=None,
            shown_box=None if shown is None else Box.from_list(shown),
            attributes={str(name): _number(value) for name, value in look.get("attributes", {}).items()},
            findings=tuple(Finding.from_dict(finding) for finding in look["findings"]),
        )


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a record says of a picture's file."""

    path: str | None
    """As the caller named it; `None` for a picture from memory."""

    sha256: str | None
    """Of the file's bytes."""

    width: int
    """Upright, in pixels."""

    height: int
    format: str | None = None
    """Pillow's name: JPEG, PNG, WEBP, TIFF, BMP."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "format": self.format,
        }

    @classmethod
    def from_dict(cls, image: Mapping[str, Any]) -> ImageInfo:
        """The inverse of `to_dict`; a size that is not known is 0.

        Raises:
            AttributeError, OverflowError, TypeError, ValueError: a part is of the wrong type.
        """
        width, height = (int(image.get(side) or 0) for side in ("width", "height"))
        return cls(_text(image.get("path")), _text(image.get("sha256")), width, height, _text(image.get("format")))


@dataclass(frozen=True, slots=True)
class AssessorInfo:
    """Who made an assessment."""

    name: str
    version: str
    description: str
    """What it is, said plainly."""

    prompt_set: str
    prompt_hash: str
    """SHA-256 (first 16 hexadecimal digits) of the prompt set's content."""

    def to_dict(self) -> dict[str, str]:
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "prompt_set": self.prompt_set,
            "prompt_hash": self.prompt_hash,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """The result for one picture. A failed one has `error` set and no rating; a failure is never a number."""

    rounds: tuple[Round, ...]
    rating: float | None
    """1..5; that of the last round, or the mean over `samples`."""

    spread: float | None = None
    """Expected error of the rating, in rating points, where known: a standard deviation of sampled ratings, or the
    expected absolute error of a fitted one."""

    samples: tuple[float | None, ...] = ()
    """Ratings of every sampled conversation, in order, where there were several; `None` for one that failed. `rounds`
    are those of the one nearest to their mean."""

    question: str | None = None
    """What was asked."""

    notes: tuple[Note, ...] = ()
    error: Mapping[str, str] | None = None
    image: ImageInfo | None = None
    assessor: AssessorInfo | None = None

    @property
    def score(self) -> float | None:
        """0..100."""
        return score_from_rating(self.rating)

    @property
    def sections(self) -> Sections:
        """The last round's sections; one that it lacks is taken from the round before."""
        merged = Sections()
        for look in self.rounds:
            merged = replace(
                merged, **{name: text for name, text in look.sections.to_dict().items() if text is not None}
            )
        return merged

    @property
    def positive(self) -> str | None:
        """Directions for Improvement: the wanted picture, in words."""
        return self.sections.directions

    @property
    def negative(self) -> str | None:
        """Issues to Avoid: the flaws, in words."""
        return self.sections.issues

    @property
    def attributes(self) -> Mapping[str, float]:
        """Ratings 1..5 by attribute of the last look that gave any; empty unless they were asked for."""
        return next((look.attributes for look in reversed(self.rounds) if look.attributes), {})

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The measured evidence that holds in the end: the last look's, which may have refuted earlier ones."""
        return self.rounds[-1].findings if self.rounds else ()

    @property
    def box(self) -> Box | None:
        """The last region that was zoomed into."""
        return next((look.shown_box for look in reversed(self.rounds) if look.shown_box), None)

    def to_dict(self) -> dict[str, Any]:
        """The record's JSON form (schema: `zoomiqa schema`)."""
        return {
            "schema_version": SCHEMA_VERSION,
            "image": self.image.to_dict() if self.image else None,
            "rating": self.rating,
            "score": self.score,
            "spread": self.spread,
            "samples": list(self.samples),
            "attributes": dict(self.attributes),
            "positive": self.positive,
            "negative": self.negative,
            "question": self.question,
            "rounds": [look.to_dict() for look in self.rounds],
            "assessor": self.assessor.to_dict() if self.assessor else None,
            "notes": [note.to_dict() for note in self.notes],
            "error": dict(self.error) if self.error else None,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Assessment:
        """What a record says of a picture: its size, rating and looks (see `Round.from_dict`), who rated, or the error.

        Raises:
            RecordCorrupt: a part is missing or of the wrong type.
        """
        try:
            image, error = record.get("image"), record.get("error")
            info = None if image is None else ImageInfo.from_dict(image)
            if error is not None:
                return failed({str(key): str(value) for key, value in error.items()}, image=info)
            rounds = tuple(Round.from_dict(look) for look in record.get("rounds") or ())
            if any(look.shown_box for look in rounds) and info is not None and not (info.width > 0 < info.height):
                raise ValueError("a region of a picture without a size")
            rating, assessor = _number_or_none(record.get("rating")), record.get("assessor")
            return cls(
                rounds,
                rounds[-1].rating if rating is None and rounds else rating,
                spread=_number_or_none(record.get("spread")),
                image=info,
                assessor=None if assessor is None else AssessorInfo(**{key: str(assessor[key]) for key in assessor}),
            )
        except (AttributeError, KeyError, OptionInvalid, OverflowError, TypeError, ValueError) as wrong:
            raise RecordCorrupt(
                "a record is not one of `zoomiqa assess`", f"{type(wrong).__name__}: {wrong}", "mend or remove it"
            ) from wrong


def failed(error: Mapping[str, str], *, rounds: tuple[Round, ...] = (), image: ImageInfo | None = None) -> Assessment:
    """An assessment that did not come about."""
    return Assessment(rounds=rounds, rating=None, error=dict(error), image=image)


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of text")
    return value


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite")
    return number


def _number_or_none(value: Any) -> float | None:
    return None if value is None else _number(value)
