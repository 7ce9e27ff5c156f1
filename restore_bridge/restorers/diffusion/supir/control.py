"""SUPIR's control copy: SDXL's encoder half and middle, which see the low-quality latent beside the noisy one.

Paper: SUPIR (Yu et al., CVPR 2024), section 3.1, "Large-scale adaptor design" (the trimmed ControlNet of figure 3(a);
the original's class is GLVControl). The copy reads a noisy latent, the time, the text and SDXL's added numbers like
SDXL itself; one 3x3 convolution of the low-quality latent is added after the first layer. It gives every feature of
the encoder half and the middle one: for the released models ten, at 1, 1/2 and 1/4 of the latent's size, with 320 to
1280 channels; 1243.4 million parameters.

Different from the original: blocks are diffusers' (names in `names.py`), and the input scale, which is 1 in all
released options, is left out. Against diffusers' own ControlNet: no convolutions after the features, no picture
encoder, and the control is a latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn, get_down_block
from torch import nn

from restore_bridge.restorers.diffusion.supir.architecture import XL, Architecture

if TYPE_CHECKING:
    from torch import Tensor


class SUPIRControl(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """What looks at the low-quality latent. The keywords are those of `Architecture`."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        channels: tuple[int, ...] = XL.channels,
        layers: int = XL.layers,
        depths: tuple[int, ...] = XL.depths,
        middle_depth: int = XL.middle_depth,
        heads: tuple[int, ...] = XL.heads,
        text_channels: int = XL.text_channels,
        added_channels: int = XL.added_channels,
        number_channels: int = XL.number_channels,  # noqa: ARG002 - for whoever makes `added`
        latent_channels: int = XL.latent_channels,
        groups: int = XL.groups,
    ) -> None:
        super().__init__()
        first, wide = channels[0], channels[0] * 4
        self.conv_in = nn.Conv2d(latent_channels, first, 3, padding=1)
        self.hint_conv = nn.Conv2d(latent_channels, first, 3, padding=1)
        nn.init.zeros_(self.hint_conv.weight)
        nn.init.zeros_(self.hint_conv.bias)
        self.time_proj = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, wide)
        self.add_embedding = TimestepEmbedding(added_channels, wide)
        self.down_blocks = nn.ModuleList(
            get_down_block(
                "CrossAttnDownBlock2D" if depths[level] else "DownBlock2D",
                num_layers=layers,
                transformer_layers_per_block=depths[level] or 1,
                in_channels=channels[max(level - 1, 0)],
                out_channels=width,
                temb_channels=wide,
                add_downsample=level < len(channels) - 1,
                resnet_eps=1e-5,
                resnet_act_fn="silu",
                resnet_groups=groups,
                cross_attention_dim=text_channels,
                num_attention_heads=heads[level],
                attention_head_dim=heads[level],
                downsample_padding=1,
                use_linear_projection=True,
            )
            for level, width in enumerate(channels)
        )
        self.mid_block = UNetMidBlock2DCrossAttn(
            channels[-1],
            temb_channels=wide,
            resnet_eps=1e-5,
            resnet_act_fn="silu",
            resnet_groups=groups,
            transformer_layers_per_block=middle_depth,
            cross_attention_dim=text_channels,
            num_attention_heads=heads[-1],
            use_linear_projection=True,
        )

    @classmethod
    def for_architecture(cls, architecture: Architecture) -> SUPIRControl:
        """With random weights."""
        from dataclasses import asdict

        return cast("SUPIRControl", cls(**asdict(architecture)))

    def forward(self, control: Tensor, timestep: Tensor, noisy: Tensor, text: Tensor, added: Tensor) -> list[Tensor]:
        """Features of the encoder half, from the input, and of the middle.

        Args:
            control: Latent of the low-quality picture (b, 4, h, w); h and w are multiples of 2 to the levels less one.
            timestep: (b,), 0..999.
            noisy: What SDXL sees (b, 4, h, w).
            text: (b, tokens, width).
            added: Pooled text and embedded numbers (b, width).
        """
        kind = self.dtype
        control, noisy, text, added = (value.to(kind) for value in (control, noisy, text, added))
        time = self.time_embedding(self.time_proj(timestep).to(kind)) + self.add_embedding(added)
        state = self.conv_in(noisy) + self.hint_conv(control)
        features = [state]
        for block in self.down_blocks:
            if getattr(block, "has_cross_attention", False):
                state, given = block(state, temb=time, encoder_hidden_states=text)
            else:
                state, given = block(state, temb=time)
            features += given
        return [*features, self.mid_block(state, time, encoder_hidden_states=text)]
