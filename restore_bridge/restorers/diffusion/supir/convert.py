"""Released checkpoints to a pipeline and back, strict in both directions.

Two files make a SUPIR: its own (SUPIR-v0Q or SUPIR-v0F: control copy, connectors and robust encoder) and one of SDXL's
family (denoiser, VAE, both text encoders). The base may also be a pipeline of diffusers, local or on the hub. Every
tensor of a file must have its place and every place its tensor, of the right shape; otherwise nothing is loaded, and
the message lists what does not match. A base's single file holds no tokenizers; they and the networks' configurations
come from a pipeline of the same family (`configs`).

Source of the names: the released code's modules (github.com/Fanghua-Yu/SUPIR, commit bda91af2) at full size; see
`RELEASED`. The checkpoints themselves were not at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge import weights
from restore_bridge.restorers.diffusion import loading
from restore_bridge.restorers.diffusion.supir import names
from restore_bridge.restorers.diffusion.supir.architecture import Architecture
from zoomiqa.errors import WeightsUnsuitable

if TYPE_CHECKING:
    from torch import Tensor

    from restore_bridge.restorers.diffusion.supir.pipeline import SUPIRPipeline

SHOWN = 6
"""Names of each kind that a message lists."""

CONNECTORS = "connectors."

LEFT_OUT = frozenset(
    {
        f"{names.CLIP_L}text_model.embeddings.position_ids",
        f"{names.CLIP_G}logit_scale",
        "denoiser.sigmas",
    }
)
"""What a base's file may hold beside weights: numbers that follow from others or that nothing here needs."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a part of a released checkpoint holds, in short."""

    tensors: int
    parameters: int
    digest: str
    """SHA-256 of the lines "name axis axis ..." in alphabetical order, without the checkpoint's prefix."""

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> Listing:
        """Of names with shapes."""
        import math

        lines = (" ".join((name, *map(str, shape))) for name, shape in sorted(shapes.items()))
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return cls(len(shapes), sum(math.prod(shape) for shape in shapes.values()), digest)


