"""Noise: measure it, then remove it with sliding cosine blocks. It must not know words or boxes.

Source: Yu & Sapiro, "DCT image denoising" (IPOL 2011), with the sparsity-weighted average and the empirical Wiener
second pass of Foi, Katkovnik & Egiazarian (SA-DCT, IEEE TIP 2007).
"""

from __future__ import annotations

import numpy as np

from restore_bridge.restorers.operations.transform import BLOCK, Floats, forward, quincunx, shifted

OPPONENT = np.array(
    [
        [1 / np.sqrt(3), 1 / np.sqrt(3), 1 / np.sqrt(3)],
        [1 / np.sqrt(2), 0.0, -1 / np.sqrt(2)],
        [1 / np.sqrt(6), -2 / np.sqrt(6), 1 / np.sqrt(6)],
    ],
    dtype=np.float32,
)
"""Orthonormal brightness and two colour differences; equal noise in R, G and B stays equal and independent."""

HIGH = np.add.outer(np.arange(BLOCK), np.arange(BLOCK)) >= 9
"""The high frequencies of a block, where photographs hold the least."""

QUIET_SHARE = 0.15
"""The share of calmest blocks that measure the noise."""

HARD_LIMIT = 2.7
"""Hard threshold in standard deviations (Yu & Sapiro use 3 without weights)."""


def to_planes(pixels: Floats) -> Floats:
    """H×W×3 RGB → (3, H, W) brightness and colour differences."""
    return np.ascontiguousarray(np.tensordot(OPPONENT, pixels, axes=(1, 2)), dtype=np.float32)


def to_pixels(planes: Floats) -> Floats:
    """Inverse of `to_planes`."""
    return np.ascontiguousarray(np.tensordot(planes, OPPONENT, axes=(0, 0)), dtype=np.float32)


def noise_level(planes: Floats) -> Floats:
    """Standard deviation of white noise in each plane of (planes, H, W), in the planes' own unit.

    The root mean square of high frequencies in the calmest blocks, leaving out blocks that are clipped flat.
    """
    count, height, width = planes.shape
    height, width = height // BLOCK * BLOCK, width // BLOCK * BLOCK
    if not height or not width:
        return np.zeros(count, np.float32)
    blocks = forward(np.ascontiguousarray(planes[:, :height, :width]))
    energy = (blocks.transpose(0, 1, 3, 2, 4)[..., HIGH] ** 2).mean(axis=-1).reshape(count, -1)
    levels = np.zeros(count, np.float32)
    for index in range(count):
        alive = np.sort(energy[index][energy[index] > 1e-9])
        if alive.size:
            quiet = alive[: max(1, int(alive.size * QUIET_SHARE))]
            levels[index] = np.sqrt(quiet.mean() * 1.6)
    return levels


def denoise(pixels: Floats, level: Floats, *, step: int = 2) -> Floats:
    """Remove white noise.

    Args:
        pixels: H×W×3 RGB, float32.
        level: Standard deviation in the three planes of `to_planes`.
        step: Distance of the block grids, 1 to 8 pixels; 2 is sixteen grids.
    """
    planes = to_planes(pixels)
    limit = np.maximum(level, 1e-6).astype(np.float32).reshape(-1, 1, 1, 1, 1)

    def cut(blocks: Floats) -> tuple[Floats, Floats | None]:
        keep = np.abs(blocks) > HARD_LIMIT * limit
        keep[:, :, 0, :, 0] = True
        used = keep.sum(axis=(2, 4), keepdims=True, dtype=np.float32)
        return np.where(keep, blocks, np.float32(0)), 1 / used

    pilot = shifted(planes, cut, quincunx(step))

    def wiener(blocks: Floats) -> tuple[Floats, Floats | None]:
        noisy, power = blocks[:3], blocks[3:] ** 2
        gain = power / (power + limit * limit)
        gain[:, :, 0, :, 0] = 1
        return np.asarray(noisy * gain, np.float32), 1 / (gain * gain).sum(axis=(2, 4), keepdims=True)

    return to_pixels(shifted(np.concatenate([planes, pilot]), wiener, quincunx(step)))
