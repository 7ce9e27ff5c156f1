"""Components that take files from strangers. Only what they uploaded is read, and nothing is fetched for them.

A page's framework would take a path of the server, or an address, in the place of an upload; here both are refused
before anything is opened. The pictures are not decoded here either: a job does that, in a process of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from ..service.desk import Upload  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.errors import UploadRefused  # noqa: TID252
from ..service.settings import ServiceSettings  # noqa: TID252


def picture_input(own_folder: Path | None = None, **options: Any) -> gr.Image:
    """A place for one picture; a handler gets the path of its upload.

    Args:
        own_folder: Files that the page itself may put in: its samples.
        options: Gradio's own.
    """
    made = gr.Image(type="filepath", format="png", **options)
    made.preprocess = lambda payload: None if payload is None else payload.path
    _take_uploads_only(made, [made.GRADIO_CACHE, *([own_folder] if own_folder else [])])
    return made


def pictures_input(**options: Any) -> gr.File:
    """A place for several pictures; a handler gets the paths of the uploads."""
    made = gr.File(file_count="multiple", type="filepath", **options)
    made.preprocess = lambda payload: [item.path for item in _items(payload)]
    _take_uploads_only(made, [made.GRADIO_CACHE])
    return made


def _take_uploads_only(component: Any, folders: list[str | Path]) -> None:
    """Everything that is to become this component's file passes here first. (Set on the instance: a subclass would
    make Gradio write a stub file beside this one.)
    """
    move = component.async_move_resource_to_block_cache

    async def checked_move(url_or_file_path: str | Path | None) -> str | None:
        moved: str | None = await move(_checked(url_or_file_path, folders))
        return moved

    component.async_move_resource_to_block_cache = checked_move


def _items(payload: Any) -> list[Any]:
    items = getattr(payload, "root", payload) or []
    return items if isinstance(items, list) else [items]


def read_upload(path: str | None, settings: ServiceSettings) -> Upload:
    """An upload's name and bytes.

    Raises:
        UploadRefused: there is none.
    """
    if not path:
        raise UploadRefused("there is no picture yet", None, "choose a photograph or a sample")
    file = Path(path)
    try:
        with open(file, "rb") as stream:
            return Upload(file.name, stream.read(settings.limits.file_bytes + 1))
    except OSError:
        raise UploadRefused("the picture is not there any more", None, "choose it again") from None


def _checked(path: str | Path | None, folders: list[str | Path]) -> str | None:
    """The path if it is a plain file inside one of the folders, links resolved.

    Raises:
        UploadRefused: it is an address, or lies elsewhere.
    """
    if path is None:
        return None
    try:
        found = os.path.realpath(path)
        inside = any(Path(found).is_relative_to(os.path.realpath(folder)) for folder in folders)
        is_file = os.path.isfile(found)
    except ValueError:  # a NUL inside the name
        inside = is_file = False
    if not inside or not is_file:
        raise UploadRefused("only uploaded pictures are taken", None, "upload the picture")
    return found
