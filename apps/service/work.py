"""One job done, inside a worker process: pictures opened, assessed, restored, and what the pages need written down.

It must not know queues, clients or HTTP. It tells of its progress through a function, and stops where another one says
so: `Stopped` is no `Exception`, so that what turns failures into values does not swallow it.

Events (a mapping with "event"): `opened` {size, name}, `look` {index, box}, `text` {index, text}, `read` {look},
`assessed` {assessment}, `prompts` {positive, negative, ...}, `signals` {values}, `candidate` {step, of, doing},
`restored` {...}. The end is told by the state of the job, not by an event.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from restore_bridge.bridge import RestoreBridge
from restore_bridge.comparison import compare
from restore_bridge.guidance import Guidance, split_guidance
from restore_bridge.prompts import Prompts, compose
from restore_bridge.report import write_report
from restore_bridge.restorers import Restored, Restorer, RestoreSettings, load_restorer
from restore_bridge.results import BridgeResult
from restore_bridge.settings import plan_trials
from zoomiqa.assessors import Assessor, ConversationalAssessor, LookRead, LookStarted, TextWritten, create_assessor
from zoomiqa.assessors.base import Task as Question
from zoomiqa.errors import BackendFailed
from zoomiqa.files import atomic_write_bytes, atomic_write_text
from zoomiqa.imaging import Picture, encode_picture, open_picture
from zoomiqa.imaging.signals import SIGNALS, measure
from zoomiqa.types import Assessment

from .editing import edited_guidance, lines_of
from .errors import error_kinds
from .settings import ServiceSettings
from .tasks import AssessTask, PromptsTask, RestoreTask, ScoreTask, Task

Tell = Callable[[Mapping[str, Any]], None]

SHOWN_SIDE_PX = 1280
"""Longest side of a picture on the page. It is written without loss, so that no codec's loss passes for a result."""

_KEPT_ASSESSMENTS = 8
"""Assessments a worker keeps, so that restoring what was just assessed does not ask again."""


class Stopped(BaseException):
    """The job is to end here."""


