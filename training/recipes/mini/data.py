"""The pictures and trajectories of the replication: a seeded split, then the measured teacher's words made short.

It must not know models or trainers.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoomiqa.assessors.compact.wording import verdict
from zoomiqa.errors import OptionInvalid
from zoomiqa.evaluation import Annotation, load_annotations
from zoomiqa.files import atomic_write_bytes
from zoomiqa.protocol import PromptSet
from zoomiqa.records import read_records, to_line
from zoomiqa.statements import stated_flaws
from zoomiqa.types import AssessorInfo, ImageInfo
from zoomiqa.vocabulary import REGIONS, TERMS, Flaw, where

from ...curation.trajectories import replay, trajectory_record  # noqa: TID252 - in a wheel it is zoomiqa.training

TRAIN, TEST = "train.json", "test.json"

MINI_TEACHER = AssessorInfo("measured-teacher-short", "1", "The measured teacher's statements in few words.", "", "")

_FIRST_HEADS = ("Image Quality Summary", "Directions for Improvement", "Issues to Avoid", "Decision & Rationale")
_LATER_HEADS = ("Crop Inspection Summary", *_FIRST_HEADS[1:3], "Final Decision & Rationale")


def split(labels: Path, photos: Path, test: int, seed: int, out: Path, *, limit: int | None = None) -> None:
    """Write `train.json` and `test.json`; the share of every subset is the same in both, up to rounding.

    Args:
        labels: Annotation file.
        photos: What its paths are relative to.
        test: Pictures that are kept out of all training.
        seed: Of the draw.
        out: Folder of the two files.
        limit: Use only so many pictures, drawn by the same seed.

    Raises:
        OptionInvalid: there are too few pictures.
    """
    annotations = load_annotations(labels, photos)
    rng = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    shuffled = sorted(annotations, key=lambda annotation: annotation.id)
    rng.shuffle(shuffled)
    shuffled = shuffled[:limit]
    if not 0 < test < len(shuffled):
        raise OptionInvalid("too few pictures for that test part", test, f"there are {len(shuffled)}")
    # By subset, then dealt at equal distances: every subset has its share of the test part.
    ordered = sorted(shuffled, key=lambda annotation: str(annotation.subset))
    held = {int((place + 0.5) * len(ordered) / test) for place in range(test)}
    parts = {
        TRAIN: [item for index, item in enumerate(ordered) if index not in held],
        TEST: [item for index, item in enumerate(ordered) if index in held],
    }
    for name, part in parts.items():
        rows = [_entry(annotation, photos) for annotation in part]
        atomic_write_bytes(out / name, json.dumps(rows, indent=1, ensure_ascii=False).encode())


def _entry(annotation: Annotation, photos: Path) -> dict[str, Any]:
    entry = {
        "id": annotation.id,
        "image": annotation.path.relative_to(photos).as_posix(),
        "gt_score": annotation.gt_score,
        "subset": annotation.subset,
    }
    return {name: value for name, value in entry.items() if value is not None}


def short_trajectories(samples: Path, prompts: PromptSet) -> tuple[list[dict[str, Any]], int]:
    """The trajectories of a synthesis run in few words, and how many samples had none.

    What is said stays the teacher's: ratings, boxes, the route, the first flaw that it states and where. Boxes are
    rounded to two decimals. So a model of a million weights can learn to say it within minutes.

    Args:
        samples: `samples.jsonl` of `training.synthesis`.
        prompts: The set that the short replies answer.
    """
    records, missing = [], 0
    for sample in read_records(samples):
        if sample["error"] is not None:
            missing += 1
            continue
        known = sample["trajectory"]
        image = known["image"]
        texts = _short_replies(known["rounds"])
        question = prompts.questions[int(sample["index"]) % len(prompts.questions)]
        assessment, _ = replay(texts, (image["width"], image["height"]), question, prompts=prompts)
        info = replace(MINI_TEACHER, prompt_set=prompts.name, prompt_hash=prompts.digest)
        named = replace(assessment, image=ImageInfo(**image), assessor=info)
        records.append(trajectory_record(named, sample["id"], dataset="synthesis"))
    return records, missing


def _short_replies(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    replies = []
    for number, look in enumerate(rounds):
        flaw, place = _first_flaw(look["sections"]["issues"] or "")
        box = [round(edge, 2) for edge in look["box_model"]]
        word = verdict(look["rating"])
        stated = f"{flaw} {place}".strip() if flaw else "nothing"
        wanted = f"{TERMS[Flaw(flaw)].wanted} {place}".strip() if flaw else "as it is"
        last = look["tool"] == "final"
        heads = _LATER_HEADS if number else _FIRST_HEADS
        contents = (f"{word}, {stated}.", f"{wanted}.", f"{stated}.", "decided." if last else "look closer.")
        sections = "\n".join(f"{head}: {content}" for head, content in zip(heads, contents, strict=True))
        edges = ", ".join(f"{edge:.2f}" if any(box) else "0" for edge in box)
        answer = f'{{"bbox_2d": [{edges}], "rating": {look["rating"]:.2f}, "tool": "{look["tool"]}"}}'
        replies.append(f"<think>\n{sections}\n</think>\n<answer>{answer}</answer>")
    return replies


def _first_flaw(issues: str) -> tuple[str | None, str]:
    """The flaw that the issues state first, as the vocabulary names it, and the place that stands with it."""
    flaws = stated_flaws(issues)
    if not flaws:
        return None, ""
    clause = re.split(r"(?<=[.!?])\s", issues)[0]
    places = [where(name) for name in REGIONS if where(name) in clause]
    return str(flaws[0]), max(places, key=len, default="")


def write_trajectories(records: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write them as `training.curation build` reads them."""
    atomic_write_bytes(file, lambda stream: [stream.write(to_line(record)) for record in records])
