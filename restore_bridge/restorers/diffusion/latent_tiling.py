"""Windows over a large latent, their blend, and the words of each. It must not know models or torch.

Per-step blending (MultiDiffusion, Bar-Tal et al., ICML 2023, as SUPIR and DreamClear use it): in every step the noise
is predicted window by window and the predictions are averaged with Gaussian weights, so neighbouring windows agree
before the next step and no seam can grow. Words about a region go only to the windows that meet it: on every window
they would draw it everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoomiqa.types import Box, BoxFraction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from restore_bridge.prompts import Prompts

VARIANCE = 0.01
"""Of the Gaussian, in squares of the window's side (SUPIR's tiled sampler)."""


@dataclass(frozen=True, slots=True)
class WindowText:
    """Phrases of one window, worthiest first."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the latent that is denoised at once."""

    box: Box
    """In latent pixels."""

    text: WindowText


def latent_boxes(size: tuple[int, int], tile: int, overlap: int) -> tuple[Box, ...]:
    """Windows over a latent of `size` (width, height); all figures in latent pixels."""
    from restore_bridge.tiling import plan_tiles

    return plan_tiles(size, tile, overlap).boxes


def sliding_starts(length: int, tile: int, stride: int) -> list[int]:
    """Where windows begin along one side as SUPIR and DreamClear place them: every `stride`, the last one moved back.

    `latent_boxes` spreads them evenly instead. A side no longer than a window has one, at 0.
    """
    return [*range(0, length - tile, stride), max(0, length - tile)]


def gaussian_weights(width: int, height: int, *, centred: bool = True) -> NDArray[np.float64]:
    """Weights (height, width) of a window, not normalised: a Gaussian of `VARIANCE`.

    Args:
        width: In latent pixels.
        height: Likewise.
        centred: Whether the middle is the window's own. SUPIR and DreamClear have it half a latent pixel too low, and
            the released pictures were made so.
    """
    import numpy as np

    def bell(length: int, middle: float) -> NDArray[np.float64]:
        place = np.arange(length, dtype=np.float64) - middle
        return np.asarray(np.exp(-(place**2) / length**2 / (2 * VARIANCE)) / np.sqrt(2 * np.pi * VARIANCE))

    return np.outer(bell(height, (height - 1) / 2 if centred else height / 2), bell(width, (width - 1) / 2))


def blend_weights(boxes: tuple[Box, ...], size: tuple[int, int], *, centred: bool = True) -> list[NDArray[np.float32]]:
    """Weights (h, w) of every window; at each latent pixel they sum to 1. `centred` as in `gaussian_weights`."""
    import numpy as np

    weights = [gaussian_weights(box.width, box.height, centred=centred) for box in boxes]
    total = np.zeros((size[1], size[0]))
    for box, weight in zip(boxes, weights, strict=True):
        total[box.y1 : box.y2, box.x1 : box.x2] += weight
    return [
        (weight / total[box.y1 : box.y2, box.x1 : box.x2]).astype(np.float32)
        for box, weight in zip(boxes, weights, strict=True)
    ]


def plan_windows(
    boxes: tuple[Box, ...],
    size: tuple[int, int],
    prompts: Prompts,
    visible: tuple[float, float] = (1.0, 1.0),
) -> tuple[Window, ...]:
    """Give each window its words: the whole picture's, then those of the regions that it meets.

    Args:
        boxes: In latent pixels.
        size: (width, height) of the latent.
        prompts: Ready text.
        visible: Share of the latent's width and height that shows the picture; the rest is padding.
    """
    return tuple(Window(box, _words(box, size, prompts, visible)) for box in boxes)


def _words(box: Box, size: tuple[int, int], prompts: Prompts, visible: tuple[float, float]) -> WindowText:
    near = [part for part in prompts.regional if _meet(box, size, part.box_fraction, visible)]
    return WindowText(
        _distinct([prompts.positive, *(part.positive for part in near)]),
        _distinct([prompts.negative, *(part.negative for part in near)]),
    )


def _meet(box: Box, size: tuple[int, int], region: BoxFraction, visible: tuple[float, float]) -> bool:
    x1, x2 = region[0] * visible[0] * size[0], region[2] * visible[0] * size[0]
    y1, y2 = region[1] * visible[1] * size[1], region[3] * visible[1] * size[1]
    return box.x1 < x2 and x1 < box.x2 and box.y1 < y2 and y1 < box.y2


def _distinct(texts: list[str]) -> tuple[str, ...]:
    """The phrases of several prompts, each wording once, in order."""
    from restore_bridge.restorers.diffusion.encoding import phrases_of

    found: dict[str, str] = {}
    for text in texts:
        for phrase in phrases_of(text):
            found.setdefault(phrase.casefold(), phrase)
    return tuple(found.values())