@dataclass
class Bench:
    """What a worker keeps between jobs: models, and the assessments it made last.

    Args:
        settings: What the service offers.
        is_stopped: Whether the present job is to end.
    """

    settings: ServiceSettings
    is_stopped: Callable[[], bool] = lambda: False
    _assessors: dict[str, Assessor] = field(default_factory=dict)
    _restorers: dict[str, Restorer] = field(default_factory=dict)
    _assessments: dict[tuple[str | None, ...], Assessment] = field(default_factory=dict)

    def do(self, task: Task, files: list[Path], names: tuple[str, ...], out: Path, tell: Tell) -> dict[str, Any]:
        """Do a task; its result is JSON, its files are in `out`.

        Raises:
            ZoomIQAError: it cannot be done.
            Stopped: it was told to end.
        """
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        pictures = []
        for file, name in zip(files, names, strict=True):
            self._check()
            # Opened from bytes, so that no error names a path of this machine.
            picture = open_picture(file.read_bytes(), limits=self.settings.limits)
            pictures.append(replace(picture, info=replace(picture.info, path=name)))
        if isinstance(task, ScoreTask):
            return self._score(task, pictures)
        picture = pictures[0]
        if isinstance(task, PromptsTask):
            return self._prompts(task, picture, tell)

        def show() -> None:
            _write_shown(out / "before.png", picture)
            tell({"event": "opened", "name": names[0], "size": list(picture.size)})

        # Beside the first look, which people wait for; the encoder needs no lock of Python's while it packs.
        with ThreadPoolExecutor(1, thread_name_prefix="show") as beside:
            shown = beside.submit(show)
            result = (
                self._assess(task, picture, out, tell)
                if isinstance(task, AssessTask)
                else self._restore(task, picture, files[0], out, tell)
            )
            shown.result()
        return result

    def warm(self) -> None:
        """Load the default assessor by asking it about a plain picture, so that the first job does not wait."""
        if self.settings.default_assessor == "compact":
            grey = np.random.default_rng(0).integers(90, 160, (160, 200, 3), dtype=np.uint8)
            picture = open_picture(encode_picture(grey, ".png"))
            next(iter(self._assessor("compact").assess([picture])))
            measure(picture.pixels)

    def _check(self) -> None:
        if self.is_stopped():
            raise Stopped

    def _assess(self, task: AssessTask, picture: Picture, out: Path, tell: Tell) -> dict[str, Any]:
        assessment = self._look(task.assessor, picture, task.question, tell)
        _raise_failure(assessment)
        guidance = split_guidance(assessment)
        offer = self.settings.restorer(self.settings.default_restorer)
        prompts = compose(guidance, offer.encoder, limits=self.settings.limits)
        tell({"event": "prompts", **_shown_prompts(guidance, prompts)})
        self._check()
        signals = self._measure(picture, out)
        tell({"event": "signals", "values": signals["values"]})
        return {"assessment": assessment.to_dict(), "prompts": _shown_prompts(guidance, prompts), "signals": signals}

    def _prompts(self, task: PromptsTask, picture: Picture, tell: Tell) -> dict[str, Any]:
        assessment = self._look(task.assessor, picture, task.question, tell)
        _raise_failure(assessment)
        guidance = split_guidance(assessment)
        prompts = compose(guidance, task.encoder, regions="folded", limits=self.settings.limits)
        return {"guidance": guidance.to_dict(), "prompts": prompts.to_dict(), **_lines(guidance)}

    def _score(self, task: ScoreTask, pictures: list[Picture]) -> dict[str, Any]:
        self._check()
        first, second = self._assessor(task.assessor).assess(pictures)
        _raise_failure(first)
        _raise_failure(second)
        rows = compare(pictures[0], pictures[1], assessments=(first, second))
        return {"scores": [row.to_dict() for row in rows], "before": first.to_dict(), "after": second.to_dict()}

    def _restore(self, task: RestoreTask, picture: Picture, file: Path, out: Path, tell: Tell) -> dict[str, Any]:
        before = self._look(task.assessor, picture, task.question, tell)
        _raise_failure(before)
        self._check()
        options = self.settings.restorer_options.get(task.restorer, {})
        settings = task.bridge_settings(options)
        restorer = self._restorer(task.restorer)
        trials, _ = plan_trials(settings, restorer.capabilities)
        progress = _Progress(tell, self.is_stopped, steps=2 * len(trials) * settings.loop)
        guidance = split_guidance(before, prompt=settings.prompt, negative=settings.negative)
        bridge = RestoreBridge(
            _WatchedAssessor(self._assessor(task.assessor), progress),
            settings,
            restorer=_WatchedRestorer(restorer, progress),
            limits=self.settings.limits,
        )
        result = bridge.run(picture, before, guidance=edited_guidance(guidance, task.positive, task.negative))
        if result.error is not None and not result.candidates:
            raise _as_error(result.error)
        self._check()
        return _write_result(result, picture, file, out, task, self.settings)

    def _look(self, name: str, picture: Picture, question: str | None, tell: Tell) -> Assessment:
        """The assessment of a picture, told of as it is made; one that was just made is told of again."""
        key = (name, picture.info.sha256, question)
        assessment = self._assessments.pop(key, None)
        if assessment is not None:
            for look in assessment.rounds:
                _tell_look(look.to_dict(), tell)
        else:
            for event in self._stream(name, picture, question):
                self._check()
                if isinstance(event, LookStarted):
                    tell({"event": "look", "index": event.index, "box": event.box.to_list() if event.box else None})
                elif isinstance(event, TextWritten):
                    tell({"event": "text", "index": event.index, "text": event.text})
                elif isinstance(event, LookRead):
                    tell({"event": "read", "look": event.look.to_dict()})
                else:
                    assessment = event
        assert assessment is not None  # noqa: S101 - for the type checker; a stream ends with one
        if assessment.image is not None and picture.info.path != assessment.image.path:
            assessment = replace(assessment, image=picture.info)
        if assessment.rating is not None:
            self._assessments[key] = assessment
            while len(self._assessments) > _KEPT_ASSESSMENTS:
                self._assessments.pop(next(iter(self._assessments)))
        tell({"event": "assessed", "assessment": assessment.to_dict()})
        return assessment

    def _stream(self, name: str, picture: Picture, question: str | None) -> Iterator[Any]:
        assessor = self._assessor(name)
        task = Question(picture, question)
        if isinstance(assessor, ConversationalAssessor) and assessor.samples == 1:
            return assessor.assess_stream(task)
        return iter(assessor.assess([task]))

    def _measure(self, picture: Picture, out: Path) -> dict[str, Any]:
        """The signals for a chart, and their maps in `maps.json`."""
        signals = measure(picture.pixels)
        maps = {name: _rounded(grid) for name in SIGNALS if (grid := signals.map(name)) is not None}
        atomic_write_text(out / "maps.json", json.dumps(maps))
        return {**signals.to_dict(), "maps": sorted(maps)}

    def _assessor(self, name: str) -> Assessor:
        if name not in self._assessors:
            self._assessors[name] = create_assessor(self.settings.assessors[name])
        return self._assessors[name]

    def _restorer(self, name: str) -> Restorer:
        if name not in self._restorers:
            self._restorers[name] = load_restorer(name, **self.settings.restorer_options.get(name, {}))
        return self._restorers[name]


@dataclass
class _Progress:
    """Counts the steps of a restoration and ends it when it is told to."""

    tell: Tell
    is_stopped: Callable[[], bool]
    steps: int
    done: int = 0

    def step(self, doing: str) -> None:
        if self.is_stopped():
            raise Stopped
        self.tell({"event": "candidate", "step": min(self.done, self.steps), "of": self.steps, "doing": doing})
        self.done += 1


