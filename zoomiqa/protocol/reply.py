"""From the text of a reply to its sections and answer. It must not know conversations, pictures or models.

Strict first: `<think>…</think><answer>{JSON}</answer>` with the three keys. Whatever else is found is repaired, and
each repair is a `Note`; with `strict=True` it is refused instead. Every step reads the text a fixed number of times,
so the cost is linear in its length (the released evaluator's pattern is quadratic).

Two complete `<answer>` blocks: the last one counts, as a model that corrects itself does so at the end.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from zoomiqa.errors import ReplyUnusable
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.protocol.geometry import as_numbers
from zoomiqa.types import RATING_MAX, RATING_MIN, Note, Sections

_MAX_ANSWER_CHARACTERS = 4_000
_MAX_DEPTH = 8
_MAX_DIGITS = 40

_HEADINGS = {
    "image quality summary": "summary",
    "crop inspection summary": "summary",
    "directions for improvement": "directions",
    "issues to avoid": "issues",
    "decision & rationale": "decision",
    "decision and rationale": "decision",
    "final decision & rationale": "decision",
    "final decision and rationale": "decision",
}

_HEADING_NAME = re.compile(
    r"image quality summary|crop inspection summary|directions for improvement|issues to avoid"
    r"|(?:final )?decision (?:&|and) rationale",
    re.IGNORECASE,
)
_HEADING_LEAD = re.compile(r"[ \t>#*_•-]*(?:\(?\d{1,2}[.):]{1,2}[ \t]*)?[#*_ \t]*\Z")
"""What may stand before a heading's name: markdown and a number. Only matched within a few characters of it."""

_HEADING_TAIL = re.compile(
    r"[*_]{0,3}[ \t]{0,4}(?:\([^()\n]{0,80}\))?[*_ \t]{0,6}(?P<mark>[:：—–-]|(?=\r?\n)|\Z)[*_]{0,3}"
)
_LEAD_CHARACTERS = 24
_MAX_HEADING_MENTIONS = 64

_NUMBER = r"[-+]?(?:\d{1,20}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?"
_DECIMAL_COMMA = r"\d{1,20},\d{1,2}(?!\d)"
_GOES_ON = (
    r"\d|[.,]\d|\s{0,2}(?:[-–—]|to\s|or\s)\s{0,2}\d"  # "3,500", "3.5.2", "3-4", "3 or 4"
    r"|\s{0,2}(?:/|(?:out\s)?of\s)\s{0,2}(?!5(?:\.0{0,2})?(?![.,]?\d))\d"  # on another scale: "7/10"
)
"""What a number is followed by that is not the rating for which it could be taken."""

_RATING_FIELDS = tuple(
    re.compile(
        # The group is atomic: of what is more than one number, no shorter part is taken.
        rf"rating[\"'*\s]{{0,8}}{mark}[\"'*\s]{{0,8}}(?>({_DECIMAL_COMMA}|{_NUMBER}))(?!{_GOES_ON})",
        re.IGNORECASE,
    )
    for mark in ("[:=]", "")
)
"""A rating by name: with a sign after the name first, as the bare word may stand in a sentence about ratings."""