RELEASED: Mapping[str, Listing] = {
    "control": Listing(810, 1_243_378_880, "2b6f6a9e3f7fdc8351b4a4be19c748560bb3e55ae3f82c26e1cf741a6596c918"),
    "connectors": Listing(118, 54_797_440, "21896d3d62848b937ad1ec65fb6a52cc86cd66310d8475361d0d1de9be0227eb"),
    "base": Listing(1680, 2_567_463_684, "a28b45fd80f1b69ca71d54e6a0813ac6499bda527b15d0a98b656851b12e6b90"),
}
"""Full size, from the original's modules built with options/SUPIR_v0.yaml (commit bda91af2)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor of a checkpoint, and where it goes."""

    released: str
    ours: tuple[str, ...]
    """Names in our network; of several, each takes an equal part along the first axis."""

    shape: Shape
    """In the checkpoint."""

    is_turned: bool = False
    """Whether its two axes are the other way round in the checkpoint."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network, and the rows that fill it."""

    model: Any
    rows: tuple[Row, ...]
    dtype: Any = None
    """Of torch, what its numbers become; `None` leaves them as they are."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What keeps a checkpoint from being loaded."""

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)
    """Name → (as it is, as it should be)."""

    wanted: int = 0
    """Tensors that there should be."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.shapes)

    def lines(self) -> list[str]:
        """All of it, a line for each tensor."""
        return [
            *(f"missing {name}" for name in self.missing),
            *(f"unknown {name}" for name in self.unknown),
            *(f"shape   {name} is {there}, should be {needed}" for name, (there, needed) in self.shapes.items()),
        ]

    def summary(self) -> str:
        """In one line, with the first few names of each kind."""
        others = [f"{name} {there} for {needed}" for name, (there, needed) in self.shapes.items()]
        kinds = (("missing", self.missing), ("unknown", self.unknown), ("of another shape", others))
        parts = [f"{len(found)} {what} ({_some(found)})" for what, found in kinds if found]
        return f"of {self.wanted} tensors, {'; '.join(parts)}"


def compare(tensors: Mapping[str, Tensor], networks: Iterable[Network]) -> Mismatch:
    """What a checkpoint lacks, has too much, and has in another shape, for these networks."""
    wanted = {row.released: row.shape for network in networks for row in network.rows}
    return Mismatch(
        tuple(sorted(wanted.keys() - tensors.keys())),
        tuple(sorted(tensors.keys() - wanted.keys() - LEFT_OUT)),
        {
            name: (tuple(tensors[name].shape), shape)
            for name, shape in sorted(wanted.items())
            if name in tensors and tuple(tensors[name].shape) != shape
        },
        len(wanted),
    )


def fill(tensors: Mapping[str, Tensor], networks: Sequence[Network], source: str | Path, fix: str) -> None:
    """Give the networks their tensors.

    Args:
        tensors: Of the checkpoint, by released names.
        networks: To be filled; what no row names keeps its own.
        source: What the checkpoint is called in a message.
        fix: What to do where it does not match.

    Raises:
        WeightsUnsuitable: the checkpoint does not match; nothing is changed.
    """
    if mismatch := compare(tensors, networks):
        raise WeightsUnsuitable(f"the checkpoint does not match: {mismatch.summary()}", str(source), fix)
    for network in networks:
        state: dict[str, Tensor] = {}
        own = network.model.state_dict()
        for row in network.rows:
            value = tensors[row.released]
            value = value if network.dtype is None else value.to(network.dtype)
            parts = (value.T.contiguous() if row.is_turned else value).chunk(len(row.ours))
            state |= {name: part.reshape(own[name].shape) for name, part in zip(row.ours, parts, strict=True)}
        network.model.load_state_dict(state, strict=False, assign=True)


def empty(networks: Iterable[Network]) -> dict[str, Tensor]:
    """The opposite of `fill`: the networks' tensors by released names."""
    import torch

    found: dict[str, Tensor] = {}
    for network in networks:
        own = network.model.state_dict()
        for row in network.rows:
            value = torch.cat([own[name] for name in row.ours]) if len(row.ours) > 1 else own[row.ours[0]]
            found[row.released] = (value.T if row.is_turned else value).reshape(row.shape).contiguous()
    return found


def own_networks(unet: Any, control: Any, encoder: Any, dtype: Any = None) -> tuple[Network, ...]:
    """What SUPIR's own file fills: control copy, connectors and robust encoder, the last with 32-bit numbers."""
    import torch

    architecture = Architecture.from_unet(unet.config)
    connectors = [name for name in unet.state_dict() if name.startswith(CONNECTORS)]
    inside = [name for name in encoder.state_dict() if name.startswith("encoder.")]
    encoder_names = names.robust_encoder_names(*_vae_shape(encoder))
    return (
        Network(control, _rows(control, control.state_dict(), names.control_names(architecture)), dtype),
        Network(unet, _rows(unet, connectors, names.connector_names(architecture)), dtype),
        Network(encoder, _rows(encoder, inside, encoder_names), torch.float32),
    )


def base_networks(
    unet: Any, vae: Any, text_encoder: Any, text_encoder_2: Any, dtype: Any = None
) -> tuple[Network, ...]:
    """What a base's file fills: denoiser, VAE (with 32-bit numbers) and both text encoders."""
    import torch

    architecture = Architecture.from_unet(unet.config)
    plain = [name for name in unet.state_dict() if not name.startswith(CONNECTORS)]
    return (
        Network(unet, _rows(unet, plain, names.unet_names(architecture)), dtype),
        Network(vae, _rows(vae, vae.state_dict(), names.vae_names(*_vae_shape(vae))), torch.float32),
        Network(text_encoder, _clip_l_rows(text_encoder), dtype),
        Network(text_encoder_2, _clip_g_rows(text_encoder_2), dtype),
    )


