"""Writing files so that a reader sees the old content or the new, never half, and never in the place of an input.

It must not know what is written.

The steps: a file of a unique name beside the target, its data forced to the disk, renamed over the target, the folder
forced to the disk. A failure at any step removes the new file and leaves the target as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from zoomiqa.errors import OutputFailed, OutputWouldOverwrite

Data = bytes | Callable[[BinaryIO], object]

_REASONS = {
    errno.ENOSPC: ("there is no space left for the result", "free some space"),
    errno.EDQUOT: ("there is no quota left for the result", "free some space"),
    errno.EFBIG: ("the result is larger than a file may be", "write less"),
    errno.EROFS: ("the target folder is read-only", "choose another folder"),
    errno.EACCES: ("the target folder may not be written to", "choose another folder or change its permissions"),
    errno.EPERM: ("the target folder may not be written to", "choose another folder or change its permissions"),
    errno.ENOENT: ("the target folder does not exist", "create it first"),
    errno.ENOTDIR: ("the target folder does not exist", "create it first"),
    errno.EISDIR: ("the target is a folder", "add a file name"),
    errno.ENAMETOOLONG: ("the target's name is too long", "shorten it"),
}

_NAME_BYTES = 200
"""Part of the target's name that goes into the temporary one; file systems allow 255 bytes in all."""


def printable(name: str) -> str:
    """A file name or a foreign text as a message may show it, in at most 80 characters.

    Control, bidirectional and undecodable characters are written as escapes: they could redraw a terminal or make
    printing fail.
    """
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in name[:4096]
    )
    return shown if len(shown) <= 80 else f"{shown[:38]}...{shown[-39:]}"


def refuse_inputs(
    targets: Iterable[str | os.PathLike[str]],
    inputs: Iterable[str | os.PathLike[str]],
    fix: str = "choose another name",
) -> None:
    """Refuse a target that is one of `inputs`.

    By identity (hard links, links, file systems that ignore case) where the input exists, else by resolved name. An
    input costs one look at the file system, so that a run can check each target against all of its inputs.

    Args:
        targets: Where something will be written.
        inputs: What a run reads.
        fix: What the user can do about it.

    Raises:
        OutputWouldOverwrite: A target is an input, also by another name.
    """
    identities: dict[object, str | os.PathLike[str]] = {}
    for target in targets:
        identities[_resolved(target)] = target
        if identity := _identity(target):
            identities[identity] = target
    for name in inputs:
        found = identities.get(_identity(name) or _resolved(name))
        if found is not None:
            raise OutputWouldOverwrite("the target is an input", printable(os.fspath(found)), fix)


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Device and number of a file; `None` where it cannot be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL inside the name
        return None
    return (status.st_dev, status.st_ino)


def _resolved(path: str | os.PathLike[str]) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return os.fspath(path)


def atomic_write_bytes(path: str | os.PathLike[str], data: Data, *, overwrite: bool = True) -> Path:
    """Write `data` to `path` as one step.

    Args:
        path: The target. Its folder must exist. A link is replaced, not followed.
        data: The content, or a function that writes it to the binary file it is given.
        overwrite: Whether an existing file may be replaced. Where not, a file that another process makes meanwhile is
            safe as well (except on file systems without hard links).

    Returns:
        `path`.

    Raises:
        OutputWouldOverwrite: The target exists and `overwrite` is off.
        OutputFailed: The folder is missing or not writable, the disk is full, or the like.
    """
    target = check_target(path, overwrite=overwrite)
    with _told_of(target):
        _write_and_move(target, data, overwrite)
    return target


def check_target(path: str | os.PathLike[str], *, overwrite: bool = True) -> Path:
    """Refuse what `atomic_write_bytes` would refuse, as far as it can be told before there is anything to write.

    Returns:
        `path`.

    Raises:
        OutputWouldOverwrite: The target exists and `overwrite` is off.
        OutputFailed: It is a folder, its own folder is missing, or its name cannot be used.
    """
    target = Path(path)
    with _told_of(target):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(target)
            if not overwrite:
                raise FileExistsError(errno.EEXIST, "exists")
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder")
        os.stat(target.parent)
    return target


@contextlib.contextmanager
def _told_of(target: Path) -> Iterator[None]:
    """What the system says of a target, as errors of our own."""
    try:
        yield
    except FileExistsError:
        raise OutputWouldOverwrite(
            "the target exists", printable(str(target)), "choose another name, or allow it with --overwrite"
        ) from None
    except OSError as error:
        what, fix = _REASONS.get(error.errno or 0, ("the result could not be written", error.strerror or "try again"))
        raise OutputFailed(what, printable(str(target)), fix) from error
    except ValueError:  # a NUL inside the name
        raise OutputFailed("the target's name cannot be used", printable(str(target)), "choose another one") from None


def atomic_write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool = True) -> Path:
    r"""Write `text` as UTF-8 with the line ends it has; otherwise like `atomic_write_bytes`.

    A lone surrogate (from a file name that is not UTF-8) is written as `\udcff`, which is also its form in JSON.
    """
    return atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"), overwrite=overwrite)


def _write_and_move(target: Path, data: Data, overwrite: bool) -> None:
    stem = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    part = target.with_name(f".{stem}.part-{secrets.token_hex(6)}")
    # Not tempfile: its files are private to the owner, while a result should have the usual permissions.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(part, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _keep_permissions(target, part)
            if callable(data):
                data(stream)
            else:
                stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if overwrite:
            os.replace(part, target)
        else:
            _move_to_free_name(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    _sync_folder(target.parent)


def _keep_permissions(target: Path, part: Path) -> None:
    """A file that its owner made private stays private when it is replaced."""
    with contextlib.suppress(OSError):
        status = os.lstat(target)
        if stat.S_ISREG(status.st_mode):
            os.chmod(part, stat.S_IMODE(status.st_mode))


def _move_to_free_name(part: Path, target: Path) -> None:
    """Like a rename that fails where the target exists, which only a hard link can do on every POSIX system."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists") from None
        os.replace(part, target)
    else:
        os.unlink(part)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable. Where folders cannot be opened (Windows, some network shares) nothing is lost."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
