"""What happens on the page: a click becomes a job, a job's events become what is shown. It must not know the layout.

Handlers are generators of `Shown`: the page writes only what changed. Nothing is kept here between clicks but the ids
of the page's own jobs, in the page's session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoomiqa.assessors import DEFAULT_ASSESSOR
from zoomiqa.errors import ZoomIQAError

from ..service.desk import Desk, Upload  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.errors import ServiceBusy, for_strangers  # noqa: TID252
from ..service.settings import ServiceSettings  # noqa: TID252
from ..service.store import Job  # noqa: TID252
from ..service.tables import to_csv  # noqa: TID252
from ..service.tasks import make_task  # noqa: TID252
from . import views
from .opening import Opening
from .uploads import read_upload

Shown = dict[str, Any]
"""New values by the name of the place they belong to."""

MOST_OF_A_BATCH = 100
CHOOSE = "Choose a photograph or a sample. The reasoning appears here as it is written."
_NO_MAP = "none"
_CONTROLS = ("maps", "is_busy", "can_restore")


@dataclass
class Session:
    """One page's jobs."""

    job: str | None = None
    """The one under way."""

    assessed: str | None = None
    """The one whose picture is shown."""

    name: str = ""
    size: tuple[int, int] = (1, 1)
    boxes: list[dict[str, Any]] = field(default_factory=list)
    base: str = ""
    first: str | None = None
    """The job that the page began with, while its picture stands where an upload would."""

    turn: int = 0
    """Counts what was begun: what an older turn still has to say is not shown any more."""

    is_batch_cancelled: bool = False


def is_embedded(settings: ServiceSettings) -> bool:
    """Whether the default assessor is the one that comes with the package, which answers in well under a second."""
    return settings.assessors[settings.default_assessor].name == DEFAULT_ASSESSOR


