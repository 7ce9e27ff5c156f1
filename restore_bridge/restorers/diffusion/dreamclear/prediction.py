"""One guided prediction of DreamClear, whole or in windows. It must not know schedules, text or pictures.

Sources: classifier-free guidance (Ho and Salimans 2021); windows as in `tiling`. Both sides of the guidance go through
the denoiser in one batch, the wanted side first.

Four habits of the released code look like mistakes. They are kept by default, since the released pictures were made so,
and each can be mended (`Mends`):

- `attention`: both sides attend to each other in the reference attention, as the batch is one sequence there. Mended,
  they are kept apart.
- `channels`: only the first three of the latent's four channels are guided (a slice meant for pictures). Mended, all
  four are.
- `mask`: the null embedding is cut to the length of the caption, whose mask it is given. Mended, all of it is read.
- `windows`: the windows' weights lie half a latent pixel too low (`tiling`). Mended, they are centred.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from restore_bridge.restorers.diffusion.dreamclear.tiling import blend_windows
from zoomiqa.errors import OptionInvalid

if TYPE_CHECKING:
    from torch import Tensor

    from zoomiqa.types import Box

TOKENS = 120
"""T5 tokens that PixArt-α was trained with, the end mark among them."""

GUIDED = 3
"""Channels that the released code guides."""


@dataclass(frozen=True, slots=True)
class Mends:
    """Which habits of the original are mended; see the module."""

    attention: bool = False
    channels: bool = False
    mask: bool = False
    windows: bool = False

    @classmethod
    def of(cls, names: Iterable[str]) -> Mends:
        """Those that are named; "all" stands for every one.

        Raises:
            OptionInvalid: there is none of that name.
        """
        known = [field.name for field in fields(cls)]
        chosen = set(names)
        for name in sorted(chosen - {"all", *known}):
            raise OptionInvalid("nothing of that name can be mended", name, f"choose of {', '.join(known)}, or all")
        return cls(**{name: name in chosen or "all" in chosen for name in known})

    def to_list(self) -> list[str]:
        return [field.name for field in fields(self) if getattr(self, field.name)]


NONE = Mends()


@dataclass(frozen=True, slots=True)
class Words:
    """Text of both sides, the wanted one first; one side alone where nothing is guided."""

    hidden: Tensor
    """(2 or 1, tokens, width)."""

    mask: Tensor | None
    """(2 or 1, tokens), not 0 where a token is read; `None` reads all."""

    def to(self, device: Any) -> Words:
        """The same on another device."""
        return Words(self.hidden.to(device), None if self.mask is None else self.mask.to(device))


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the branches see: latents (1, c, h, w)."""

    lq: Tensor
    pre: Tensor

    def within(self, box: Box) -> Conditions:
        return Conditions(*(latent[..., box.y1 : box.y2, box.x1 : box.x2] for latent in (self.lq, self.pre)))


def guide(prediction: Tensor, scale: float, channels: int) -> Tensor:
    """Both sides' predictions (2, c, h, w), the wanted one first → the same with guided noise in both.

    Args:
        prediction: Noise, then variance.
        scale: Of the guidance.
        channels: How many of the first channels are guided; the others stay each side's own.
    """
    import torch

    wanted, other = prediction[:, :channels].chunk(2)
    guided = other + scale * (wanted - other)
    return torch.cat([torch.cat([guided, guided]), prediction[:, channels:]], dim=1)


def predict(
    network: Any,
    latent: Tensor,
    timestep: Any,
    words: Words,
    conditions: Conditions,
    scale: float,
    mends: Mends,
    **sizes: Any,
) -> Tensor:
    """Noise and variance of a latent under guidance.

    Args:
        network: A `DreamClearTransformer2DModel`.
        latent: (1, c, h, w).
        timestep: 0..999.
        words: Of both sides.
        conditions: Of the latent's size.
        scale: Of the guidance.
        mends: See the module.
        sizes: `resolution` and `aspect_ratio`, as the network takes them.

    Returns:
        (2 or 1, 2c, h, w), 32-bit; the first one counts.
    """
    raw = _raw(network, latent, timestep, words, conditions, mends, **sizes)
    return _guided(raw, latent, scale, mends)


def predict_windows(
    network: Any,
    latent: Tensor,
    timestep: Any,
    words: Sequence[Words],
    conditions: Conditions,
    scale: float,
    mends: Mends,
    boxes: Sequence[Box],
    **sizes: Any,
) -> Tensor:
    """As `predict`, window by window; `words` holds those of each window."""

    def window(number: int, box: Box) -> Tensor:
        part = latent[..., box.y1 : box.y2, box.x1 : box.x2]
        return _raw(network, part, timestep, words[number], conditions.within(box), mends, **sizes)

    shape = (len(words[0].hidden), network.config.out_channels, *latent.shape[-2:])
    raw = blend_windows(window, boxes, shape, latent.device, centred=mends.windows)
    return _guided(raw, latent, scale, mends)


def _raw(
    network: Any, latent: Tensor, timestep: Any, words: Words, conditions: Conditions, mends: Mends, **sizes: Any
) -> Tensor:
    import torch

    sides = len(words.hidden)
    kind = network.dtype
    output: Tensor = network(
        latent.to(kind).expand(sides, -1, -1, -1),
        torch.as_tensor(timestep, device=latent.device).expand(sides),
        words.hidden.to(kind),
        conditions.lq.to(kind),
        conditions.pre.to(kind),
        encoder_attention_mask=words.mask,
        joint_attention=not mends.attention,
        return_dict=False,
        **sizes,
    )[0]
    return output.float()


def _guided(raw: Tensor, latent: Tensor, scale: float, mends: Mends) -> Tensor:
    if len(raw) == 1:
        return raw
    return guide(raw, scale, latent.shape[1] if mends.channels else min(GUIDED, latent.shape[1]))
