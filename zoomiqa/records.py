"""Record files: one JSON object per line, written so that a run can be killed at any moment and go on.

Beside `results.jsonl` lies `results.jsonl.run.json` with the settings and their fingerprint: a run resumed with other
settings is refused with the difference. Neither file holds a time or a duration, so a resumed file is byte for byte the
uninterrupted one. It must not know how a record comes about.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import stat
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from importlib import import_module, resources
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from zoomiqa.errors import (
    OptionInvalid,
    OutputFailed,
    OutputWouldOverwrite,
    RecordCorrupt,
    RecordLocked,
    RecordSettingsChanged,
)
from zoomiqa.files import atomic_write_text, printable, refuse_inputs

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None  # Windows has none


def schema() -> dict[str, Any]:
    """The published JSON schema of one record."""
    text = (resources.files("zoomiqa") / "data" / "assessment.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def to_line(record: Mapping[str, Any]) -> bytes:
    """One record as a line of UTF-8 JSON. NaN and infinity are refused; names that are not UTF-8 are escaped."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False).encode() + b"\n"


def fingerprint(settings: Mapping[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the settings' canonical JSON."""
    canonical = json.dumps(settings, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def read_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """The records of a file, in order; an unfinished last line is left out.

    Raises:
        OptionInvalid: the file is missing or cannot be opened.
        RecordCorrupt: a line that is not the last cannot be read.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise OptionInvalid(
            "the record file cannot be read", printable(str(path)), f"{reason or 'its name cannot be used'}; check it"
        ) from error
    with file:
        yield from read_record_lines(file, printable(Path(path).name))


def read_record_lines(lines: Iterable[bytes | str], name: str) -> Iterator[dict[str, Any]]:
    """The records in `lines` (of a file, or of standard input); blank ones and an unfinished last one are left out.

    Args:
        lines: JSON Lines, with their line feeds or without.
        name: What an error calls them.

    Raises:
        RecordCorrupt: a line that is not the last, or that ends in a line feed, cannot be read.
    """
    unfinished: RecordCorrupt | None = None
    for number, line in enumerate(lines, start=1):
        if unfinished is not None:
            raise unfinished
        if not line.strip():
            continue
        try:
            record = _parse_line(line, number, name)
        except RecordCorrupt as error:
            if line[-1:] in (b"\n", "\n"):
                raise
            unfinished = error
        else:
            yield record


def latest(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records that count: of several about one subject the last, in the place of the first.

    A subject is a row of a data set where the record tells of one under `evaluation` (a picture may be in two, or twice
    in one), else a picture's path. Records that name neither all count.
    """
    found: dict[Hashable, dict[str, Any]] = {}
    for number, record in enumerate(records):
        subject = _subject(record)
        found[number if subject is None else subject] = record
    return list(found.values())


def _subject(record: Mapping[str, Any]) -> tuple[str, int] | str | None:
    row, image = record.get("evaluation"), record.get("image")
    if isinstance(row, dict):
        name, index = row.get("dataset"), row.get("source_index")
        if isinstance(name, str) and isinstance(index, int):
            return name, index
    path = image.get("path") if isinstance(image, dict) else None
    return path if isinstance(path, str) else None


class RecordFile:
    """An open record file: a context manager that appends records and knows which are already there.

    Args:
        path: The JSON Lines file.
        settings: What decides the records' content; must be JSON.
        resume: Continue an existing file.
        overwrite: Replace an existing file.
        protected: Files that must not be written to, whatever else is set: the run's inputs.
        key: What identifies a record; of several with one key, the last counts.

    Raises:
        OutputWouldOverwrite: the file holds records and neither `resume` nor `overwrite` is set; or it, its run file or
            its lock is one of `protected`, also by way of a link.
        RecordSettingsChanged: resumed with other settings.
        RecordCorrupt: a line that is not the last cannot be read, or has no usable key.
        RecordLocked: another live process writes it.
        OutputFailed: the folder is missing or read-only, or what is at `path` is no regular file.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
        protected: Collection[Path] = (),
        key: Callable[[Mapping[str, Any]], Hashable] | None = None,
    ) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings, allow_nan=False))
        self.done: dict[Hashable, dict[str, Any]] = {}
        """Records already in the file, by `key`: (path, sha256) of their picture unless another one is given."""

        self._resume = resume
        self._overwrite = overwrite
        self._protected = protected
        self._key = key or record_key
        self._file: BinaryIO | None = None
        self._lock = self.path.with_name(self.path.name + ".lock")
        self._lock_handle: int | None = None
        self._run_file = self.path.with_name(self.path.name + ".run.json")

    def __enter__(self) -> RecordFile:
        refuse_inputs((self.path, self._run_file, self._lock), self._protected, "write to another file")
        self._refuse_other_than_file()
        try:
            self._take_lock()
        except OSError as error:
            raise OutputFailed("the record file's folder cannot be written", self.path.parent, _why(error)) from error
        try:
            self._open()
        except BaseException:
            self._release_lock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._release_lock()

    def finished(self, *, retry_failed: bool) -> dict[Hashable, dict[str, Any]]:
        """Those of `done` that need not be made again: all, or with `retry_failed` those without an error."""
        return {key: record for key, record in self.done.items() if not (retry_failed and record.get("error"))}

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it is on the disk when this returns.

        Raises:
            OutputFailed: the disk is full or the file cannot be written; what was written before stays resumable.
        """
        if self._file is None:
            raise OutputFailed("the record file is not open", self.path.name, "use it in a with statement")
        line = to_line(record)
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputFailed("a record could not be written", self.path.name, _why(error)) from error
        self.done[self._key(record)] = dict(record)

    def _refuse_other_than_file(self) -> None:
        try:
            mode = os.stat(self.path).st_mode
        except (OSError, ValueError):  # not there, or said when it is opened
            return
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise OutputFailed(f"the place of the record file is {kind}", printable(str(self.path)), "name a file")

    def _open(self) -> None:
        exists = self.path.exists() and self.path.stat().st_size > 0
        if exists and not (self._resume or self._overwrite):
            raise OutputWouldOverwrite(
                "the record file already holds records", self.path, "pass --resume to go on, or --overwrite"
            )
        keep = 0
        if exists and self._resume:
            self._check_settings()
            try:
                keep = self._read_existing()
            except OSError as error:
                raise OutputFailed("the record file cannot be read", self.path, _why(error)) from error
        if not keep:
            run = {"fingerprint": fingerprint(self.settings), "settings": self.settings}
            atomic_write_text(self._run_file, json.dumps(run, indent=2, sort_keys=True, ensure_ascii=True) + "\n")
        try:
            self._file = open(  # noqa: SIM115 - closed in __exit__
                self.path, "r+b" if self.path.exists() else "w+b"
            )
            self._file.truncate(keep)
            self._file.seek(keep)
        except OSError as error:
            raise OutputFailed("the record file cannot be opened for writing", self.path, _why(error)) from error

    def _read_existing(self) -> int:
        """Load finished records; returns where the next one goes (an unfinished last line is written over)."""
        position = 0

        def finished(lines: Iterable[bytes]) -> Iterator[bytes]:
            nonlocal position
            for line in takewhile(lambda line: line.endswith(b"\n"), lines):
                position += len(line)
                yield line

        name = printable(self.path.name)
        with open(self.path, "rb") as file:
            for number, record in enumerate(read_record_lines(finished(file), name), start=1):
                try:
                    self.done[self._key(record)] = record
                except (AttributeError, KeyError, TypeError) as error:  # of foreign values, or of one that is no key
                    raise RecordCorrupt(
                        f"record {number} of {name} does not say what it is about", None, "mend or remove it"
                    ) from error
        return position

    def _check_settings(self) -> None:
        try:
            before = dict(json.loads(self._run_file.read_text("utf-8"))["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordSettingsChanged(
                "the settings of the record file are not known, its run file is missing or damaged",
                self._run_file.name,
                "write to a new file, or pass --overwrite",
            ) from error
        if fingerprint(before) != fingerprint(self.settings):
            raise RecordSettingsChanged(
                "the record file was made with other settings",
                "; ".join(_differences(before, self.settings)),
                "use the same settings, write to a new file, or pass --overwrite",
            )

    def _take_lock(self) -> None:
        """Hold the lock file with `flock`, which the system lets go of when this process ends, however it ends.

        Where the system or the file system has no `flock`, the file's existence is the lock. What it says (process and
        machine) is for people only.
        """
        for _ in range(100):
            handle, created = self._open_lock()
            if handle is None:
                continue
            try:
                held = _flock(handle)
                if held is None and created:
                    held = True
                if not held:
                    raise RecordLocked(
                        "another process writes this record file",
                        self._lock.name,
                        "wait for it, or use another file"
                        + ("; if no run is under way, remove the lock file" if held is None else ""),
                    )
                if not _is_file_at(handle, self._lock):
                    continue  # its last owner removed it between our opening and our locking
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, 0)
                    os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
                self._lock_handle, handle = handle, None
                return
            finally:
                if handle is not None:
                    os.close(handle)
        raise RecordLocked("the record file's lock cannot be taken", self._lock.name, "try again, or remove the file")

    def _open_lock(self) -> tuple[int | None, bool]:
        """The open lock file (`None` if it vanished meanwhile), and whether this call made it."""
        flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)  # a link could lead to any file, and ours is emptied
        try:
            return os.open(self._lock, flags | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                return os.open(self._lock, flags), False
            return None, False

    def _release_lock(self) -> None:
        if self._lock_handle is None:
            return
        if fcntl is None:  # Windows does not remove an open file
            os.close(self._lock_handle)
            self._lock.unlink(missing_ok=True)
        else:
            # Removed while it is held: after letting go, it could be the next one's already.
            try:
                self._lock.unlink(missing_ok=True)
            finally:
                os.close(self._lock_handle)
        self._lock_handle = None


def _flock(handle: int) -> bool | None:
    """Lock the open file for this process alone: `True` done, `False` another holds it, `None` there is no `flock`."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK):
            return None
        raise
    return True


def _is_file_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def record_key(record: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What identifies a record: its picture's path and content."""
    image = record.get("image") or {}
    return (image.get("path"), image.get("sha256"))


def _parse_line(line: bytes | str, number: int, name: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordCorrupt(f"line {number} of {name} cannot be read", None, "mend or remove that line") from error
    if not isinstance(record, dict):
        raise RecordCorrupt(f"line {number} of {name} is not an object", type(record).__name__, "mend or remove it")
    return record


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name}: {before!r} then, {now!r} now"


def _why(error: OSError) -> str:
    return f"{error.strerror or 'unknown reason'}; check the folder, its rights and free space"
