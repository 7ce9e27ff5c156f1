"""The one door for model weights: files and hub ids in, named tensors out. It must not know any model.

What a file is follows from its first bytes, not from its name. Safetensors are data and open at once. A pickle
(`.pth`, `.ckpt`, `.pt`, `.bin`) is a small program: it is refused unless the caller allows it, and then read by torch's
restricted reader alone, which knows tensors and plain containers; there is no second, less strict attempt. `convert`
turns one into safetensors, so that the permission is needed once.

Nothing here imports torch before a file is read.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from zoomiqa.errors import (
    ExtraMissing,
    OptionInvalid,
    OutputWouldOverwrite,
    WeightsDamaged,
    WeightsError,
    WeightsMissing,
    WeightsRefused,
    WeightsUnsuitable,
)
from zoomiqa.files import atomic_write_bytes, printable

if TYPE_CHECKING:
    from torch import Tensor

SAFE_SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".pth", ".ckpt", ".pt", ".bin")
WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict")
"""Keys under which training code stores a model's tensors (BasicSR, Lightning and others), the better ones first."""

PREFIX = "module."
"""What torch's data-parallel wrapper puts before every name."""

INSTALL = 'run: pip install "zoomiqa[diffusion]"'

_HUB_ID = re.compile(r"(?P<repo>[\w\-][\w.\-]*/[\w\-][\w.\-]*)(?::(?P<file>[\w\-][\w.\-]*(?:/[\w\-][\w.\-]*)*))?")
_HEADER_BYTES = 100_000_000
"""Largest header that the safetensors format allows."""

