"""The record of one trajectory, and the file of them that every step reads and writes whole.

A record is an assessment's (`zoomiqa.types.Assessment.to_dict`) with three more keys: `id`; `evaluation`, what people
said of the picture, under the names that `zoomiqa evaluate` uses (so that `zoomiqa judge` reads these files as well);
and `curation`, a list with the verdict of every step. A step never takes a row away: it adds its verdict and its
reasons. A row is kept if no step dropped it or failed on it. Paths of pictures are relative to an image root. It must
not know what any step decides by.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zoomiqa.batch import OpenOptions, open_one
from zoomiqa.errors import ImageNotFound, OptionInvalid, RecordCorrupt, ReplyUnusable
from zoomiqa.imaging import Picture
from zoomiqa.protocol import ConversationSettings, PromptSet, converse
from zoomiqa.records import read_records
from zoomiqa.types import Assessment, Message, Reply, Request

Verdict = Literal["keep", "drop", "failed"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What one step said of one trajectory."""

    step: str
    verdict: Verdict
    """"failed" is no judgement: what should have judged gave no usable answer."""

    reasons: tuple[str, ...] = ()
    """Stable codes; why it was dropped, or the error's code."""

    details: Mapping[str, Any] = field(default_factory=dict)
    """What the verdict rests on; JSON."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "details": dict(self.details),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Decision:
        """What `to_dict` gave."""
        return cls(entry["step"], entry["verdict"], tuple(entry["reasons"]), entry["details"])


def failure(step: str, error: Mapping[str, str]) -> Decision:
    """The decision of a step that could not decide."""
    return Decision(step, "failed", (error["code"],), {"error": dict(error)})


def trajectory_record(
    assessment: Assessment,
    trajectory_id: str,
    *,
    ground_truth: float | None = None,
    dataset: str | None = None,
    subset: str | None = None,
    split: str | None = None,
    attributes: Mapping[str, float] | None = None,
    decisions: Sequence[Decision] = (),
) -> dict[str, Any]:
    """The record of one trajectory.

    Args:
        assessment: Its looks; the path of its picture is relative to the image root.
        trajectory_id: Unique in its file.
        ground_truth: What people said of the picture, 1..5.
        dataset, subset, split: Where the picture is from.
        attributes: What people said of single qualities, or known scores of artefacts, by name.
        decisions: What was decided so far.
    """
    labels = {
        "id": trajectory_id,
        "dataset": dataset,
        "subset": subset,
        "split": split,
        "ground_truth": ground_truth,
        "attributes": dict(attributes or {}),
    }
    return {
        **assessment.to_dict(),
        "id": trajectory_id,
        "evaluation": labels,
        "curation": [decision.to_dict() for decision in decisions],
    }


def with_decision(record: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
    """The record with one more decision; an earlier one of the same step is replaced."""
    others = [entry for entry in record["curation"] if entry["step"] != decision.step]
    return {**record, "curation": [*others, decision.to_dict()]}


def decision_of(record: Mapping[str, Any], step: str) -> Decision | None:
    """What a step decided on the record, if it did."""
    entry = next((entry for entry in record["curation"] if entry["step"] == step), None)
    return None if entry is None else Decision.from_dict(entry)


def is_kept(record: Mapping[str, Any]) -> bool:
    """Whether no step dropped it or failed on it."""
    return all(entry["verdict"] == "keep" for entry in record["curation"])


def record_id(record: Mapping[str, Any]) -> Hashable:
    """What identifies a record in its file."""
    return record.get("id")


def read_trajectories(path: str | Path) -> list[dict[str, Any]]:
    """The records of a file; of several with one id the last counts, in the place of the first.

    Raises:
        OptionInvalid: the file cannot be read, or is empty.
        RecordCorrupt: a line is no trajectory.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(read_records(path), start=1):
        try:
            _check(record)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordCorrupt(
                f"record {number} of {Path(path).name} is no trajectory", error, "pass a file that a step wrote"
            ) from error
        found[record["id"]] = record
    if not found:
        raise OptionInvalid("the file holds no trajectories", Path(path).name, "run the step before it first")
    return list(found.values())


