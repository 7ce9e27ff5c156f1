"""The desk: takes jobs in or refuses them at once, has them done in order, and tells of them. No HTTP, no pages.

Nothing that was taken in is lost: a job is on the disk before `submit` returns, and a service that starts on a folder
goes on with what waited there or was under way. A job whose worker died is tried once more, then it fails and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoomiqa.errors import ZoomIQAError
from zoomiqa.imaging import SUFFIXES

from .errors import JobCancelled, JobTimedOut, JobUnknown, ServiceBusy, ServiceError, WorkerDied, for_strangers
from .settings import ServiceSettings
from .store import Job, State, Store
from .tasks import Task, task_to_json
from .workers import Order, Outcome, Worker

LOG = logging.getLogger("restore_bridge.app")

_MOST_ATTEMPTS = 2
_FIRST_GUESS_SECONDS = 2.0
"""Of one job's time, before any was measured."""

_NAME_CHARACTERS = 48


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture as it came."""

    name: str
    """As the client calls it; never used as a path."""

    data: bytes


class Desk:
    """The jobs of one service.

    Args:
        settings: What it may spend and offers.

    Raises:
        RecordLocked: another process serves the same folder.
        OutputFailed: the folder cannot be used.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.store = Store(settings.folder)
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, str]] = deque((job.id, job.client) for job in self.store.unfinished())
        for key, _ in self._waiting:
            self.store.put_back(key)
        self._cancelled: set[str] = set()
        self._running: set[str] = set()
        self._last_event: dict[str, int] = {}
        self._listeners: dict[str, set[Callable[[], None]]] = {}
        self._seconds = _FIRST_GUESS_SECONDS
        self._is_closing = False
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Start the workers. Jobs are taken in from now on, and done as soon as a worker has come up."""
        self._workers = [Worker(self.settings) for _ in range(self.settings.workers)]
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), daemon=True, name=f"desk-{index}")
            for index, worker in enumerate(self._workers)
        ]
        self._threads.append(threading.Thread(target=self._tidy, daemon=True, name="desk-tidy"))
        for thread in self._threads:
            thread.start()

    def wait_until_ready(self) -> None:
        """Wait for the first worker that can work.

        Raises:
            ServiceError: none came up.
        """
        if not any(worker.wait_until_ready() for worker in self._workers):
            raise ServiceError("no worker process came up", None, "see the messages above")

    def close(self) -> None:
        """End the workers. Jobs under way wait in the folder for the next start."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.end()
        for thread in self._threads:
            thread.join(15)
        self.store.close()

    def submit(self, task: Task, uploads: Sequence[Upload], client: str) -> Job:
        """Take a job in.

        Args:
            task: What is asked for; checked already.
            uploads: As many pictures as it needs.
            client: Who asks, for its share of the queue.

        Raises:
            ServiceBusy: too much waits; refused at once, nothing is written.
            OutputFailed: it cannot be written down.
        """
        with self._changed:
            self._check_room(client)
            self._waiting.append(("", client))  # a place, until it is on the disk
        job: Job | None = None
        try:
            pictures = [(safe_name(upload.name), upload.data) for upload in uploads]
            job = self.store.add(task.kind, client, task_to_json(task), pictures)
        finally:
            with self._changed:
                self._waiting.remove(("", client))
                if job is not None:
                    self._waiting.append((job.id, client))
                    self._changed.notify_all()  # the tidying thread waits here too
        return job

    def get(self, key: str) -> Job:
        """The job called `key`.

        Raises:
            JobUnknown: there is none.
        """
        return self.store.get(key)

    def cancel(self, key: str) -> Job:
        """End a job as soon as may be; one that has ended stays as it is.

        Raises:
            JobUnknown: there is none.
        """
        job = self.store.get(key)
        with self._changed:
            if (key, job.client) in self._waiting:
                self._waiting.remove((key, job.client))
                is_free = True
            else:
                is_free = False
                if key in self._running:
                    self._cancelled.add(key)
        if is_free:
            self._end(key, Outcome("cancelled"))
        return self.store.get(key)

    def position(self, key: str) -> int:
        """How many jobs wait before this one."""
        with self._changed:
            return next((index for index, (waiting, _) in enumerate(self._waiting) if waiting == key), 0)

    def file(self, key: str, name: str) -> Path:
        """A file that the job made.

        Raises:
            JobUnknown: no such job, or it has made no file of that name.
        """
        job = self.store.get(key)
        folder = self.store.outputs(job)
        # Looked up among what there is, never joined from what a stranger wrote.
        found = {path.name: path for path in folder.iterdir() if path.is_file()} if folder.is_dir() else {}
        if name not in found or found[name].is_symlink() or name.startswith("."):
            raise JobUnknown("the job has no file of that name", None, "see its list of files")
        return found[name]

    def state(self) -> dict[str, Any]:
        """How it is doing."""
        with self._changed:
            waiting, running = len(self._waiting), len(self._running)
        alive = sum(worker.is_alive for worker in self._workers)
        return {
            "ok": alive > 0 and not self._is_closing,
            "workers": alive,
            "waiting": waiting,
            "running": running,
            "room": max(0, self.settings.waiting - waiting),
            "seconds_per_job": round(self._seconds, 3),
        }

    async def follow(self, key: str, after: int = 0) -> AsyncGenerator[tuple[int, dict[str, Any]]]:
        """The numbered events of a job as they happen, from the one after `after` on, until it has ended.

        Raises:
            JobUnknown: there is none.
        """
        loop = asyncio.get_running_loop()
        news = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(news.set)

        with self._changed:
            self._listeners.setdefault(key, set()).add(wake)
        try:
            while True:
                news.clear()
                job = await asyncio.to_thread(self.store.get, key)
                for number, event in await asyncio.to_thread(self.store.events, key, after):
                    after = number
                    yield number, event
                if job.has_ended:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):  # `wait_for` of Python 3.11 swallows a cancellation
                        await news.wait()
        finally:
            with self._changed:
                self._listeners.get(key, set()).discard(wake)
                if not self._listeners.get(key):
                    self._listeners.pop(key, None)

    async def wait(self, key: str, seconds: float) -> Job:
        """The job when it has ended, or as it is after that time."""

        async def to_the_end() -> None:
            async for _ in self.follow(key):
                pass

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(to_the_end(), seconds)
        return await asyncio.to_thread(self.store.get, key)

    def _check_room(self, client: str) -> None:
        own = sum(owner == client for _, owner in self._waiting)
        is_own = own >= self.settings.waiting_per_client
        if self._is_closing or is_own or len(self._waiting) >= self.settings.waiting:
            count = own if is_own else len(self._waiting)
            busy = ServiceBusy(
                f"{count} jobs wait already" + (" for you" if is_own else ""), None, "try again in a while"
            )
            busy.retry_after = max(1, min(120, round(self._seconds * count / 2 / self.settings.workers)))
            busy.is_own = is_own
            raise busy

    def _work(self, worker: Worker) -> None:
        while True:
            with self._changed:
                key = self._next()
                while key is None and not self._is_closing:
                    self._changed.wait()
                    key = self._next()
                if key is None or self._is_closing:
                    return
                self._running.add(key)
            try:
                self._do(worker, key)
            except Exception:
                if self._has_closed():
                    return
                LOG.exception("job %s could not be handled", key[:6])
                self._end(key, Outcome("died"))
            finally:
                with self._changed:
                    self._running.discard(key)
                    self._cancelled.discard(key)

    def _has_closed(self) -> bool:
        return self._is_closing

    def _next(self) -> str | None:
        """The oldest job that is on the disk; its place is given up."""
        for index, (key, _) in enumerate(self._waiting):
            if key:
                del self._waiting[index]
                return key
        return None

    def _do(self, worker: Worker, key: str) -> None:
        job = self.store.start(key)
        if job.attempts > _MOST_ATTEMPTS:
            self._end(key, Outcome("died"))
            return
        self._tell(key, {"event": "started", "attempt": job.attempts})
        order = Order(job.kind, job.options, self.store.inputs(job), job.pictures, self.store.outputs(job))
        began = time.monotonic()
        outcome = worker.do(order, lambda event: self._tell(key, event), lambda: key in self._cancelled)
        if self._is_closing and outcome.state == "died":
            return  # it is still "running" in the store, and taken up at the next start
        self._seconds = 0.8 * self._seconds + 0.2 * (time.monotonic() - began)
        if outcome.state == "died" and job.attempts < _MOST_ATTEMPTS:
            self.store.put_back(key)
            with self._changed:
                self._waiting.appendleft((key, job.client))
                self._changed.notify_all()  # the tidying thread waits here too
            return
        self._end(key, outcome)

    def _end(self, key: str, outcome: Outcome) -> None:
        reasons: Mapping[str, ZoomIQAError] = {
            "cancelled": JobCancelled("the job was cancelled", None, "send it again if that was a mistake"),
            "timed out": JobTimedOut(
                "the job took longer than the service allows",
                f"{self.settings.job_seconds:g} s",
                "try a smaller picture, or fewer candidates",
            ),
            "died": WorkerDied("the process that did the job died, twice", None, "try another picture or setting"),
        }
        if outcome.state == "done":
            self.store.end(key, "done", result=outcome.result)
        elif outcome.state == "failed" and outcome.error is not None:
            self.store.end(key, "failed", error=for_strangers(outcome.error))
        else:
            state: State = "cancelled" if outcome.state == "cancelled" else "failed"
            self.store.end(key, state, error=for_strangers(reasons[outcome.state]))
        self._last_event.pop(key, None)
        self._wake(key)

    def _tell(self, key: str, event: Mapping[str, Any]) -> None:
        if key not in self._last_event:
            self._last_event[key] = self.store.last_event(key)
        self._last_event[key] += 1
        self.store.tell(key, [(self._last_event[key], event)])
        self._wake(key)

    def _wake(self, key: str) -> None:
        with self._changed:
            listeners = list(self._listeners.get(key, ()))
        for wake in listeners:
            wake()

    def _tidy(self) -> None:
        """Remove what is older than it is kept for, now and then."""
        while not self._is_closing:
            with contextlib.suppress(Exception):
                self.store.remove_ended(time.time() - self.settings.keep_seconds)
            with self._changed:
                if not self._is_closing:
                    self._changed.wait(min(60.0, self.settings.keep_seconds))


def safe_name(name: str) -> str:
    """A stranger's file name as letters, digits, dots and hyphens, with an ending that a picture has; never empty."""
    base = re.split(r"[\\/]", name)[-1]
    stem, dot, ending = base.rpartition(".")
    if not dot or f".{ending.lower()}" not in SUFFIXES:
        stem, ending = base, ""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:_NAME_CHARACTERS] or "picture"
    return f"{stem}.{ending.lower()}" if ending else stem