_OTHER_CONTENT = (
    (re.compile(rb"\s*<(!doctype|html|head|\?xml)", re.IGNORECASE), "a web page"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, which only stands for the file"),
    (re.compile(rb"\s*[{\[]\s*[\"{\[]"), "JSON text"),
    (re.compile(rb"GGUF"), "a GGUF file"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive"),
)
"""First bytes of what is often saved under the name of weights."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What `convert` wrote."""

    path: Path
    tensors: int
    parameters: int
    """Numbers in all tensors together."""

    source_sha256: str
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "tensors": self.tensors,
            "parameters": self.parameters,
            "source_sha256": self.source_sha256,
            "sha256": self.sha256,
        }


def resolve(source: str | Path, *, allow_pickle: bool = False) -> Path:
    """The local file that `source` means; a hub file is downloaded into the hub's cache when it is not there yet.

    Args:
        source: A path, or `owner/name[:file]` on the Hugging Face hub. An existing path wins over a hub id of the same
            spelling. Without `file` the repository must hold exactly one safetensors file. With `HF_HUB_OFFLINE`
            or `TRANSFORMERS_OFFLINE` set, only the cache is looked at.
        allow_pickle: Whether a pickle may be the answer.

    Raises:
        WeightsMissing: there is no such file, repository or hub.
        WeightsRefused: it is a pickle and `allow_pickle` is off; on the hub this is said before anything is downloaded.
        WeightsDamaged: the file holds no weights.
        ExtraMissing: the hub's client is not installed.
    """
    hub = hub_id(source)
    path = Path(source).expanduser() if hub is None else _download(*hub, allow_pickle)
    _check(path, allow_pickle)
    return path


def hub_id(source: str | Path) -> tuple[str, str | None] | None:
    """(repository, file or `None`) where `source` means the hub, `None` where it means a local path."""
    match = _HUB_ID.fullmatch(source) if isinstance(source, str) else None
    if match is None or os.path.lexists(source):
        return None
    # A name that ends like a weights file was meant as a path, unless a colon says otherwise.
    if match["file"] is None and Path(source).suffix.lower() in (SAFE_SUFFIX, *PICKLE_SUFFIXES):
        return None
    return match["repo"], match["file"]


def load_state_dict(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """The tensors of a weights file on the CPU, by name.

    Training wrappers (`WRAPPERS`) are opened, a common `module.` before all names is taken off, and what is no tensor
    (step counts, settings) is left out.

    Args:
        path: A local file, as `resolve` gives it.
        allow_pickle: Whether a pickle may be read.

    Raises:
        WeightsMissing, WeightsRefused, WeightsDamaged: as `resolve`.
        WeightsRefused: the pickle holds objects other than tensors; the message names them.
        WeightsUnsuitable: there is no tensor in it.
        ExtraMissing: torch or safetensors is not installed.
    """
    is_safe = _check(path, allow_pickle)
    try:
        from torch import Tensor

        tensors = _flatten(_read_safetensors(path) if is_safe else _read_pickle(path), Tensor)
    except ImportError as error:
        raise ExtraMissing("reading weights needs torch and safetensors", error.name, INSTALL) from None
    if not tensors:
        raise WeightsUnsuitable("the file holds no tensors", shown(path), "check that it is a model's weights")
    return tensors


def sha256_of(path: Path) -> str:
    """SHA-256 of a weights file, in hexadecimal digits.

    Raises:
        WeightsMissing: it cannot be read.
    """
    from zoomiqa.batch import file_digest

    digest = file_digest(path, limit_bytes=2**50)  # weights have no size limit: the user chose the file
    if digest is None:
        raise WeightsMissing("the weights file cannot be read", shown(path), "check its permissions")
    return digest


def convert(source: str | Path, target: Path, *, allow_pickle: bool = False) -> Converted:
    """Write the tensors of `source` to a new safetensors file, flat and with plain names.

    The file's header names the SHA-256 of the source. Needs about three times the file's size in memory.

    Args:
        source: As in `resolve`.
        target: A name that ends in `.safetensors` and does not exist yet.
        allow_pickle: Whether a pickle may be read.

    Raises:
        OptionInvalid: the target's name ends otherwise.
        OutputWouldOverwrite: the target exists.
        OutputFailed: it cannot be written; nothing is left behind.
        WeightsMissing, WeightsRefused, WeightsDamaged, WeightsUnsuitable: as in `load_state_dict`.
    """
    if target.suffix.lower() != SAFE_SUFFIX:
        raise OptionInvalid(f"the target's name must end in {SAFE_SUFFIX}", shown(target), "rename it")
    if os.path.lexists(target):  # before the work; the writer refuses again in case it appears meanwhile
        raise OutputWouldOverwrite("the target exists", shown(target), "choose another name or delete it")
    path = resolve(source, allow_pickle=allow_pickle)
    tensors = load_state_dict(path, allow_pickle=allow_pickle)
    import safetensors.torch

    digest = sha256_of(path)
    # Copies: tensors that share memory, or are views into a larger one, are refused by the format.
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    try:
        data = safetensors.torch.save(plain, {"format": "pt", "source_sha256": digest})
    except (KeyError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsUnsuitable("a tensor of a kind that safetensors cannot hold", error, "cast it first") from error
    atomic_write_bytes(target, data, overwrite=False)
    return Converted(target, len(plain), sum(item.numel() for item in plain.values()), digest, sha256_of(target))


def _check(path: Path, allow_pickle: bool) -> bool:
    """Refuse what may not be read, by the first bytes; returns whether it is safetensors."""
    try:
        if not path.is_file():
            what = "the weights must be a file, not a folder or device" if path.exists() else "there is no weights file"
            raise WeightsMissing(what, shown(path), "give a file, or a hub id as in owner/name:file.safetensors")
        with path.open("rb") as file:
            head = file.read(512)
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        reason = getattr(error, "strerror", None) or "check the path"
        raise WeightsMissing("the weights file cannot be read", shown(path), reason) from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _HEADER_BYTES:
        return True
    # A zip archive (torch >= 1.6) or a bare pickle of protocol 2 to 5.
    if head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
        if not allow_pickle:
            _refuse_pickle(str(path), path.name)
        return False
    found = next((what for pattern, what in _OTHER_CONTENT if pattern.match(head)), "of no known kind")
    raise WeightsDamaged(
        f"the file is {found if head else 'empty'}, not weights",
        shown(path),
        "download it anew (on the hub: the 'download file' link, not the page)",
    )


def _refuse_pickle(source: str, name: str) -> NoReturn:
    """Refuse `source`, whose file is called `name`, and say how to convert it."""
    given = [printable(word) for word in (source, str(Path(name).with_suffix(SAFE_SUFFIX)))]
    # A name that is too long or too odd to be shown cannot be copied from the message either.
    words = shlex.join(given) if given[0] == source else "IN OUT.safetensors"
    raise WeightsRefused(
        "the weights are a pickle, which could run code",
        given[0],
        f"if you trust where it comes from, convert it once: restore-bridge weights convert {words} --allow-pickle",
    )


def shown(path: Path) -> str:
    """A path as a message may show it."""
    return printable(str(path))


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    import safetensors
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Any] = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsDamaged(
            f"the safetensors file is cut short or damaged ({printable(str(error))})", shown(path), "download it anew"
        ) from error
    return tensors


def _read_pickle(path: Path) -> Any:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
        if foreign:
            raise WeightsRefused(
                f"the pickle holds more than tensors ({printable(', '.join(foreign))}), so it is not read",
                shown(path),
                "ask its author for safetensors, or save its tensors alone where you trust it",
            ) from None
        raise _damaged_pickle(path, error) from error
    except Exception as error:  # a damaged pickle may raise anything
        raise _damaged_pickle(path, error) from error


def _damaged_pickle(path: Path, error: Exception) -> WeightsDamaged:
    return WeightsDamaged(
        f"the file is cut short or no checkpoint of tensors ({type(error).__name__})", shown(path), "download it anew"
    )


def _flatten(content: Any, tensor_type: type[Any]) -> dict[str, Tensor]:
    """The tensors inside training wrappers, without the common prefix."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, tensor_type)}
    while tensors and all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    return tensors


def _download(repo: str, file: str | None, allow_pickle: bool) -> Path:
    """A hub file in the local cache."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ExtraMissing("weights from the hub need huggingface_hub", error.name, INSTALL) from None
    source = repo if file is None else f"{repo}:{file}"
    offline = is_offline()
    try:
        name = file or _only_safetensors(repo, offline)
        if Path(name).suffix.lower() in PICKLE_SUFFIXES and not allow_pickle:
            _refuse_pickle(f"{repo}:{name}", Path(name).name)
        return Path(huggingface_hub.hf_hub_download(repo, name, local_files_only=offline))
    except WeightsError:
        raise
    except Exception as error:  # the client lets the errors of its network library through, and changes that library
        what, fix = "the file could not be fetched from the hub", "download it elsewhere and give its path"
        status = getattr(getattr(error.__cause__ or error, "response", None), "status_code", None)
        match error:
            case errors.GatedRepoError():
                what = "the hub gives these weights only to those who accepted their terms"
                fix = f"accept them at https://huggingface.co/{repo}, then run: hf auth login"
            case errors.RepositoryNotFoundError():
                what, fix = "the hub has no such repository, or it is private", "check the name, or run: hf auth login"
            case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() if offline:
                what = "offline, and the weights are not in the hub's cache"
                fix = "download them while online, unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, or give a local file"
            case errors.LocalEntryNotFoundError() if status is None:  # how the client says that it got no answer
                what, fix = "the hub cannot be reached", f"check the connection, or {fix}"
            case errors.EntryNotFoundError() if not isinstance(error, errors.LocalEntryNotFoundError):
                what, fix = "the repository has no such file", f"look at https://huggingface.co/{repo}/tree/main"
            case errors.HFValidationError():
                what, fix = "this is no hub id", "write owner/name:file.safetensors"
            case _:
                what += f" ({f'HTTP {status}' if status else printable(f'{type(error).__name__}: {error}')})"
        raise WeightsMissing(what, source, fix) from error


def _only_safetensors(repo: str, offline: bool) -> str:
    """The one safetensors file of a repository."""
    import huggingface_hub

    if offline:
        folder = Path(huggingface_hub.snapshot_download(repo, local_files_only=True))
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    else:
        names = huggingface_hub.list_repo_files(repo)
    safe = sorted(name for name in names if name.endswith(SAFE_SUFFIX))
    if len(safe) == 1:
        return safe[0]
    offered = safe or sorted(name for name in names if name.endswith(PICKLE_SUFFIXES))
    raise WeightsMissing(
        f"the repository holds {len(safe)} safetensors files, so one must be named",
        repo,
        f"write {repo}:FILE with one of {', '.join(offered[:8])}" if offered else "it holds no weights",
    )


def is_offline() -> bool:
    """Whether the environment asks to keep off the hub."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)
