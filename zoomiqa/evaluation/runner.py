"""Labelled data sets through an assessor, into a folder that can be gone on with at any moment.

A folder holds `records.jsonl` (one record per row of an annotation file: the assessment and, under `evaluation`, what
people said of the picture) and `timing.json`. No time is in the records, so that a resumed file is byte for byte the
uninterrupted one. It must not know correlations, tables or plots.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from zoomiqa.assessors import Assessor, AssessorSpec
from zoomiqa.batch import OpenOptions, assess_files, file_digest, run_settings
from zoomiqa.errors import OptionInvalid, OutputFailed, OutputWouldOverwrite
from zoomiqa.evaluation.annotations import Annotation, load_annotations
from zoomiqa.evaluation.reading import check_record
from zoomiqa.files import atomic_write_text, printable, refuse_inputs
from zoomiqa.protocol import default_prompts, load_prompts
from zoomiqa.records import RecordFile
from zoomiqa.scale import Engine

RECORDS, TIMING = "records.jsonl", "timing.json"

_TIMING_EVERY_S = 5.0
"""Seconds of work that a killed run loses from its timing (never from its records)."""

QuestionSource = Literal["row", "option", "drawn"]


@dataclass(frozen=True, slots=True)
class DataSet:
    """An annotation file."""

    name: str
    """Stem of its file name."""

    annotations: tuple[Annotation, ...]
    """Its first rows, or all."""

    rows: int
    """Rows in the file."""

    sha256: str
    """Of the file's bytes: a run goes on only with the same labels."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row to assess."""

    index: int
    """Place in the whole run, from 0."""

    source_index: int
    """Row in its annotation file, from 0."""

    dataset: str
    image: str
    """The picture's path as annotated, relative to the image root."""

    annotation: Annotation
    question: str
    """What is asked, with the place mark of the picture where the row holds one: an earlier question is repeated so."""

    question_source: QuestionSource

    def to_dict(self) -> dict[str, Any]:
        """What the record says of it under `evaluation`."""
        return {
            "dataset": self.dataset,
            "index": self.index,
            "source_index": self.source_index,
            "id": self.annotation.id,
            "image": self.image,
            "subset": self.annotation.subset,
            "split": self.annotation.split,
            "ground_truth": self.annotation.gt_score,
            "mos": self.annotation.mos,
            "attributes": dict(self.annotation.attributes),
            "question": self.question,
            "question_source": self.question_source,
        }


def load_sets(files: Sequence[str | Path], image_root: str | Path, *, limit: int | None = None) -> list[DataSet]:
    """Read annotation files.

    Args:
        files: Each is a data set of its own, named by its stem.
        image_root: What the pictures' paths are relative to.
        limit: Take the first so many rows of each file (the released evaluator's `max_samples`).

    Raises:
        OptionInvalid: no such image root, two files of one stem, a file without rows, or what `load_annotations`
            raises.
    """
    if not Path(image_root).is_dir():
        raise OptionInvalid("the image root is no folder", printable(str(image_root)), "check the path")
    sets: dict[str, DataSet] = {}
    for file in map(Path, files):
        if file.stem in sets:
            raise OptionInvalid(
                "two annotation files have one name", printable(file.stem), "rename one: it names the data set"
            )
        annotations = load_annotations(file, image_root)
        if not annotations:
            raise OptionInvalid("an annotation file holds no rows", printable(str(file)), "leave it out")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        sets[file.stem] = DataSet(file.stem, tuple(annotations[:limit]), len(annotations), digest)
    return list(sets.values())


