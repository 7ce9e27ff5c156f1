"""What a form brings: pictures, and texts that are a task's options. It must not know what is done with them."""

from __future__ import annotations

import asyncio
from dataclasses import MISSING, fields
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from ..service.addresses import fetch  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.desk import Upload  # noqa: TID252
from ..service.errors import UploadRefused  # noqa: TID252
from ..service.settings import ServiceSettings  # noqa: TID252
from ..service.tasks import KINDS  # noqa: TID252

_TYPES = {"float": "number", "int": "integer"}
_ADDRESS = "an https address instead, where the service takes those"


def parts_of(kind: str) -> tuple[str, ...]:
    """Names of the form's parts that are pictures."""
    return ("picture",) if KINDS[kind].pictures == 1 else ("before", "after")


async def read_form(request: Request, kind: str, settings: ServiceSettings) -> tuple[list[Upload], dict[str, str]]:
    """The pictures of a form in order, and all its other texts, whatever their names.

    Raises:
        UploadRefused: a picture is missing, or a part is not what its name says.
        ServiceError, ImageError: the picture's address cannot be fetched.
    """
    names, limit_bytes = parts_of(kind), settings.limits.file_bytes
    uploads: dict[str, Upload] = {}
    texts: dict[str, str] = {}
    async with request.form() as form:
        for name, value in form.items():
            if isinstance(value, UploadFile) != (name in names):
                what = "must be a file" if name in names else "cannot be a file"
                raise UploadRefused(f"{name[:40]} {what}", None, f"files are {' and '.join(names)}")
            if isinstance(value, UploadFile):
                uploads[name] = Upload(value.filename or name, await value.read(limit_bytes + 1))
            else:
                texts[name] = value
    address = texts.pop("url", None) if len(names) == 1 else None
    if address and not uploads:
        uploads[names[0]] = await _fetched(address, settings)
    elif address or len(uploads) < len(names):
        raise UploadRefused(f"{len(names)} picture(s) are needed", None, f"send the form's part {' and '.join(names)}")
    return [uploads[name] for name in names], texts


async def _fetched(address: str, settings: ServiceSettings) -> Upload:
    if not settings.allow_url:
        raise UploadRefused("addresses are not taken here", None, "upload the picture")
    return Upload(*await asyncio.to_thread(fetch, address, settings.limits.file_bytes))


def describe_form(kind: str) -> dict[str, Any]:
    """The form of one kind of task, for the API's description."""
    names = parts_of(kind)
    picture = {"type": "string", "format": "binary", "description": "JPEG, PNG, WEBP, TIFF or BMP"}
    properties: dict[str, Any] = dict.fromkeys(names, picture)
    if len(names) == 1:
        properties["url"] = {"type": "string", "description": _ADDRESS}
    for field in fields(KINDS[kind]):
        properties[field.name] = {"type": _TYPES.get(str(field.type), "string")}
        if field.default is not MISSING and field.default is not None:
            properties[field.name]["default"] = field.default
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if len(names) > 1:
        schema["required"] = list(names)
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
