"""From the box a model wrote to the crop it is shown. It must not know pictures beyond their size.

The steps and their order are those of the released protocol, so that the released checkpoint sees the
crops it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoomiqa.types import Box, Note

MIN_AREA_SHARE = 0.25
MAX_AREA_SHARE = 0.75
MIN_SIDE_PX = 28


@dataclass(frozen=True, slots=True)
class CropPlan:
    """What to cut out and how large to show it."""

    box: Box
    size: tuple[int, int]
    """(width, height) the crop is resized to; the box's own size for the central fallback."""

    notes: tuple[Note, ...] = ()


def is_zero(box_model: Any) -> bool:
    """Whether a model's box is the all-zero box that means "no crop"."""
    values = as_numbers(box_model)
    return values is not None and not any(values)


def as_numbers(box_model: Any) -> tuple[float, float, float, float] | None:
    """The four finite numbers of a model's box, or `None` if it is anything else (booleans are not numbers)."""
    if not isinstance(box_model, Sequence) or isinstance(box_model, str | bytes) or len(box_model) != 4:
        return None
    values: list[float] = []
    for item in box_model:
        if isinstance(item, bool) or not isinstance(item, int | float):
            return None
        try:
            value = float(item)
        except OverflowError:
            return None
        if not math.isfinite(value):
            return None
        values.append(value)
    return (values[0], values[1], values[2], values[3])


def plan_crop(box_model: Any, size: tuple[int, int]) -> CropPlan:
    """Turn a model's box into a crop of a picture of `size` (width, height).

    Coordinates all within 0..1 are fractions, otherwise pixels. Anything that is not four finite numbers, and the
    all-zero box, means the central half of each side, unresized. Otherwise the box is ordered and clamped, its area
    held between 25 % and 75 % of the picture by scaling about its centre, each side held to at least 28 px, and the
    crop shown as large as fits inside the original size.
    """
    width, height = size
    values = as_numbers(box_model)
    if values is None or not any(values):
        box = Box(width // 4, height // 4, max(width * 3 // 4, width // 4 + 1), max(height * 3 // 4, height // 4 + 1))
        note = Note("crop-box-unusable", "The requested region was not four usable numbers; the centre is shown.")
        return CropPlan(box, (box.width, box.height), (note,))

    if all(0.0 <= value <= 1.0 for value in values):
        values = (values[0] * width, values[1] * height, values[2] * width, values[3] * height)
    x1: float
    x2: float
    y1: float
    y2: float
    x1, x2, moved_x = _ordered(values[0], values[2], width)
    y1, y2, moved_y = _ordered(values[1], values[3], height)
    notes = []
    if moved_x or moved_y:
        notes.append(Note("crop-box-clamped", "The requested region was reordered or cut to the picture's edges."))

    (x1, x2, y1, y2), scaled = _hold_area(x1, x2, y1, y2, width, height)
    grown = x2 - x1 < min(MIN_SIDE_PX, width) or y2 - y1 < min(MIN_SIDE_PX, height)
    x1, x2 = _hold_side(x1, x2, width)
    y1, y2 = _hold_side(y1, y2, height)
    if scaled or grown:
        notes.append(
            Note("crop-box-resized", "The requested region was resized to 25-75 % of the picture and at least 28 px.")
        )
    box = Box(int(x1), int(y1), max(int(x2), int(x1) + 1), max(int(y2), int(y1) + 1))
    return CropPlan(box, _fit_inside(box, size), tuple(notes))


def _ordered(low: float, high: float, limit: int) -> tuple[int, int, bool]:
    """Clamp and order one axis and truncate it to whole pixels; a zero width grows by one towards the far edge.

    Widening happens twice, before and after truncation, because two coordinates that differ by less than a pixel may
    fall together.
    """
    first, second = (max(0.0, min(value, float(limit))) for value in (low, high))
    first, second = min(first, second), max(first, second)
    if first == second:
        first, second = (first, second + 1) if second < limit else (first - 1, second)
    start, end = int(first), int(second)
    start, end = max(0, min(start, limit)), max(0, min(end, limit))
    if start == end:
        end = min(start + 1, limit)
    return start, end, low > high or min(low, high) < 0 or max(low, high) > limit


def _hold_area(
    x1: float, x2: float, y1: float, y2: float, width: int, height: int
) -> tuple[tuple[float, float, float, float], bool]:
    """Scale both sides about the centre so that the area keeps its bounds; each edge is clamped on its own."""
    area, whole = (x2 - x1) * (y2 - y1), width * height
    if 0 < area < whole * MIN_AREA_SHARE:
        factor = math.sqrt(whole * MIN_AREA_SHARE / area)
    elif area > whole * MAX_AREA_SHARE:
        factor = math.sqrt(whole * MAX_AREA_SHARE / area)
    else:
        return (x1, x2, y1, y2), False
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    half_x, half_y = (x2 - x1) * factor / 2, (y2 - y1) * factor / 2
    scaled = (
        max(0, centre_x - half_x),
        min(width, centre_x + half_x),
        max(0, centre_y - half_y),
        min(height, centre_y + half_y),
    )
    return scaled, True


def _hold_side(low: float, high: float, limit: int) -> tuple[float, float]:
    """Grow one side to 28 px (or the whole picture), the odd pixel on the far side, shifted back inside.

    Floor division of a fractional lack leaves less than one pixel missing; it is added at the far side, or at the near
    side where the far edge is reached. The order of operations is the released one: another order rounds otherwise.
    """
    missing = MIN_SIDE_PX - (high - low)
    if missing <= 0:
        return low, high
    low, high = low - missing // 2, high + (missing + 1) // 2
    if low < 0:
        low, high = 0, high - low
    if high > limit:
        low, high = max(0, low - (high - limit)), limit
    target = min(MIN_SIDE_PX, limit)
    if high - low < target:
        high += min(target - (high - low), limit - high)
    if high - low < target:
        low = max(0, min(low - (target - (high - low)), limit - target))
        high = low + target
    return low, high


def _fit_inside(box: Box, size: tuple[int, int]) -> tuple[int, int]:
    """The largest size with the box's aspect ratio inside `size`; sides are truncated, at least 1 px."""
    width, height = size
    ratio = box.width / box.height
    if ratio > width / height:
        return width, max(1, int(width / ratio))
    return max(1, int(height * ratio)), height
