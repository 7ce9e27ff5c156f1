"""Hint-Augmented Consistency Filter: a rater reads the rationale beside measured hints (Zoom-IQA, Sec. 3.1.1, 6.3).

It must not know files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from zoomiqa.errors import ReplyUnusable
from zoomiqa.imaging import Picture
from zoomiqa.imaging.signals import hints
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.text import plain
from zoomiqa.types import Note, Sampling

from .filtering import Talk, answered, text_only, with_picture
from .trajectories import Decision
from .words import Words, describe

STEP = "hint-consistency"
RATER_SAMPLING = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=512)
GROUNDS_CHARACTERS = 600

_TAG = re.compile(r"<[ \t]{0,4}verdict[ \t]{0,4}>([^<>]{0,80})", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:verdict|decision|answer|result)\b[\"'*_ \t]{0,6}[:=]([^\n<>]{0,40})", re.IGNORECASE)
_GROUNDS = re.compile(r"<grounds>(.{0,4000}?)(?:</grounds>|<verdict|\Z)", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(r"\b(pass|fail)(?:e[ds]|es|s)?\b", re.IGNORECASE)


def hints_of(record: Mapping[str, Any], picture: Picture) -> dict[str, float]:
    """What is known of a picture: people's scores where there are any, and four measured figures."""
    labels = record["evaluation"]
    known: dict[str, float] = {}
    for name, value in {"mos": labels.get("ground_truth"), **(labels.get("attributes") or {})}.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            known[name] = float(value)
    measured = hints(picture.pixels)
    return known | {name: getattr(measured, name) for name in ("brightness", "contrast", "colorfulness", "sharpness")}


def tell(known: Mapping[str, float]) -> str:
    """The hints as lines, each with what it means."""
    meanings = {
        "mos": "{:.2f}: mean opinion score of people, 1 (bad) to 5 (excellent)",
        "brightness": "{:.4f}: mean luma, 0 (black) to 1 (white)",
        "contrast": "{:.4f}: standard deviation of luma, 0 to 0.5",
        "colorfulness": "{:.1f}: Hasler and Suesstrunk's measure; 0 grey, 33 moderate, 109 extreme",
        "sharpness": "{:.1f}: variance of the Laplacian; detail, edges and also noise raise it",
    }
    other = "{:.4g}: known score of the data set"
    return "\n".join(f"{plain(name)} {meanings.get(name, other).format(value)}" for name, value in known.items())


def rate(
    record: Mapping[str, Any],
    picture: Picture,
    words: Words,
    *,
    sampling: Sampling = RATER_SAMPLING,
    show_picture: bool = True,
    limits: Limits = LOCAL,
) -> Talk:
    """Ask the rater, then decide.

    Args:
        record: The trajectory; all of its looks are read.
        picture: Measured, and shown where the rater can see.
        words: `rater-1`.
        sampling: How the rater's tokens are drawn.
        show_picture: Whether the rater sees the picture.
        limits: `reply_characters` caps what is read.
    """
    known = hints_of(record, picture)
    text = words.fill(
        "text", hints=tell(known), description=describe([look["text"] for look in record["rounds"]], limits)
    )
    request = with_picture(picture, text, sampling) if show_picture else text_only(text, sampling)
    reply = answered((yield request))
    passes, notes = parse_verdict(reply, limits=limits)
    details = {
        "hints": {name: round(value, 5) for name, value in known.items()},
        "grounds": grounds_of(reply),
        "notes": [note.to_dict() for note in notes],
    }
    return Decision(STEP, "keep" if passes else "drop", () if passes else ("rater-failed-it",), details)


def parse_verdict(text: str, *, limits: Limits = LOCAL) -> tuple[bool, tuple[Note, ...]]:
    """Read a rater's verdict: the last tag, else a named field, else the only verdict there is in the text.

    Raises:
        ReplyUnusable: there is none, or both stand there and nothing says which one holds.
    """
    notes: list[Note] = []
    if len(text) > limits.reply_characters:
        text = text[-limits.reply_characters :]  # the verdict stands at the end
        notes.append(Note("reply-cut", f"The rater's reply was cut to its last {limits.reply_characters} characters."))
    thought = text.rfind("</think>")
    if thought >= 0:
        text = text[thought + len("</think>") :]
    tags = [words for match in _TAG.finditer(text) if (words := _verdicts(match[1]))]
    if tags:
        found = tags[-1]
        if len({word for words in tags for word in words}) > 1:
            notes.append(Note("verdict-repeated", "Different verdicts are given; the last counts."))
    elif named := [words for match in _NAMED.finditer(text) if (words := _verdicts(match[1]))]:
        found = named[-1]
        notes.append(Note("verdict-untagged", "The verdict was not in its tag."))
    else:
        found = _verdicts(text)
        notes.append(Note("verdict-bare", "The verdict was read from the bare text."))
    if len(found) != 1:
        what = "holds both verdicts" if found else "holds no verdict"
        raise ReplyUnusable(f"the rater's reply {what}", None, "ask again, or another rater")
    return found == {"pass"}, tuple(notes)


def _verdicts(text: str) -> set[str]:
    return {match[1].lower() for match in _WORD.finditer(text)}


def grounds_of(text: str) -> str:
    """Why, in the rater's words; the whole reply where they are not marked."""
    match = _GROUNDS.search(text)
    return plain(match[1] if match else text).strip()[:GROUNDS_CHARACTERS]
