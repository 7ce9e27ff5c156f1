"""A run's folder: claimed, compared with what stands in it, its last whole checkpoint found; and who says what of it.

A launcher (accelerate, torchrun) may start several processes of one run. They share the folder; only the first claims
it and speaks. It must not know models, trainers or data, and needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoomiqa.errors import OutputFailed, OutputWouldOverwrite, RecordCorrupt, RecordSettingsChanged
from zoomiqa.files import atomic_write_text

SETTINGS, CARD, PAGE = "settings.json", "training.json", "README.md"
"""What decided a run; how it went, for programs; the same for people."""

CHECKPOINTS, LOGS = "checkpoints", "logs"


def process_count() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def process_rank() -> int:
    """Which of them this is, from 0; known before the trainer opens the connection to the others."""
    return int(os.environ.get("RANK", 0))


def claim(out: Path, identity: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Make a run's folder, or see that it is the one to go on with.

    Args:
        out: The folder.
        identity: What decides the result, in JSON's types; it is written to `SETTINGS`.
        resume: Go on with the run in `out`; begin where there is none.
        overwrite: Remove an earlier run in `out`. What is no run is never removed.

    Raises:
        OutputWouldOverwrite: the folder holds something, and neither is set, or it is no run.
        RecordSettingsChanged: resumed with another identity.
        RecordCorrupt: the settings of the run to go on with cannot be read.
        OutputFailed: the folder cannot be made.
    """
    file = out / SETTINGS
    try:
        if file.exists() and resume:
            refuse_changes(_read(file), identity)
            return
        if out.exists() and any(out.iterdir()):
            if not overwrite or not file.exists():
                raise OutputWouldOverwrite(
                    "the folder is not empty", out, "pass --resume, --overwrite (for an earlier run) or another folder"
                )
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed("the output folder cannot be made", out, error.strerror or "check its name") from error
    atomic_write_text(file, json.dumps(identity, indent=1) + "\n")


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the identity that a run was begun with and the one it would go on with.

    Raises:
        RecordSettingsChanged: they differ; it names every difference.
    """
    now = json.loads(json.dumps(now))  # tuples as lists, as they were read
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        shown = ", ".join(f"{name}: {before.get(name)} -> {now.get(name)}" for name in changed)
        raise RecordSettingsChanged(
            "the run was begun with other settings or data", shown, "use those, or another folder"
        )


def files_digest(files: Iterable[Path]) -> str:
    """SHA-256 over the SHA-256 of every file's content, in the order of their paths."""
    whole = hashlib.sha256()
    for file in sorted(files):
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise RecordCorrupt("the settings of the run cannot be read", file, "begin anew with --overwrite") from error
    return found


def last_checkpoint(out: Path, mark: str) -> Path | None:
    """The last checkpoint of a run that was written to its end; unfinished ones are removed.

    Args:
        out: The run's folder.
        mark: The file that is written last into a checkpoint.
    """
    whole = []
    for folder in (out / CHECKPOINTS).glob("checkpoint-*"):
        if (folder / mark).exists():
            whole.append(folder)
        elif process_rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
    return max(whole, key=steps_of, default=None)


def steps_of(checkpoint: Path) -> int:
    """Optimizer steps after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def say(stage: str, sentence: str) -> None:
    """Tell people what a stage does, at once: a sentence before hours of work must not wait in a buffer."""
    print(f"{stage}: {sentence}", file=sys.stderr, flush=True)
