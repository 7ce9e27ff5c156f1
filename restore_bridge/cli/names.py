"""Where results go: a folder that exists, a name for each, and the pristine picture of the same name."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def make_folder(path: Path) -> Path:
    """Make a folder for results, with those above it.

    Raises:
        OutputFailed: it cannot be made.
    """
    from zoomiqa.errors import OutputFailed

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed("the output folder cannot be made", path, error.strerror or "check the path") from error
    return path


def output_names(
    paths: Sequence[Path], wanted: str, taken: Mapping[str, Collection[str]] | None = None
) -> dict[Path, str]:
    """A file name for each input: its own, with a few digits of its path where another input has the same.

    Args:
        paths: The inputs.
        wanted: The wanted format, one of `FORMATS`.
        taken: For each name that the folder holds already, in lower case, the inputs that it was made from.
    """
    # A kept original keeps its own ending, so with a format of choice it is the stem that must differ.
    plain = {path: path.name if wanted == "same" else f"{path.stem}.{wanted}" for path in paths}
    owners: dict[str, set[str]] = {}
    for name, of in (taken or {}).items():
        owners.setdefault(_key(name, wanted), set()).update(of)
    for path, name in plain.items():
        owners.setdefault(_key(name, wanted), set()).add(str(path))
    result = {}
    for path, name in plain.items():
        if len(owners[_key(name, wanted)]) > 1:
            mark = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
            name = f"{Path(name).stem}-{mark}{Path(name).suffix}"
        result[path] = name
    return result


def _key(name: str, wanted: str) -> str:
    return (name if wanted == "same" else Path(name).stem).lower()


def taken_names(records: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Names of the pictures that records speak of, each with the paths of its inputs."""
    taken: dict[str, set[str]] = {}
    for record in records:
        output = record.get("output")
        if isinstance(output, Mapping) and isinstance(output.get("path"), str):
            taken.setdefault(Path(output["path"]).name, set()).add(str((record.get("image") or {}).get("path")))
    return taken


def references(paths: Sequence[Path], folder: Path | None) -> list[Path]:
    """The pristine pictures that there are of these."""
    return [] if folder is None else [found for path in paths if (found := reference_for(path, folder))]


def reference_for(path: Path, folder: Path) -> Path | None:
    """The pristine picture of the same name, or of the same stem; `None` where there is none."""
    exact = folder / path.name
    return exact if exact.exists() else next(iter(sorted(folder.glob(f"{glob.escape(path.stem)}.*"))), None)
