"""From a record to the picture that it is about, wherever that is now. It must not know what is made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoomiqa.batch import OpenOptions, open_one
from zoomiqa.errors import ImageNotFound, OptionInvalid
from zoomiqa.imaging.picture import Picture


def find_picture(record: Mapping[str, Any], image_root: Path | None) -> Path | None:
    """The file of a record's picture; `None` where the record names none, or it is not there.

    Without an image root it is where the record says. With one it is there under its annotated path, the record's path
    or its bare name, and never outside.
    """
    annotated = _name(record.get("evaluation"), "image")
    opened = _name(record.get("image"), "path")
    if image_root is None:
        return Path(opened) if opened else None
    root = os.path.realpath(image_root)
    names = [name for name in (annotated, opened) if name]
    for candidate in (image_root / name for name in (*names, *(Path(name).name for name in names))):
        if os.path.isfile(candidate) and Path(os.path.realpath(candidate)).is_relative_to(root):
            return candidate
    return None


def open_subject(image: Mapping[str, Any], path: Path | None, options: OpenOptions) -> Picture:
    """Open the picture that a record is about.

    Args:
        image: What the record says of it under `image`.
        path: Where it is, by `find_picture`.
        options: How files are opened.

    Raises:
        ImageNotFound: it is not there, or the record names none.
        ImageError: it cannot be opened.
        OptionInvalid: its content differs from what the record says: it is another picture.
    """
    if path is None:
        raise ImageNotFound(
            "the record's picture is not there", image.get("path"), "say with --image-root where the pictures are"
        )
    picture = open_one(path, options)
    then, now = image.get("sha256"), picture.info.sha256
    if then and now and then != now:
        raise OptionInvalid(
            "the picture is not the one that was assessed, its content differs",
            picture.info.path,
            "give the folder of the originals as --image-root",
        )
    return picture


def _name(part: object, key: str) -> str | None:
    """The file's name in a part of a record, where there is one that can be looked for."""
    name = part.get(key) if isinstance(part, dict) else None
    return name if isinstance(name, str) and name and "\0" not in name else None
