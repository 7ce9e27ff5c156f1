"""From a map of cells to the box of a flaw. It must not know which signal the map holds or how a flaw is worded.

The box is the rectangle of cells that holds most of the affected cells and least of the others (the maximum sum over
all rectangles). It is looked for twice: first with the limit at which the flaw shows at all, then with one near to the
typical value inside, as a cell that the flaw only touches is beyond the first limit already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoomiqa.types import BoxFraction

FloatMap = NDArray[np.float32]
UNKNOWN_COSTS = 0.25
"""What a cell with nothing to measure costs the rectangle that holds it; an affected one gives 1."""

PASSES = 2
LEAST_LEVEL = 1e-3
"""Below this a value of a map counts as this much where its logarithm is taken."""


@dataclass(frozen=True, slots=True)
class Search:
    """How the place of one flaw is looked for."""

    limit: float
    """The value from which a cell is affected."""

    is_rising: bool
    """Whether larger values are worse."""

    near: float
    """The second limit, as a share of the typical value inside."""

    cost: float
    """What an unaffected cell costs the rectangle that holds it."""

    grow: float
    """Cells that the box gains on each side: a cell is only affected if most of its window is."""


@dataclass(frozen=True, slots=True)
class Place:
    """The rectangle of affected cells, and how it stands out."""

    box_fraction: BoxFraction
    """In the part of the frame that the map covers."""

    value: float
    """Median of the affected cells inside."""

    count: int
    """Affected cells inside."""

    share: float
    """Of the map that the rectangle covers."""

    fill: float
    """Affected share of the known cells inside."""

    outside: float
    """Affected share of the known cells outside."""

    around: float
    """Median of the known cells next to the rectangle; 0 where there are none."""

    step: float
    """Logarithm of the ratio, outside over inside, of the cells that face each other across the rectangle's sides: the
    lowest fifth ends here; 0 where no side lies inside the map."""

    unknown: float
    """Share of the cells inside with nothing to measure."""

    sides: int
    """Sides of the map that the rectangle touches, 0..4."""

    is_across: bool
    """Whether it reaches from one side to the opposite one."""

    is_strip: bool
    """Whether it is a single row or column: a line of the scene or of its frame, hardly a place."""


def best_rectangle(scores: NDArray[np.floating]) -> tuple[tuple[int, int, int, int], float]:
    """((top, bottom, left, right), sum) of the rectangle of a map with the largest sum; ends are exclusive."""
    rows, columns = scores.shape
    total = np.zeros((rows + 1, columns + 1))
    total[1:, 1:] = scores.cumsum(0).cumsum(1)
    top, bottom = np.triu_indices(rows + 1, 1)
    left, right = np.triu_indices(columns + 1, 1)
    bands = total[bottom] - total[top]
    sums = bands[:, right] - bands[:, left]
    row, column = divmod(int(sums.argmax()), left.size)
    edges = int(top[row]), int(bottom[row]), int(left[column]), int(right[column])
    return edges, float(sums[row, column])


def find_place(cells: FloatMap, search: Search) -> Place | None:
    """The place of a flaw in a map (rows x columns, NaN where nothing can be told), or `None`."""
    known = np.isfinite(cells)
    edges, affected, limit = None, np.zeros(cells.shape, bool), search.limit
    for _ in range(1 + PASSES):
        hits = known & ((cells >= limit) if search.is_rising else (cells <= limit))
        found, total = best_rectangle(np.where(hits, 1.0, np.where(known, -search.cost, -UNKNOWN_COSTS)))
        if total <= 0:
            break
        edges, affected = found, hits
        top, bottom, left, right = edges
        value = float(np.median(cells[top:bottom, left:right][hits[top:bottom, left:right]]))
        pick = max if search.is_rising else min
        limit = pick(search.limit, search.near * value)
    return None if edges is None else _described(cells, known, affected, edges, search.grow)


def _described(
    cells: FloatMap,
    known: NDArray[np.bool_],
    affected: NDArray[np.bool_],
    edges: tuple[int, int, int, int],
    grow: float,
) -> Place:
    rows, columns = cells.shape
    top, bottom, left, right = edges
    inside, ring = np.zeros(cells.shape, bool), np.zeros(cells.shape, bool)
    inside[top:bottom, left:right] = True
    ring[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True
    ring &= known & ~inside
    hits = affected & inside
    at_end = (left == 0, top == 0, right == columns, bottom == rows)
    return Place(
        box_fraction=(
            max(left - grow, 0) / columns,
            max(top - grow, 0) / rows,
            min(right + grow, columns) / columns,
            min(bottom + grow, rows) / rows,
        ),
        value=float(np.median(cells[hits])),
        count=int(hits.sum()),
        share=float(inside.mean()),
        fill=float(hits.sum() / max(int((known & inside).sum()), 1)),
        outside=float((affected & ~inside).sum() / max(int((known & ~inside).sum()), 1)),
        around=float(np.median(cells[ring])) if ring.any() else 0.0,
        step=_step(cells, edges),
        unknown=float((inside & ~known).sum() / inside.sum()),
        sides=sum(at_end),
        is_across=(at_end[0] and at_end[2]) or (at_end[1] and at_end[3]),
        is_strip=min(bottom - top, right - left) < 2,
    )


def _step(cells: FloatMap, edges: tuple[int, int, int, int]) -> float:
    """See `Place.step`."""
    top, bottom, left, right = edges
    rows, columns = cells.shape
    levels = np.log(np.maximum(cells, LEAST_LEVEL))
    faces = (
        (top > 0, levels[top - 1, left:right] - levels[top, left:right]),
        (bottom < rows, levels[bottom % rows, left:right] - levels[bottom - 1, left:right]),
        (left > 0, levels[top:bottom, left - 1] - levels[top:bottom, left]),
        (right < columns, levels[top:bottom, right % columns] - levels[top:bottom, right - 1]),
    )
    steps = np.concatenate([np.empty(0), *(face for is_inside, face in faces if is_inside)])
    steps = steps[np.isfinite(steps)]
    return float(np.quantile(steps, 0.2)) if steps.size else 0.0


UNSHARP_WEIGHTS = (-19.85, 5.23, 2.36, -1.72, 2.36, 12.07, 1.96, -2.52, -0.23, 3.59)
"""Bias, and the weights of `unsharp_cues`."""


LEAST_EDGES = 0.3
"""Share of a place's cells that must hold edges before it can be called unsharp."""