def assemble(
    checkpoint: str | Path,
    base: str | Path,
    *,
    configs: str | Path | None = None,
    dtype: str = "fp32",
    allow_pickle: bool = False,
    variant: str | None = None,
) -> SUPIRPipeline:
    """A pipeline from the released files.

    Args:
        checkpoint: SUPIR's own: a file, or `owner/name:file` on the hub.
        base: A model of SDXL's family: a pipeline's folder, `owner/name[@commit]` on the hub, or a single file.
        configs: Pipeline that brings tokenizers and configurations where the base is a single file.
        dtype: Of denoiser, control copy and text encoders, one of `DTYPE_BYTES`; VAE and encoder take fp32.
        allow_pickle: Whether a file may be a pickle (`.ckpt`), which torch's restricted reader then reads.
        variant: Suffix of the weight files of a base that is a pipeline, such as fp16.

    Raises:
        WeightsMissing, WeightsRefused, WeightsDamaged: as `restore_bridge.weights`.
        WeightsUnsuitable: a file does not match; the message lists names.
    """
    from accelerate import init_empty_weights

    from restore_bridge.restorers.diffusion.supir.autoencoder import RobustEncoder
    from restore_bridge.restorers.diffusion.supir.control import SUPIRControl
    from restore_bridge.restorers.diffusion.supir.pipeline import SUPIRPipeline
    from restore_bridge.restorers.diffusion.supir.schedule import SUPIRSchedule
    from restore_bridge.restorers.diffusion.supir.unet import SUPIRUNet

    number = loading.torch_dtype(dtype)
    own = _read(checkpoint, allow_pickle=allow_pickle)
    parts = _base(base, configs, dtype, variant, allow_pickle=allow_pickle)
    plain = parts.pop("unet")
    try:
        architecture = Architecture.from_unet(plain.config)
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsUnsuitable(
            f"the base is not of SDXL's family ({error})", str(base), "give SDXL base 1.0 or a fine-tune of it"
        ) from error
    with init_empty_weights(include_buffers=False), loading.quiet():
        unet = SUPIRUNet.from_config(plain.config)
        control = SUPIRControl.for_architecture(architecture)
        encoder = RobustEncoder.from_config(parts["vae"].config)
    fill(own, own_networks(unet, control, encoder, number), checkpoint, "give SUPIR-v0Q or SUPIR-v0F as weights")
    unet.load_state_dict(plain.state_dict(), strict=False, assign=True)
    encoder.quant_conv.load_state_dict(parts["vae"].quant_conv.state_dict(), assign=True)
    for model in (unet, control, encoder):
        model.eval().requires_grad_(False)
    return SUPIRPipeline(**parts, unet=unet, control=control, denoise_encoder=encoder, scheduler=SUPIRSchedule())


def convert(
    checkpoint: str | Path, base: str | Path, target: Path, *, configs: str | Path | None = None, dtype: str = "fp16",
    allow_pickle: bool = False,
) -> None:  # fmt: skip
    """Write a folder that `SUPIRPipeline.from_pretrained` and the restorer's `weights` take; the rest as `assemble`.

    Raises:
        OutputWouldOverwrite: the folder exists and is not empty.
    """
    from zoomiqa.errors import OutputWouldOverwrite

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputWouldOverwrite("the target exists", weights.shown(target), "choose another name or delete it")
    pipe = assemble(checkpoint, base, configs=configs, dtype=dtype, allow_pickle=allow_pickle)
    with loading.quiet():
        pipe.save_pretrained(target)


