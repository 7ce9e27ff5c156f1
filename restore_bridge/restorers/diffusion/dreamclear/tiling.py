"""DreamClear's own windows over a large latent, and their blend. It must not know models.

Source: the tiled prediction of the released code. Windows start at multiples of (side - overlap); the last one of a row
or column moves back to fit. They are blended in every step with Gaussian weights of variance 0.01 (in squares of the
side), whose middle lies at (side - 1)/2 across but at side/2 down: half a latent pixel too low. That is the default,
as the released pictures were made so; `centred=True` mends it.

Differs from the original: none in the values. Unlike the windows of `latent_tiling`, these are not spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from restore_bridge.restorers.diffusion.latent_tiling import gaussian_weights, sliding_starts
from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Box

if TYPE_CHECKING:
    from torch import Tensor


def window_boxes(size: tuple[int, int], side: int, overlap: int) -> tuple[Box, ...]:
    """Square windows over a latent of `size` (width, height), column by column as the original goes.

    Args:
        size: In latent pixels.
        side: Of a window; where one side of the latent is shorter, that is the side of all windows. A latent that is
            no larger than a window in either direction is one window, whatever its shape.
        overlap: What neighbours share at least.

    Raises:
        OptionInvalid: windows that overlap wholly would never get on.
    """
    if max(size) <= side:
        return (Box(0, 0, *size),)
    side = min(side, *size)
    if not 0 <= overlap < side:
        raise OptionInvalid("the overlap must be at least 0 and less than the window", overlap, f"a window is {side}")
    columns, rows = (sliding_starts(length, side, side - overlap) for length in size)
    return tuple(Box(x, y, x + side, y + side) for x in columns for y in rows)


def blend_windows(
    predict: Callable[[int, Box], Tensor],
    boxes: Sequence[Box],
    shape: tuple[int, ...],
    device: object,
    *,
    centred: bool = False,
) -> Tensor:
    """Predictions of all windows as one.

    Args:
        predict: (number of the window, its place) → (b, c, h, w) of the window.
        boxes: Windows that cover the latent.
        shape: (b, c, h, w) of the whole.
        device: Where to add up.
        centred: As in `gaussian_weights`.

    Returns:
        `shape`, 32-bit.
    """
    import torch

    total = torch.zeros(shape, device=device)
    weight_sum = torch.zeros(shape[-2:], device=device)
    for number, box in enumerate(boxes):
        # Products have 64 bits and are added up with 32, as in the original; not every device knows 64.
        weights = torch.from_numpy(gaussian_weights(box.width, box.height, centred=centred))
        weights = weights.float().to(total.device) if total.device.type == "mps" else weights.to(total.device)
        part = (..., slice(box.y1, box.y2), slice(box.x1, box.x2))
        total[part] += predict(number, box) * weights
        weight_sum[part] += weights
    return total / weight_sum