def plan(sets: Iterable[DataSet], spec: AssessorSpec, image_root: str | Path) -> list[Item]:
    """Every row with its question.

    A row's own question comes first, then the user's; else one is drawn from the prompt set's stock questions as the
    released evaluator draws it: row by row in the file's order, with a generator of the run's seed for each data set,
    only for rows without a question of their own.
    """
    prompts = load_prompts(spec.prompts_file) if spec.prompts_file else default_prompts()
    root = Path(image_root)
    items: list[Item] = []
    for dataset in sets:
        generator = random.Random(spec.conversation.sampling.seed)  # noqa: S311 - a reproducible draw, not a secret
        for row, annotation in enumerate(dataset.annotations):
            source: QuestionSource = "row"
            question = annotation.history_question
            if question is None:
                source, question = "option", spec.conversation.question
            if question is None:
                source, question = "drawn", generator.choice(prompts.questions)
            image = annotation.path.relative_to(root).as_posix()
            items.append(Item(len(items), row, dataset.name, image, annotation, question, source))
    return items


def item_key(record: Mapping[str, Any]) -> tuple[str, int]:
    """What identifies an evaluation's record: its data set and row, as one picture may be in two, or twice in one.

    Raises:
        RecordCorrupt: it is no such record.
    """
    check_record(record, is_evaluation=True)
    entry = record["evaluation"]
    return entry["dataset"], entry["source_index"]


