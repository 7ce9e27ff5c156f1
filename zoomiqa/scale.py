"""Many items over the workers of a Ray cluster: in order, streaming, and whole when a worker dies.

Ray Data runs the workers: one process each, made once, given a chunk of items at a time. A chunk is answered whole or
given to another worker, so nothing is lost or doubled. What waits for its turn lies in Ray's object store, whose
limits hold the workers back; of the results, this process holds one chunk. It must not know what an item is or what is
done with it.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

from zoomiqa.errors import ExtraMissing, OptionInvalid, ZoomIQAError

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[Sequence[T]], Iterable[R]]
"""What a worker does: one result per item, in order."""

_WHOLE_ATTEMPTS, _SINGLE_ATTEMPTS = 2, 2
"""Times that a chunk is begun as a whole, and then each item of it alone, before an item is held for what kills the
workers."""

_CHUNKS_PER_WORKER = 4
"""Least number of chunks per worker, so that none is left with nothing to do for long."""

_STORE_BYTES = 512 * 2**20
"""Object store of a local cluster: room for results that wait for their turn."""

_CONNECT_S = 5.0
"""Seconds in which a cluster must take a connection."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the work is done."""

    name: Literal["local", "ray"] = "local"
    """`local` is this machine, without Ray."""

    workers: int | None = None
    """Worker processes, each with its own model; `None` is as many as the cluster holds."""

    address: str | None = None
    """Of a running cluster (`host:6379`, or `auto`); `None` takes RAY_ADDRESS, and without it starts a local one."""

    gpus: float | None = None
    """GPUs that a worker takes; `None` is one where the work can use it and the cluster has any."""

    def __post_init__(self) -> None:
        if self.name not in ("local", "ray"):
            raise OptionInvalid("the engine must be 'local' or 'ray'", self.name, "use one of them")
        if self.workers is not None and self.workers < 1:
            raise OptionInvalid("workers must be at least 1", self.workers, "give a positive number")
        if self.gpus is not None and not 0 <= self.gpus < math.inf:
            raise OptionInvalid("a worker's GPUs must be at least 0", self.gpus, "0 keeps to the processor")

    @property
    def place(self) -> str | None:
        """The cluster's address, or `None` for a local one."""
        return self.address or os.environ.get("RAY_ADDRESS") or None


