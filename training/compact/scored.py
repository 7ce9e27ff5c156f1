"""Photos with their human scores, and which of them are held back in turn. It must not open pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import OptionInvalid
from zoomiqa.evaluation import load_annotations
from zoomiqa.files import atomic_write_text

from ..runs import files_digest  # noqa: TID252 - in a wheel it is zoomiqa.training

Integers = NDArray[np.int64]

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Scored:
    """One photo with its human score."""

    path: Path
    score: float
    """1..5."""

    subset: str

    @property
    def digest(self) -> str:
        """What its file holds, 16 hexadecimal digits."""
        return picture_digest(self.path)


@cache
def picture_digest(path: Path) -> str:
    """What a picture's file holds, 16 hexadecimal digits; read once in a run."""
    return files_digest([path])[:16]


def read_scored(annotations: Path, image_root: Path, limit: int = 0) -> list[Scored]:
    """The scored photos of an annotation file; with `limit`, so many spread over the list.

    Raises:
        OptionInvalid: the file is no such list.
    """
    rows = load_annotations(annotations, image_root)
    if limit and limit < len(rows):
        rows = [rows[place] for place in spread_over(len(rows), limit).tolist()]
    return [Scored(row.path, row.gt_score, row.subset or "all") for row in rows]


def spread_over(length: int, count: int) -> Integers:
    """`count` places of `length`, at equal distances."""
    return np.linspace(0, length - 1, count).astype(np.int64)


def folds_of(subsets: Sequence[str], seed: int, count: int = FOLDS, scenes: Integers | None = None) -> Integers:
    """Fold numbers, stratified by subset; photos of one scene share a fold.

    Args:
        subsets: Name of each photo's subset.
        seed: Of the order in which scenes are dealt out, the largest first.
        count: Number of folds.
        scenes: Number of each photo's scene; each its own without them.
    """
    names, rng = np.array(subsets), np.random.default_rng(seed)
    scene = np.arange(len(names)) if scenes is None else scenes
    first, size = np.unique(scene, return_index=True, return_counts=True)[1:]
    of_scene = {int(scene[at]): int(many) for at, many in zip(first, size, strict=True)}
    fold = np.empty(len(names), np.int64)
    for name in np.unique(names):
        members = scene[np.sort(first[names[first] == name])]
        order = sorted(rng.permutation(members).tolist(), key=lambda each: -of_scene[each])
        filled = np.zeros(count, np.int64)
        for each in order:
            least = int(filled.argmin())
            fold[scene == each] = least
            filled[least] += of_scene[each]
    return fold


def write_scenes(file: Path, scored: Sequence[Scored], scenes: Integers) -> None:
    """Keep which photos show one scene, by what their files hold."""
    known = {photo.digest: int(number) for photo, number in zip(scored, scenes, strict=True)}
    atomic_write_text(file, json.dumps(known, indent=1) + "\n")


def read_scenes(file: Path, scored: Sequence[Scored]) -> Integers:
    """The scenes of photos, as `write_scenes` kept them.

    Raises:
        OptionInvalid: the file cannot be read, or knows one of them not.
    """
    try:
        known: Mapping[str, Any] = json.loads(file.read_text("utf-8"))
        return np.array([int(known[photo.digest]) for photo in scored], np.int64)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OptionInvalid(
            "the file does not say which scene each photo shows", file, "make it of these photos by rating prepare"
        ) from error
