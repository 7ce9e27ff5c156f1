"""The released names of SUPIR's and SDXL's tensors, and ours. It must not know files or values.

The released checkpoints number the blocks of a network through (`input_blocks.4.1`), diffusers counts by level and
layer (`down_blocks.1.attentions.0`). Both follow from the shape of the model, so the tables are made from it; nothing
is matched by pattern, and a name that is in no table is an error of the file, not a guess. A table is one of modules;
`Names.released` takes the names of their tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from restore_bridge.restorers.diffusion.supir.architecture import Architecture

UNET = "model.diffusion_model."
CONTROL = "model.control_model."
VAE = "first_stage_model."
ENCODER = "first_stage_model.denoise_encoder."
CLIP_L = "conditioner.embedders.0.transformer."
CLIP_G = "conditioner.embedders.1.model."

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_EMBEDDINGS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
}
ZERO_SFT = {
    "norm": "param_free_norm",
    "shared": "mlp_shared.0",
    "scale": "zero_mul",
    "shift": "zero_add",
    "direct": "zero_conv",
}
ZERO_CROSS = {"attention": "attn", "state_norm": "norm1", "control_norm": "norm2"}
_VAE_RESNET = {"conv_shortcut": "nin_shortcut"} | {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


@dataclass(frozen=True, slots=True)
class Names:
    """A table of modules, ours by released names, used in both directions."""

    modules: Mapping[str, str]
    """Our module → the released one, without a prefix."""

    prefix: str = ""
    """What stands before every released name in a checkpoint."""

    def released(self, name: str) -> str | None:
        """The released name of one of our tensors; `None` where the table has none."""
        found = _replaced(name, self.modules)
        return None if found is None else self.prefix + found

    def pairs(self, ours: Iterable[str]) -> dict[str, str]:
        """Released name → ours, for the tensors of a model.

        Raises:
            KeyError: the table lacks one of them, which is an error of this module.
        """
        found = {}
        for name in ours:
            released = self.released(name)
            if released is None:
                raise KeyError(name)
            found[released] = name
        return found


def _replaced(name: str, table: Mapping[str, str]) -> str | None:
    """`name` with its longest known beginning (up to a dot) replaced."""
    head = name
    while head:
        if head in table:
            return table[head] + name[len(head) :]
        head = head.rpartition(".")[0]
    return None


def control_names(architecture: Architecture) -> Names:
    """Of `SUPIRControl`."""
    return Names({**_EMBEDDINGS, **_encoder(architecture), "hint_conv": "input_hint_block.0"}, CONTROL)


def unet_names(architecture: Architecture) -> Names:
    """Of SDXL's part of `SUPIRUNet`, the same as of diffusers' `UNet2DConditionModel`."""
    table = {**_EMBEDDINGS, **_encoder(architecture), "conv_norm_out": "out.0", "conv_out": "out.2"}
    number = 0
    levels = len(architecture.channels)
    for block, level in enumerate(reversed(range(levels))):
        for layer in range(architecture.layers + 1):
            ours, released = f"up_blocks.{block}", f"output_blocks.{number}"
            table |= _within(f"{ours}.resnets.{layer}", f"{released}.0", _RESNET)
            if architecture.attends(level):
                table[f"{ours}.attentions.{layer}"] = f"{released}.1"
            if layer == architecture.layers and level > 0:
                place = 2 if architecture.attends(level) else 1
                table[f"{ours}.upsamplers.0.conv"] = f"{released}.{place}.conv"
            number += 1
    return Names(table, UNET)


def connector_names(architecture: Architecture) -> Names:
    """Of `SUPIRUNet.connectors`."""
    table: dict[str, str] = {}
    for number, connector in enumerate(architecture.connectors):
        inner = ZERO_CROSS if connector.attends else ZERO_SFT
        table |= _within(f"connectors.{number}", f"project_modules.{number}", inner)
    return Names(table, UNET)


def vae_names(levels: int, layers: int) -> Names:
    """Of diffusers' `AutoencoderKL` with so many levels, and residual blocks of a level of its encoder."""
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    table |= _within("encoder", "encoder", _vae_encoder(levels, layers))
    table |= _within("decoder", "decoder", _vae_decoder(levels, layers))
    return Names(table, VAE)


def robust_encoder_names(levels: int, layers: int) -> Names:
    """Of the encoder inside `RobustEncoder`; its `quant_conv` is the VAE's."""
    return Names(_within("encoder", "", _vae_encoder(levels, layers)), ENCODER)


def _encoder(architecture: Architecture) -> dict[str, str]:
    """Of the encoder half and the middle, which both networks have."""
    table: dict[str, str] = {}
    number = 1
    levels = len(architecture.channels)
    for level in range(levels):
        for layer in range(architecture.layers):
            table |= _within(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0", _RESNET)
            if architecture.attends(level):
                table[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if level < levels - 1:
            table[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    for layer in (0, 1):
        table |= _within(f"mid_block.resnets.{layer}", f"middle_block.{2 * layer}", _RESNET)
    return table | {"mid_block.attentions.0": "middle_block.1"}


def _vae_encoder(levels: int, layers: int) -> dict[str, str]:
    table = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"} | _vae_middle()
    for level in range(levels):
        for layer in range(layers):
            table |= _within(f"down_blocks.{level}.resnets.{layer}", f"down.{level}.block.{layer}", _VAE_RESNET)
        if level < levels - 1:
            table[f"down_blocks.{level}.downsamplers.0.conv"] = f"down.{level}.downsample.conv"
    return table


def _vae_decoder(levels: int, layers: int) -> dict[str, str]:
    table = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"} | _vae_middle()
    for block in range(levels):
        level = levels - 1 - block
        for layer in range(layers + 1):
            table |= _within(f"up_blocks.{block}.resnets.{layer}", f"up.{level}.block.{layer}", _VAE_RESNET)
        if level > 0:
            table[f"up_blocks.{block}.upsamplers.0.conv"] = f"up.{level}.upsample.conv"
    return table


def _vae_middle() -> dict[str, str]:
    table = _within("mid_block.attentions.0", "mid.attn_1", _VAE_ATTENTION)
    for layer in (0, 1):
        table |= _within(f"mid_block.resnets.{layer}", f"mid.block_{layer + 1}", _VAE_RESNET)
    return table


def _within(ours: str, released: str, inner: Mapping[str, str]) -> dict[str, str]:
    """`inner`, inside a module."""
    dot = "." if released else ""
    return {f"{ours}.{own}": f"{released}{dot}{theirs}" for own, theirs in inner.items()}
