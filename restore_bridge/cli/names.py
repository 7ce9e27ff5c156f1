"""Files that belong together: inputs, the results that are made of them, and the pristine pictures beside them.

Inputs are never results of earlier runs. A result has a name of its own; a pristine picture has its input's.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomiqa.cli import common

if TYPE_CHECKING:
    from zoomiqa.imaging import Picture
    from zoomiqa.types import Note

PICTURES, SHEETS = "pictures", "sheets"
"""Folders inside an output folder that pictures are written to."""


def find_inputs(words: Sequence[str], out: Path) -> list[Path]:
    """The picture files that `words` (files, folders, patterns) name, without the results that `out` holds already.

    A file that is named by itself is taken as it is.

    Raises:
        ImageNotFound: there is none.
    """
    from zoomiqa.errors import ImageNotFound

    named = {Path(word) for word in words}
    found = common.find_inputs(words)
    inputs = [path for path in found if path in named or not is_result(path, out)]
    if len(inputs) < len(found):
        common.complain("restore-bridge", f"{len(found) - len(inputs)} earlier results in {out} are left out")
    if not inputs:
        raise ImageNotFound("there is no picture but earlier results", out, "name the originals")
    return inputs


def is_result(path: Path, out: Path) -> bool:
    """Whether `path` lies where results are written to below `out`, by whatever way it was found."""
    folders, places = path.resolve().parents, (out / PICTURES, out / SHEETS)
    return any(place.resolve() in folders for place in places)


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


def check_references(folder: Path | None) -> None:
    """Refuse a folder of pristine pictures that is not there.

    Raises:
        OptionInvalid: it is not.
    """
    from zoomiqa.errors import OptionInvalid

    if folder is not None and not folder.is_dir():
        raise OptionInvalid("the folder of references must exist", folder, "check the path")


def find_references(paths: Sequence[Path], words: Sequence[str], folder: Path | None) -> dict[Path, Path]:
    """The pristine pictures that `folder` holds of `paths`, which `words` named; see `partner`.

    Raises:
        OptionInvalid: there is no such folder.
    """
    check_references(folder)
    if folder is None:
        return {}
    roots = [Path(word) for word in words if Path(word).is_dir()]
    inside = {path: _inside(path, roots) for path in paths}
    places, names = Counter(inside.values()), Counter(path.name for path in paths)
    found = {
        path: partner(place, folder, is_unique=names[path.name] == 1)
        for path, place in inside.items()
        if places[place] == 1
    }
    return {path: pristine for path, pristine in found.items() if pristine is not None}


def _inside(path: Path, roots: Sequence[Path]) -> Path:
    """The part of `path` below the folder that was searched; the name of a file that was named by itself."""
    return next((path.relative_to(root) for root in roots if path.is_relative_to(root)), Path(path.name))


def partner(inside: Path, folder: Path, *, is_unique: bool) -> Path | None:
    """The picture in `folder` that goes with the one at `inside`.

    Its path is the same, or its folder and stem are; where no other picture has its name, it may also lie at the top of
    `folder`, as those that `run` writes do.
    """
    from zoomiqa.imaging import SUFFIXES

    for place in (inside, Path(inside.name)) if is_unique else (inside,):
        if (exact := folder / place).is_file():
            return exact
        parent = (folder / place).parent
        if parent.is_dir():
            for found in sorted(parent.iterdir()):
                if found.stem == place.stem and found.suffix.lower() in SUFFIXES:
                    return found
    return None


def open_reference(path: Path | None, open_one: Callable[[Path], Picture]) -> tuple[Picture | None, tuple[Note, ...]]:
    """The pristine picture at `path`, if there is one; one that cannot be opened is a note, and no loss."""
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.types import Note

    if path is None:
        return None, ()
    try:
        return open_one(path), ()
    except ZoomIQAError as error:
        return None, (Note("reference-unusable", f"the pristine picture cannot be used, so it is left out: {error}"),)
