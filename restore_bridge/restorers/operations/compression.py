"""JPEG's marks: find the quantisation, then smooth over shifted grids inside what it allows. It must not know words.

Sources: ITU-T T.81 annex K (tables), libjpeg (quality scaling), Nosratinia, "Enhancement of JPEG-compressed images by
re-application of JPEG" (J. VLSI Signal Processing 27, 2001) for the shifted grids; Zhai et al. (IEEE TIP 2008) for
holding the result near the quantisation cell that the file recorded.
"""

from __future__ import annotations

import numpy as np

from restore_bridge.restorers.operations.transform import BLOCK, Floats, backward, forward, quincunx, shifted

LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.float32,
)
CHROMA_TABLE = np.full((BLOCK, BLOCK), 99, np.float32)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
"""JFIF's RGB → Y, Cb, Cr without its offset of 128."""

QUALITIES = (*range(5, 51), *range(52, 91, 2))
CERTAIN = 0.35
"""Comb strength from which a quality counts as found (1 is a perfect comb, 0 none)."""

SAMPLED_BLOCKS = 1500
"""How many blocks the search for the quality reads."""

LUMA_LIMIT, CHROMA_LIMIT = 0.4, 0.6
"""Thresholds on the shifted grids, in quantisation steps."""

CELL = 0.35
"""How far a coefficient may leave the middle of its quantisation cell, in steps."""


def quality_table(quality: float, base: Floats) -> Floats:
    """libjpeg's table for `quality` 1..100."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    return np.clip(np.floor((base * scale + 50) / 100), 1, 255).astype(np.float32)


def find_quality(luma: Floats) -> tuple[int | None, float]:
    """The JPEG quality whose standard table explains `luma` (H×W, 0..255) on the grid at the origin.

    Returns:
        (quality or `None`, comb strength): quantised coefficients sit on multiples of their step, so the mean of
        cos(2π c/step) is near 1 for the true table and near 0 for others.
    """
    height, width = (size // BLOCK * BLOCK for size in luma.shape)
    if height < 2 * BLOCK or width < 2 * BLOCK:
        return None, 0.0
    blocks = forward(np.ascontiguousarray(luma[None, :height, :width] - 128))[0].transpose(0, 2, 1, 3)
    blocks = blocks.reshape(-1, BLOCK, BLOCK)
    blocks = blocks[:: max(1, len(blocks) // SAMPLED_BLOCKS)]
    combs = {quality: _comb(blocks, quality_table(quality, LUMA_TABLE)) for quality in QUALITIES}
    best = max(combs.values())
    if best < CERTAIN:
        return None, best
    # A table whose steps divide the true ones combs as well: the coarsest that explains the picture is the true one.
    return next((quality, comb) for quality, comb in combs.items() if comb >= best - 0.08)


def _comb(blocks: Floats, table: Floats) -> float:
    ratio = blocks / table
    busy = (np.abs(ratio) > 0.6) & (table > 4)
    busy[:, 0, 0] = False
    return float(np.cos(2 * np.pi * ratio[busy]).mean()) if busy.sum() >= 64 else 0.0


def deblock(pixels: Floats, quality: float, *, aligned: bool = True, amount: float = 1.0, step: int = 2) -> Floats:
    """Remove blocking and ringing.

    Args:
        pixels: H×W×3 RGB, float32 0..1.
        quality: JPEG quality 1..100, found or assumed.
        aligned: Whether the picture's own grid starts at its origin; then the result stays near the recorded cells.
        amount: Scales the thresholds.
    """
    planes = np.ascontiguousarray(np.tensordot(YCC, pixels * 255, axes=(1, 2)), dtype=np.float32)
    planes[0] -= 128
    luma, chroma = quality_table(quality, LUMA_TABLE), quality_table(quality, CHROMA_TABLE)
    limits = np.stack([luma * LUMA_LIMIT, chroma * CHROMA_LIMIT, chroma * CHROMA_LIMIT]) * amount
    limits = limits[:, None, :, None, :].astype(np.float32)

    def cut(blocks: Floats) -> tuple[Floats, Floats | None]:
        keep = np.abs(blocks) > limits
        keep[:, :, 0, :, 0] = True
        used = keep.sum(axis=(2, 4), keepdims=True, dtype=np.float32)
        return np.where(keep, blocks, np.float32(0)), 1 / used

    smooth = shifted(planes, cut, quincunx(step))
    if aligned:
        smooth[0] = _within_cells(planes[0], smooth[0], luma)
    smooth[0] += 128
    return np.asarray(np.tensordot(smooth, np.linalg.inv(YCC).astype(np.float32), axes=(0, 1)) / 255, np.float32)


def _within_cells(recorded: Floats, smooth: Floats, table: Floats) -> Floats:
    height, width = recorded.shape
    pad = ((0, -height % BLOCK), (0, -width % BLOCK))
    middle = forward(np.pad(recorded, pad, mode="edge")[None])
    reach = (table * CELL)[None, None, :, None, :]
    held = np.clip(forward(np.pad(smooth, pad, mode="edge")[None]), middle - reach, middle + reach)
    return backward(held)[0, :height, :width]
