"""How a feature of the control copy enters the base model: modulation (`ZeroSFT`) or cross-attention (`ZeroCrossAttn`).

Paper: SUPIR (Yu et al., CVPR 2024), section 3.1, "ZeroSFT" and figure 3(c). A ZeroSFT takes the control feature c
(b, k, h, w), the base model's skip s (b, n, h, w) and its decoder state d (b, m, h, w), and gives (b, m + n, h, w),
what SDXL's decoder block expects:

    raw   = [d, s]                       d first, as everywhere in SDXL's decoder
    mixed = [d, s + conv1(c)]
    a     = silu(conv3(c))               128 channels
    out   = norm(mixed) · (1 + conv3'(a)) + conv3''(a)
    out   = scale · out + (1 - scale) · raw

A ZeroCrossAttn lets the state x (b, m, h, w) attend to c with heads of 64 channels: x + scale · attention(norm(x),
norm(c)). In training all the last convolutions start at zero (the attention's output does not), so that the base model
is untouched at first.

Different from the original: the training-time masks are left out (the original's own code refuses them at inference),
and a state given to a connector made without one is a `ValueError` rather than a mismatch deep inside the norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from restore_bridge.restorers.diffusion.supir.architecture import Connector

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = 128
"""Channels between a control feature and the scale and shift made from it."""

HEAD = 64
"""Channels of a head of `ZeroCrossAttn`."""


class ZeroSFT(nn.Module):  # type: ignore[misc]
    """Scales and shifts what the decoder is about to see, by a control feature.

    Args:
        control_channels: k, of the control feature.
        skip_channels: n, of the skip; right after the middle, of the state itself.
        decoder_channels: m, of the decoder's state; 0 where there is none.
        groups: Of the normalisation.
        norm: Whether to normalise.
    """

    def __init__(
        self,
        control_channels: int,
        skip_channels: int,
        decoder_channels: int = 0,
        *,
        groups: int = 32,
        norm: bool = True,
    ) -> None:
        super().__init__()
        width = skip_channels + decoder_channels
        self.norm = nn.GroupNorm(groups, width) if norm else nn.Identity()
        self.shared = nn.Conv2d(control_channels, HIDDEN, 3, padding=1)
        self.scale = _zero(nn.Conv2d(HIDDEN, width, 3, padding=1))
        self.shift = _zero(nn.Conv2d(HIDDEN, width, 3, padding=1))
        self.direct = _zero(nn.Conv2d(control_channels, skip_channels, 1))
        self.decoder_channels = decoder_channels

    def forward(self, control: Tensor, skip: Tensor, state: Tensor | None = None, scale: float = 1.0) -> Tensor:
        """What the decoder block sees.

        Args:
            control: (b, k, h, w).
            skip: (b, n, h, w).
            state: (b, m, h, w); `None` where the connector was made without one.
            scale: 1 is the full effect, 0 leaves [state, skip] as they are.

        Raises:
            ValueError: a state where there should be none, or the other way round.
        """
        import torch

        if (state is None) != (self.decoder_channels == 0):
            raise ValueError(f"this connector was made for a state of {self.decoder_channels} channels")
        mixed = skip + self.direct(control)
        raw = skip
        if state is not None:
            mixed, raw = torch.cat([state, mixed], dim=1), torch.cat([state, skip], dim=1)
        hidden = nn.functional.silu(self.shared(control))
        changed = self.norm(mixed) * (self.scale(hidden) + 1) + self.shift(hidden)
        return changed * scale + raw * (1 - scale)


class ZeroCrossAttn(nn.Module):  # type: ignore[misc]
    """Lets the decoder's state look at a control feature of another width, before the state is enlarged.

    Args:
        control_channels: Of the control feature.
        state_channels: Of the decoder's state; a multiple of `HEAD`, or less for one narrower head.
        groups: Of the normalisations.
    """

    def __init__(self, control_channels: int, state_channels: int, *, groups: int = 32) -> None:
        from diffusers.models.attention_processor import Attention

        super().__init__()
        self.attention = Attention(
            query_dim=state_channels,
            cross_attention_dim=control_channels,
            heads=max(1, state_channels // HEAD),
            dim_head=min(HEAD, state_channels),
        )
        self.state_norm = nn.GroupNorm(groups, state_channels)
        self.control_norm = nn.GroupNorm(groups, control_channels)

    def forward(self, control: Tensor, state: Tensor, scale: float = 1.0) -> Tensor:
        """(b, k, h', w') and (b, m, h, w) → (b, m, h, w)."""
        seen = self.attention(_tokens(self.state_norm(state)), _tokens(self.control_norm(control)))
        return state + seen.transpose(1, 2).reshape(state.shape) * scale


def build(connector: Connector, groups: int) -> ZeroSFT | ZeroCrossAttn:
    """The module for one place of `Architecture.connectors`."""
    if connector.attends:
        return ZeroCrossAttn(connector.control_channels, connector.decoder_channels, groups=groups)
    return ZeroSFT(connector.control_channels, connector.skip_channels, connector.decoder_channels, groups=groups)


def _tokens(feature: Tensor) -> Tensor:
    """(b, c, h, w) → (b, h·w, c)."""
    return feature.flatten(2).transpose(1, 2)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """`layer` with all its parameters at zero, as training starts."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
