"""Where the pictures of a data set lie below its source folder. It must not open them.

A label gives a bare file name; only files that were seen in the set's own folders can answer to it, so that no name
leads anywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from zoomiqa.errors import OptionInvalid
from zoomiqa.files import printable

SUFFIXES = frozenset({".bmp", ".jpg", ".jpeg", ".png"})


class PictureFolders:
    """The pictures in the first of the known layouts that is there.

    Args:
        root: The source folder.
        patterns: Glob patterns of folders below it, the likeliest first; the first that matches counts.
        what: What the folders hold, for messages.

    Raises:
        OptionInvalid: no folder is there, or one leads outside the source folder.
    """

    def __init__(self, root: Path, patterns: Sequence[str], what: str) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self.folders = self._find_folders(patterns, what)
        self._paths: dict[str, str] = {}
        self._folded: dict[str, str | None] = {}
        self._links: set[str] = set()
        for folder in self.folders:
            self._scan(folder)

    def find(self, name: str) -> str | None:
        """The picture's path relative to the source folder, with forward slashes; `None` where it is missing.

        A name that only differs in case from one file's will do (TID2013 writes `i25.bmp` beside `I24.BMP`).

        Raises:
            OptionInvalid: it is a link that leads outside the source folder.
        """
        path = self._paths.get(name) or self._folded.get(name.casefold())
        if path in self._links and not self._is_inside(self._root / path):
            raise OptionInvalid("a picture is a link that leads outside the source folder", printable(path), "copy it")
        return path

    def others(self, paths: Collection[str]) -> list[str]:
        """Names of pictures that are there and not among `paths`, sorted."""
        return sorted(
            name
            for name, path in self._paths.items()
            if path not in paths and os.path.splitext(name)[1].lower() in SUFFIXES
        )

    def _find_folders(self, patterns: Sequence[str], what: str) -> list[Path]:
        for pattern in patterns:
            found = sorted(path for path in self._root.glob(pattern) if os.path.isdir(path))
            for folder in found:
                if not self._is_inside(folder):
                    raise OptionInvalid(
                        "a folder is a link that leads outside the source folder",
                        printable(str(folder)),
                        "give the folder that holds the real one as the source",
                    )
            if found:
                return found
        raise OptionInvalid(
            f"there is no folder with the {what} in the source folder (looked for {', '.join(patterns)})",
            printable(str(self._root)),
            "give the folder that the authors' archive unpacks to",
        )

    def _scan(self, folder: Path) -> None:
        prefix = folder.relative_to(self._root).as_posix()
        try:
            with os.scandir(folder) as entries:
                files = sorted((entry.name, entry.is_symlink()) for entry in entries if entry.is_file())
        except OSError as error:
            raise OptionInvalid(
                "a folder cannot be read", printable(str(folder)), error.strerror or "check its permissions"
            ) from error
        for name, is_link in files:
            if name in self._paths:
                continue  # the same name in an earlier folder
            path = f"{prefix}/{name}"
            self._paths[name] = path
            folded = name.casefold()
            # Two names that differ in case alone answer only to their exact spelling.
            self._folded[folded] = None if folded in self._folded else path
            if is_link:
                self._links.add(path)

    def _is_inside(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(self._real_root)
