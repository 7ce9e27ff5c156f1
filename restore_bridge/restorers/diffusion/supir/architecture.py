"""The shape of a SUPIR model as a few numbers, and what follows from them. It must not know torch.

SUPIR (Yu et al., "Scaling Up to Excellence", CVPR 2024) puts a trimmed copy of SDXL's encoder half beside SDXL, and
one connector for every feature that the copy gives, plus one before every enlargement (section 3.1 and figure 2 there).
How many channels each connector sees follows from the base model alone; the original writes the lists down by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TIME_IDS = 6
"""Numbers that SDXL is told of a picture: original size, crop, target size."""


@dataclass(frozen=True, slots=True)
class Connector:
    """One place where a feature of the control copy enters the base model."""

    control_channels: int
    """Of the control feature."""

    skip_channels: int
    """Of what passes from the base model's encoder to its decoder; 0 where the connector attends instead."""

    decoder_channels: int
    """Of the decoder's state; 0 right after the middle, where the state itself is what is modulated."""

    control_index: int
    """Which control feature, counted from the input."""

    attends: bool = False
    """Whether it is a cross-attention (`ZeroCrossAttn`) or a modulation (`ZeroSFT`)."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Of both networks: the base model and the control copy share every number."""

    channels: tuple[int, ...] = (320, 640, 1280)
    """Of each level, from the finest."""

    layers: int = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""

    depths: tuple[int, ...] = (0, 2, 10)
    """Transformer blocks beside each residual block of a level; 0 where the level does not attend."""

    middle_depth: int = 10
    heads: tuple[int, ...] = (5, 10, 20)
    """Attention heads of each level."""

    text_channels: int = 2048
    """Width of the text embedding."""

    added_channels: int = 2816
    """Width of what is added to the time embedding: the pooled text and `TIME_IDS` embedded numbers."""

    number_channels: int = 256
    """Width of one embedded number."""

    latent_channels: int = 4
    groups: int = 32
    """Of the normalisations."""

    def __post_init__(self) -> None:
        levels = len(self.channels)
        if not levels or len(self.depths) != levels or len(self.heads) != levels:
            raise ValueError(f"channels, depths and heads must name the same levels: {self}")
        if self.depths[-1] not in (0, self.middle_depth):
            raise ValueError(f"the middle must be as deep as the last level, where that attends: {self}")

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of the control copy's outputs, from the input to the middle."""
        found = [self.channels[0]]
        for level, width in enumerate(self.channels):
            found += [width] * self.layers
            if level < len(self.channels) - 1:
                found.append(width)
        return (*found, self.channels[-1])

    @property
    def connectors(self) -> tuple[Connector, ...]:
        """In the released order, which is the opposite of the order of use: the finest first, the middle's last."""
        features = self.features
        used = [Connector(features[-1], features[-1], 0, len(features) - 1)]
        state, index = self.channels[-1], len(features) - 2
        for level in reversed(range(len(self.channels))):
            for layer in range(self.layers + 1):
                used.append(Connector(features[index], features[index], state, index))
                state = self.channels[level]
                if layer == self.layers and level > 0 and self.depths[level]:
                    used.append(Connector(features[index], 0, state, index, attends=True))
                index -= 1
        return tuple(reversed(used))

    def attends(self, level: int) -> bool:
        """Whether a level has transformers."""
        return self.depths[level] > 0

    def unet_config(self) -> dict[str, Any]:
        """Keywords of diffusers' `UNet2DConditionModel` for the base model."""
        kinds = [self.attends(level) for level in range(len(self.channels))]
        return {
            "in_channels": self.latent_channels,
            "out_channels": self.latent_channels,
            "sample_size": 128,
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "down_block_types": tuple("CrossAttnDownBlock2D" if kind else "DownBlock2D" for kind in kinds),
            "up_block_types": tuple("CrossAttnUpBlock2D" if kind else "UpBlock2D" for kind in reversed(kinds)),
            # The last entry is also the middle's depth, even where the last level does not attend.
            "transformer_layers_per_block": (*(depth or 1 for depth in self.depths[:-1]), self.middle_depth),
            "attention_head_dim": self.heads,  # diffusers keeps this name for the number of heads
            "cross_attention_dim": self.text_channels,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": self.number_channels,
            "projection_class_embeddings_input_dim": self.added_channels,
            "norm_num_groups": self.groups,
        }

    @classmethod
    def from_unet(cls, config: Mapping[str, Any]) -> Architecture:
        """The shape that a base model's configuration (diffusers' `UNet2DConditionModel`) describes.

        Raises:
            ValueError: it is no model of SDXL's family.
        """
        channels = tuple(config["block_out_channels"])
        levels = len(channels)
        if config.get("addition_embed_type") != "text_time" or not config.get("use_linear_projection"):
            raise ValueError("SUPIR's base must be of SDXL's family")
        layers = _same(config["layers_per_block"], "layers_per_block")
        depths = _per_level(config.get("transformer_layers_per_block", 1), levels)
        kinds = [kind == "CrossAttnDownBlock2D" for kind in config["down_block_types"]]
        return cls(
            channels=channels,
            layers=layers,
            depths=tuple(depth if kind else 0 for depth, kind in zip(depths, kinds, strict=True)),
            middle_depth=depths[-1],
            heads=tuple(_per_level(config["attention_head_dim"], levels)),
            text_channels=_same(config["cross_attention_dim"], "cross_attention_dim"),
            added_channels=config["projection_class_embeddings_input_dim"],
            number_channels=config["addition_time_embed_dim"],
            latent_channels=config["in_channels"],
            groups=config["norm_num_groups"],
        )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Architecture:
        """The shape that the original's options (`network_config.params` of its YAML files) describe.

        Reads `model_channels`, `channel_mult`, `num_res_blocks`, `attention_resolutions`, `transformer_depth`,
        `num_head_channels`, `context_dim`, `adm_in_channels` and `in_channels`; the others do not change the shape.
        """
        multiples = tuple(options["channel_mult"])
        channels = tuple(options["model_channels"] * multiple for multiple in multiples)
        depths = _per_level(options.get("transformer_depth", 1), len(channels))
        attending = options["attention_resolutions"]
        return cls(
            channels=channels,
            layers=_same(options["num_res_blocks"], "num_res_blocks"),
            depths=tuple(depth if 2**level in attending else 0 for level, depth in enumerate(depths)),
            middle_depth=options.get("transformer_depth_middle") or depths[-1],
            heads=tuple(width // options["num_head_channels"] for width in channels),
            text_channels=options["context_dim"],
            added_channels=options["adm_in_channels"],
            latent_channels=options["in_channels"],
        )


XL = Architecture()
"""The released SUPIR models, Q and F, over SDXL base 1.0."""


def _same(value: int | Sequence[int], name: str) -> int:
    """A number that may be written once for every level."""
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise ValueError(f"{name} must be the same at every level: {value}")
    return values.pop()


def _per_level(value: int | Sequence[int], levels: int) -> list[int]:
    return [value] * levels if isinstance(value, int) else list(value)
