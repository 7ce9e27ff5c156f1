"""Jobs on disk: one SQLite file and a folder of files per job. It must not know what a job does or who asks.

A job that `add` has returned from is on the disk (WAL with `synchronous=FULL`; its pictures are forced to the disk
before its row is written). After a crash `unfinished` gives what was waiting or under way, in the order of submission.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zoomiqa.errors import OutputFailed, RecordLocked
from zoomiqa.files import atomic_write_bytes

from .errors import JobUnknown

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, number INTEGER UNIQUE, kind TEXT NOT NULL, client TEXT NOT NULL, options TEXT NOT NULL,
    pictures TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, started REAL, ended REAL, result TEXT, error TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
CREATE TABLE IF NOT EXISTS events (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, number INTEGER NOT NULL, event TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as the store knows it."""

    id: str
    """Unguessable: whoever knows it may see the job."""

    number: int
    """Order of submission."""

    kind: str
    client: str
    options: Mapping[str, Any]
    pictures: tuple[str, ...]
    """Names of its pictures, as shown; their files are `Store.inputs`."""

    state: State
    attempts: int
    created: float
    started: float | None = None
    ended: float | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


class Store:
    """The jobs of one service.

    Args:
        folder: Made if it is missing, for the owner alone.

    Raises:
        RecordLocked: another process serves this folder.
        OutputFailed: it cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            (folder / "jobs").mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
            self._lock_handle: int | None = _lock(folder / "service.lock")
            self._local = threading.local()
            self._write = threading.Lock()
            self._opened: list[sqlite3.Connection] = []
            with self._write, self._connection() as connection:
                connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise OutputFailed(
                "the service's folder cannot be used", folder.name, "check its rights and space"
            ) from error
        self._remove_strays()

    def add(self, kind: str, client: str, options: Mapping[str, Any], pictures: Sequence[tuple[str, bytes]]) -> Job:
        """Take a job in: pictures first, then the row; when this returns, it survives a crash.

        Raises:
            OutputFailed: the disk is full or the folder cannot be written.
        """
        key = secrets.token_urlsafe(18)
        folder = self.job_folder(key)
        try:
            (folder / "in").mkdir(mode=0o700, parents=True)
            for index, (name, data) in enumerate(pictures):
                atomic_write_bytes(folder / "in" / f"{index}-{name}", data)
            names = [name for name, _ in pictures]
            with self._write, self._connection() as connection:
                row = connection.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM jobs").fetchone()
                connection.execute(
                    "INSERT INTO jobs (id, number, kind, client, options, pictures, state, created)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?)",
                    (key, row[0], kind, client, json.dumps(options), json.dumps(names), time.time()),
                )
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError | sqlite3.Error):
                raise OutputFailed("the job cannot be written down", None, "free some space and try again") from error
            raise
        return self.get(key)

    def get(self, key: str) -> Job:
        """The job called `key`.

        Raises:
            JobUnknown: there is none.
        """
        row = self._read("SELECT * FROM jobs WHERE id = ?", (key,)).fetchone()
        if row is None:
            raise JobUnknown("there is no such job", None, "it may have been removed; send it again")
        return _job(row)

    def unfinished(self) -> list[Job]:
        """Those that wait or were under way, in the order of submission."""
        rows = self._read("SELECT * FROM jobs WHERE state IN ('waiting', 'running') ORDER BY number")
        return [_job(row) for row in rows.fetchall()]

    def start(self, key: str) -> Job:
        """A worker begins with it."""
        self._change(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = ? WHERE id = ?", (time.time(), key)
        )
        return self.get(key)

    def put_back(self, key: str) -> None:
        """It waits again."""
        self._change("UPDATE jobs SET state = 'waiting', started = NULL WHERE id = ?", (key,))

    def end(
        self,
        key: str,
        state: State,
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, str] | None = None,
    ) -> None:
        """Its end, with what came out."""
        self._change(
            "UPDATE jobs SET state = ?, ended = ?, result = ?, error = ? WHERE id = ? AND ended IS NULL",
            (
                state,
                time.time(),
                None if result is None else json.dumps(result),
                None if error is None else json.dumps(dict(error)),
                key,
            ),
        )

    def tell(self, key: str, events: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Keep numbered events of a job. They are not forced to the disk: a job that is done anew tells them anew."""
        with self._write, self._connection(durable=False) as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO events (job, number, event) VALUES (?, ?, ?)",
                [(key, number, json.dumps(event)) for number, event in events],
            )

    def events(self, key: str, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """The events of a job from the number after `after` on."""
        rows = self._read("SELECT number, event FROM events WHERE job = ? AND number > ? ORDER BY number", (key, after))
        return [(number, json.loads(event)) for number, event in rows.fetchall()]

    def last_event(self, key: str) -> int:
        """The number of its newest event, 0 where there is none."""
        return int(self._read("SELECT COALESCE(MAX(number), 0) FROM events WHERE job = ?", (key,)).fetchone()[0])

    def remove_ended(self, before: float) -> int:
        """Remove what ended before that time (seconds of the epoch), files first; gives their number."""
        rows = self._read("SELECT id FROM jobs WHERE ended < ?", (before,)).fetchall()
        for row in rows:
            self.remove(row["id"])
        return len(rows)

    def remove(self, key: str) -> None:
        """Remove a job and its files."""
        shutil.rmtree(self.job_folder(key), ignore_errors=True)
        self._change("DELETE FROM events WHERE job = ?", (key,))
        self._change("DELETE FROM jobs WHERE id = ?", (key,))

    def job_folder(self, key: str) -> Path:
        return self.folder / "jobs" / key

    def inputs(self, job: Job) -> list[Path]:
        """The files of its pictures."""
        return [self.job_folder(job.id) / "in" / f"{index}-{name}" for index, name in enumerate(job.pictures)]

    def outputs(self, job: Job) -> Path:
        """Folder of what its present attempt makes: a worker that outlives its service cannot spoil the next one's."""
        return self.job_folder(job.id) / f"out-{job.attempts}"

    def close(self) -> None:
        """Let go of the folder; once more does nothing."""
        if self._lock_handle is None:
            return
        for connection in self._opened:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        os.close(self._lock_handle)
        self._lock_handle = None

    def _read(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._raw().execute(sql, values)

    def _change(self, sql: str, values: Sequence[Any]) -> None:
        with self._write, self._connection() as connection:
            connection.execute(sql, values)

    @contextlib.contextmanager
    def _connection(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """This thread's connection, in one transaction."""
        connection = self._raw()
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        with connection:
            yield connection

    def _raw(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.folder / "jobs.sqlite3", timeout=30, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            self._local.connection = connection
            self._opened.append(connection)
        return connection

    def _remove_strays(self) -> None:
        """Folders of jobs that a crash kept from being taken in, or whose rows are gone."""
        known = {row["id"] for row in self._read("SELECT id FROM jobs").fetchall()}
        for folder in (self.folder / "jobs").iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        number=row["number"],
        kind=row["kind"],
        client=row["client"],
        options=json.loads(row["options"]),
        pictures=tuple(json.loads(row["pictures"])),
        state=row["state"],
        attempts=row["attempts"],
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
        result=None if row["result"] is None else json.loads(row["result"]),
        error=None if row["error"] is None else json.loads(row["error"]),
    )


def _lock(path: Path) -> int:
    """Hold a file for this process, until it ends however it ends; where there is no `flock`, the file alone."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        import fcntl
    except ImportError:  # Windows
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise RecordLocked(
            "another process serves this folder", path.parent.name, "end it, or give another folder with --data"
        ) from None
    return handle
