"""Photographs to try the page with: those that come with scikit-image, spoiled by one known operation each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoomiqa.imaging import encode_picture, picture_from_array, save_picture
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
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for title, name, operation in _SAMPLES:
        spoiled = _spoiled(name, operation, seed=1)
        stem = _stem(title)
        file, icon = folder / f"{stem}.png", folder / f"{stem}-icon.png"
        save_picture(spoiled, file, overwrite=True)
        save_picture(_square(spoiled), icon, overwrite=True)
        made.append(Sample(title, file, icon))
    return made


def draw_first(seed: int) -> tuple[str, bytes]:
    """The first sample with noise of its own: a name, and a PNG that is another picture for every seed."""
    title, name, operation = _SAMPLES[0]
    return f"{_stem(title)}.png", encode_picture(_spoiled(name, operation, seed), ".png")


def _spoiled(name: str, operation: str, seed: int) -> np.ndarray:
    from skimage import data

    pixels = np.ascontiguousarray(getattr(data, name)()[..., :3])
    return distort(pixels, operation, _SEVERITY, seed=seed).pixels


def _stem(title: str) -> str:
    return title.lower().replace(" ", "-")


def _square(pixels: np.ndarray) -> np.ndarray:
    import cv2

    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    cut = picture_from_array(pixels[top : top + side, left : left + side]).pixels
    return np.asarray(cv2.resize(cut, (ICON_SIDE_PX, ICON_SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)
