"""Worker processes: one job at a time each, told of through a pipe, ended when it must be. No store, no clients.

A worker is a fresh process ("spawn"). It ends with the service, however that ends: it watches its parent. A job that
crashes its worker costs nobody else anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from zoomiqa.errors import BackendFailed, ImageTooLarge, ZoomIQAError

from .settings import ServiceSettings
from .tasks import task_from_json

LOG = logging.getLogger("restore_bridge.app")

GRACE_SECONDS = 3.0
"""How long a worker may take to come to a place where it can stop; then it is ended."""

_START_SECONDS = 180.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Order:
    """A job as a worker gets it."""

    kind: str
    options: Mapping[str, Any]
    files: list[Path]
    names: tuple[str, ...]
    out: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended."""

    state: Literal["done", "failed", "cancelled", "timed out", "died"]
    result: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None


class Worker:
    """One process. `do` is called by one thread at a time."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._coming_up = threading.Lock()
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._stop = context.Event()
        self._process = context.Process(
            target=_serve,
            args=(theirs, self._stop, self._settings, os.getpid()),
            daemon=True,
            name="restore-bridge job",
        )
        self._process.start()
        theirs.close()
        self._is_ready = False

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def wait_until_ready(self) -> bool:
        """Whether it came up."""
        with self._coming_up:  # the job's thread and the one that starts the service may both wait
            if not self._is_ready:
                try:
                    self._is_ready = self._pipe.poll(_START_SECONDS) and self._pipe.recv()[0] == "ready"
                except (EOFError, OSError):
                    self._is_ready = False
            return self._is_ready

    def do(self, order: Order, tell: Callable[[Mapping[str, Any]], None], is_cancelled: Callable[[], bool]) -> Outcome:
        """Have a job done; whatever happens to the process, this returns."""
        if not self.is_alive or not self.wait_until_ready():
            self._renew()
            if not self.wait_until_ready():
                return Outcome("died")
        self._stop.clear()
        deadline = time.monotonic() + self._settings.job_seconds
        asked_at: float | None = None
        try:
            self._pipe.send(order)
            while True:
                if self._pipe.poll(_LOOK_SECONDS):
                    kind, value = self._pipe.recv()
                    if kind == "event":
                        tell(value)
                        continue
                    if kind == "cancelled" and not is_cancelled():
                        return Outcome("timed out")
                    return Outcome(kind, **value)
                now = time.monotonic()
                if asked_at is None and (is_cancelled() or now > deadline):
                    asked_at = now
                    self._stop.set()
                if asked_at is not None and now > asked_at + GRACE_SECONDS:
                    self._renew()
                    return Outcome("cancelled" if is_cancelled() else "timed out")
        except (EOFError, OSError):
            LOG.warning("a worker died (exit code %s)", self._process.exitcode)
            self._renew()
            return Outcome("died")

    def _renew(self) -> None:
        self.end()
        self._start()

    def end(self) -> None:
        """End the process now."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join(10)
        with contextlib.suppress(OSError):
            self._pipe.close()


def _serve(pipe: Connection, stop: Any, settings: ServiceSettings, parent: int) -> None:
    """The worker's life."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service ends its workers itself
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    if settings.workers > 1:
        from zoomiqa.batch import use_one_thread

        use_one_thread()
    from .work import Bench, Stopped

    bench = Bench(settings, stop.is_set)
    bench.warm()
    pipe.send(("ready", None))
    sending = threading.Lock()

    def tell(event: Mapping[str, Any]) -> None:
        with sending:
            pipe.send(("event", event))

    while True:
        try:
            order: Order = pipe.recv()
        except EOFError:
            return
        try:
            task = task_from_json(order.kind, order.options)
            result = bench.do(task, order.files, order.names, order.out, tell)
            answer: tuple[str, dict[str, Any]] = ("done", {"result": result})
        except Stopped:
            answer = ("cancelled", {})
        except ZoomIQAError as error:
            answer = ("failed", {"error": error.to_dict()})
        except MemoryError:
            too_large = ImageTooLarge("the picture does not fit in memory", None, "resize it")
            answer = ("failed", {"error": too_large.to_dict()})
        except Exception:
            LOG.exception("a job failed")
            unknown = BackendFailed("the job failed", None, "see the service's log")
            answer = ("failed", {"error": unknown.to_dict()})
        pipe.send(answer)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
