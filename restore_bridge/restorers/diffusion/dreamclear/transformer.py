"""DreamClear's denoiser: the PixArt-α transformer between two control branches.

Source: Ai et al., "DreamClear" (NeurIPS 2024), section 4 and its figure of the architecture; Chen et al., "PixArt-α"
(ICLR 2024), sections 2.2 to 2.4 for the blocks, the single adaptive norm and the size conditions.

Shapes at full size (XL/2, 1024 pixels; n tokens of width 1152 from a latent of (h, w), n = h/2 · w/2):

    latent x (b, 4, h, w)  ─ 2×2 patches + positions ─► denoiser   28 blocks
                           ─ patches + positions ─┐
    latent of LQ (b, 4, h, w) ─ 2×2 patches ──────┴──► LQ branch   28 blocks, copies of the denoiser's
                           ─ patches + positions ─┐
    latent of the pre-pass    ─ 2×2 patches ──────┴──► pre branch  28 blocks
    T5 embedding (b, 120, 4096), mask (b, 120)  ─► caption (b, 120, 1152), read by every block
    timestep (b,), size (b, 2), aspect ratio (b, 1)  ─► modulation (b, 6 · 1152) of every block
    ─► (b, 8, h, w): noise (4 channels) and what the variance is interpolated by (4 channels)

The conditions' patches have no positions of their own; each branch embeds x once more, with positions, and starts from
the sum. After block i of all three, `modulation` joins them. 2,211,876,212 parameters.

Blocks, patches and embeddings are diffusers' PixArt-α classes. Differs from the original: texts of a batch are padded
and masked instead of packed one behind the other, which is the same attention; timestep and size are embedded from
32-bit numbers whatever the model's number format (the original rounds them to it first: 999 becomes 1000 in bf16);
members of a batch can be kept apart (`joint_attention=False`).

It must not know guidance, tiles or schedules.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin, BasicTransformerBlock
from diffusers.models.embeddings import PatchEmbed, PixArtAlphaTextProjection, get_2d_sincos_pos_embed
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.normalization import AdaLayerNormSingle
from torch import Tensor, nn

from restore_bridge.restorers.diffusion.dreamclear.modulation import (
    AdaptiveModulator,
    ModulatorMixture,
    ReferenceAttention,
)

MASKED = -10_000.0
"""Added to the scores of tokens that are not to be seen, as diffusers does; its exponential is 0."""


class ControlBranch(nn.Module):  # type: ignore[misc]
    """A copy of the denoiser's blocks that sees one condition.

    Args:
        blocks: Blocks of the branch.
        patches: Makes tokens of the noisy latent, without positions.
        condition: Makes tokens of the condition, without positions.
    """

    def __init__(self, blocks: nn.ModuleList, patches: PatchEmbed, condition: PatchEmbed) -> None:
        super().__init__()
        self.patch_embed = patches
        self.condition_embed = condition
        self.blocks = blocks

    def start(self, latent: Tensor, condition: Tensor, positions: Tensor) -> Tensor:
        """Two of (b, c, h, w) → tokens (b, n, width) that the first block sees."""
        return self.patch_embed(latent) + positions + self.condition_embed(condition)


class DreamClearTransformer2DModel(ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]
    """Predicts the noise of a latent under text, LQ picture and pre-pass.

    Args:
        num_attention_heads: Heads of every attention.
        attention_head_dim: Width of a head; together they make the width of a token.
        in_channels: Of the latent.
        out_channels: Of the prediction; twice `in_channels` with a learned variance.
        num_layers: Blocks of the denoiser.
        num_control_layers: Blocks of each branch; the denoiser's later blocks stand alone.
        num_experts: Modulators that the degradation map mixes.
        mlp_ratio: Inner width of the feed-forward part over the width of a token.
        sample_size: Side of the latent that positions are scaled to.
        patch_size: Side of a patch.
        interpolation_scale: Of the positions; 2 for models that were begun at 512 pixels.
        caption_channels: Width of the text encoder.
        caption_length: Tokens of the learned null embedding.
    """

    _no_split_modules: ClassVar = ["BasicTransformerBlock", "ReferenceAttention", "ModulatorMixture", "PatchEmbed"]
    _skip_layerwise_casting_patterns: ClassVar = ["patch_embed", "condition_embed", "norm", "adaln_single"]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int = 8,
        num_layers: int = 28,
        num_control_layers: int = 28,
        num_experts: int = 3,
        mlp_ratio: float = 4.0,
        sample_size: int = 128,
        patch_size: int = 2,
        interpolation_scale: float = 2.0,
        caption_channels: int = 4096,
        caption_length: int = 120,
    ) -> None:
        super().__init__()
        width = num_attention_heads * attention_head_dim

        def block() -> BasicTransformerBlock:
            return BasicTransformerBlock(
                width,
                num_attention_heads,
                attention_head_dim,
                cross_attention_dim=width,
                activation_fn="gelu-approximate",
                attention_bias=True,
                norm_type="ada_norm_single",
                norm_elementwise_affine=False,
                norm_eps=1e-6,
                ff_inner_dim=int(mlp_ratio * width),
            )

        def patches() -> PatchEmbed:
            return PatchEmbed(sample_size, sample_size, patch_size, in_channels, width, pos_embed_type=None)

        def branch() -> ControlBranch:
            return ControlBranch(nn.ModuleList(block() for _ in range(num_control_layers)), patches(), patches())

        self.patch_embed = patches()
        self.transformer_blocks = nn.ModuleList(block() for _ in range(num_layers))
        self.adaln_single = AdaLayerNormSingle(width, use_additional_conditions=True)
        self.caption_projection = PixArtAlphaTextProjection(caption_channels, width)
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = nn.Linear(width, patch_size**2 * out_channels)

        self.control_lq, self.control_pre = branch(), branch()
        layers = range(num_control_layers)
        self.reference = nn.ModuleList(ReferenceAttention(width, num_attention_heads) for _ in layers)
        self.modulators_pre = nn.ModuleList(AdaptiveModulator(width) for _ in layers)
        self.modulators_lq = nn.ModuleList(ModulatorMixture(width, num_experts) for _ in layers)

        self.register_buffer("null_embedding", torch.zeros(caption_length, caption_channels))
        grid = sample_size // patch_size
        native = positions(width, (grid, grid), grid, interpolation_scale)
        self.register_buffer("native_positions", native, persistent=False)

    def place_positions(self) -> None:
        """Compute the positions anew, for a network that was built without memory."""
        grid = self.config.sample_size // self.config.patch_size
        width = self.config.num_attention_heads * self.config.attention_head_dim
        self.native_positions = positions(width, (grid, grid), grid, self.config.interpolation_scale)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        lq_latents: Tensor,
        pre_latents: Tensor,
        *,
        encoder_attention_mask: Tensor | None = None,
        resolution: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
        joint_attention: bool = True,
        return_dict: bool = True,
    ) -> Any:
        """Predict noise and variance.

        Args:
            hidden_states: Noisy latent (b, c, h, w); h and w are multiples of the patch's side.
            timestep: (b,), 0..999.
            encoder_hidden_states: Text embedding (b, tokens, caption_channels).
            lq_latents: Latent of the picture (b or 1, c, h, w).
            pre_latents: Latent of the pre-pass (b or 1, c, h, w).
            encoder_attention_mask: (b or 1, tokens), not 0 where a token is seen; all are where it is not given.
            resolution: Height and width in pixels (b or 1, 2); 1024 each, as in the original, where it is not given.
            aspect_ratio: (b or 1, 1); 1, as in the original, where it is not given.
            joint_attention: Whether members of the batch attend to each other in the reference attention; see
                `modulation.ReferenceAttention`.
            return_dict: Whether to return diffusers' output class rather than a tuple.

        Returns:
            (b, out_channels, h, w).
        """
        batch, _, height, width = hidden_states.shape
        patch, kind, device = self.config.patch_size, hidden_states.dtype, hidden_states.device
        grid = (height // patch, width // patch)
        if resolution is None:
            resolution = torch.full((1, 2), 1024.0, device=device)
        if aspect_ratio is None:
            aspect_ratio = torch.ones(1, 1, device=device)
        conditions = {
            "resolution": resolution.float().expand(batch, -1),
            "aspect_ratio": aspect_ratio.float().expand(batch, -1),
        }
        modulation, embedded = self.adaln_single(timestep.float(), conditions, batch_size=batch, hidden_dtype=kind)
        text = {
            "encoder_hidden_states": self.caption_projection(encoder_hidden_states),
            "encoder_attention_mask": None,
            "timestep": modulation,
        }
        if encoder_attention_mask is not None:
            hidden = (encoder_attention_mask == 0).to(kind) * MASKED
            text["encoder_attention_mask"] = hidden.expand(batch, -1).unsqueeze(1)

        place = self._positions(grid).to(device, kind)
        x = self.patch_embed(hidden_states) + place
        lq = self.control_lq.start(hidden_states, lq_latents, place)
        pre = self.control_pre.start(hidden_states, pre_latents, place)
        for number, block in enumerate(self.transformer_blocks):
            x = block(x, **text)
            if number < self.config.num_control_layers:
                lq = self.control_lq.blocks[number](lq, **text)
                pre = self.control_pre.blocks[number](pre, **text)
                reference, degradation = self.reference[number](lq, pre, joint=joint_attention)
                x = x + reference
                for gamma, beta in (
                    self.modulators_pre[number](pre),
                    self.modulators_lq[number](lq, degradation),
                ):
                    x = (1 + gamma) * x + beta

        shift, scale = (self.scale_shift_table[None] + embedded[:, None]).chunk(2, dim=1)
        x = self.proj_out(self.norm_out(x) * (1 + scale) + shift)
        # (b, rows·columns, p·p·c) → (b, c, rows·p, columns·p)
        x = x.reshape(batch, *grid, patch, patch, self.config.out_channels)
        x = x.permute(0, 5, 1, 3, 2, 4).reshape(batch, self.config.out_channels, grid[0] * patch, grid[1] * patch)
        return Transformer2DModelOutput(sample=x) if return_dict else (x,)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        native = self.config.sample_size // self.config.patch_size
        if grid == (native, native):
            return self.native_positions
        width = self.config.num_attention_heads * self.config.attention_head_dim
        return positions(width, grid, native, self.config.interpolation_scale, self.native_positions.device)


def positions(width: int, grid: tuple[int, int], base: int, scale: float, device: Any = None) -> Tensor:
    """Sines and cosines of places in a grid of patches.

    Args:
        width: Of a token, a multiple of 4.
        grid: (rows, columns).
        base: Side of the grid that every grid is stretched to.
        scale: That places are divided by afterwards.
        device: Where to make them.

    Returns:
        (1, rows · columns, width), 32-bit: the first half of the numbers tells the column, the second the row.
    """
    table = get_2d_sincos_pos_embed(width, grid, base_size=base, interpolation_scale=scale, device=device)
    return table.float().unsqueeze(0)