_BOX_FIELD = re.compile(
    r"b(?:ounding )?box(?:[_ ]?2d)?[\"'*\s]{0,8}[:=]?[\"'*\s]{0,8}[\[(]([^\])]{0,400})[\])]", re.IGNORECASE
)
_TOOL_FIELD = re.compile(r"tool[\"'*\s]{0,8}[:=]?[\"'*\s]{0,8}([A-Za-z_]{1,24})", re.IGNORECASE)
_BARE_NUMBER = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*5)?\s*\Z")
_SENTENCE_ENDS = frozenset(".!?…>)\"”’'")
_TAG = re.compile(r"\\?</?(?:think|answer)>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """What a reply says."""

    sections: Sections
    rating: float | None
    """1..5 (clipped), or `None` if no finite number was found."""

    box_model: Any
    """The box as written (any JSON value), or `None`."""

    tool: str | None
    """Lower case, as written; `None` if absent."""

    notes: tuple[Note, ...]
    is_strict: bool
    """Whether the reply kept the format to the letter (what the format reward asks)."""

    attributes: Mapping[str, float] = field(default_factory=dict)
    """Ratings 1..5 (clipped) by attribute, those of the asked ones that the reply gives."""


def parse_reply(
    text: str, *, strict: bool = False, attributes: Collection[str] = (), limits: Limits = LOCAL
) -> ParsedReply:
    """Read one reply.

    Args:
        text: The reply.
        strict: Refuse instead of repairing.
        attributes: Names of the attribute ratings that were asked for.
        limits: `reply_characters` caps what is read.

    Raises:
        ReplyUnusable: with `strict`, when the reply breaks the format. Without it, never: a reply without a rating
            comes back with `rating=None`.
    """
    notes: list[Note] = []
    if len(text) > limits.reply_characters:
        text = text[: limits.reply_characters]
        notes.append(Note("reply-cut", f"The reply was cut to {limits.reply_characters} characters."))

    rationale, answer_text = _split_tags(text, notes)
    sections = _read_sections(rationale, notes)
    rating, box_model, tool, others = _read_answer(answer_text, notes)
    rated = _read_attributes(others, attributes, notes) if attributes else {}
    if rating is not None and not RATING_MIN <= rating <= RATING_MAX:
        notes.append(Note("rating-clipped", f"The rating {rating:g} was clipped to {RATING_MIN:g}..{RATING_MAX:g}."))
        rating = min(max(rating, RATING_MIN), RATING_MAX)
    if strict and notes:
        raise ReplyUnusable(
            "the reply breaks the format", ", ".join(note.code for note in notes), "ask again or allow repairs"
        )
    return ParsedReply(sections, rating, box_model, tool, tuple(notes), not notes, rated)


def _split_tags(text: str, notes: list[Note]) -> tuple[str, str]:
    """Cut the reply into its rationale and the content of its answer."""
    lowered = text.lower() if text.isascii() else _ascii_lower(text)
    answer_end = lowered.rfind("</answer>")
    answer_start = lowered.rfind("<answer>", 0, answer_end if answer_end >= 0 else None)
    if answer_start >= 0:
        if answer_end < 0:
            notes.append(Note("answer-unclosed", "The answer block was not closed."))
        answer = text[answer_start + len("<answer>") : answer_end if answer_end >= 0 else None]
        before = text[:answer_start]
    else:
        notes.append(Note("answer-tag-missing", "The reply has no answer block; its end was searched instead."))
        think_end = lowered.rfind("</think>")
        cut = think_end + len("</think>") if think_end >= 0 else max(lowered.rfind("{"), 0)
        # Without any brace the whole text is both: only named fields can be found in it.
        before, answer = (text[:cut], text[cut:]) if cut else (text, text[-_MAX_ANSWER_CHARACTERS:])

    lowered_before = lowered[: len(before)]
    think_start, think_end = lowered_before.find("<think>"), lowered_before.rfind("</think>")
    if think_start < 0 or think_end < think_start:
        notes.append(Note("think-tag-missing", "The reasoning was not enclosed in its tags."))
    start = think_start + len("<think>") if think_start >= 0 else 0
    rationale = before[start : think_end if think_end >= start else None]
    return _TAG.sub(" ", rationale), answer


def _ascii_lower(text: str) -> str:
    """Lower-case ASCII letters only, so that positions in the result are positions in `text`."""
    return text.translate({code: code + 32 for code in range(ord("A"), ord("Z") + 1)})


@dataclass(frozen=True, slots=True)
class _Heading:
    section: str
    start: int
    """Where its decoration begins, i.e. where the section before it ends."""

    end: int


def _read_sections(rationale: str, notes: list[Note]) -> Sections:
    found: dict[str, str] = {}
    headings = list(_find_headings(rationale))
    for index, heading in enumerate(headings):
        end = headings[index + 1].start if index + 1 < len(headings) else len(rationale)
        body = rationale[heading.end : end].strip(" \t\r\n*_#")
        if heading.section in found:
            notes.append(
                Note("section-repeated", f"The section {heading.section!r} appears twice; the first was kept.")
            )
        elif body:
            found[heading.section] = body
    if not headings:
        if whole := rationale.strip():
            found["summary"] = whole
        notes.append(Note("sections-missing", "The reasoning has no section headings."))
    else:
        missing = [name for name in ("summary", "directions", "issues", "decision") if name not in found]
        if missing:
            notes.append(Note("section-missing", f"The reasoning lacks: {', '.join(missing)}."))
    return Sections(**found)


def _find_headings(text: str) -> Iterator[_Heading]:
    """Headings in order: at the start of a line, or after the end of a sentence with a colon.

    A mention inside a sentence is none. The name is searched for first and its surroundings are looked at within
    fixed distances, which keeps the cost linear.
    """
    for name in islice(_HEADING_NAME.finditer(text), _MAX_HEADING_MENTIONS):
        tail = _HEADING_TAIL.match(text, name.end())
        window = text[max(0, name.start() - _LEAD_CHARACTERS) : name.start()]
        lead = _HEADING_LEAD.search(window)
        if tail is None or lead is None:
            continue
        start = name.start() - len(lead[0])
        before = text[max(0, start - 1) : start]
        if before in ("", "\n") or (tail["mark"] and before in _SENTENCE_ENDS):
            yield _Heading(_HEADINGS[" ".join(name[0].lower().split())], start, tail.end())


def _read_answer(answer: str, notes: list[Note]) -> tuple[float | None, Any, str | None, Any]:
    """The rating, box, tool and attributes of an answer; JSON first, then fields by name, then a bare number."""
    if len(answer) > _MAX_ANSWER_CHARACTERS:
        notes.append(Note("answer-cut", f"The answer was cut to its first {_MAX_ANSWER_CHARACTERS} characters."))
        answer = answer[:_MAX_ANSWER_CHARACTERS]
    data = _load_json(answer)
    if data is None:
        inner = answer[answer.find("{") : answer.rfind("}") + 1]
        data = _load_json(inner) if len(inner) < len(answer.strip()) else None
        if data is not None:
            notes.append(Note("json-surrounded", "The answer holds more than its JSON object."))
    rating_match = next(filter(None, (pattern.search(answer) for pattern in _RATING_FIELDS)), None)
    if data is not None and (_says_rating(data) or not rating_match):
        return (*_from_json(data, notes), data.get("attributes"))

    box_match, tool_match = _BOX_FIELD.search(answer), _TOOL_FIELD.search(answer)
    if not rating_match and (bare := _BARE_NUMBER.match(answer)):
        notes.append(Note("answer-bare-number", "The answer is a bare number."))
        return _finite(bare[1]), None, None, None
    notes.append(Note("json-repaired", "The answer is no valid JSON with a rating; its fields were read by name."))
    rating = _finite(rating_match[1].replace(",", ".")) if rating_match else None
    if rating_match and "," in rating_match[1]:
        notes.append(Note("rating-comma", "The rating was written with a decimal comma."))
    if rating is None:
        notes.append(Note("rating-missing", "The answer holds no usable rating."))
    box = [_finite(item) for item in box_match[1].split(",")] if box_match else None
    if box_match is None:
        notes.append(Note("box-missing", "The answer holds no box."))
    if tool_match is None:
        notes.append(Note("tool-missing", "The answer names no tool."))
    return rating, box, tool_match[1].lower() if tool_match else None, data and data.get("attributes")


def _says_rating(data: dict[str, Any]) -> bool:
    """Whether JSON has the last word on the rating, also where that is none (null); not on a text about it."""
    rating = data.get("rating")
    return bool(_BARE_NUMBER.match(rating)) if isinstance(rating, str) else "rating" in data


def _read_attributes(value: Any, wanted: Collection[str], notes: list[Note]) -> dict[str, float]:
    """The wanted ratings that `value` (the answer's object of them) gives; what is missing or clipped is noted."""
    given = value if isinstance(value, dict) else {}
    rated: dict[str, float] = {}
    for name in wanted:
        number = given.get(name)
        if isinstance(number, str) and (match := _BARE_NUMBER.match(number)):
            number = _finite(match[1])
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            notes.append(Note("attribute-missing", f"The answer does not rate the attribute {name}."))
            continue
        rated[name] = min(max(float(number), RATING_MIN), RATING_MAX)
        if rated[name] != number:
            notes.append(Note("attribute-clipped", f"The rating of {name} was clipped to 1..5."))
    return rated


def _from_json(data: dict[str, Any], notes: list[Note]) -> tuple[float | None, Any, str | None]:
    rating = data.get("rating")
    if isinstance(rating, str) and (match := _BARE_NUMBER.match(rating)):
        notes.append(Note("rating-as-text", "The rating was written as text."))
        rating = _finite(match[1])
    elif isinstance(rating, bool) or not isinstance(rating, int | float) or not math.isfinite(rating):
        notes.append(Note("rating-missing", "The answer holds no usable rating."))
        rating = None
    box = data.get("bbox_2d")
    if "bbox_2d" not in data:
        notes.append(Note("box-missing", "The answer holds no box."))
    elif as_numbers(box) is None:
        notes.append(Note("box-unusable", "The answer's box is not four numbers."))
    tool = data.get("tool")
    if not isinstance(tool, str) or not tool.strip():
        notes.append(Note("tool-missing", "The answer names no tool."))
        tool = None
    elif tool not in ("crop", "final"):
        notes.append(Note("tool-unknown", "The answer names a tool other than crop or final."))
    return (None if rating is None else float(rating)), box, tool.strip().lower()[:24] if tool else None


def _load_json(text: str) -> dict[str, Any] | None:
    """Strict JSON object: no NaN or infinity, no repeated keys, no deep nesting, no endless numbers."""
    if sum(text.count(bracket) for bracket in "[{") > 4 * _MAX_DEPTH:
        return None
    try:
        value = json.loads(
            text, parse_constant=_refuse, parse_int=_short_int, parse_float=_short_float, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(token: str) -> None:
    raise ValueError(token)


def _short_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("number too long")
    return int(digits)


def _short_float(digits: str) -> float:
    value = float(digits)
    if len(digits) > _MAX_DIGITS or not math.isfinite(value):
        raise ValueError("number too long or infinite")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("repeated key")
    return result


def _finite(digits: str) -> float | None:
    try:
        value = float(digits.strip(" \t\r\n\"'"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
