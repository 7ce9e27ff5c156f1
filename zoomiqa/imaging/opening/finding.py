"""Lists of picture files from paths, folders and patterns. It knows names and folders; it opens nothing."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from zoomiqa.errors import ImageNotFound
from zoomiqa.files import printable
from zoomiqa.imaging.opening.formats import ACCEPTED, SUFFIXES


def find_pictures(paths: Sequence[str | Path]) -> list[Path]:
    """The picture files that `paths` name, in a stable order and each once.

    A file is taken as given, even a missing one or one of another type: it becomes an error record when it is opened.
    A folder gives the accepted files (by ending) in and below it, sorted; hidden ones and links that lead back are left
    out. A pattern (`*`, `?`, `[...]`, `**`) that is not itself the name of a file is expanded in the same way, also
    where the shell did not.

    Raises:
        ImageNotFound: An empty name, a folder without a picture, or a pattern without a match.
    """
    found: dict[str, Path] = {}
    for given in paths:
        for path in _expanded(given):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _expanded(given: str | Path) -> list[Path]:
    name = os.fspath(given)
    if not name:  # as a path it would be the folder that one is in
        raise ImageNotFound("an empty name names no picture", fix="leave it out, or name a file or a folder")
    if "\0" in name:
        return [Path(name)]
    if os.path.isdir(name):
        pictures = _pictures_below(Path(name))
        if not pictures:
            raise ImageNotFound("there is no picture in that folder", printable(name), ACCEPTED)
        return pictures
    if os.path.lexists(name) or not glob.has_magic(name):
        return [Path(name)]
    pictures = _matches(name)
    if not pictures:
        raise ImageNotFound("no picture matches that pattern", printable(name), "check it, or quote it less")
    return pictures


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _pictures_below(folder: Path) -> list[Path]:
    """Accepted files below `folder`, sorted by the parts of their paths."""
    pictures, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back, or a second way in
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        pictures += [path for path in (Path(place, name) for name in names) if _is_picture(path)]
    return sorted(pictures, key=lambda path: path.parts)


def _matches(pattern: str) -> list[Path]:
    parts = Path(pattern).parts
    if "**" in parts:
        # The standard library follows links without end here, so the walk is ours and only the names are compared.
        start = parts.index("**")
        base = Path(*parts[:start])
        bases = [base] if not glob.has_magic(str(base)) else [Path(name) for name in sorted(glob.glob(str(base)))]
        return [
            path
            for folder in bases
            if folder.is_dir()
            for path in _pictures_below(folder)
            if _fits(path.relative_to(folder).parts, parts[start:])
        ]
    pictures = []
    for path in sorted(Path(name) for name in glob.glob(pattern)):
        if path.is_dir():
            pictures += _pictures_below(path)
        elif _is_picture(path):
            pictures.append(path)
    return pictures


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