def unsharp_cues(place: Place, edges: FloatMap | None) -> tuple[float, ...] | None:
    """What tells an unsharp place that is a flaw from a background out of focus, which is a choice.

    A flaw has sharp surroundings on all sides, ends in a step and has wide edges of its own; a background reaches the
    frame, goes over into the rest and is plain.

    Args:
        place: Found in a map of resolution.
        edges: Rows x columns of edge widths, NaN in cells without edges; of the same part of the frame.

    Returns:
        The cues, or `None` for what cannot be a flaw: a place that reaches across the frame, is a line, or has hardly
        an edge that could be sharp (a plain sky).
    """
    have_edges = width = 0.0
    if edges is not None:
        x1, y1, x2, y2 = place.box_fraction
        rows, columns = edges.shape
        part = edges[int(y1 * rows) : max(math.ceil(y2 * rows), 1), int(x1 * columns) : max(math.ceil(x2 * columns), 1)]
        widths = part[np.isfinite(part)]
        if widths.size:
            have_edges, width = widths.size / part.size, float(np.median(widths))
    if place.is_across or place.is_strip or have_edges < LEAST_EDGES:
        return None
    return (
        -math.log(max(place.value, LEAST_LEVEL)),
        place.around,
        float(place.sides),
        math.log(max(place.count, 1)),
        place.share,
        place.step,
        place.unknown,
        width,
        have_edges,
    )


def is_unsharp_by_fault(place: Place, edges: FloatMap | None) -> bool:
    """Whether an unsharp place is a flaw; fitted by `training/compact/diagnosis` (task `places`)."""
    cues = unsharp_cues(place, edges)
    bias, *weights = UNSHARP_WEIGHTS
    return cues is not None and bias + sum(weight * cue for weight, cue in zip(weights, cues, strict=True)) > 0
