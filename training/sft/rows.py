"""The training rows of a curated data set: read, checked, joined where the context is appended, split.

It must not know models, tokens or pictures' pixels.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from zoomiqa.errors import OptionInvalid, PromptSetInvalid, RecordCorrupt
from zoomiqa.protocol import PromptSet
from zoomiqa.records import read_records
from zoomiqa.types import RATING_MAX, RATING_MIN

from ..curation.build import ROWS  # noqa: TID252 - in a wheel it is zoomiqa.training
from ..pictures import row_messages  # noqa: TID252

Row = Mapping[str, Any]


def read_rows(folder: Path, prompts: PromptSet) -> list[dict[str, Any]]:
    """The rows of the data set in `folder`.

    Raises:
        OptionInvalid: there is none, or it is empty.
        PromptSetInvalid: it was built for another prompt set.
        RecordCorrupt: its card or a row is not as `curation.build` writes it.
    """
    card = read_card(folder)
    found = card.get("prompts")
    if not isinstance(found, Mapping) or found.get("hash") != prompts.digest:
        name = found.get("name") if isinstance(found, Mapping) else None
        raise PromptSetInvalid(
            f"the data were built for another prompt set than {prompts.name!r} ({prompts.digest})",
            f"{name!r} ({found.get('hash') if isinstance(found, Mapping) else None})",
            "pass that set with --prompts, or build the data again",
        )
    rows = list(read_records(folder / ROWS))
    if not rows:
        raise OptionInvalid("the data set holds no rows", folder, "see its left_out.jsonl for why")
    for row in rows:
        row_messages(row)
        if not isinstance(row.get("trajectory"), str) or not isinstance(row.get("look"), int):
            raise RecordCorrupt(f"row {row.get('id')!r} names no trajectory and look", None, "make it with build")
    return rows


def read_card(folder: Path) -> dict[str, Any]:
    """The data set's card.

    Raises:
        OptionInvalid: the folder holds no data set.
        RecordCorrupt: the card cannot be read.
    """
    if not (folder / ROWS).is_file() or not (folder / "card.json").is_file():
        raise OptionInvalid(f"the folder holds no {ROWS} and card.json", folder, "run training.curation build first")
    try:
        card = json.loads((folder / "card.json").read_text("utf-8"))
        if not isinstance(card, dict):
            raise TypeError(type(card).__name__)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RecordCorrupt("the data set's card cannot be read", error, "build the data again") from error
    return card


def data_digest(folder: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the rows."""
    with open(folder / ROWS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def appended_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row per trajectory, as an appended context holds it: what happened, with the crop at its end.

    A rewritten later look shows the original again before the crop; in an appended one it is still in view, and only
    the crop is shown (`zoomiqa.protocol.conversation`).

    Raises:
        RecordCorrupt: looks are missing, or a later one does not end with original and crop.
    """
    joined = []
    for trajectory, looks in groupby(rows, key=lambda row: row["trajectory"]):
        first, *later = list(looks)
        messages, images = list(first["messages"]), list(first["images"])
        if [row["look"] for row in (first, *later)] != list(range(1, first["looks"] + 1)):
            raise RecordCorrupt(f"trajectory {trajectory!r} lacks looks", None, "build the data again")
        for row in later:
            *_, asked, target = row["messages"]
            content = asked["content"]
            if [part["type"] for part in content] != ["text", "text", "image", "text", "image"]:
                raise RecordCorrupt(f"row {row['id']!r} shows no original and crop", None, "build the data again")
            messages += [{"role": "user", "content": [content[0], *content[3:]]}, target]
            images.append(row["images"][-1])
        last = later[-1] if later else first
        joined.append({**last, "id": trajectory, "messages": messages, "images": images})
    return joined


def targets_of(row: Row, context: str) -> list[int]:
    """Positions of the messages that are trained: the last one, or every reply of an appended context."""
    roles = [message["role"] for message in row["messages"]]
    if context == "rewritten":
        return [len(roles) - 1]
    return [position for position, role in enumerate(roles) if role == "assistant"]


def split_rows(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows to measure; all rows of one picture are on one side.

    Args:
        rows: Of the data set.
        share: Of the pictures that are measured.
        seed: Of the draw.

    Raises:
        OptionInvalid: one side would be empty.
    """
    if share == 0:
        return list(rows), []
    pictures = sorted({row["images"][0]["path"] for row in rows})
    count = round(share * len(pictures))
    if not 0 < count < len(pictures):
        raise OptionInvalid("the validation share leaves one side empty", share, f"there are {len(pictures)} pictures")
    held = set(random.Random(seed).sample(pictures, count))  # noqa: S311 - a reproducible draw, not a secret
    return (
        [row for row in rows if row["images"][0]["path"] not in held],
        [row for row in rows if row["images"][0]["path"] in held],
    )


def describe(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts of rows for the run's card."""
    ratings = [row["rating"] for row in rows if isinstance(row.get("rating"), int | float)]
    inside = [rating for rating in ratings if RATING_MIN <= rating <= RATING_MAX]
    return {
        "rows": len(rows),
        "trajectories": len({row["trajectory"] for row in rows}),
        "pictures": len({row["images"][0]["path"] for row in rows}),
        "mean_rating": round(sum(inside) / len(inside), 4) if inside else None,
    }
