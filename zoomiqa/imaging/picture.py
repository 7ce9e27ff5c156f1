"""A decoded photograph in memory. It must not know files, prompts or models.

Data contract of the whole project: pixels are uint8, RGB, sRGB, upright, H×W×3, and **read-only**; alpha is uint8 H×W
and kept apart (the pixels are already composited on white, as vision models saw them in training).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import ImageValuesInvalid
from zoomiqa.types import Box, ImageInfo, ImagePart, Note

PixelArray = NDArray[np.uint8]

_BAND_PIXELS = 1_000_000
"""Pixels per band when an array is converted piece by piece, so that temporaries stay a few megabytes."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says beside its pixels. Blocks are raw bytes as found; a saver decides what goes on."""

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    description: str | None = None


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Picture:
    """One upright sRGB photograph with what a record needs to know of its file."""

    pixels: PixelArray
    """H×W×3 uint8 RGB, sRGB, 0..255, read-only, C-contiguous."""

    info: ImageInfo
    alpha: PixelArray | None = None
    """H×W uint8, 0 transparent, 255 opaque; `None` where the file has none."""

    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[Note, ...] = ()
    """Corrections made while opening."""

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or not self.pixels.size:
            raise ImageValuesInvalid(
                "pixels must be a non-empty uint8 array of shape (height, width, 3)",
                f"{self.pixels.dtype} {self.pixels.shape}",
                "convert it first, or use picture_from_array",
            )
        self.pixels.setflags(write=False)
        if self.alpha is not None:
            self.alpha.setflags(write=False)

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return (self.width, self.height)

    def with_pixels(self, pixels: PixelArray) -> Picture:
        """The same photograph with other pixels (any size); alpha is dropped when the size differs."""
        alpha = self.alpha if self.alpha is not None and self.alpha.shape == pixels.shape[:2] else None
        info = replace(self.info, width=int(pixels.shape[1]), height=int(pixels.shape[0]))
        return replace(self, pixels=np.ascontiguousarray(pixels), alpha=alpha, info=info)


def picture_from_array(array: np.ndarray, *, name: str | None = None) -> Picture:
    """Wrap an array as a `Picture`.

    Args:
        array: H×W, H×W×1, H×W×3 or H×W×4; uint8 0..255, uint16 0..65535, or float 0..1. Grey is spread over three
            channels; a fourth channel is alpha and is composited on white.
        name: What the record calls it.

    Raises:
        ImageValuesInvalid: non-finite values, floats outside 0..1, another sample type, or another shape.
    """
    values = np.asarray(array)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or not values.size:
        raise ImageValuesInvalid("a picture array must be HxW, HxWx1, HxWx3 or HxWx4", array.shape, "reorder its axes")
    if values.dtype == np.uint16:
        values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all():
            raise ImageValuesInvalid("a picture array must be finite", "NaN or infinity", "replace those values")
        low, high = float(values.min()), float(values.max())
        if low < -1e-6 or high > 1 + 1e-6:
            raise ImageValuesInvalid("a float picture must lie in 0..1", (low, high), "divide by its maximum")
        values = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ImageValuesInvalid("a picture array must be uint8, uint16 or float", values.dtype, "convert it first")
    alpha = None
    if values.shape[2] == 4:
        alpha = np.ascontiguousarray(values[:, :, 3])
        values = composite_on_white(values[:, :, :3], alpha)
    elif values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    pixels = np.array(values, dtype=np.uint8, order="C")
    info = ImageInfo(path=name, sha256=None, width=pixels.shape[1], height=pixels.shape[0])
    return Picture(pixels=pixels, info=info, alpha=alpha)


def row_bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows, of about a million pixels each, that together cover an array of `shape` (H×W, or H×W×...)."""
    height, width = shape[:2]
    step = max(1, _BAND_PIXELS // max(1, width))
    return (slice(start, min(start + step, height)) for start in range(0, height, step))


def composite_on_white(rgb: PixelArray, alpha: PixelArray, *, out: PixelArray | None = None) -> PixelArray:
    """Blend `rgb` (H×W×3) over white by `alpha` (H×W), so that colours hidden under alpha 0 cannot come out.

    The result is a new array, or `out`, which may be `rgb` itself. Temporaries are as small as one band of rows.
    """
    result = np.empty(rgb.shape, np.uint8) if out is None else out
    for rows in row_bands(rgb.shape):
        weight = alpha[rows, :, None].astype(np.uint16)
        result[rows] = (rgb[rows].astype(np.uint16) * weight + 255 * (255 - weight) + 127) // 255
    return result


def crop(picture: Picture, box: Box) -> PixelArray:
    """The pixels of `box`, at their own resolution, as a read-only view (no copy)."""
    return picture.pixels[box.y1 : box.y2, box.x1 : box.x2]


def render(picture: Picture, part: ImagePart) -> PixelArray:
    """The pixels that `part` describes: a crop of the original, resized with Lanczos where a size is given."""
    pixels = picture.pixels if part.box is None else crop(picture, part.box)
    if part.size is None or part.size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize(part.size, Image.Resampling.LANCZOS))
