"""From what a caller hands in to bytes in memory. It knows files and streams, and not what a picture is.

No more than `Limits.file_bytes` (and one byte, to tell that there is more) is ever read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import BinaryIO

from zoomiqa.errors import ImageNotFound, ImageTooLarge, ImageUnreadable, OptionInvalid
from zoomiqa.files import printable
from zoomiqa.limits import Limits

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""One stroke, as a `Path` keeps no more of them."""

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture file in memory."""

    data: bytes
    path: str | None
    """As the caller named it."""

    subject: str
    """How messages call it: printable, short."""


def read_source(source: Source, limits: Limits) -> PictureFile:
    """All bytes of `source`, or the refusal; what it costs is checked before it is read, where it can be told."""
    if isinstance(source, bytes | bytearray | memoryview):
        size = source.nbytes if isinstance(source, memoryview) else len(source)
        _check_bytes(size, "the picture", limits)
        file = PictureFile(bytes(source), None, "the picture")
    elif isinstance(source, str | os.PathLike):
        file = _read_path(source, limits)
    elif hasattr(source, "read"):
        file = PictureFile(_read_stream(source, "the picture", limits), None, "the picture")
    else:
        raise OptionInvalid("a picture comes from a path, bytes or a binary file", type(source).__name__, "pass one")
    if not file.data:
        raise ImageUnreadable(f"{file.subject} is empty", "0 bytes", "fetch it again")
    return file


def _read_path(source: str | os.PathLike[str], limits: Limits) -> PictureFile:
    path = os.fsdecode(os.fspath(source))
    subject = f"'{printable(path)}'"
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageUnreadable(f"{subject} is a folder", fix="name a picture in it, or list it with find_pictures")
        if not stat.S_ISREG(status.st_mode):
            raise ImageUnreadable(f"{subject} is a device or a pipe", fix="name a regular file")
        _check_bytes(status.st_size, subject, limits)
        with open(path, "rb") as stream:
            return PictureFile(_read_stream(stream, subject, limits), path, subject)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL inside the name
        if _ADDRESS.match(path):
            raise ImageNotFound("addresses are not opened", printable(path), "download the picture first") from None
        raise ImageNotFound("there is no file at that path", printable(path), "check its spelling") from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ImageNotFound("there is no file at that path", printable(path), "check its spelling") from None
        raise ImageUnreadable(f"{subject} cannot be read", error.strerror, "check its permissions") from error


def _read_stream(stream: BinaryIO, subject: str, limits: Limits) -> bytes:
    """All bytes of `stream`, at most one more than the limit."""
    try:
        if stream.seekable():
            stream.seek(0)
        # One byte beyond the limit shows a stream that is too long, or a file that grew meanwhile.
        pieces, total = [], 0
        while total <= limits.file_bytes:
            piece = stream.read(min(limits.file_bytes + 1 - total, 2**24))
            if not isinstance(piece, bytes):
                raise OptionInvalid("a picture's file must be opened in binary mode", type(piece).__name__, "use 'rb'")
            if not piece:
                break
            pieces.append(piece)
            total += len(piece)
    except (OSError, ValueError, AttributeError) as error:  # ValueError: a closed file
        reason = error.strerror if isinstance(error, OSError) else None
        raise ImageUnreadable(f"{subject} cannot be read", reason, "open it again") from error
    _check_bytes(total, subject, limits)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_bytes(size: int, subject: str, limits: Limits) -> None:
    if size > limits.file_bytes:
        raise ImageTooLarge(
            f"{subject} has more bytes than the limit of {limits.file_bytes / 2**20:.4g} MiB",
            f"at least {size / 2**20:.4g} MiB",
            "save it smaller or raise the limit file_bytes",
        )
