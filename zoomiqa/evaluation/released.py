"""An evaluation's record in the form of the released evaluator (EthanLiang99/Zoom-IQA), for tools that read that one.

The table of fields is docs/records.md. Only here does a failure become a number: that form writes a rating of -100.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoomiqa.evaluation.annotations import IMAGE_MARK
from zoomiqa.files import atomic_write_text

PREDICTIONS = "predictions.jsonl"
"""The released evaluator's name of the file."""

FAILED = -100
"""What the released form writes where there is no rating."""


def to_released(record: Mapping[str, Any]) -> dict[str, Any]:
    """The released form of one record of `zoomiqa.evaluation.runner`."""
    entry, looks, error = record["evaluation"], record["rounds"], record["error"]
    return {
        "index": entry["index"],
        "dataset": entry["dataset"],
        "source_index": entry["source_index"],
        "id": entry["id"],
        "image": entry["image"],
        "question": entry["question"].replace(IMAGE_MARK, ""),
        "history_question": entry["question"],
        "ground_truth": entry["ground_truth"],
        "rating": FAILED if error else record["rating"],
        "model_score": FAILED if error else record["score"],
        "valid": not error,
        "error": f"{error['code']}: {error['message']}" if error else None,
        "routing_warning": _routing_warning(looks),
        "rounds": len(looks),
        "crop_bbox_pixels": _box(looks),
        "generated_tokens": [look["tokens_out"] for look in looks],
        "model_output": looks[-1]["text"] if looks else "",
        "output_history": [look["text"] for look in looks[:-1]],
        "finish_reasons": [{"finish_reason": look["finish_reason"], "stop_reason": None} for look in looks],
    }


def write_released(folder: str | Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write all records in that form into `folder`; returns the file.

    Raises:
        OutputFailed: the disk is full or the folder cannot be written.
    """
    lines = [json.dumps(to_released(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records]
    return atomic_write_text(Path(folder) / PREDICTIONS, "".join(lines))


def _routing_warning(looks: list[Mapping[str, Any]]) -> str | None:
    """Why a first look could not say whether to zoom in; it is scored as it stands."""
    if len(looks) != 1:
        return None
    if looks[0]["box_model"] is None:
        return "invalid_bbox"
    return "invalid_tool" if looks[0]["tool"] is None else None


def _box(looks: list[Mapping[str, Any]]) -> list[float] | None:
    """The crop in pixels after a second look, else the box as the model wrote it."""
    if not looks:
        return None
    box = looks[-1]["shown_box"] if len(looks) > 1 else looks[0]["box_model"]
    return list(box) if box is not None else None