class Evaluation:
    """The open folder of a run: a context manager.

    Args:
        folder: Made where it is missing.
        sets: What is evaluated.
        items: Their rows, as `plan` gives them.
        spec: Which assessor.
        assessor: Built from `spec`.
        options: How pictures are opened.
        resume: Go on with an existing run. A row whose record is there is done, unless its picture has changed since,
            or was missing and is there now.
        retry_failed: With `resume`, assess failed rows again (a server that was down). Their new records are added at
            the end, and count.
        overwrite: Replace an existing run.
        results: Names of other files that will be written into the folder.
        inputs: Files that no output may replace; the annotated pictures are added.

    Raises:
        OutputWouldOverwrite: the folder holds a run and neither `resume` nor `overwrite` is set, holds files of those
            names without a run, or an output would replace an input.
        RecordSettingsChanged: resumed with other settings or labels.
        RecordCorrupt: resumed with records that were edited or are of another kind.
        OutputFailed: the folder cannot be made or written.
    """

    def __init__(
        self,
        folder: str | Path,
        sets: Sequence[DataSet],
        items: Sequence[Item],
        spec: AssessorSpec,
        assessor: Assessor,
        *,
        options: OpenOptions | None = None,
        resume: bool = False,
        retry_failed: bool = False,
        overwrite: bool = False,
        results: Collection[str] = (),
        inputs: Collection[Path] = (),
    ) -> None:
        self.folder = Path(folder)
        self.earlier: list[dict[str, Any]] = []
        """Records of rows that are done already, in the run's order."""

        self.todo: list[Item] = []
        """Rows that are still to be assessed."""

        self._items = items
        self._spec = spec
        self._assessor = assessor
        self._options = options or OpenOptions()
        self._resume = resume
        self._retry_failed = retry_failed
        self._overwrite = overwrite
        self._results = results
        self._inputs = [*inputs, *(item.annotation.path for item in items)]
        self._timing = _Timing(self.folder / TIMING)
        settings = {
            **run_settings(assessor, spec, self._options),
            "data_sets": {item.name: {"sha256": item.sha256, "rows": len(item.annotations)} for item in sets},
        }
        self._records = RecordFile(
            self.folder / RECORDS,
            settings,
            resume=resume,
            overwrite=overwrite,
            protected=self._inputs,
            key=item_key,
        )

    def __enter__(self) -> Evaluation:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
            reason = (error.strerror if isinstance(error, OSError) else None) or "its name cannot be used"
            raise OutputFailed(
                "the folder cannot be made", printable(str(self.folder)), f"{reason}; choose another"
            ) from error
        self._refuse_loss()
        self._records.__enter__()
        for item in self._items:
            record = self._records.done.get((item.dataset, item.source_index))
            if record is None or self._is_outdated(item, record):
                self.todo.append(item)
            else:
                self.earlier.append(record)
        self._timing.begin(is_new=not self._records.done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._records.__exit__(kind, error, trace)

    def run(self, jobs: int = 1, engine: Engine | None = None) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Assess what is to be done; each record is on the disk before it is given out.

        Args:
            jobs: Worker processes; 1 works in this process.
            engine: Where the work is done; this machine without one.
        """
        answers = assess_files(
            [item.annotation.path for item in self.todo],
            self._spec,
            questions=[item.question for item in self.todo],
            options=self._options,
            jobs=jobs,
            assessor=self._assessor,
            engine=engine,
        )
        self._timing.start_clock()
        try:
            # Strict, so that the assessor comes to its own end and tidies up.
            for item, assessment in zip(self.todo, answers, strict=True):
                record = {**assessment.to_dict(), "evaluation": item.to_dict()}
                self._records.write(record)
                self._timing.count(item.dataset)
                yield item, record
        finally:
            self._timing.save()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The record of every row that has one, in the run's order."""
        done = self._records.done
        found = (done.get((item.dataset, item.source_index)) for item in self._items)
        return [record for record in found if record is not None]

    def _is_outdated(self, item: Item, record: Mapping[str, Any]) -> bool:
        if self._retry_failed and record["error"]:
            return True
        now = file_digest(item.annotation.path, limit_bytes=self._options.limits.file_bytes)
        # A picture that is gone since does not undo what was found while it was there.
        return now is not None and now != (record["image"] or {}).get("sha256")

    def _refuse_loss(self) -> None:
        names = (TIMING, *self._results)
        refuse_inputs([self.folder / name for name in names], self._inputs, "write to another folder")
        if self._overwrite or (self.folder / RECORDS).exists():
            return
        for name in self._results:
            if os.path.lexists(self.folder / name):
                raise OutputWouldOverwrite(
                    "the folder holds a file of that name, but no run to go on with",
                    name,
                    "write to another folder, or pass --overwrite",
                )


def read_timing(folder: str | Path) -> dict[str, dict[str, float]]:
    """Pictures and wall seconds by data set, over all sessions of a run: {"koniq": {"pictures": 9, "seconds": 4.2}}.

    Empty where nothing (readable) was kept.
    """
    total: dict[str, dict[str, float]] = {}
    for session in _read_sessions(Path(folder) / TIMING):
        for name, entry in session.items():
            sums = total.setdefault(name, {"pictures": 0, "seconds": 0.0})
            sums["pictures"] += entry["pictures"]
            sums["seconds"] += entry["seconds"]
    return total


class _Timing:
    """`timing.json`: the work of each session. Time goes to the data set whose record ended it.

    It is wall time: that of a session's first record holds the loading of a model.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._earlier: list[dict[str, dict[str, float]]] = []
        self._own: dict[str, dict[str, float]] = {}
        self._last = self._saved = 0.0

    def begin(self, *, is_new: bool) -> None:
        """Take over what earlier sessions of the same run took."""
        self._earlier = [] if is_new else _read_sessions(self._path)

    def start_clock(self) -> None:
        self._last = self._saved = time.perf_counter()

    def count(self, dataset: str) -> None:
        now = time.perf_counter()
        entry = self._own.setdefault(dataset, {"pictures": 0, "seconds": 0.0})
        entry["pictures"] += 1
        entry["seconds"] += now - self._last
        self._last = now
        if now - self._saved >= _TIMING_EVERY_S:
            self.save()
            self._saved = now

    def save(self) -> None:
        if not self._own:
            return
        own = {
            name: {"pictures": entry["pictures"], "seconds": round(entry["seconds"], 3)}
            for name, entry in self._own.items()
        }
        atomic_write_text(self._path, json.dumps({"sessions": [*self._earlier, own]}, indent=2) + "\n")


def _read_sessions(path: Path) -> list[dict[str, dict[str, float]]]:
    """What is in a timing file; nothing where it is missing or was damaged, as no result hangs on it."""
    try:
        sessions = json.loads(path.read_text("utf-8"))["sessions"]
        return [
            {
                str(name): {"pictures": int(entry["pictures"]), "seconds": float(entry["seconds"])}
                for name, entry in session.items()
            }
            for session in sessions
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
