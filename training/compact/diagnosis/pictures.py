"""Which pictures beside the clean photographs the fits see, and how all are opened. It must not know what is fitted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from zoomiqa.imaging import open_picture
from zoomiqa.imaging.signals.canvas import PixelArray, reduced


def more(folder: Path, limit: int | None = None) -> list[Path]:
    """The pictures of BIQ2021's subset ss03 (Unsplash)."""
    return sorted(folder.glob("ss03_*.jpg"))[:limit]


def camera(folder: Path, limit: int | None = None) -> list[Path]:
    """One in three of BIQ2021's subsets ss01 and ss02: no network is fitted on them."""
    return sorted(folder.glob("ss0[12]_*.jpg"))[::3][:limit]


def opened(paths: list[Path], side: int) -> list[PixelArray]:
    """Square reductions: the shape of a photograph says nothing of its light."""
    pictures = (reduced(open_picture(path).pixels, 4 * side) for path in paths)
    return [
        np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8) for picture in pictures
    ]
