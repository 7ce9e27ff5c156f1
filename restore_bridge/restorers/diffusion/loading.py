"""A diffusers pipeline in memory: where its weights come from, on which device, in which number format.

Weights are read from safetensors alone, from a local folder or the hub; code of a repository is never run. It must not
know what a pipeline is used for.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from restore_bridge import weights
from restore_bridge.restorers.diffusion.memory import OFFLOADS, Offload
from zoomiqa.devices import choose_device, choose_dtype
from zoomiqa.errors import (
    ExtraMissing,
    OptionInvalid,
    WeightsDamaged,
    WeightsError,
    WeightsMissing,
    WeightsRefused,
    WeightsUnsuitable,
)
from zoomiqa.types import Choice

INSTALL = 'run: pip install "zoomiqa[diffusion]"'
INDEX = "model_index.json"
ATTENTIONS = ("sdpa", "sliced")
HEADROOM = 1.2
"""Free memory over the estimate that is wanted before nothing is offloaded."""


@dataclass(frozen=True, slots=True)
class Source:
    """A local folder, or `owner/name` on the hub, where `@` may name a commit."""

    text: str

    @property
    def folder(self) -> Path | None:
        """The local folder; `None` for a hub id."""
        path = Path(self.text).expanduser()
        if path.is_dir():
            return path
        is_hub = self.text.count("/") == 1 and not self.text.startswith((".", "~", "/"))
        if is_hub and not path.exists():
            return None
        raise WeightsMissing(
            "there is no folder of weights" if not path.exists() else "the weights must be a folder, not a file",
            self.text,
            "give a folder that a pipeline was saved to, or a hub id such as owner/name",
        )

    def check(self) -> None:
        """Refuse a path at which there is no folder."""
        _ = self.folder

    @property
    def where(self) -> str:
        """What diffusers is asked for."""
        folder = self.folder
        return str(folder) if folder else self.text.partition("@")[0]

    @property
    def revision(self) -> str | None:
        """The commit or branch that is asked for."""
        return None if self.folder else self.text.partition("@")[2] or None

    def holds(self, part: str) -> bool:
        """Whether it is a local folder with this sub-folder."""
        folder = self.folder
        return folder is not None and (folder / part).is_dir()

    @property
    def is_pinned(self) -> bool:
        """Whether the same weights come tomorrow: a local folder or file, or a commit by its hash."""
        if Path(self.text).expanduser().is_file():
            return True
        revision = self.revision
        return self.folder is not None or (revision is not None and len(revision) == 40)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a pipeline runs and how."""

    device: Choice
    dtype: Choice
    offload: Choice

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).to_dict() for name in ("device", "dtype", "offload")}


def import_torch() -> Any:
    """torch, where it and diffusers are installed.

    Raises:
        ExtraMissing: one of them is not.
    """
    try:
        import accelerate  # noqa: F401 - diffusers asks for it only when it is too late
        import diffusers  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ExtraMissing("diffusion restorers need torch, diffusers and accelerate", error.name, INSTALL) from None
    return torch


def choose_placement(device: str, dtype: str, offload: str, need: Callable[[str, Offload], float]) -> Placement:
    """Decide where to run; "auto" is decided here, with the reason.

    Args:
        device: "auto", or a torch device such as "cuda", "cuda:1", "mps", "cpu".
        dtype: "auto" or one of `DTYPE_BYTES`.
        offload: "auto" or one of `OFFLOADS`.
        need: (dtype, offload) → GiB that the run takes.

    Raises:
        OptionInvalid: the device is not there, or nothing can be offloaded from it.
    """
    torch = import_torch()
    where = choose_device(device)
    number = choose_dtype(dtype, where.value)
    if where.value == "cpu":
        if offload not in ("auto", "none"):
            raise OptionInvalid("nothing can be offloaded from the CPU", offload, "leave offload at auto")
        return Placement(where, number, Choice("none", "weights are in the machine's memory already"))
    if offload != "auto":
        return Placement(where, number, Choice(offload, "asked for"))
    if not where.value.startswith("cuda"):
        return Placement(where, number, Choice("none", "free memory of this device cannot be read"))
    free = torch.cuda.mem_get_info(torch.device(where.value))[0] / 2**30
    for mode in OFFLOADS:
        needed = need(number.value, mode) * HEADROOM
        if needed <= free or mode == "sequential":
            return Placement(where, number, Choice(mode, f"about {needed:.1f} GiB wanted, {free:.1f} GiB free"))
    raise AssertionError  # the loop always ends at "sequential"


