"""What lets DreamClear's control branches act on the denoiser: reference attention and adaptive modulators.

Source: Ai et al., "DreamClear: High-Capacity Real-World Image Restoration with Privacy-Safe Dataset Curation" (NeurIPS
2024), section 4: the mixture of adaptive modulators (MoAM). After each block, the denoiser's tokens x take what the
branch of the low-quality picture (LQ) finds in the branch of the pre-pass, are modulated by the pre-pass, and then by
the LQ branch through experts that a map of the degradation mixes:

    reference, degradation = attention(query: LQ, key and value: pre-pass)
    x ← x + reference
    x ← (1 + γ_pre) · x + β_pre
    x ← (1 + γ_lq) · x + β_lq,   γ_lq and β_lq mixed from the experts by softmax(gate(degradation))

Parameter names are those of the released checkpoint. Differs from the original: attention is torch's own, and pictures
of a batch can be kept apart (`joint=False`), which the original does not do (see `ReferenceAttention`).

It must not know blocks, latents or text.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class AdaptiveModulator(nn.Module):  # type: ignore[misc]
    """Scale and shift of every token from a branch's token at the same place.

    Args:
        width: Of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared_proj = nn.Linear(width, width // 2)
        self.proj_mul = nn.Linear(width // 2, width)
        self.proj_add = nn.Linear(width // 2, width)

    def forward(self, branch: Tensor) -> tuple[Tensor, Tensor]:
        """(b, n, width) → γ and β, each (b, n, width)."""
        shared = functional.gelu(self.shared_proj(branch), approximate="tanh")
        return self.proj_mul(shared), self.proj_add(shared)


class ModulatorMixture(nn.Module):  # type: ignore[misc]
    """Several modulators, mixed token by token as the degradation map says.

    Args:
        width: Of a token.
        experts: How many modulators.
    """

    GATE_WIDTH = 8
    """Inner width of the gate, for each expert."""

    def __init__(self, width: int, experts: int = 3) -> None:
        super().__init__()
        self.experts = nn.ModuleList(AdaptiveModulator(width) for _ in range(experts))
        inner = experts * self.GATE_WIDTH
        self.gate = nn.Sequential(nn.Linear(width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, experts))

    def shares(self, degradation: Tensor) -> Tensor:
        """(b, n, width) → share of each expert (b, n, experts), which sum to 1."""
        return self.gate(degradation).softmax(dim=-1)

    def forward(self, branch: Tensor, degradation: Tensor) -> tuple[Tensor, Tensor]:
        """Two of (b, n, width) → γ and β, each (b, n, width)."""
        shares = self.shares(degradation).unsqueeze(-2)
        pairs = [expert(branch) for expert in self.experts]
        gamma = torch.stack([pair[0] for pair in pairs], dim=-1)
        beta = torch.stack([pair[1] for pair in pairs], dim=-1)
        return (gamma * shares).sum(dim=-1), (beta * shares).sum(dim=-1)


class ReferenceAttention(nn.Module):  # type: ignore[misc]
    """Attention of the LQ branch (queries) to the pre-pass branch (keys and values).

    The original joins all members of a batch into one sequence and gives no mask, so that both sides of the guidance,
    and all pictures, attend to each other. The released weights were run that way; it is the default here. `joint=False`
    keeps the members apart.

    Args:
        width: Of a token.
        heads: Of the attention; `width` is a multiple of it.
    """  # noqa: E501

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.de_proj = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, lq: Tensor, pre: Tensor, *, joint: bool = True) -> tuple[Tensor, Tensor]:
        """Two of (b, n, width) → reference and degradation map, each (b, n, width)."""
        batch, count, width = lq.shape
        members = 1 if joint else batch
        query = self.q_linear(self.norm1(lq))
        key, value = self.kv_linear(self.norm2(pre)).chunk(2, dim=-1)
        # (members, heads, tokens, width of a head)
        query, key, value = (
            tokens.reshape(members, -1, self.heads, width // self.heads).transpose(1, 2)
            for tokens in (query, key, value)
        )
        found = functional.scaled_dot_product_attention(query, key, value)
        found = found.transpose(1, 2).reshape(batch, count, width)
        return self.proj(found), self.de_proj(found)
