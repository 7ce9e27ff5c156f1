"""What the readers of records may rely on. It must not know what is made of a record.

A record file may have been edited, or may hold something else than assessments; a reader says so instead of failing in
the middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoomiqa.errors import RecordCorrupt

_NONE = type(None)
_NUMBER = (int, float)
_RECORD: Mapping[str, tuple[type, ...]] = {
    "image": (dict, _NONE),
    "rating": (*_NUMBER, _NONE),
    "score": (*_NUMBER, _NONE),
    "attributes": (dict,),
    "rounds": (list,),
    "assessor": (dict, _NONE),
    "error": (dict, _NONE),
}
_IMAGE: Mapping[str, tuple[type, ...]] = {"path": (str, _NONE), "sha256": (str, _NONE)}
_ROUND: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "sections": (dict,),
    "tool": (str, _NONE),
    "box_model": (list, _NONE),
    "shown_box": (list, _NONE),
    "findings": (list,),
    "tokens_in": (int, _NONE),
    "tokens_out": (int, _NONE),
    "finish_reason": (str,),
}
_ASSESSOR: Mapping[str, tuple[type, ...]] = {"name": (str,), "version": (str,), "prompt_set": (str,)}
_ERROR: Mapping[str, tuple[type, ...]] = {"code": (str,), "message": (str,)}
_EVALUATION: Mapping[str, tuple[type, ...]] = {
    "dataset": (str,),
    "index": (int,),
    "source_index": (int,),
    "image": (str,),
    "subset": (str, _NONE),
    "ground_truth": _NUMBER,
    "attributes": (dict,),
    "question": (str,),
}


def check_record(record: Mapping[str, Any], *, is_evaluation: bool = False) -> None:
    """Refuse what is not an assessment's record; with `is_evaluation`, what is not one of `zoomiqa evaluate`.

    Raises:
        RecordCorrupt: a key is missing or of another kind.
    """
    _check(record, _RECORD, "")
    for key, kinds in (("image", _IMAGE), ("assessor", _ASSESSOR), ("error", _ERROR)):
        if record[key] is not None:
            _check(record[key], kinds, f"{key}.")
    for look in record["rounds"]:
        _check(look, _ROUND, "rounds.")
        _check(look["sections"], {"issues": (str, _NONE)}, "rounds.sections.")
        box = look["shown_box"]
        if box is not None and not (len(box) == 4 and all(isinstance(edge, int) for edge in box)):
            raise _corrupt("rounds.shown_box")
    if record["error"] is None and record["rating"] is None:
        raise _corrupt("rating")
    if is_evaluation or "evaluation" in record:
        entry = record.get("evaluation")
        _check(entry, _EVALUATION, "evaluation.")
        for labels, name in ((record["attributes"], "attributes"), (record["evaluation"]["attributes"], "labels")):
            if not all(isinstance(value, _NUMBER) for value in labels.values()):
                raise _corrupt(name)


def _check(value: object, kinds: Mapping[str, tuple[type, ...]], place: str) -> None:
    if not isinstance(value, dict):
        raise _corrupt(place.rstrip(".") or "record")
    for key, allowed in kinds.items():
        if key not in value or not isinstance(value[key], allowed):
            raise _corrupt(f"{place}{key}")


def _corrupt(place: str) -> RecordCorrupt:
    return RecordCorrupt("a record is no assessment's", f"no usable `{place}`", "write it with assess or evaluate")
