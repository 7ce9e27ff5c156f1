"""The pictures of training rows: opened by the one door, cut and resized by the code that inference uses.

So a trained model and the same model at work see the same pixels. Rows come from `curation.build`; the last message of
a row is its target. It must not know models, tokens or losses.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoomiqa.batch import OpenOptions
from zoomiqa.errors import OptionInvalid, RecordCorrupt
from zoomiqa.imaging import Picture
from zoomiqa.types import Box, ImagePart, Message, Request, Sampling, TextPart

from .curation.trajectories import PictureFolder

CACHED = 32
"""Pictures kept open: both looks of a trajectory, and the samples of a group, show the same one."""


class Pictures:
    """The pictures below an image root, the last ones kept open.

    Args:
        root: What the rows' paths are relative to.
        options: How pictures are opened, and the limits.
        cached: Pictures kept in memory, at most.

    Raises:
        OptionInvalid: the root is no folder.
    """

    def __init__(self, root: Path, options: OpenOptions | None = None, *, cached: int = CACHED) -> None:
        if not root.is_dir():
            raise OptionInvalid("the image root is no folder", root, "check the path")
        self.root = root
        self._folder = PictureFolder(root, options)
        self._cached = cached
        self._open: OrderedDict[str, Picture] = OrderedDict()

    def open(self, path: str, *, row: str = "") -> Picture:
        """The picture at `path` below the root; `row` is named by errors.

        Raises:
            ImageError: it is not there, lies outside the root, or cannot be opened within the limits.
        """
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        picture = self._folder.open({"id": row or path, "image": {"path": path}})
        self._open[path] = picture
        while len(self._open) > self._cached:
            self._open.popitem(last=False)
        return picture

    def request(self, row: Mapping[str, Any]) -> Request:
        """A row's conversation before its target, with its picture opened: what a backend would be asked.

        Raises:
            ImageError: its picture cannot be used.
            RecordCorrupt: the row is not as `curation.build` writes it.
        """
        messages, path = row_messages(row)
        picture = self.open(path, row=str(row.get("id")))
        for message in messages:
            for part in message.parts:
                if isinstance(part, ImagePart):
                    _check_inside(part, picture.size, row)
        return Request(picture, messages[:-1], Sampling(), int(row.get("look", 1)) - 1)


def row_messages(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    """All messages of a row, the target last, and the path of the picture that they show.

    Raises:
        RecordCorrupt: the row is not as `curation.build` writes it, or shows pictures of several files.
    """
    try:
        parts = [_image_part(image) for image in row["images"]]
        paths = {image["path"] for image in row["images"]}
        waiting = iter(parts)
        messages = tuple(
            Message(message["role"], tuple(_part(part, waiting) for part in message["content"]))
            for message in row["messages"]
        )
        if next(waiting, None) is not None:
            raise ValueError("more pictures than places for them")
        if len(paths) != 1 or not isinstance(path := paths.pop(), str):
            raise ValueError("a row shows one picture and crops of it")
        if not messages or messages[-1].role != "assistant" or not messages[-1].text:
            raise ValueError("the last message is a reply in words")
    except (KeyError, TypeError, ValueError, OptionInvalid) as error:
        raise RecordCorrupt(
            f"row {row.get('id')!r} is no training row", error or type(error).__name__, "make it with curation build"
        ) from error
    return messages, path


def _check_inside(part: ImagePart, size: tuple[int, int], row: Mapping[str, Any]) -> None:
    """A crop lies in its picture and is shown no larger than that: the protocol makes no others."""
    width, height = size
    box = part.box
    if (box is not None and (box.x2 > width or box.y2 > height)) or (
        part.size is not None and (part.size[0] > width or part.size[1] > height)
    ):
        raise RecordCorrupt(
            f"row {row.get('id')!r} shows more than its picture of {width} x {height}", part, "check --image-root"
        )


def _part(part: Mapping[str, Any], waiting: Any) -> TextPart | ImagePart:
    if part["type"] == "image":
        found: ImagePart | None = next(waiting, None)
        if found is None:
            raise ValueError("fewer pictures than places for them")
        return found
    if part["type"] != "text" or not isinstance(part["text"], str):
        raise ValueError(part["type"])
    return TextPart(part["text"])


def _image_part(image: Mapping[str, Any]) -> ImagePart:
    box, size = image["box"], image["size"]
    if size is not None and not (len(size) == 2 and all(isinstance(edge, int) and edge > 0 for edge in size)):
        raise ValueError(size)
    return ImagePart(box=None if box is None else Box(*_whole_numbers(box)), size=None if size is None else tuple(size))


def _whole_numbers(box: Sequence[Any]) -> list[int]:
    if len(box) != 4 or not all(isinstance(edge, int) for edge in box):
        raise ValueError(box)
    return list(box)
