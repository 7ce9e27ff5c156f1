"""Which photographs the fits may see, and how they are opened. It must not know what is fitted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from zoomiqa.imaging import open_picture
from zoomiqa.imaging.signals.canvas import PixelArray, reduced

ODD, EVEN = 1, 0
FIT = ODD
"""The half that is fitted on; the other is kept for the benchmark."""


def photos(folder: Path, half: int) -> list[Path]:
    """The Kodak and BSDS photographs whose number in their folder is odd (1) or even (0)."""
    sets = (sorted(folder.glob("Kodak24/*.png")), sorted(folder.glob("BSDS500/**/*.jpg")))
    return [path for paths in sets for index, path in enumerate(paths, 1) if index % 2 == half]


def more(folder: Path, limit: int | None = None) -> list[Path]:
    """The pictures of BIQ2021's subset ss03 (Unsplash)."""
    return sorted(folder.glob("ss03_*.jpg"))[:limit]


def unseen(folder: Path, limit: int | None = None) -> list[Path]:
    """One in three of BIQ2021's subsets ss01 and ss02, which nothing is fitted on."""
    return sorted(folder.glob("ss0[12]_*.jpg"))[::3][:limit]


def opened(paths: list[Path], side: int) -> list[PixelArray]:
    """Square reductions: the shape of a photograph says nothing of its light."""
    pictures = (reduced(open_picture(path).pixels, 4 * side) for path in paths)
    return [
        np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8) for picture in pictures
    ]
