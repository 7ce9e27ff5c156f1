"""What is trained on: rated pictures, and perception tasks with known answers. It must not know how they are drawn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoomiqa.errors import OptionInvalid
from zoomiqa.evaluation import load_annotations
from zoomiqa.records import read_records
from zoomiqa.rewards import Truth

TASK_DATASET = "perception"
"""Data set of the first file of tasks; later ones have their number behind it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture with what is asked about it and what is true of it."""

    id: str
    root: Path
    path: str
    """Relative to the root."""

    truth: Truth
    dataset: str
    """The scale on which people rated; pictures of different ones are never ranked against each other."""

    question: str | None = None
    """What is asked; `None` draws a stock question. For a perception task the whole prompt."""

    @property
    def is_task(self) -> bool:
        """Whether it is a perception task, not a picture to be rated."""
        return self.truth.task is not None


def read_labels(path: Path, image_root: Path) -> list[Item]:
    """The rated pictures of an annotation file.

    Raises:
        OptionInvalid: the file is not such a list, or a score lies outside 1..5.
    """
    items = []
    for annotation in load_annotations(path, image_root):
        try:
            truth = Truth(rating=annotation.gt_score, attributes=dict(annotation.attributes))
        except OptionInvalid as error:
            raise OptionInvalid(f"{path.name}, {annotation.id}: {error.what}", error.value, error.fix) from None
        name = os.path.relpath(annotation.path, image_root)
        items.append(Item(annotation.id, image_root, name, truth, annotation.dataset or path.stem, annotation.question))
    return items


def read_tasks(path: Path, image_root: Path, number: int = 1) -> list[Item]:
    """The perception tasks of a file as `training.synthesis` writes it.

    Args:
        path: The file.
        image_root: What its paths are relative to.
        number: Of the file, from 1: each is a data set of its own, as every file counts its samples from 0.

    Raises:
        OptionInvalid: a row lacks a part.
    """
    items = []
    dataset = TASK_DATASET if number == 1 else f"{TASK_DATASET}-{number}"
    for place, row in enumerate(read_records(path)):
        try:
            truth = Truth.of_task(row["truth"])
            items.append(Item(str(row["id"]), image_root, row["image"], truth, dataset, row["question"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise OptionInvalid(
                f"{path.name}, row {place}: no perception task", error, "see training.synthesis"
            ) from None
    return items


def check_ids(items: Sequence[Item]) -> None:
    """Refuse two items of one name: their samples would be taken for one group.

    Raises:
        OptionInvalid: there are such.
    """
    seen: set[tuple[str, str]] = set()
    for item in items:
        key = (item.dataset, item.id)
        if key in seen:
            raise OptionInvalid("two pictures of a data set have one id", item.id, "give every picture its own")
        seen.add(key)


def items_digest(items: Sequence[Item]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of what is asked and what is true, for a run's settings."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr((item.id, item.path, item.truth, item.dataset, item.question)).encode())
    return digest.hexdigest()[:16]
