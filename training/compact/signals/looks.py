"""What the compact rating sees of many pictures, worked out in several processes. It must not know scores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.assessors.compact.features import (
    Box,
    choose_region,
    crop_copy,
    extract_features,
    sample_patches,
    viewing_copy,
)
from zoomiqa.assessors.compact.fisher import Codebook
from zoomiqa.imaging import open_picture

PATCHES = 120
"""Patches of each picture and size that the codebooks are learnt from."""

PixelArray = NDArray[np.uint8]
Floats = NDArray[np.floating]
Books = tuple[Codebook, ...]

Job = TypeVar("Job")
Result = TypeVar("Result")


class Looks(NamedTuple):
    """Features of both looks at one picture."""

    view: NDArray[np.float32]
    """Of the viewing copy, as long as `FEATURE_NAMES`."""

    crop: NDArray[np.float32]
    """Of the chosen region in full resolution, likewise."""

    box: Box
    """The region."""


def in_processes(work: Callable[[Job], Result], jobs: Sequence[Job], processes: int, chunk: int = 8) -> list[Result]:
    """`work` done on every job, in the order of the jobs; a process takes `chunk` jobs at a time."""
    with multiprocessing.Pool(processes, cv2.setNumThreads, (1,)) as pool:
        return pool.map(work, jobs, chunksize=chunk)


def both_looks(rgb: PixelArray, books: Books) -> Looks:
    """What the two looks see of a picture (`H x W x 3`)."""
    view = viewing_copy(rgb)
    box = choose_region(view).box_fraction
    return Looks(extract_features(view, books), extract_features(crop_copy(rgb, box), books), box)


def some_patches(job: tuple[Path, int]) -> tuple[Floats, ...]:
    """Random patches of both looks at a picture file, `N x 49` for each of the two codebooks.

    Args:
        job: The file, and the seed of what is drawn.
    """
    path, seed = job
    rng = np.random.default_rng(seed)
    rgb = open_picture(path).pixels
    view = viewing_copy(rgb)
    pictures = view, crop_copy(rgb, choose_region(view).box_fraction)
    sampled = [sample_patches(picture) for picture in pictures]
    return tuple(
        np.concatenate(
            [one[book][rng.choice(len(one[book]), min(PATCHES, len(one[book])), replace=False)] for one in sampled]
        )
        for book in (0, 1)
    )
