"""Annotation files: which pictures, and what people said of them. It must not open pictures.

Format of the released evaluator (EthanLiang99/Zoom-IQA): a JSON list of objects with `image` (or `img_path`),
`gt_score` in 1..5, and optionally `id` and `conversations`, whose first turn holds the question to the model. Added
here, all optional: `mos`, `dataset`, `split`, `subset` and `attributes`. Paths are relative to an image root and never
lead outside it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoomiqa.errors import OptionInvalid
from zoomiqa.files import printable

IMAGE_MARK = "<|image|>"
"""Where a question marks the picture's place; taken out of the first round's prompt, kept in the history."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One labelled picture."""

    id: str
    """As given, else `"{stem of the annotation file}:{row, from 0}"`."""

    path: Path
    """Absolute or relative to the working folder: the image root joined with the entry's path."""

    gt_score: float
    """Mean opinion score, 1..5."""

    subset: str | None = None
    dataset: str | None = None
    """As given, else the stem of the annotation file."""

    split: str | None = None
    mos: float | None = None
    """The score on the scale of its data set."""

    attributes: Mapping[str, float] = field(default_factory=dict)
    """Scores of single qualities, 1..5 with 5 best, by name."""

    question: str | None = None
    """The entry's question without the mark of the picture's place; `None` where the entry asks none."""

    history_question: str | None = None
    """The same as it stands in the entry: how the released evaluator repeats it in a later round."""


def load_annotations(path: str | Path, image_root: str | Path) -> list[Annotation]:
    """Read an annotation file.

    Raises:
        OptionInvalid: the file cannot be read, is not such a list, an entry lacks a field or has a score that is not a
            finite number, or a path leads outside the image root. The message names the row, counted from 0 as in the
            default id.
    """
    file = Path(path)
    try:
        rows = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionInvalid("the annotation file cannot be read", printable(str(path)), str(error)) from error
    if not isinstance(rows, list):
        raise OptionInvalid("an annotation file holds a list", type(rows).__name__, "see `load_annotations`")
    root = _ImageRoot(Path(image_root))
    annotations = []
    for number, row in enumerate(rows):
        try:
            annotations.append(_read_row(row, number, file.stem, root))
        except OptionInvalid as error:
            raise OptionInvalid(f"{printable(file.name)}, row {number}: {error.what}", error.value, error.fix) from None
    return annotations


class _ImageRoot:
    """Joins paths to the image root, with one look at each folder and not at each picture of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real = os.path.realpath(root)
        self._inside: dict[str, bool] = {}

    def join(self, name: str) -> Path:
        """The image root joined with `name`.

        Raises:
            OptionInvalid: `name` is absolute, steps upwards, or leads outside by way of a link.
        """
        path = self._root / name
        if os.path.isabs(name) or "\0" in name or ".." in path.parts[len(self._root.parts) :] or not self._holds(path):
            raise OptionInvalid("the path leads outside the image root", printable(name), "use a path relative to it")
        return path

    def _holds(self, path: Path) -> bool:
        folder = os.path.dirname(path)
        if folder not in self._inside:
            self._inside[folder] = self._is_inside(folder)
        return self._inside[folder] and (not os.path.islink(path) or self._is_inside(path))

    def _is_inside(self, path: str | Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(self._real)


def _read_row(row: object, number: int, stem: str, root: _ImageRoot) -> Annotation:
    if not isinstance(row, dict):
        raise OptionInvalid("it is not an object", type(row).__name__, "mend the annotation file")
    name = row.get("image") or row.get("img_path")
    if not isinstance(name, str):
        raise OptionInvalid("it names no picture", name, "give `image`")
    attributes = row.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise OptionInvalid("`attributes` is not an object", type(attributes).__name__, "give names with numbers")
    question = _question(row.get("conversations"))
    return Annotation(
        id=str(row.get("id", f"{stem}:{number}")),
        path=root.join(name),
        gt_score=_number(row.get("gt_score"), "gt_score"),
        subset=_text(row, "subset"),
        dataset=_text(row, "dataset") or stem,
        split=_text(row, "split"),
        mos=None if row.get("mos") is None else _number(row["mos"], "mos"),
        attributes={key: _number(value, key) for key, value in attributes.items()},
        question=None if question is None else question.replace(IMAGE_MARK, ""),
        history_question=question,
    )


def _number(value: object, key: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # JSON has whole numbers of any length
            number = math.inf
        if math.isfinite(number):
            return number
    raise OptionInvalid(f"`{key}` is no finite number", value, "give a number")


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return value if isinstance(value, str) and value else None


def _question(conversations: object) -> str | None:
    """The first turn's text, under either of the two names that the released evaluator reads."""
    first = conversations[0] if isinstance(conversations, list) and conversations else None
    if not isinstance(first, dict):
        return None
    question = first.get("value") or first.get("content")
    return question if isinstance(question, str) and question.strip() else None