def check_engine(engine: Engine) -> None:
    """Whether the engine can be used, found out in seconds, before anything is written.

    Raises:
        ExtraMissing: Ray is not installed.
        OptionInvalid: nothing answers at the cluster's address.
    """
    if engine.name == "local":
        return
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise ExtraMissing("engine 'ray' needs Ray Data", None, 'run: pip install "zoomiqa[scale]"')
    host, mark, port = (engine.place or "").removeprefix("ray://").rpartition(":")
    if not engine.place or engine.place == "auto":
        return
    if not mark or not port.isdigit() or int(port) > 65535:
        raise OptionInvalid("a cluster's address must be HOST:PORT, or auto", engine.place, "Ray's own port is 6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise _unreachable(engine.place, error) from error


def on_ray(
    items: Sequence[T],
    make_worker: Callable[[], Work[T, R]],
    engine: Engine,
    *,
    lost: Callable[[T], R],
    parallel: bool,
    largest_chunk: int,
) -> Iterator[R]:
    """One result per item, in the order of `items`.

    Args:
        items: Must be picklable, as must be `make_worker` and the results.
        make_worker: Called once in each worker, in the folder that this process is in.
        engine: Which cluster, how many workers.
        lost: The result of an item whose workers died several times over.
        parallel: Whether a worker per processor core pays; without it and without GPUs, one worker is made.
        largest_chunk: Items given to a worker at once, at most.

    Raises:
        ExtraMissing: Ray is not installed.
        OptionInvalid: the cluster cannot be reached, or has not what a worker needs; whatever `make_worker` raises.
    """
    check_engine(engine)
    if not items:
        return
    with _cluster(engine) as ray:
        has = ray.cluster_resources()
        gpus = _gpus_per_worker(engine, has.get("GPU", 0), parallel=parallel)
        most = has["GPU"] / gpus if gpus else (has.get("CPU", 1) if parallel else 1)
        workers = engine.workers or max(1, int(most))
        size = max(1, min(largest_chunk, math.ceil(len(items) / (_CHUNKS_PER_WORKER * workers))))
        chunks = [_Chunk(tuple(items[start : start + size])) for start in range(0, len(items), size)]
        # Closed before the cluster is left: what still feeds its workers would start another one.
        with closing(_stream(ray, chunks, make_worker, workers=workers, gpus=gpus)) as answers:
            for chunk, answer in zip(chunks, answers, strict=True):
                if isinstance(answer, Exception):
                    raise answer
                for item, result in zip(chunk.items, answer.items, strict=True):
                    yield lost(item) if isinstance(result, _Lost) else result


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Items that are answered together, or their results. A class, so that no array library takes it apart."""

    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Lost:
    """In place of a result: this item's workers died."""


class _Ledger:
    """Counts what was begun and not ended, in a process that outlives the workers: Ray gives the chunk of a dead one
    out again without end."""

    def __init__(self) -> None:
        self._begun: Counter[tuple[int, int | None]] = Counter()

    def begin(self, chunk: int, item: int | None = None) -> int:
        """How often the chunk, or one item of it, has been begun without an end, this time included."""
        self._begun[chunk, item] += 1
        return self._begun[chunk, item]

    def end(self, chunk: int, item: int) -> None:
        """The item did not kill its worker."""
        del self._begun[chunk, item]


class _Worker:
    """What Ray makes once in each worker process. It never raises: a failure of the run travels as a value."""

    def __init__(self, make_worker: Callable[[], Work[Any, Any]], folder: str, ledger: Any) -> None:
        self._make_worker, self._folder, self._ledger = make_worker, folder, ledger
        self._work: Work[Any, Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """`number` and `chunk` in; `answer`, a chunk of results or an error, out."""
        chunks = zip(batch["number"], batch["chunk"], strict=True)
        return {"answer": _column([self._answer(int(number), chunk.items) for number, chunk in chunks])}

    def _answer(self, number: int, items: Sequence[Any]) -> _Chunk | Exception:
        try:
            if self._work is None:
                self._enter_folder()
                self._work = self._make_worker()
            work = self._work
            if self._begin(number) <= _WHOLE_ATTEMPTS:
                return _Chunk(tuple(work(items)))
            # Workers die of it: one by one, so that the others are spared.
            return _Chunk(tuple(self._answer_alone(work, number, place, item) for place, item in enumerate(items)))
        except ZoomIQAError as error:
            return error
        except Exception as error:  # its class may not exist where this is read
            return RuntimeError(f"a worker failed: {error!r}\n{traceback.format_exc()}")

    def _answer_alone(self, work: Work[Any, Any], number: int, place: int, item: Any) -> Any:
        if self._begin(number, place) > _SINGLE_ATTEMPTS:
            return _Lost()
        (result,) = work([item])
        self._ledger.end.remote(number, place)  # kept in order with the next beginning
        return result

    def _begin(self, number: int, place: int | None = None) -> int:
        return int(import_module("ray").get(self._ledger.begin.remote(number, place)))

    def _enter_folder(self) -> None:
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise OptionInvalid(
                "a worker cannot enter the folder that the run was started in",
                f"{self._folder} on {socket.gethostname()}",
                "start it in a folder that every machine of the cluster has",
            ) from error


def _stream(
    ray: Any, chunks: Sequence[_Chunk], make_worker: Callable[[], Work[Any, Any]], *, workers: int, gpus: float
) -> Generator[_Chunk | Exception, None, None]:
    """The answer to each chunk, in order."""
    ledger = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Ledger).remote()
    rows = [{"number": number, "chunk": chunk} for number, chunk in enumerate(chunks)]
    with warnings.catch_warnings():
        # Of Ray's own settings, which it reads when it is first used.
        warnings.filterwarnings("ignore", "`use_", DeprecationWarning, r"ray\.data\.context")
        data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data.context.enable_progress_bars = False
    data.context.execution_options.preserve_order = True
    answered = data.map_batches(
        _Worker,
        fn_constructor_kwargs={"make_worker": make_worker, "folder": os.getcwd(), "ledger": ledger},
        batch_size=None,
        # One must come up; the others are asked for as well, and join when the cluster has room.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
        num_cpus=1,
        num_gpus=gpus,
    )
    batches = answered.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)
    with closing(iter(batches)) as running:
        for batch in running:
            yield from batch["answer"]


@contextmanager
def _cluster(engine: Engine) -> Iterator[Any]:
    """Ray, connected; what this started or joined is left at the end. One that the host program joined stays."""
    # Before the first import. No figures on the use are sent anywhere, only words that matter are printed, and no call
    # starts a cluster by itself once ours has been left.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
    ray = import_module("ray")
    import_module("ray.data")
    if ray.is_initialized():
        yield ray
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if engine.place is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        settings |= {"address": "local", "num_cpus": engine.workers or cores, "include_dashboard": False}
        settings |= {"object_store_memory": _STORE_BYTES}
    else:
        settings |= {"address": engine.place}
    with _off_standard_output():
        try:
            _connect(ray, engine, settings)
            yield ray
        finally:
            ray.shutdown()


def _connect(ray: Any, engine: Engine, settings: dict[str, Any]) -> None:
    try:
        ray.init(**settings)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise _unreachable(engine.place or "this machine", error) from error


@contextmanager
def _off_standard_output() -> Iterator[None]:
    """Ray prints word of dead workers to standard output, whatever it is told; it goes to standard error instead."""
    module: Any = import_module("ray._private.worker")
    printing = getattr(module, "print_to_stdstream", None)
    if printing is None:
        yield
        return
    module.print_to_stdstream = lambda data, *args, **named: printing({**data, "is_err": True}, *args, **named)
    try:
        yield
    finally:
        module.print_to_stdstream = printing


def _gpus_per_worker(engine: Engine, has: float, *, parallel: bool) -> float:
    if engine.gpus is None:
        return 0 if parallel or not has else 1
    if engine.gpus > has:
        raise OptionInvalid(
            "the cluster has fewer GPUs than one worker is to take", f"{engine.gpus:g} of {has:g}", "ask for fewer"
        )
    return engine.gpus


def _unreachable(place: str, error: Exception) -> OptionInvalid:
    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return OptionInvalid(
        "no Ray cluster answers there",
        place,
        f"({why}) check the address and, where the cluster asks for a token, RAY_AUTH_MODE=token; or leave the address "
        "out for a local one",
    )


def _column(values: Sequence[Any]) -> Any:
    """Python objects as a column that nothing takes apart."""
    import numpy as np

    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
