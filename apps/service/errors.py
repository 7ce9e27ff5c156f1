"""What can go wrong with a job, and which words of an error a stranger may read. It must not know HTTP.

Codes ZIQ-8xx go on with the tree of `zoomiqa.errors`:

    ServiceError       ZIQ-800   a job cannot be taken or finished
    ├── ServiceBusy        801   too much waits already, or one client has too much waiting
    ├── JobUnknown         802   there is no such job (any more), or it has no such file
    ├── JobCancelled       803   the job was cancelled
    ├── JobTimedOut        804   the job took longer than the service allows
    ├── WorkerDied         805   the process that did the job died, also at a second attempt
    └── UploadRefused      806   a request without a picture, or in another form than is taken
"""

from __future__ import annotations

from collections.abc import Mapping

from zoomiqa.errors import (
    ImageFormatRefused,
    ImageMetadataTooLarge,
    ImageShapeRefused,
    ImageTooLarge,
    ImageTruncated,
    OptionInvalid,
    ZoomIQAError,
)


class ServiceError(ZoomIQAError):
    """A job cannot be taken or finished."""

    code, summary = "ZIQ-800", "the service cannot do this now"


class ServiceBusy(ServiceError):  # noqa: N818 - named as its neighbours are
    """Too much waits already. `retry_after` says in how many seconds another attempt makes sense."""

    code, summary = "ZIQ-801", "the service has too much to do"
    retry_after: int = 5
    is_own: bool = False
    """Whether it is the client's own jobs that fill the queue."""


class JobUnknown(ServiceError):  # noqa: N818 - named as its neighbours are
    """There is no such job, or not any more."""

    code, summary = "ZIQ-802", "there is no such job"


class JobCancelled(ServiceError):  # noqa: N818 - named as its neighbours are
    """The job was cancelled before it was done."""

    code, summary = "ZIQ-803", "the job was cancelled"


class JobTimedOut(ServiceError):  # noqa: N818 - named as its neighbours are
    """The job took longer than the service allows."""

    code, summary = "ZIQ-804", "the job took too long"


class WorkerDied(ServiceError):  # noqa: N818 - named as its neighbours are
    """The process that did the job died."""

    code, summary = "ZIQ-805", "the job's process died"


class UploadRefused(ServiceError):  # noqa: N818 - named as its neighbours are
    """A request without a picture, or in another form than is taken."""

    code, summary = "ZIQ-806", "the request cannot be used"


_OWN_WORDS = (
    ImageFormatRefused,
    ImageMetadataTooLarge,
    ImageShapeRefused,
    ImageTooLarge,
    ImageTruncated,
    OptionInvalid,
    ServiceError,
)
"""Errors whose sentences are all our own, made of sizes and settings. Others may carry a path or a library's words."""


def for_strangers(error: ZoomIQAError | Mapping[str, str]) -> dict[str, str]:
    """An error as anybody may see it: `code`, `type` and a `message` without paths, addresses or library text."""
    known = error.to_dict() if isinstance(error, ZoomIQAError) else dict(error)
    kind = error_kinds().get(known.get("code", ""), ZoomIQAError)
    message = known.get("message", "")
    is_safe = issubclass(kind, _OWN_WORDS) and not any(mark in message for mark in ("0x", "/", "\\"))
    return {"code": kind.code, "type": kind.__name__, "message": message if is_safe and message else kind.summary}


def error_kinds() -> dict[str, type[ZoomIQAError]]:
    """Every error by its code."""

    def walk(kind: type[ZoomIQAError]) -> list[type[ZoomIQAError]]:
        return [kind, *(found for child in kind.__subclasses__() for found in walk(child))]

    return {kind.code: kind for kind in walk(ZoomIQAError)}
