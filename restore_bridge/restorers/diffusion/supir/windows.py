"""SUPIR's windows over a large latent. It must not know networks or words.

Source: the original's tiled sampler. Windows of `tile` latent pixels start every `stride` of them, row by row; the last
of a row or column moves back to fit. Each weighs by a Gaussian whose middle lies half a latent pixel too low, as in
DreamClear (`centred` mends it).

Different from the original: a latent that is smaller than a window gets one window of its own size, where the original
fails; and `latent_tiling`'s windows are spread evenly, these are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from restore_bridge.restorers.diffusion.latent_tiling import blend_weights, sliding_starts
from zoomiqa.types import Box

if TYPE_CHECKING:
    from restore_bridge.restorers.diffusion.supir.sampling import Windows


def sliding_boxes(size: tuple[int, int], tile: int, stride: int) -> tuple[Box, ...]:
    """Windows over a latent of `size` (width, height), row by row; all figures in latent pixels."""
    columns, rows = (sliding_starts(length, tile, stride) for length in size)
    return tuple(Box(x, y, min(x + tile, size[0]), min(y + tile, size[1])) for y in rows for x in columns)


def blended(boxes: tuple[Box, ...], size: tuple[int, int], *, centred: bool = False) -> Windows:
    """The windows with their weights, over a latent of `size` (width, height).

    Args:
        boxes: In latent pixels.
        size: Of the latent.
        centred: Whether the weights' middle is the window's own; not so in the original.
    """
    import torch

    from restore_bridge.restorers.diffusion.supir.sampling import Windows

    return Windows(boxes, tuple(torch.from_numpy(share) for share in blend_weights(boxes, size, centred=centred)))