class _WatchedAssessor:
    """An assessor that tells of its work on candidates."""

    def __init__(self, assessor: Assessor, progress: _Progress) -> None:
        self._assessor, self._progress = assessor, progress
        self.info, self.parallel = assessor.info, assessor.parallel
        self.can_unload = bool(getattr(assessor, "can_unload", False))
        self.unload = getattr(assessor, "unload", lambda: None)

    def assess(self, pictures: Iterable[Picture | Question | Assessment]) -> Iterator[Assessment]:
        self._progress.step("assessing a candidate")
        return self._assessor.assess(pictures)


class _WatchedRestorer:
    """A restorer that tells of its work."""

    def __init__(self, restorer: Restorer, progress: _Progress) -> None:
        self._restorer, self._progress = restorer, progress
        self.capabilities = restorer.capabilities
        if callable(unload := getattr(restorer, "unload", None)):
            self.unload = unload

    def restore(
        self,
        picture: Picture,
        guidance: Guidance,
        *,
        prompts: Prompts | None = None,
        settings: RestoreSettings = RestoreSettings(),  # noqa: B008 - a frozen value
    ) -> Restored:
        self._progress.step(f"restoring with strength {settings.strength:g}, seed {settings.seed}")
        return self._restorer.restore(picture, guidance, prompts=prompts, settings=settings)


def _write_result(
    result: BridgeResult, picture: Picture, file: Path, out: Path, task: RestoreTask, settings: ServiceSettings
) -> dict[str, Any]:
    """The picture, its sidecar, the report and what the page shows; returns the record."""
    is_restored = result.kept == "restored"
    kept = result.picture if is_restored else picture
    stem = Path(picture.info.path or "picture").stem
    name = f"{stem}-{'restored' if is_restored else 'kept'}.{task.format}"
    data = encode_picture(kept, f".{task.format}", source=picture, limits=settings.limits)
    atomic_write_bytes(out / name, data)
    shown = out / "after.png"
    _write_shown(shown, kept)
    rated = result.after if is_restored and result.after else result.before
    rows = compare(picture, kept, assessments=(result.before, rated))
    guidance, prompts = result.guidance or Guidance(), result.prompts
    record: dict[str, Any] = {
        **result.to_dict(),
        "output": {"path": name, "sha256": None, "size": list(kept.size)},
        "scores": [row.to_dict() for row in rows],
    }
    record["settings"]["restorer_options"] = {}  # the service's own, which may name files of this machine
    sidecar = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write_text(out / f"{name}.zoomiqa.json", sidecar)
    with_path = {**record, "image": {**record["image"], "path": str(file)}}
    write_report([with_path], out / "report.html", records_folder=out, limits=settings.limits)
    _write_zip(out / f"{stem}.zip", [out / name, out / f"{name}.zoomiqa.json", out / "report.html"])
    return {
        "record": record,
        "prompts": _shown_prompts(guidance, prompts) if prompts else None,
        "files": {
            "picture": name,
            "sidecar": f"{name}.zoomiqa.json",
            "report": "report.html",
            "all": f"{stem}.zip",
            "before": "before.png",
            "after": "after.png",
        },
    }


def _write_zip(path: Path, files: list[Path]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.name)
    atomic_write_bytes(path, buffer.getvalue())


def _write_shown(path: Path, picture: Picture) -> None:
    """A lossless copy for the page, at most `SHOWN_SIDE_PX` on the longer side, area-averaged, without metadata."""
    import cv2

    factor = SHOWN_SIDE_PX / max(picture.size)
    pixels = picture.pixels
    if factor < 1:
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    atomic_write_bytes(path, encode_picture(pixels, ".png"))


def _shown_prompts(guidance: Guidance, prompts: Prompts) -> dict[str, Any]:
    return {**_lines(guidance), "sent": prompts.to_dict()}


def _lines(guidance: Guidance) -> dict[str, str]:
    return {"positive_lines": lines_of(guidance.positive), "negative_lines": lines_of(guidance.negative)}


def _tell_look(look: Mapping[str, Any], tell: Tell) -> None:
    tell({"event": "look", "index": look["index"], "box": look["shown_box"]})
    tell({"event": "text", "index": look["index"], "text": look["text"]})
    tell({"event": "read", "look": look})


def _rounded(grid: np.ndarray) -> list[list[float | None]]:
    return [[None if not np.isfinite(value) else round(float(value), 4) for value in row] for row in grid]


def _raise_failure(assessment: Assessment) -> None:
    if assessment.error is not None:
        raise _as_error(assessment.error)


def _as_error(error: Mapping[str, str]) -> Exception:
    """A failure that came as a value, raised again with its own code."""
    return error_kinds().get(error["code"], BackendFailed)(error["message"])
