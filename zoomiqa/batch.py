"""Many files through one assessor: in order, in parallel where that helps, one bad file never stopping the rest.

It must not know how a picture is rated or where its record goes.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from zoomiqa.assessors.base import Assessor
from zoomiqa.assessors.registry import AssessorSpec, create_assessor
from zoomiqa.errors import OptionInvalid, ZoomIQAError
from zoomiqa.imaging import Picture, open_picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Assessment, Choice, ImageInfo, failed

_WORTH_A_POOL = 12
"""Files from which starting worker processes (about a second) pays."""

_HELD_FAILURES = 16
"""Failures that may wait behind a picture under way before the assessor is made to finish what it has."""


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How files are opened."""

    limits: Limits = LOCAL
    allow_truncated: bool = False
    frame: int = 0


def choose_jobs(requested: int | None, files: int, assessor: Assessor) -> Choice:
    """How many worker processes to use, with the reason.

    Raises:
        OptionInvalid: fewer than one is asked for.
    """
    if requested is not None and requested < 1:
        raise OptionInvalid("jobs must be at least 1", requested, "give a positive number")
    if not assessor.parallel:
        return Choice("1", "this assessor batches by itself")
    if requested is not None:
        return Choice(str(requested), "asked for")
    if files < _WORTH_A_POOL:
        return Choice("1", f"fewer than {_WORTH_A_POOL} files do not repay starting processes")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Choice(str(cores), f"{cores} processor cores")


def assess_files(
    paths: Sequence[Path],
    spec: AssessorSpec,
    *,
    options: OpenOptions | None = None,
    jobs: int = 1,
    assessor: Assessor | None = None,
) -> Iterator[Assessment]:
    """One assessment per path, in the order of `paths`.

    Args:
        paths: Picture files.
        spec: Which assessor; worker processes build their own from it.
        options: How files are opened.
        jobs: Worker processes; 1 works in this process.
        assessor: One built already from `spec`, used when `jobs` is 1.
    """
    options = options or OpenOptions()
    if jobs <= 1:
        yield from _assess_here(paths, assessor or create_assessor(spec), options)
        return
    # Started afresh ("spawn"): a forked copy of a process with running threads may hang.
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(spec, options, os.getpid())
    ) as pool:
        try:
            yield from _in_order(pool.submit, paths, window=4 * jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_order(
    submit: Callable[[Callable[[Path], Assessment], Path], Future[Assessment]], paths: Iterable[Path], window: int
) -> Iterator[Assessment]:
    """Results in the order of `paths`, with at most `window` under way, so that memory does not grow with the run."""
    under_way: deque[Future[Assessment]] = deque()
    for path in paths:
        under_way.append(submit(_assess_in_worker, path))
        if len(under_way) >= window:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _assess_here(paths: Iterable[Path], assessor: Assessor, options: OpenOptions) -> Iterator[Assessment]:
    """Results in the order of `paths`; a failure is given out as soon as everything before it is."""
    source = iter(paths)
    for path in source:
        opened = _open_or_fail(path, options)
        if isinstance(opened, Assessment):
            yield opened
        else:
            yield from _assess_stretch(opened, source, assessor, options)


def _assess_stretch(
    first: Picture, source: Iterator[Path], assessor: Assessor, options: OpenOptions
) -> Iterator[Assessment]:
    """Results of `first` and of what follows it in `source`, up to a failure that must not wait."""
    waiting: deque[Assessment | None] = deque()  # in order: failures, and `None` for a picture that the assessor has

    def pictures() -> Iterator[Picture]:
        waiting.append(None)
        yield first
        for path in source:
            opened = _open_or_fail(path, options)
            if isinstance(opened, Picture):
                waiting.append(None)
                yield opened
                continue
            waiting.append(opened)
            failures = sum(item is not None for item in waiting)
            if failures == len(waiting) or failures >= _HELD_FAILURES:
                return

    for assessment in assessor.assess(pictures()):
        waiting.popleft()
        yield assessment
        while waiting and waiting[0] is not None:
            yield waiting.popleft()  # type: ignore[misc]
    yield from (item for item in waiting if item is not None)


def _open_or_fail(path: Path, options: OpenOptions) -> Picture | Assessment:
    try:
        return open_one(path, options)
    except ZoomIQAError as error:
        return failed_file(path, error, options.limits)


def open_one(path: Path, options: OpenOptions) -> Picture:
    """Open one file as the options say."""
    return open_picture(path, limits=options.limits, allow_truncated=options.allow_truncated, frame=options.frame)


def failed_file(path: Path, error: ZoomIQAError, limits: Limits = LOCAL) -> Assessment:
    """The record of a file that could not be opened."""
    digest = file_digest(path, limit_bytes=limits.file_bytes)
    return failed(error.to_dict(), image=ImageInfo(str(path), digest, 0, 0))


def file_digest(path: Path, *, limit_bytes: int = LOCAL.file_bytes) -> str | None:
    """SHA-256 of a regular file's bytes, or `None` where it cannot be read or has more than `limit_bytes`.

    Devices and pipes are not read: they may have no end, or make the reader wait for one.
    """
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    digest, total = hashlib.sha256(), 0
    try:
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            while piece := file.read(2**20):
                digest.update(piece)
                total += len(piece)
                if total > limit_bytes:
                    return None
    except (OSError, ValueError):  # ValueError: a NUL inside the name
        return None
    return digest.hexdigest()


_worker: tuple[Assessor, OpenOptions] | None = None


def _start_worker(spec: AssessorSpec, options: OpenOptions, parent: int) -> None:
    global _worker
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent finishes the current record and stops us
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()
    import cv2

    cv2.setNumThreads(1)  # the pool already has one process per core
    _worker = (create_assessor(spec), options)


def _die_with_parent(parent: int) -> None:
    """End this worker when the run was killed; a pool's worker would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _assess_in_worker(path: Path) -> Assessment:
    if _worker is None:
        raise RuntimeError("the worker was not started")
    assessor, options = _worker
    return next(_assess_here([path], assessor, options))
