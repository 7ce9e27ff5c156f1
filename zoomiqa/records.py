"""Record files: one JSON object per line, written so that a run can be killed at any moment and go on.

Beside `results.jsonl` lies `results.jsonl.run.json` with the settings and their fingerprint: a run resumed with other
settings is refused with the difference. Neither file holds a time or a duration, so a resumed file is byte for byte the
uninterrupted one. It must not know how a record comes about.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from zoomiqa.errors import OutputFailed, OutputWouldOverwrite, RecordCorrupt, RecordLocked, RecordSettingsChanged
from zoomiqa.files import atomic_write_text


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
        RecordCorrupt: a line that is not the last cannot be read.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield _parse_line(line, number, Path(path).name)


class RecordFile:
    """An open record file: a context manager that appends records and knows which are already there.

    Args:
        path: The JSON Lines file.
        settings: What decides the records' content; must be JSON.
        resume: Continue an existing file.
        overwrite: Replace an existing file.

    Raises:
        OutputWouldOverwrite: the file holds records and neither `resume` nor `overwrite` is set.
        RecordSettingsChanged: resumed with other settings.
        RecordCorrupt: a line that is not the last cannot be read.
        RecordLocked: another live process writes it.
        OutputFailed: the folder is missing or read-only.
    """

    def __init__(
        self, path: str | Path, settings: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings, allow_nan=False))
        self.done: dict[tuple[str | None, str | None], dict[str, Any]] = {}
        """Records already in the file, by (path, sha256) of their picture."""

        self._resume = resume
        self._overwrite = overwrite
        self._file: BinaryIO | None = None
        self._lock = self.path.with_name(self.path.name + ".lock")
        self._run_file = self.path.with_name(self.path.name + ".run.json")

    def __enter__(self) -> RecordFile:
        try:
            self._take_lock()
        except OSError as error:
            raise OutputFailed("the record file's folder cannot be written", self.path.parent, _why(error)) from error
        try:
            self._open()
        except BaseException:
            self._lock.unlink(missing_ok=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.unlink(missing_ok=True)

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
        self.done[record_key(record)] = dict(record)

    def _open(self) -> None:
        exists = self.path.exists() and self.path.stat().st_size > 0
        if exists and not (self._resume or self._overwrite):
            raise OutputWouldOverwrite(
                "the record file already holds records", self.path, "pass --resume to go on, or --overwrite"
            )
        keep = 0
        if exists and self._resume:
            self._check_settings()
            keep = self._read_existing()
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
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                record = _parse_line(line, number, self.path.name)
                self.done[record_key(record)] = record
                position += len(line)
        return position

    def _check_settings(self) -> None:
        try:
            before = json.loads(self._run_file.read_text("utf-8"))["settings"]
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
        content = f"{os.getpid()} {socket.gethostname()}\n".encode()
        for _ in range(2):
            try:
                handle = os.open(self._lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if self._lock_is_live():
                    raise RecordLocked(
                        "another process writes this record file", self._lock.name, "wait for it, or use another file"
                    ) from None
                self._lock.unlink(missing_ok=True)
                continue
            os.write(handle, content)
            os.close(handle)
            return
        raise RecordLocked("the record file's lock cannot be taken", self._lock.name, "remove the lock file")

    def _lock_is_live(self) -> bool:
        """Whether the lock's process still runs. One on another machine counts as live; a killed one here does not."""
        try:
            pid, host = self._lock.read_text("utf-8").split()
            if host != socket.gethostname():
                return True
            os.kill(int(pid), 0)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return False
        except PermissionError:
            return True
        return True


def record_key(record: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What identifies a record: its picture's path and content."""
    image = record.get("image") or {}
    return (image.get("path"), image.get("sha256"))


def _parse_line(line: bytes, number: int, name: str) -> dict[str, Any]:
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