def _check(record: Mapping[str, Any]) -> None:
    if not isinstance(record["id"], str) or not isinstance(record["evaluation"], dict):
        raise TypeError("id, evaluation")
    if not all(isinstance(look["text"], str) for look in record["rounds"]):
        raise TypeError("rounds")
    if not all(entry["verdict"] in ("keep", "drop", "failed") and entry["step"] for entry in record["curation"]):
        raise ValueError("curation")
    if record["image"] is not None and not isinstance(record["image"].get("path"), str | None):
        raise TypeError("image")


class PictureFolder:
    """The image root of a file of trajectories.

    Args:
        root: What the records' paths are relative to.
        options: How pictures are opened.
    """

    def __init__(self, root: Path, options: OpenOptions | None = None) -> None:
        self.root, self.options = root, options or OpenOptions()
        self._real = os.path.realpath(root)

    def path_of(self, record: Mapping[str, Any]) -> Path:
        """Where the record's picture is.

        Raises:
            ImageNotFound: the record names none, or one outside the image root.
        """
        name: str | None = (record["image"] or {}).get("path")
        if not name or "\0" in name:
            raise ImageNotFound("the record names no picture", record["id"], "make the trajectory again")
        path = self.root / name
        if not Path(os.path.realpath(path)).is_relative_to(self._real):
            raise ImageNotFound("the record's picture lies outside the image root", record["id"], "check --image-root")
        return path

    def open(self, record: Mapping[str, Any]) -> Picture:
        """The record's picture.

        Raises:
            ImageError: it is not there, cannot be opened, or has changed since the trajectory was made.
        """
        picture = open_one(self.path_of(record), self.options)
        known = record["image"].get("sha256")
        if known is not None and picture.info.sha256 != known:
            raise ImageNotFound(
                "the picture is no longer the one of the trajectory", record["image"]["path"], "check --image-root"
            )
        return picture


@dataclass(frozen=True, slots=True)
class _Size:
    """A picture of which only the size is needed."""

    size: tuple[int, int]


def replay(
    texts: Sequence[str],
    size: tuple[int, int],
    question: str,
    *,
    prompts: PromptSet | None = None,
    settings: ConversationSettings | None = None,
) -> tuple[Assessment, list[tuple[Message, ...]]]:
    """Go through the conversation again with given replies.

    Args:
        texts: One reply per look.
        size: (width, height) of the picture.
        question: What was asked.
        prompts: The words; the project's own by default.
        settings: Rounds and context; as many looks as there are texts, strictly read, without them.

    Returns:
        The assessment, and the messages before each reply.

    Raises:
        ReplyUnusable: a reply breaks the format, or the conversation ends before or after the last text.
    """
    settings = settings or ConversationSettings(rounds=max(len(texts), 1), question=question, strict=True)
    talk = converse(_Size(size), settings, prompts=prompts)
    asked: list[tuple[Message, ...]] = []
    request: Request = next(talk)
    for text in texts:
        asked.append(request.messages)
        try:
            request = talk.send(Reply(text))
        except StopIteration as stop:
            assessment: Assessment = stop.value
            if assessment.error is not None:
                raise ReplyUnusable(assessment.error["message"], None, "make the trajectory again") from None
            if len(asked) < len(texts):
                raise ReplyUnusable(
                    "the conversation ends before its last reply", f"{len(asked)} of {len(texts)}", "make it again"
                ) from None
            return assessment, asked
    raise ReplyUnusable("the conversation asks for one more look than there are replies", len(texts), "make it again")


def ids_digest(records: Iterable[Mapping[str, Any]]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the trajectories' ids, for a run's settings."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record["id"].encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]
