"""From the decoder's samples to the contract's pixels: depth, alpha, turning. It must not know files or limits.

Colours are converted in bands of rows, so that no second copy of the whole picture exists beside the decoder's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from zoomiqa.errors import ImageValuesInvalid
from zoomiqa.imaging.opening.colour import Conversion, conversion_to_srgb
from zoomiqa.imaging.opening.structure import Depth
from zoomiqa.imaging.picture import PixelArray, composite_on_white, row_bands
from zoomiqa.types import Note

if TYPE_CHECKING:
    from PIL import Image


def to_pixels(
    image: Image.Image, turn: int | None, depth: Depth, subject: str, notes: list[Note]
) -> tuple[PixelArray, PixelArray | None]:
    """Pixels (H×W×3) and alpha (H×W) by the contract of `Picture`; `image` is loaded, and closed on the way."""
    from PIL import Image

    profile = image.info.get("icc_profile")
    image, opacity = _to_eight_bits(image, depth, subject, notes)
    if turn is not None:
        image, sideways = image.transpose(Image.Transpose(turn)), image
        sideways.close()  # its memory is otherwise held by the caller
        opacity = None if opacity is None else opacity.transpose(Image.Transpose(turn))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    alpha: PixelArray | None = None
    to_srgb: Conversion | None = None
    for rows in row_bands(pixels.shape):
        area = (0, rows.start, image.width, rows.stop)
        colour, opaque = _split_opacity(image.crop(area), None if opacity is None else opacity.crop(area))
        to_srgb = to_srgb or conversion_to_srgb(colour.mode, profile, notes)
        pixels[rows] = np.asarray(to_srgb(colour))
        if opaque is not None:
            alpha = np.empty(pixels.shape[:2], np.uint8) if alpha is None else alpha
            alpha[rows] = np.asarray(opaque)
    if alpha is not None and alpha.min() < 255:
        composite_on_white(pixels, alpha, out=pixels)
        notes.append(Note("transparency-composited", "Transparent parts were put on white; the alpha is kept apart."))
    return pixels, alpha


def _to_eight_bits(
    image: Image.Image, depth: Depth, subject: str, notes: list[Note]
) -> tuple[Image.Image, Image.Image | None]:
    """Grey of more than eight bits as "L"; Pillow's own conversion would cut it off at 255 instead of scaling it."""
    from PIL import Image

    if image.mode == "F":
        grey = _from_floats(np.asarray(image), subject)
        notes.append(Note("float-reduced", "Floating-point samples of 0..1 were reduced to 8 bits."))
        return Image.fromarray(grey), None
    if not image.mode.startswith("I"):
        if depth.bits == 16:
            notes.append(Note("sixteen-bit-reduced", "Samples of 16 bits were reduced to 8 bits."))
        _scale_transparent_colour(image, depth)
        return image, None
    samples = np.asarray(image)
    if image.mode == "I" and (samples.min() < 0 or samples.max() > 65535):
        raise ImageValuesInvalid(
            f"{subject} has integer samples outside 0..65535",
            (int(samples.min()), int(samples.max())),
            "scale them to 16 bits",
        )
    top = 4095 if depth.bits == 12 else 65535
    table = np.minimum((np.arange(65536) * 255 + top // 2) // top, 255).astype(np.uint8)
    grey = np.empty(samples.shape, np.uint8)
    for rows in row_bands(samples.shape):
        grey[rows] = table[samples[rows]]
    notes.append(Note("sixteen-bit-reduced", f"Grey samples of 0..{top} were scaled to 8 bits."))
    key = image.info.get("transparency")
    opacity = None
    if isinstance(key, int):
        opacity = Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8))
    return Image.fromarray(grey), opacity


def _from_floats(samples: np.ndarray[Any, Any], subject: str) -> PixelArray:
    low, high = float(samples.min()), float(samples.max())  # NaN comes through both
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageValuesInvalid(f"{subject} has samples that are not finite", "NaN or infinity", "replace them")
    if low < 0 or high > 1:
        raise ImageValuesInvalid(
            f"{subject} has floating-point samples outside 0..1", f"{low:g}..{high:g}", "divide them by their maximum"
        )
    grey = np.empty(samples.shape, np.uint8)
    for rows in row_bands(samples.shape):
        grey[rows] = np.rint(samples[rows] * 255).astype(np.uint8)
    return grey


def _scale_transparent_colour(image: Image.Image, depth: Depth) -> None:
    """PNG states the transparent colour in the file's own depth; Pillow compares it with 8-bit pixels."""
    key = image.info.get("transparency")
    if depth.bits == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif depth.is_grey_png and depth.bits in (2, 4) and isinstance(key, int):
        image.info["transparency"] = min(255, key * 255 // (2**depth.bits - 1))


def _split_opacity(image: Image.Image, opacity: Image.Image | None) -> tuple[Image.Image, Image.Image | None]:
    """Colour ("L", "RGB", "CMYK" or "LAB") and opacity ("L") apart, palettes resolved."""
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    elif image.mode in ("1", "L", "P", "PA", "RGB") and image.has_transparency_data:
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, opacity
    return image.convert("L" if image.mode == "1" else "RGB"), opacity
