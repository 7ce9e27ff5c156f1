"""A map of a signal over the photograph it was measured on, with its scale. It must not know what the signal means."""

from __future__ import annotations

import math

import numpy as np

from zoomiqa.drawing.page import FAINT, Page
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import Picture
from zoomiqa.imaging.picture import PixelArray
from zoomiqa.imaging.signals.registry import FloatMap

_WIDTH, _HEIGHT, _MARGIN = 960, 960, 24
_STRENGTH = 0.62
"""Share of the colours in the mixture; the rest is the photograph in grey."""

_TAIL = 2.0
"""Percent of cells at either end that may lie beyond the colours, so that one odd cell does not hide all others."""


def draw_map(
    picture: Picture,
    cells: FloatMap,
    *,
    title: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Picture:
    """Draw `cells` over `picture`.

    Args:
        picture: The photograph.
        cells: Rows × columns of even cells over it; NaN where there is nothing to show.
        title: What is shown.
        unit: Of the figures.
        low: Value of the darkest colour; the map's own low end without it.
        high: Value of the brightest likewise.

    Raises:
        OptionInvalid: no cell holds a figure, or the ends are no range.
    """
    import matplotlib
    from PIL import Image

    known = cells[np.isfinite(cells)]
    if cells.ndim != 2 or not known.size:
        raise OptionInvalid("a map needs cells with figures", f"{cells.shape}", "this signal has none on this picture")
    low = float(np.percentile(known, _TAIL)) if low is None else low
    high = float(np.percentile(known, 100 - _TAIL)) if high is None else high
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise OptionInvalid("the ends of a map must be a range", (low, high), "leave them out")

    share = min(_WIDTH / picture.width, _HEIGHT / picture.height, 1.0)
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    grey = np.asarray(Image.fromarray(picture.pixels).convert("L").resize(size, Image.Resampling.LANCZOS), np.float32)
    span = (high - low) or 1.0
    level = np.clip((np.nan_to_num(cells, nan=low) - low) / span, 0, 1).astype(np.float32)
    level = np.asarray(Image.fromarray(level, "F").resize(size, Image.Resampling.BILINEAR))
    shown = np.asarray(
        Image.fromarray(np.isfinite(cells).astype(np.float32), "F").resize(size, Image.Resampling.NEAREST)
    )
    colours = matplotlib.colormaps["viridis"]  # even steps look even, also in grey and to the colour-blind
    weight = (_STRENGTH * shown)[..., None]
    mixed = colours(level)[..., :3] * 255 * weight + grey[..., None] * (1 - weight)

    page = Page(max(size[0], 320) + 2 * _MARGIN, _MARGIN)
    page.text(title, size=20, bold=True)
    page.paste(np.clip(mixed + 0.5, 0, 255).astype(np.uint8), (_MARGIN, page.bottom + 8))
    page.bottom += 8 + size[1] + 14
    page.paste(_scale(page.width - 2 * _MARGIN), (_MARGIN, page.bottom))
    page.bottom += 20
    page.label(f"{low:.3g} {unit}", (_MARGIN, page.bottom), size=14, colour=FAINT)
    page.label(f"{high:.3g} {unit}", (page.width - _MARGIN, page.bottom), size=14, colour=FAINT, ends=True)
    return page.finish()


def _scale(width: int) -> PixelArray:
    """The colours from low to high, 14 pixels high."""
    import matplotlib

    row = matplotlib.colormaps["viridis"](np.linspace(0, 1, width))[:, :3]
    return np.repeat((row * 255 + 0.5).astype(np.uint8)[None], 14, axis=0)