class Handlers:
    """The page's actions over a desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        # An assessor that is not embedded may be slow or paid for: nothing is asked of it unbidden.
        self.opening = Opening(desk, is_on=is_embedded(desk.settings))

    async def assess(
        self, picture: str | None, assessor: str, question: str | None, client: str, session: Session
    ) -> AsyncIterator[Shown]:
        """Reasoning as it comes, boxes as rounds are read, the rating, the signals, the prompts."""
        session.turn += 1
        try:
            upload = self._upload(picture, session)
            task = make_task("assess", {"assessor": assessor, "question": question}, self.desk.settings)
            job = await asyncio.to_thread(self.desk.submit, task, [upload], client)
        except ZoomIQAError as error:
            yield {"reasoning": views.failure(for_strangers(error)), "is_busy": False}
            return
        session.job = job.id
        yield {
            "reasoning": views.reasoning({}, False),
            "rating": "",
            "signals": views.empty("Signals are measured after the reasoning."),
            "progress": "",
            "result": "",
            "is_busy": True,
        }
        async for shown in self._follow(job, session):
            yield shown

    async def open(self, ticket: str, is_there: bool, session: Session) -> AsyncIterator[Shown]:
        """The assessment that the page begins with, from its beginning to its end; without one, what to do.

        Args:
            ticket: What the page came with; empty where it brought none.
            is_there: Whether all that was said stands in the page already.
            session: The page's own.
        """
        if session.turn:
            return  # something else was begun meanwhile
        job = await self.opening.job(ticket or self.opening.begin())
        if job is not None:
            session.first = job.id
            async for shown in self._opened(job, session):
                yield {name: shown[name] for name in _CONTROLS if name in shown} if is_there else shown
        else:
            yield {"reasoning": views.empty(CHOOSE, is_settled=True)}

    async def watch(self, ticket: str) -> AsyncIterator[Shown]:
        """The same for a browser that does not have the page yet."""
        job = await self.opening.job(ticket)
        if job is not None:
            async for shown in self._opened(job, Session()):
                yield shown

    async def _opened(self, job: Job, session: Session) -> AsyncIterator[Shown]:
        """An assessment that nobody asked for: its failure is not told of."""
        async for shown in self._follow(job, session):
            if "is_busy" in shown and not shown.get("can_restore"):
                session.first = None
                yield {"reasoning": views.empty(CHOOSE, is_settled=True)}
            else:
                yield shown

    def _upload(self, picture: str | None, session: Session) -> Upload:
        """What was uploaded; without anything, the picture that the page began with, while it is there.

        Raises:
            UploadRefused: there is no picture.
        """
        if picture is None and session.first is not None:
            with contextlib.suppress(ZoomIQAError, OSError):  # removed meanwhile: as if there had been none
                job = self.desk.get(session.first)
                return Upload(job.pictures[0], self.desk.store.inputs(job)[0].read_bytes())
        return read_upload(picture, self.desk.settings)

    async def _follow(self, job: Job, session: Session) -> AsyncIterator[Shown]:
        """What an assessment says, to its end, unless something else is begun on the page."""
        turn = session.turn
        session.assessed, session.boxes = job.id, []
        looks: dict[int, dict[str, Any]] = {}
        has_ended = (await asyncio.to_thread(self.desk.get, job.id)).has_ended
        so_far: Shown = {}
        async for _, event in self.desk.follow(job.id):
            if session.turn != turn:
                return
            shown = self._after(event, job.id, looks, session)
            if has_ended:
                so_far |= shown  # nothing is to be waited for: all of it is one change of the page
            elif shown:
                yield shown
        ended = await asyncio.to_thread(self.desk.get, job.id)
        if session.turn == turn:
            yield so_far | self._assessed(ended, looks)

    def _after(self, event: Mapping[str, Any], key: str, looks: dict[int, dict[str, Any]], session: Session) -> Shown:
        """What an event of an assessment changes."""
        kind = event["event"]
        if kind == "started":  # also when a worker died and another one begins anew
            looks.clear()
            session.boxes, session.base = [], ""
            return {"reasoning": views.reasoning(looks, False)}
        if kind == "opened":
            session.name, session.size = event["name"], tuple(event["size"])
            session.base = f"v1/jobs/{key}/files"
            return {"stage": self._stage(session)}
        if kind == "look":
            looks[event["index"]] = {"box": event["box"], "text": ""}
            return {"reasoning": views.reasoning(looks, False)}
        if kind == "text":
            looks.setdefault(event["index"], {"box": None, "text": ""})["text"] += event["text"]
            return {"reasoning": views.reasoning(looks, False)}
        if kind == "read":
            return self._read(event["look"], looks, session)
        if kind == "assessed":
            return {
                "reasoning": views.reasoning(looks, True),
                "rating": views.rating(event["assessment"]) + views.findings(event["assessment"]),
            }
        if kind == "prompts":
            return {
                "positive": event["positive_lines"],
                "negative": event["negative_lines"],
                "sent": views.sent(event["sent"]),
            }
        if kind == "signals":
            return {"signals": views.chart(event["values"])}
        return {}

    def _read(self, look: Mapping[str, Any], looks: dict[int, dict[str, Any]], session: Session) -> Shown:
        looks[look["index"]] = {
            "box": look["shown_box"],
            "text": look["text"],
            "sections": look["sections"],
            "rating": look["rating"],
        }
        shown: Shown = {"reasoning": views.reasoning(looks, False), "has_words": True}
        if look["box"]:
            session.boxes.append({"box": look["box"], "look": look["index"] + 2})
            if session.base:
                shown["stage"] = self._stage(session)
        return shown

    def _assessed(self, job: Job, looks: Mapping[int, Mapping[str, Any]]) -> Shown:
        if job.error is not None:
            return {"reasoning": views.reasoning(looks, True) + views.failure(job.error), "is_busy": False}
        maps = ((job.result or {}).get("signals") or {}).get("maps", [])
        return {"maps": [_NO_MAP, *maps], "is_busy": False, "can_restore": True}

    def _stage(self, session: Session, overlay: str = "", legend: str = "") -> str:
        return views.stage(
            f"{session.base}/before.png", session.name, session.size, session.boxes, overlay=overlay, legend=legend
        )

    async def show_map(self, name: str, session: Session) -> Shown:
        """The picture under a signal's map."""
        if session.assessed is None or not session.base:
            return {}
        try:
            job = await asyncio.to_thread(self.desk.get, session.assessed)
        except ZoomIQAError as error:
            return {"reasoning": views.failure(for_strangers(error))}
        maps = views.load_maps(self.desk.store.outputs(job) / "maps.json")
        if name == _NO_MAP or name not in maps:
            return {"stage": self._stage(session)}
        return {"stage": self._stage(session, *views.map_layer(maps[name], name))}

    async def restore(
        self, picture: str | None, options: Mapping[str, Any], client: str, session: Session
    ) -> AsyncIterator[Shown]:
        """Progress, then the result beside the original with scores, both assessments and downloads."""
        try:
            upload = self._upload(picture, session)
            task = make_task("restore", options, self.desk.settings)
            job = await asyncio.to_thread(self.desk.submit, task, [upload], client)
        except ZoomIQAError as error:
            yield {"progress": views.failure(for_strangers(error)), "is_busy": False, "can_restore": True}
            return
        session.job = job.id
        yield {"progress": views.progress(0, 1, "waiting for a worker"), "result": "", "is_busy": True}
        async for _, event in self.desk.follow(job.id):
            if event["event"] == "candidate":
                yield {"progress": views.progress(event["step"], event["of"], event["doing"])}
            elif event["event"] == "opened":
                yield {"progress": views.progress(0, 1, "assessing")}
        ended = await asyncio.to_thread(self.desk.get, job.id)
        yield {**self._restored(ended), "is_busy": False, "can_restore": True}

    def _restored(self, job: Job) -> Shown:
        if job.error is not None or job.result is None:
            return {"progress": views.failure(job.error or {"code": "", "message": ""})}
        record, files = job.result["record"], job.result["files"]
        base = f"v1/jobs/{job.id}/files"
        name, size = record["image"]["path"], record["output"]["size"]
        return {
            "progress": views.verdict(record),
            "result": views.result(record, base, files, name, size),
            "sent": views.sent(record["rounds"][0]["prompts"]) if record["rounds"] else "",
        }

    async def cancel(self, session: Session) -> None:
        """End the job under way."""
        session.is_batch_cancelled = True
        if session.job is not None:
            try:
                await asyncio.to_thread(self.desk.cancel, session.job)
            except ZoomIQAError:
                return  # it is gone already

    async def batch(
        self, pictures: list[str], kind: str, options: Mapping[str, Any], client: str, session: Session
    ) -> AsyncIterator[Shown]:
        """Many pictures, one after the other: a table that grows, and the same as CSV."""
        session.is_batch_cancelled = False
        rows: list[dict[str, Any]] = [{"name": Path(path).name, "state": "waiting"} for path in pictures]
        if not rows or len(rows) > MOST_OF_A_BATCH:
            words = "Choose pictures first." if not rows else f"At most {MOST_OF_A_BATCH} pictures at once."
            yield {"table": views.empty(words), "csv": "", "is_busy": False}
            return
        yield {"table": views.batch_table(rows), "csv": "", "is_busy": True}
        for row, path in zip(rows, pictures, strict=True):
            if session.is_batch_cancelled:
                row["state"] = "cancelled"
                continue
            row["state"] = "running"
            yield {"table": views.batch_table(rows)}
            await self._one_of_batch(row, path, kind, options, client, session)
            yield {"table": views.batch_table(rows)}
        head = ("picture", "state", "rating_before", "rating_after", "stated_first", "positive", "negative", "error")
        keys = ("name", "state", "before", "after", "issue", "positive", "negative", "error")
        table = to_csv(head, [[row.get(key) for key in keys] for row in rows])
        link = views.csv_link(table, "restore-bridge.csv")
        yield {"table": views.batch_table(rows), "csv": link, "is_busy": False}

    async def _one_of_batch(
        self, row: dict[str, Any], path: str, kind: str, options: Mapping[str, Any], client: str, session: Session
    ) -> None:
        try:
            upload = read_upload(path, self.desk.settings)
            task = make_task(kind, options, self.desk.settings)
            job = await self._submit_patiently(task, upload, client, session)
        except ZoomIQAError as error:
            shown = for_strangers(error)
            row.update(state="failed", error=f"{shown['code']}: {shown['message']}")
            return
        session.job = job.id
        async for _ in self.desk.follow(job.id):
            pass
        job = await asyncio.to_thread(self.desk.get, job.id)
        row["state"] = job.state
        if job.error is not None:
            row["error"] = f"{job.error['code']}: {job.error['message']}"
            return
        result = job.result or {}
        record = result.get("record")
        before = record["before"] if record else result["assessment"]
        row.update(before=before["rating"], positive=before["positive"], negative=before["negative"])
        row["issue"] = (before["negative"] or "").split(". ")[0][:120]
        if record:
            row["state"] = "restored" if record["kept"] == "restored" else "original kept"
            row["after"] = record["after"]["rating"] if record["after"] else None
            row.update(files=result["files"], base=f"v1/jobs/{job.id}/files")

    async def _submit_patiently(self, task: Any, upload: Any, client: str, session: Session) -> Job:
        """Waits for room in the queue; a batch is in no hurry."""
        while True:
            try:
                return await asyncio.to_thread(self.desk.submit, task, [upload], client)
            except ServiceBusy as busy:
                if session.is_batch_cancelled:
                    raise
                await asyncio.sleep(min(5, busy.retry_after))

    async def whole(self, kind: str, options: Mapping[str, Any], uploads: list[str | None], client: str) -> Job:
        """A job from beginning to end, for clients of the page's API.

        Raises:
            ZoomIQAError: it could not be taken in.
        """
        task = make_task(kind, options, self.desk.settings)
        files = [read_upload(path, self.desk.settings) for path in uploads]
        job = await asyncio.to_thread(self.desk.submit, task, files, client)
        async for _ in self.desk.follow(job.id):
            pass
        return await asyncio.to_thread(self.desk.get, job.id)
