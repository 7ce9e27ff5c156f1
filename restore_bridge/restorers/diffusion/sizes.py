"""Which size a diffusion model works at, and the exact way back. It must not know models or torch.

A picture of (w, h) at scale s becomes (w·s, h·s). A model wants a short side of some length (SDXL was trained at 1024)
and both sides in multiples of 64, so the picture is enlarged where it is too small, then padded by reflection at the
right and bottom. Afterwards the padding is cut off and the result is brought to (w·s, h·s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

LARGEST_GROWTH = 8.0
"""How many times a side is enlarged at most to reach the wanted short side; a strip stays a strip."""

LARGEST_WORK = 16
"""How many squares of the wanted short side the enlargement may fill at most."""


@dataclass(frozen=True, slots=True)
class WorkSize:
    """Sizes as (width, height) in pixels, in the order in which they come about."""

    source: tuple[int, int]
    target: tuple[int, int]
    """Source times scale: the size of the result."""

    work: tuple[int, int]
    """Enlarged to the wanted short side."""

    padded: tuple[int, int]
    """What the model sees: `work` rounded up to the model's multiple."""

    def to_dict(self) -> dict[str, Any]:
        return {name: list(getattr(self, name)) for name in ("source", "target", "work", "padded")}


def plan_size(source: tuple[int, int], *, scale: int, min_side: int, multiple: int) -> WorkSize:
    """The sizes for a picture of `source` (width, height).

    Args:
        source: Of the picture, in pixels.
        scale: Enlargement that is asked for.
        min_side: Short side that the model wants, in pixels.
        multiple: Both sides of what the model sees are multiples of this many pixels.
    """
    target = (source[0] * scale, source[1] * scale)
    room = (LARGEST_WORK * min_side**2 / (target[0] * target[1])) ** 0.5
    growth = max(1.0, min(min_side / min(target), LARGEST_GROWTH, room))
    work = (round(target[0] * growth), round(target[1] * growth))
    padded = (-(-work[0] // multiple) * multiple, -(-work[1] // multiple) * multiple)
    return WorkSize(source, target, work, padded)


def to_work(pixels: Pixels, size: WorkSize) -> Pixels:
    """Enlarge and pad: (h, w, 3) of `size.source` → (h, w, 3) of `size.padded`."""
    import numpy as np

    large = resize(pixels, size.work)
    right, below = size.padded[0] - size.work[0], size.padded[1] - size.work[1]
    return np.pad(large, ((0, below), (0, right), (0, 0)), mode="reflect") if right or below else large


def from_work(pixels: Pixels, size: WorkSize) -> Pixels:
    """Cut the padding off and bring to size: (h, w, 3) of `size.padded` → (h, w, 3) of `size.target`."""
    import numpy as np

    return resize(np.ascontiguousarray(pixels[: size.work[1], : size.work[0]]), size.target)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """`pixels` (h, w) or (h, w, c) at `size` (width, height): averaged where smaller, bicubic where larger."""
    import cv2
    import numpy as np

    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    smaller = size[0] < pixels.shape[1] or size[1] < pixels.shape[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=method), np.uint8)
