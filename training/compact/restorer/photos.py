"""The clean photographs: which are trained on, which are held back, and their pixels. It must not know distortions.

Kodak24 and BSDS500 are sorted by path; of every 18 photographs the first two are held back for measurements that are
reported, the tenth for those by which choices are made. Photographs of other folders are only trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import OptionInvalid
from zoomiqa.evaluation import load_annotations
from zoomiqa.imaging import find_pictures, open_picture

Pixels = NDArray[np.uint8]

EVERY = 18
HELD_BACK, CHOOSING = (0, 1), (9,)

LEAST_RATING = 4.4
"""Mean rating, 1..5, from which a rated photograph counts as clean."""

TONE_RATING = 3.9
"""The same for the tone network, to which small flaws of detail do not count."""

RATED_SHRINK, TONE_SHRINK = 0.625, 0.5
"""Factors by which rated photographs are reduced, which hides what small flaws they have."""

LEAST_SIDE = 128


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """One clean photograph."""

    name: str
    digest: str
    """SHA-256 of the file."""

    pixels: Pixels


def split(folder: Path, part: str) -> list[Path]:
    """The photographs of `folder` that belong to `part`: "train", "choose" or "test"."""
    chosen = []
    for number, path in enumerate(find_pictures([str(folder)])):
        place = number % EVERY
        named = "test" if place in HELD_BACK else "choose" if place in CHOOSING else "train"
        if named == part:
            chosen.append(path)
    return chosen


def rated(folder: Path, least: float = LEAST_RATING) -> list[Path]:
    """Photographs of a set in this project's annotation format that are rated `least` or better.

    Raises:
        OptionInvalid: the folder holds no such annotations.
    """
    known = load_annotations(folder / "annotations.json", folder)
    return [annotation.path for annotation in known if annotation.gt_score >= least]


def load(paths: Sequence[Path], shrink: float = 1.0) -> list[Photo]:
    """Open photographs, reduced by `shrink`; those with a side under `LEAST_SIDE` are left out.

    Raises:
        OptionInvalid: none is left.
    """
    import cv2

    photos = []
    for path in paths:
        pixels = open_picture(path).pixels
        if shrink < 1:
            pixels = np.asarray(cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
        if min(pixels.shape[:2]) >= LEAST_SIDE:
            photos.append(Photo(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), pixels))
    if not photos:
        raise OptionInvalid("no photograph is large enough", len(paths), f"sides of {LEAST_SIDE} pixels are needed")
    return photos


def digest_of(photos: Sequence[Photo]) -> str:
    """One hash over all photographs, for a model card."""
    return hashlib.sha256("".join(sorted(photo.digest for photo in photos)).encode()).hexdigest()