def _read(source: str | Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    return weights.load_state_dict(weights.resolve(source, allow_pickle=allow_pickle), allow_pickle=allow_pickle)


def _base(
    base: str | Path, configs: str | Path | None, dtype: str, variant: str | None, *, allow_pickle: bool
) -> dict[str, Any]:
    """The base's parts by the pipeline's names, with its plain U-Net."""
    from diffusers import StableDiffusionXLPipeline

    if not is_single_file(base):
        pipe = loading.from_pretrained(
            StableDiffusionXLPipeline, loading.Source(str(base)), dtype=dtype, variant=variant, vae_dtype="fp32"
        )
        return {name: getattr(pipe, name) for name in PARTS}
    parts: dict[str, Any] = loading.from_pretrained(
        _Shells, loading.Source(str(configs or DEFAULT_CONFIGS)), dtype=dtype
    )
    unet, vae, text_encoder, text_encoder_2 = (parts[name] for name in PARTS[:4])
    networks = base_networks(unet, vae, text_encoder, text_encoder_2, loading.torch_dtype(dtype))
    fill(_read(base, allow_pickle=allow_pickle), networks, base, "give SDXL base 1.0 or a fine-tune of it as base")
    for network in networks:
        network.model.eval().requires_grad_(False)
    return parts


PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
DEFAULT_CONFIGS = "stabilityai/stable-diffusion-xl-base-1.0"


def is_single_file(source: str | Path) -> bool:
    """Whether a base is one file: on this machine, or `owner/name:file` on the hub."""
    if Path(source).expanduser().is_file():
        return True
    hub = weights.hub_id(str(source))
    return hub is not None and hub[1] is not None


class _Shells:
    """Networks of a base without weights, and its tokenizers; has the shape of a loader of diffusers."""

    @staticmethod
    def from_pretrained(where: str, *, revision: str | None = None, **_: Any) -> dict[str, Any]:
        from accelerate import init_empty_weights
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        found: dict[str, Any] = {}
        with init_empty_weights(include_buffers=False):
            for name, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
                found[name] = kind.from_config(kind.load_config(where, subfolder=name, revision=revision))
            for name, maker in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
                found[name] = maker(CLIPTextConfig.from_pretrained(where, subfolder=name, revision=revision))
        for name in ("tokenizer", "tokenizer_2"):
            found[name] = CLIPTokenizer.from_pretrained(where, subfolder=name, revision=revision)
        return found


def _rows(model: Any, ours: Iterable[str], table: names.Names) -> tuple[Row, ...]:
    """A row for each of our tensors."""
    own = model.state_dict()
    found = []
    for released, name in table.pairs(ours).items():
        shape = tuple(own[name].shape)
        # Attention inside a VAE is made of 1x1 convolutions there, of linear layers here.
        is_convolution = ".mid.attn_1." in released and len(shape) == 2
        found.append(Row(released, (name,), (*shape, 1, 1) if is_convolution else shape))
    return tuple(found)


def _clip_l_rows(encoder: Any) -> tuple[Row, ...]:
    """Of CLIP ViT-L, whose released names are those of older versions of transformers."""
    return tuple(
        Row(f"{names.CLIP_L}text_model.{name.removeprefix('text_model.')}", (name,), tuple(value.shape))
        for name, value in encoder.state_dict().items()
    )


_CLIP_G = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}
_CLIP_G_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def _clip_g_rows(encoder: Any) -> tuple[Row, ...]:
    """Of OpenCLIP ViT-bigG, which joins queries, keys and values, and turns its projection."""
    own = encoder.state_dict()
    layers = encoder.config.num_hidden_layers
    table = {f"text_model.{ours}": released for ours, released in _CLIP_G.items()}
    for layer in range(layers):
        ours, released = f"text_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        table |= {f"{ours}.{mine}": f"{released}.{theirs}" for mine, theirs in _CLIP_G_LAYER.items()}
    found = []
    joined = {f"self_attn.{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")}
    plain = names.Names(table, names.CLIP_G)
    for name, value in own.items():
        shape = tuple(value.shape)
        if name == "text_projection.weight":
            found.append(Row(f"{names.CLIP_G}text_projection", (name,), shape[::-1], is_turned=True))
        elif not any(name.endswith(part) for part in joined):
            found.append(Row(plain.pairs([name]).popitem()[0], (name,), shape))
    for layer in range(layers):
        for kind in ("weight", "bias"):
            ours_ = tuple(f"text_model.encoder.layers.{layer}.self_attn.{part}_proj.{kind}" for part in "qkv")
            first = tuple(own[ours_[0]].shape)
            released = f"{names.CLIP_G}transformer.resblocks.{layer}.attn.in_proj_{kind}"
            found.append(Row(released, ours_, (3 * first[0], *first[1:])))
    return tuple(found)


def _vae_shape(vae: Any) -> tuple[int, int]:
    """(levels, residual blocks of a level)."""
    return len(vae.config.block_out_channels), vae.config.layers_per_block


def _some(found: Sequence[str]) -> str:
    """The first few of them."""
    more = len(found) - SHOWN
    return ", ".join(found[:SHOWN]) + (f" and {more} more" if more > 0 else "")
