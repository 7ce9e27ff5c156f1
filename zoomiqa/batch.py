"""Many files through one assessor: in order, in parallel where that helps, one bad file never stopping the rest.

It must not know how a picture is rated or where its record goes.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from zoomiqa.assessors.base import Assessor, Task
from zoomiqa.assessors.registry import AssessorSpec, create_assessor
from zoomiqa.errors import BackendFailed, ImageNotFound, OptionInvalid, ZoomIQAError
from zoomiqa.imaging import Picture, open_picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.scale import Engine, on_ray
from zoomiqa.types import Assessment, Choice, ImageInfo, failed

_WORTH_A_POOL = 12
"""Files from which starting worker processes (about a second) pays."""

_CHUNK, _CHUNK_OF_A_MODEL = 32, 256
"""Files given at once to a worker of a cluster: to one that works on its processor, and to one that batches."""

_OPENED_AHEAD = 2
"""Files opened in threads of their own while a model is at work."""

File = tuple[Path, str | None]
"""A picture's path and its own question."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How files are opened."""

    limits: Limits = LOCAL
    allow_truncated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Part of a run's settings."""
        return asdict(self)


def run_settings(assessor: Assessor, spec: AssessorSpec, options: OpenOptions) -> dict[str, Any]:
    """What decides the records of a run of `assessor`, built from `spec`: the settings of its `RecordFile`."""
    return {"assessor": assessor.info.to_dict(), **spec.to_dict(), **options.to_dict()}


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
    questions: Sequence[str | None] | None = None,
    options: OpenOptions | None = None,
    jobs: int = 1,
    assessor: Assessor | None = None,
    engine: Engine | None = None,
) -> Iterator[Assessment]:
    """One assessment per path, in the order of `paths`; the same ones whatever `jobs` and `engine` are.

    Args:
        paths: Picture files.
        spec: Which assessor; worker processes build their own from it.
        questions: One per path where pictures have their own; `None` asks what the assessor would ask.
        options: How files are opened.
        jobs: Worker processes; 1 works in this process.
        assessor: One built already from `spec`, used when `jobs` is 1.
        engine: Where; this machine by default. A Ray cluster's workers open the files themselves, `jobs` is not used.
    """
    options = options or OpenOptions()
    files = list(zip(paths, questions or [None] * len(paths), strict=True))
    if engine is not None and engine.name == "ray":
        yield from _assess_on_ray(files, spec, options, engine, assessor or create_assessor(spec))
        return
    if jobs <= 1:
        yield from assess_here(files, assessor or create_assessor(spec), options)
        return
    # Started afresh ("spawn"): a forked copy of a process with running threads may hang.
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(spec, options, os.getpid())
    ) as pool:
        try:
            yield from _in_order(lambda file: pool.submit(_assess_in_worker, file), files, window=4 * jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def assess_here(files: Iterable[File], assessor: Assessor, options: OpenOptions) -> Iterator[Assessment]:
    """Results in the order of `files`, in this process; a failure is given out as soon as everything before it is."""
    if assessor.parallel:  # it works on the processor itself: opening beside it would only take its time
        return assessor.assess(_open_or_fail(file, options) for file in files)
    return assessor.assess(_opened_ahead(files, options))


def _opened_ahead(files: Iterable[File], options: OpenOptions) -> Iterator[Task | Assessment]:
    """The opened files in order, the next ones being opened while the assessor waits for its model."""
    with ThreadPoolExecutor(_OPENED_AHEAD, thread_name_prefix="open") as pool:
        try:
            yield from _in_order(lambda file: pool.submit(_open_or_fail, file, options), files, window=_OPENED_AHEAD)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(submit: Callable[[File], Future[T]], files: Iterable[File], window: int) -> Iterator[T]:
    """Results in the order of `files`, with at most `window` under way, so that memory does not grow with the run."""
    under_way: deque[Future[T]] = deque()
    for file in files:
        under_way.append(submit(file))
        if len(under_way) >= window:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _open_or_fail(file: File, options: OpenOptions) -> Task | Assessment:
    path, question = file
    try:
        return Task(open_one(path, options), question)
    except ZoomIQAError as error:
        return failed_file(path, error, options.limits)


def open_one(path: Path, options: OpenOptions) -> Picture:
    """Open one file as the options say."""
    return open_picture(path, limits=options.limits, allow_truncated=options.allow_truncated)


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


def _assess_on_ray(
    files: Sequence[File], spec: AssessorSpec, options: OpenOptions, engine: Engine, assessor: Assessor
) -> Iterator[Assessment]:
    def lost(file: File) -> Assessment:
        dead = BackendFailed("every worker that had this picture died", None, "see Ray's log, or assess it alone")
        return failed_file(file[0], dead, options.limits)

    if engine.gpus is None and "gpus" in spec.options:  # those that share one model
        engine = replace(engine, gpus=spec.options["gpus"])
    return on_ray(
        files,
        partial(_cluster_worker, spec, options, socket.gethostname()),
        engine,
        lost=lost,
        parallel=assessor.parallel,
        largest_chunk=_CHUNK if assessor.parallel else _CHUNK_OF_A_MODEL,
    )


def _cluster_worker(
    spec: AssessorSpec, options: OpenOptions, home: str
) -> Callable[[Sequence[File]], Iterator[Assessment]]:
    """What a worker of a cluster does with files; `home` is the machine that the run was started on."""
    assessor, here = create_assessor(spec), socket.gethostname()
    if assessor.parallel:
        use_one_thread()

    def work(files: Sequence[File]) -> Iterator[Assessment]:
        for (path, _), assessment in zip(files, assess_here(files, assessor, options), strict=True):
            if here != home and assessment.error and assessment.error["code"] == ImageNotFound.code:
                unseen = ImageNotFound(
                    f"the worker on {here} does not see the picture", path, "keep pictures where every machine has them"
                )
                yield failed_file(path, unseen, options.limits)
            else:
                yield assessment

    return work


_worker: tuple[Assessor, OpenOptions] | None = None


def _start_worker(spec: AssessorSpec, options: OpenOptions, parent: int) -> None:
    global _worker
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent finishes the current record and stops us
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()
    use_one_thread()
    _worker = (create_assessor(spec), options)


def use_one_thread() -> None:
    """For a worker: there is one process per core already."""
    import cv2

    cv2.setNumThreads(1)


def _die_with_parent(parent: int) -> None:
    """End this worker when the run was killed; a pool's worker would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _assess_in_worker(file: File) -> Assessment:
    if _worker is None:
        raise RuntimeError("the worker was not started")
    return next(assess_here([file], *_worker))
