"""The released checkpoint to a pipeline and back, strict in both directions.

Every tensor must have its place and every place its tensor, of the right shape; otherwise nothing is loaded, and the
message lists what does not match. `from_released` and `to_released` are each other's inverse. VAE, T5 and tokenizer
come from a PixArt-α pipeline (`base`), SwinIR from its own file. Names: `released`.

It must not know pictures or text, or files other than through `restore_bridge.weights` and `loading`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from restore_bridge import weights
from restore_bridge.restorers.diffusion import loading
from restore_bridge.restorers.diffusion.dreamclear import released
from restore_bridge.restorers.diffusion.dreamclear.released import Entry, Sizes
from zoomiqa.errors import OptionInvalid, OutputWouldOverwrite, WeightsUnsuitable

if TYPE_CHECKING:
    from torch import Tensor

    from restore_bridge.restorers.diffusion.dreamclear.pipeline import DreamClearPipeline
    from restore_bridge.restorers.diffusion.dreamclear.transformer import DreamClearTransformer2DModel

HEADS = 16
"""Of the released model; shapes do not tell."""

SHOWN = 6
"""Names of each kind that a message lists."""

ADVICE = "give the released DreamClear checkpoint, whole and unchanged"

BASE = "PixArt-alpha/PixArt-XL-2-1024-MS"
"""Brings the VAE (sd-vae-ft-ema), T5 v1.1 XXL and its tokenizer."""


def assemble(
    checkpoint: str | Path,
    base: str | Path = BASE,
    *,
    swinir: str | Path | None = None,
    dtype: str = "fp32",
    allow_pickle: bool = False,
    variant: str | None = None,
) -> DreamClearPipeline:
    """A pipeline from the released files.

    Args:
        checkpoint: DreamClear's own: a file, or `owner/name:file` on the hub.
        base: A PixArt-α pipeline: a folder, or `owner/name[@commit]` on the hub.
        swinir: SwinIR's general model, a file or `owner/name:file`; without it the pipeline has no pre-pass.
        dtype: Of denoiser and text encoder, one of `DTYPE_BYTES`; VAE and pre-pass take fp32.
        allow_pickle: Whether a file may be a pickle (`.pth`, `.ckpt`), which torch's restricted reader then reads.
        variant: Suffix of the base's weight files, such as fp16.

    Raises:
        WeightsMissing, WeightsRefused, WeightsDamaged: as `restore_bridge.weights` and `loading.from_pretrained`.
        WeightsUnsuitable: a file does not match; the message lists names.
    """
    from restore_bridge.restorers.diffusion.dreamclear.cleaner import read_cleaner
    from restore_bridge.restorers.diffusion.dreamclear.pipeline import DreamClearPipeline
    from restore_bridge.restorers.diffusion.dreamclear.scheduler import IDDPMScheduler

    cleaner = None if swinir is None else read_cleaner(swinir, allow_pickle=allow_pickle)
    transformer = read_transformer(checkpoint, allow_pickle=allow_pickle, dtype=loading.torch_dtype(dtype))
    pipe: DreamClearPipeline = loading.from_pretrained(
        DreamClearPipeline,
        loading.Source(str(base)),
        dtype=dtype,
        variant=variant,
        vae_dtype="fp32",
        transformer=transformer,
        scheduler=IDDPMScheduler(),
        cleaner=cleaner,
    )
    return pipe


def convert(
    checkpoint: str | Path,
    target: Path,
    base: str | Path = BASE,
    *,
    swinir: str | Path | None = None,
    dtype: str = "bf16",
    allow_pickle: bool = False,
) -> None:
    """Write a folder that `DreamClearPipeline.from_pretrained` and the restorer's `weights` take; the rest as `assemble`.

    Raises:
        OutputWouldOverwrite: the folder exists and is not empty.
    """  # noqa: E501
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputWouldOverwrite("the target exists", weights.shown(target), "choose another name or delete it")
    pipe = assemble(checkpoint, base, swinir=swinir, dtype=dtype, allow_pickle=allow_pickle)
    with loading.quiet():
        pipe.save_pretrained(target)


def read_transformer(
    source: str | Path, *, allow_pickle: bool = False, heads: int = HEADS, dtype: Any = None
) -> DreamClearTransformer2DModel:
    """The denoiser in a released checkpoint, on the CPU.

    Args:
        source: File, or `owner/name:file` on the hub; see `restore_bridge.weights.resolve`.
        allow_pickle: Whether it may be a pickle (`.pth`), which is then read by torch's restricted reader alone.
        heads: Attention heads, which shapes do not tell.
        dtype: Torch's type of the numbers; the checkpoint's own where not given.

    Raises:
        WeightsMissing, WeightsRefused, WeightsDamaged: as `restore_bridge.weights.load_state_dict`.
        WeightsUnsuitable: names or shapes do not fit; they are listed.
        OptionInvalid: the heads do not divide the width of a token.
    """
    path = weights.resolve(source, allow_pickle=allow_pickle)
    return build_transformer(weights.load_state_dict(path, allow_pickle=allow_pickle), heads=heads, dtype=dtype)


def build_transformer(
    tensors: Mapping[str, Tensor], *, heads: int = HEADS, dtype: Any = None
) -> DreamClearTransformer2DModel:
    """The denoiser from tensors in the released naming; they are not copied where their numbers stay.

    Raises:
        WeightsUnsuitable, OptionInvalid: as `read_transformer`.
    """
    import torch

    from restore_bridge.restorers.diffusion.dreamclear.transformer import DreamClearTransformer2DModel

    sizes = sizes_of(tensors)
    own = {
        name: tensor if dtype is None else tensor.to(dtype) for name, tensor in from_released(tensors, sizes).items()
    }
    with torch.device("meta"):
        network = DreamClearTransformer2DModel(**configuration(sizes, heads))
    network.load_state_dict(own, strict=True, assign=True)
    network.place_positions()
    return cast("DreamClearTransformer2DModel", network.eval())


def configuration(sizes: Sizes, heads: int = HEADS) -> dict[str, Any]:
    """The denoiser's settings for these sizes.

    Raises:
        OptionInvalid: the heads do not divide the width of a token.
    """
    if heads < 1 or sizes.width % heads:
        raise OptionInvalid(f"heads must divide the width of a token, {sizes.width}", heads, f"{HEADS} is the original")
    return {
        "num_attention_heads": heads,
        "attention_head_dim": sizes.width // heads,
        "in_channels": sizes.channels,
        "out_channels": sizes.out_channels,
        "num_layers": sizes.blocks,
        "num_control_layers": sizes.control_blocks,
        "num_experts": sizes.experts,
        "mlp_ratio": sizes.inner / sizes.width,
        "sample_size": sizes.grid * sizes.patch,
        "patch_size": sizes.patch,
        "caption_channels": sizes.text_width,
        "caption_length": sizes.text_length,
    }


def sizes_of(tensors: Mapping[str, Tensor]) -> Sizes:
    """What decides the shapes, read off a checkpoint in the released naming.

    Raises:
        WeightsUnsuitable: it is no checkpoint of DreamClear; what is missing is named.
    """

    def shape(name: str, axes: int) -> tuple[int, ...]:
        tensor = tensors.get(name)
        if tensor is None or tensor.ndim != axes:
            what = "is missing" if tensor is None else f"has {tensor.ndim} axes, not {axes}"
            raise WeightsUnsuitable(
                f"this is no checkpoint of DreamClear: {name} {what}",
                f"{len(tensors)} tensors, such as {min(tensors, default='none')}",
                ADVICE,
            )
        return tuple(tensor.shape)

    def count(pattern: str) -> int:
        return 1 + max((int(match[1]) for name in tensors if (match := re.match(pattern, name))), default=-1)

    width, channels, patch, _ = shape("base_model.x_embedder.proj.weight", 4)
    length, text = shape("base_model.y_embedder.y_embedding", 2)
    has_positions = released.POSITIONS in tensors
    return Sizes(
        width=width,
        inner=shape("base_model.blocks.0.mlp.fc1.weight", 2)[0],
        blocks=count(r"base_model\.blocks\.(\d+)\."),
        control_blocks=count(r"controlnet_lq\.(\d+)\."),
        experts=count(r"am_lq\.0\.experts\.(\d+)\."),
        text_width=text,
        text_length=length,
        channels=channels,
        out_channels=shape("base_model.final_layer.linear.weight", 2)[0] // patch**2,
        patch=patch,
        grid=math.isqrt(shape(released.POSITIONS, 3)[1]) if has_positions else Sizes().grid,
    )


def from_released(tensors: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """Our names, from the released ones. Stored positions, which follow from the sizes, are left out.

    Raises:
        WeightsUnsuitable: a name is missing or unknown, or a shape is another.
    """
    wanted = {entry.there: entry for entry in released.table(sizes)}
    shapes = {name: entry.shape for name, entry in wanted.items()}
    if released.POSITIONS in tensors:
        shapes[released.POSITIONS] = released.positions_shape(sizes)
    _refuse_differences(tensors, shapes)
    return from_entries(tensors, wanted.values())


def to_released(tensors: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """The released names, from ours; without the positions.

    Raises:
        WeightsUnsuitable: as `from_released`.
    """
    entries = list(released.table(sizes))
    shapes = {name: (entry.shape[0] // len(entry.here), *entry.shape[1:]) for entry in entries for name in entry.here}
    _refuse_differences(tensors, shapes)
    return to_entries(tensors, entries)


def from_entries(tensors: Mapping[str, Tensor], entries: Any) -> dict[str, Tensor]:
    """Our names for the tensors that `entries` (see `released.Entry`) speak of; those that hold several are cut."""
    found: dict[str, Tensor] = {}
    for entry in entries:
        parts = tensors[entry.there].chunk(len(entry.here)) if len(entry.here) > 1 else (tensors[entry.there],)
        found.update(zip(entry.here, parts, strict=True))
    return found


def to_entries(tensors: Mapping[str, Tensor], entries: Any) -> dict[str, Tensor]:
    """The reverse of `from_entries`."""
    import torch

    def joined(entry: Entry) -> Tensor:
        parts = [tensors[name] for name in entry.here]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return {entry.there: joined(entry) for entry in entries}


def _refuse_differences(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """List what is missing, what is unknown, and what has another shape.

    Raises:
        WeightsUnsuitable: anything does.
    """
    missing = sorted(shapes.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - shapes.keys())
    other = [
        f"{name} {_form(tensors[name].shape)} instead of {_form(shape)}"
        for name, shape in sorted(shapes.items())
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    if any(names for _, names in kinds):
        text = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds if names)
        raise WeightsUnsuitable(f"the tensors are not those of DreamClear ({text})", f"{len(tensors)} tensors", ADVICE)


def _form(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
