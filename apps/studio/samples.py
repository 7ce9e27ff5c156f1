"""Photographs to try the page with: those that come with scikit-image, spoiled by one known operation each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoomiqa.imaging import picture_from_array, save_picture
from zoomiqa.imaging.distortions import distort

ICON_SIDE_PX = 96


@dataclass(frozen=True, slots=True)
class Sample:
    """One photograph."""

    title: str
    file: Path
    icon: Path
    """A small square of it."""


_SAMPLES = (
    ("Noisy portrait", "astronaut", "gaussian_noise"),
    ("Blurred cup", "coffee", "gaussian_blur"),
    ("Blocky cat", "chelsea", "jpeg"),
    ("Dark coffee", "coffee", "low_light"),
)
_SEVERITY = 3


def make_samples(folder: Path) -> list[Sample]:
    """The samples as files in `folder`; public domain or CC0 (scikit-image's licence file names them)."""
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for title, name, operation in _SAMPLES:
        pixels = np.ascontiguousarray(getattr(data, name)()[..., :3])
        spoiled = distort(pixels, operation, _SEVERITY, seed=1).pixels
        stem = title.lower().replace(" ", "-")
        file, icon = folder / f"{stem}.png", folder / f"{stem}-icon.png"
        save_picture(spoiled, file, overwrite=True)
        save_picture(_square(spoiled), icon, overwrite=True)
        made.append(Sample(title, file, icon))
    return made


def _square(pixels: np.ndarray) -> np.ndarray:
    import cv2

    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    cut = picture_from_array(pixels[top : top + side, left : left + side]).pixels
    return np.asarray(cv2.resize(cut, (ICON_SIDE_PX, ICON_SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)