def torch_dtype(name: str) -> Any:
    """The torch type that one of `DTYPE_BYTES` names."""
    torch = import_torch()
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]


def versions() -> dict[str, str]:
    """Of the libraries that decide what comes out."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("diffusers", "torch", "transformers")}


def check_file_or_folder(text: str, *, allow_pickle: bool) -> None:
    """Refuse a path that is neither a weights file nor a folder; what the hub has is not asked.

    Raises:
        WeightsError: it is refused, as `restore_bridge.weights.resolve` and `Source.folder` do.
    """
    if Path(text).expanduser().is_file():
        weights.resolve(text, allow_pickle=allow_pickle)
    elif weights.hub_id(text) is None:
        Source(text).check()


def from_pretrained(
    maker: Any, source: Source, *, dtype: str, variant: str | None = None, vae_dtype: str | None = None, **parts: Any
) -> Any:
    """Load a pipeline or one of its networks.

    Args:
        maker: A class of diffusers.
        source: Where from.
        dtype: One of `DTYPE_BYTES`.
        variant: Suffix of the weight files, such as "fp16"; not asked of local folders that lack it.
        vae_dtype: Another number format for a pipeline's VAE, as SDXL's overflows in fp16.
        parts: Passed on: networks that are loaded already.

    Raises:
        WeightsMissing: no such folder or repository, one that asks for consent, or no connection.
        WeightsRefused: the weights are pickles.
        WeightsUnsuitable: the folder holds another kind of model.
        WeightsDamaged: a file is cut short.
    """
    number = torch_dtype(dtype)
    options = {
        **parts,
        "dtype": {"default": number, "vae": torch_dtype(vae_dtype)} if vae_dtype else number,
        "use_safetensors": True,
    }
    if variant is not None:
        options["variant"] = variant
    if source.revision is not None:
        options["revision"] = source.revision
    with _told(source), quiet():
        return maker.from_pretrained(source.where, **options)


def load_tokenizer(source: Source, part: str, kind: str) -> Any:
    """One tokenizer of a pipeline, alone.

    Args:
        source: The pipeline.
        part: Its name there.
        kind: Its class in transformers.

    Raises:
        WeightsError: as `from_pretrained`.
    """
    import transformers

    if source.folder is not None and not source.holds(part):  # transformers would make one of nothing
        raise WeightsUnsuitable(f"the folder holds no {part}", source.text, "give a saved pipeline")
    with _told(source), quiet():
        maker = getattr(transformers, kind)
        return maker.from_pretrained(source.where, subfolder=part, revision=source.revision or "main")


def model_index(source: Source) -> Mapping[str, Any] | None:
    """The list of networks of a local pipeline folder; `None` for a hub id.

    Raises:
        WeightsUnsuitable: the folder holds no pipeline.
    """
    folder = source.folder
    if folder is None:
        return None
    try:
        return cast("Mapping[str, Any]", json.loads((folder / INDEX).read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise WeightsUnsuitable(
            f"the folder holds no saved pipeline ({INDEX} is missing or damaged)",
            source.text,
            "give the folder that `save_pretrained` of a diffusers pipeline wrote",
        ) from error


@contextlib.contextmanager
def _told(source: Source) -> Iterator[None]:
    """Say in our own words what went wrong while loading."""
    import safetensors
    from huggingface_hub import errors

    try:
        yield
    except WeightsError:
        raise
    except (
        safetensors.SafetensorError,
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
        KeyError,
        AttributeError,
    ) as error:
        chain = [error, *_causes(error)]
        text = " ".join(str(item) for item in chain)
        kinds = tuple(type(item) for item in chain)
        repository = source.where
        if isinstance(error, RuntimeError) and "memory" in text.lower():
            raise  # not a matter of the weights
        if _any(kinds, safetensors.SafetensorError):
            raise WeightsDamaged("a weights file is cut short or damaged", source.text, "download it anew") from error
        if _any(kinds, errors.GatedRepoError):
            raise WeightsMissing(
                "the hub gives these weights only to those who accepted their terms",
                source.text,
                f"accept them at https://huggingface.co/{repository}, then run: hf auth login",
            ) from error
        if _any(kinds, errors.RepositoryNotFoundError):
            raise WeightsMissing(
                "the hub has no such repository, or it is private", source.text, "check the spelling or: hf auth login"
            ) from error
        if _any(kinds, errors.RevisionNotFoundError):
            raise WeightsMissing("the hub's repository has no such revision", source.text, "check it") from error
        if source.folder is None and (_any(kinds, OSError, errors.OfflineModeIsEnabled) or "onnect" in text):
            raise WeightsMissing(
                "the weights are neither on this machine nor could the hub be reached",
                source.text,
                "check the connection, or download the repository elsewhere and give its folder",
            ) from error
        if source.folder is not None and _holds_pickles(source.folder) and "safetensors" in text:
            raise WeightsRefused(
                "the folder holds weights as pickles, which could run code",
                source.text,
                "save it with safe_serialization=True, or convert the files: restore-bridge weights convert",
            ) from error
        raise WeightsUnsuitable(
            f"the weights do not fit ({type(error).__name__}: {_first_line(error)})",
            source.text,
            "check that they belong to this restorer and are complete",
        ) from error


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    inner = error.__cause__ or error.__context__
    while inner is not None and inner not in found:
        found.append(inner)
        inner = inner.__cause__ or inner.__context__
    return found


def _any(kinds: tuple[type[BaseException], ...], *wanted: type[BaseException]) -> bool:
    return any(issubclass(kind, wanted) for kind in kinds)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")[:200]


def _holds_pickles(folder: Path) -> bool:
    return any(path.suffix in (".bin", ".pth", ".ckpt", ".pt") for path in folder.rglob("*"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of libraries, which would write between the lines of a run."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    was_shown = [(log, log.is_progress_bar_enabled()) for log in (of_diffusers, of_transformers)]
    verbosity = of_diffusers.get_verbosity()
    for log, _ in was_shown:
        log.disable_progress_bar()
    of_diffusers.set_verbosity_error()  # what it warns of while loading comes out as our own error
    try:
        with warnings.catch_warnings():
            # diffusers' own ControlNet of FLUX uses an old name of diffusers, and its loader an old option of the hub.
            warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument is deprecated", UserWarning)
            yield
    finally:
        of_diffusers.set_verbosity(verbosity)
        for log, shown in was_shown:
            if shown:
                log.enable_progress_bar()


def place(pipeline: Any, placement: Placement, *, attention: str, compile_with: str | None, denoisers: Any) -> None:
    """Move a loaded pipeline to its device and switch on what saves memory or time.

    Raises:
        OptionInvalid: torch has no such compiler.
    """
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.enable_tiling()  # works tile by tile only on pictures larger than the VAE was made for
    if attention == "sliced":
        pipeline.enable_attention_slicing()
    if compile_with is not None:
        import torch

        known = torch.compiler.list_backends(exclude_tags=())
        if compile_with not in known:
            raise OptionInvalid("torch.compile has no such backend", compile_with, f"choose one of {', '.join(known)}")
        for network in denoisers:
            network.compile(backend=compile_with)
    if placement.offload.value == "model":
        pipeline.enable_model_cpu_offload(device=placement.device.value)
    elif placement.offload.value == "sequential":
        pipeline.enable_sequential_cpu_offload(device=placement.device.value)
    else:
        pipeline.to(placement.device.value)
