"""Overlapping 8×8 cosine blocks: the one transform behind noise and compression repair. It must not know photographs.

A picture is cut into 8×8 blocks on a shifted grid, each block's DCT coefficients are changed, and the pictures of all
shifts are averaged. Averaging over shifts removes the block pattern that a single grid would leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Shrink = Callable[[Floats], tuple[Floats, "Floats | None"]]
"""Coefficients (planes, block rows, 8, block columns, 8) → changed coefficients and block weights (…, 1, …, 1)."""

BLOCK = 8


@cache
def cosine_matrix() -> Floats:
    """The orthonormal 8×8 DCT-II matrix."""
    index = np.arange(BLOCK)
    matrix = np.cos(np.pi * (2 * index[None, :] + 1) * index[:, None] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)


def forward(planes: Floats) -> Floats:
    """Block DCT of `planes` (planes, H, W), H and W multiples of 8 → (planes, H/8, 8, W/8, 8)."""
    count, height, width = planes.shape
    matrix = cosine_matrix()
    rows = np.matmul(matrix, planes.reshape(count, height // BLOCK, BLOCK, width))
    columns = rows.reshape(-1, BLOCK) @ matrix.T
    return np.asarray(columns, np.float32).reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK)


def backward(coefficients: Floats) -> Floats:
    """Inverse of `forward`."""
    count, block_rows, _, block_columns, _ = coefficients.shape
    matrix = cosine_matrix()
    rows = (coefficients.reshape(-1, BLOCK) @ matrix).reshape(count, block_rows, BLOCK, block_columns * BLOCK)
    planes = np.matmul(matrix.T, rows)
    return np.asarray(planes, np.float32).reshape(count, block_rows * BLOCK, block_columns * BLOCK)


def quincunx(step: int) -> tuple[tuple[int, int], ...]:
    """Grid shifts (rows, columns) inside one block, every `step` pixels, odd rows moved by half a step."""
    return tuple(
        (row, (column + (row // step % 2) * (step // 2)) % BLOCK)
        for row in range(0, BLOCK, step)
        for column in range(0, BLOCK, step)
    )


def shifted(planes: Floats, shrink: Shrink, shifts: Iterable[tuple[int, int]]) -> Floats:
    """Apply `shrink` to block coefficients on every shifted grid and average the results.

    Args:
        planes: (planes, H, W) float32.
        shrink: Changes coefficients, and may return fewer planes; block weights, where given, weigh the average.
        shifts: Grid origins (rows, columns), 0..7 each.
    """
    _, height, width = planes.shape
    total: Floats | None = None
    weights: Floats | None = None
    for row, column in shifts:
        top, left = (BLOCK - row) % BLOCK, (BLOCK - column) % BLOCK
        bottom, right = -(height + top) % BLOCK, -(width + left) % BLOCK
        padded = np.pad(planes, ((0, 0), (top, bottom), (left, right)), mode="symmetric")
        changed, weight = shrink(forward(padded))
        restored = backward(changed if weight is None else changed * weight)
        part = restored[:, top : top + height, left : left + width]
        if total is None or weights is None:
            total, weights = np.zeros_like(part), np.zeros_like(part)
        total += part
        if weight is None:
            weights += 1
        else:
            spread = np.repeat(np.repeat(weight[:, :, 0, :, 0], BLOCK, axis=1), BLOCK, axis=2)
            weights += spread[:, top : top + height, left : left + width]
    return planes if total is None or weights is None else np.asarray(total / weights, np.float32)
