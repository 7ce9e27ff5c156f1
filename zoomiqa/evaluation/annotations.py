"""Annotation files: which pictures, and what people said of them. It must not open pictures.

Format of the released evaluator (EthanLiang99/Zoom-IQA): a JSON list of objects with `image` (or `img_path`),
`gt_score` in 1..5, and optionally `id`, `subset` and `conversations`. Paths are relative to an image root and never
lead outside it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from zoomiqa.errors import OptionInvalid


@dataclass(frozen=True, slots=True)
class Annotation:
    """One labelled picture."""

    id: str
    path: Path
    """Absolute or relative to the working folder: the image root joined with the entry's path."""

    gt_score: float
    """Mean opinion score, 1..5."""

    subset: str | None = None


def load_annotations(path: str | Path, image_root: str | Path) -> list[Annotation]:
    """Read an annotation file.

    Raises:
        OptionInvalid: the file cannot be read, is not such a list, an entry lacks a field or has a score that is not a
            finite number, or a path leads outside the image root.
    """
    try:
        entries = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionInvalid("the annotation file cannot be read", path, str(error)) from error
    if not isinstance(entries, list):
        raise OptionInvalid("an annotation file holds a list", type(entries).__name__, "see `load_annotations`")
    root = Path(image_root)
    return [_read_entry(entry, number, root) for number, entry in enumerate(entries, start=1)]


def _read_entry(entry: object, number: int, root: Path) -> Annotation:
    if not isinstance(entry, dict):
        raise OptionInvalid(f"entry {number} is not an object", type(entry).__name__, "mend the annotation file")
    name = entry.get("image", entry.get("img_path"))
    score = entry.get("gt_score")
    if not isinstance(name, str) or not name:
        raise OptionInvalid(f"entry {number} names no picture", name, "give `image`")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise OptionInvalid(f"entry {number} has no finite `gt_score`", score, "give a number")
    path = root / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise OptionInvalid(f"entry {number} leads outside the image root", name, "use a path relative to it")
    subset = entry.get("subset")
    return Annotation(str(entry.get("id", name)), path, float(score), subset if isinstance(subset, str) else None)
