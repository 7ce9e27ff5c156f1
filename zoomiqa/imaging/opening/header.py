"""What a header may ask for, before a pixel is decoded. It knows `Limits` and headers, not pixels and not colour.

`Image.MAX_IMAGE_PIXELS` stays as it is and is obeyed beside `Limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoomiqa.errors import (
    ImageFormatRefused,
    ImageMetadataTooLarge,
    ImageShapeRefused,
    ImageTooLarge,
    ImageUnreadable,
    OptionInvalid,
)
from zoomiqa.files import printable
from zoomiqa.imaging.opening.formats import ACCEPTED
from zoomiqa.imaging.opening.structure import tiff_tag
from zoomiqa.limits import Limits
from zoomiqa.types import Note

if TYPE_CHECKING:
    from PIL import ImageFile

_ANIMATION_FACTOR = 10
"""Reaching frame n of an animation decodes all before it; together at most this many times `Limits.pixels`."""

_MAX_PAGE = 1_000
"""Highest page of a TIFF: Pillow's walk along the pages takes quadratic time."""


def check_size(size: tuple[int, int], subject: str, limits: Limits) -> None:
    """Refuse a (width, height) with too many pixels, too long a side or too long a shape."""
    from PIL import Image

    width, height = size
    if width < 1 or height < 1:
        raise ImageUnreadable(f"{subject} has no pixels", f"{width} x {height}", "save it again")
    # Pillow's own ceiling stays in force behind ours, for a caller who raises the limit beyond it.
    ceiling = limits.pixels if Image.MAX_IMAGE_PIXELS is None else min(limits.pixels, 2 * Image.MAX_IMAGE_PIXELS)
    if width * height > ceiling:
        raise ImageTooLarge(
            f"{subject} has more pixels than the limit of {ceiling / 1e6:.4g} Mpx",
            f"{width} x {height} = {width * height / 1e6:.4g} Mpx",
            "resize it or raise the limit pixels",
        )
    if max(size) > limits.side_px:
        raise ImageTooLarge(
            f"{subject} has a side longer than {limits.side_px} px", f"{width} x {height}", "crop it or raise side_px"
        )
    if max(size) > limits.aspect_ratio * min(size):
        raise ImageShapeRefused(
            f"{subject} is more than {limits.aspect_ratio:g} times as long as it is wide",
            f"{width} x {height}",
            "crop it or raise the limit aspect_ratio",
        )


def refuse_camera_raw(image: ImageFile.ImageFile, subject: str) -> None:
    """Raw files are TIFFs whose first page is a thumbnail (DNG 1.6: tag 50706, or a reduced page with sub-pages)."""
    reduced = tiff_tag(image, 254)
    if tiff_tag(image, 50706) or (isinstance(reduced, int) and reduced & 1 and tiff_tag(image, 330)):
        raise ImageFormatRefused(f"{subject} is of a format that is not opened here", "a camera raw file", ACCEPTED)


def choose_frame(
    image: ImageFile.ImageFile, format_name: str, frame: int, subject: str, limits: Limits, notes: list[Note]
) -> None:
    """Go to that frame, where it exists and costs little enough; say so where the file holds several."""
    several = bool(getattr(image, "is_animated", False))
    # Counting a TIFF's pages walks the whole chain, so its count stays unknown.
    count = None if format_name == "TIFF" else int(getattr(image, "n_frames", 1)) if several else 1
    if frame:
        if (count is not None and frame >= count) or (format_name == "TIFF" and frame > _MAX_PAGE):
            raise OptionInvalid(f"{subject} has no frame of that number", frame, f"it has {count or 'fewer'}")
        if format_name != "TIFF" and image.width * image.height * (frame + 1) > _ANIMATION_FACTOR * limits.pixels:
            raise ImageTooLarge(f"{subject} is too costly to decode up to that frame", frame, "choose an earlier one")
        try:
            image.seek(frame)
        except EOFError:
            raise OptionInvalid(f"{subject} has no frame of that number", frame, "choose an earlier one") from None
    if several:
        total = f"{count} frames" if count else "several pages"
        notes.append(Note("frame-chosen", f"The file holds {total}; number {frame} (from 0) is used."))


def check_metadata(image: ImageFile.ImageFile, subject: str, limits: Limits) -> None:
    """Refuse a single block of metadata (EXIF, profile, XMP, text, a TIFF's tags for these) beyond the limit."""
    blocks: list[tuple[object, object]] = list(image.info.items())
    blocks += [(tag, tiff_tag(image, tag)) for tag in (270, 700, 33723, 34377, 34675)]
    for name, block in blocks:
        if isinstance(block, bytes | str) and len(block) > limits.metadata_bytes:
            raise ImageMetadataTooLarge(
                f"{subject} carries a metadata block larger than {limits.metadata_bytes} bytes",
                f"{len(block)} bytes of {printable(str(name))}",
                "remove its metadata or raise the limit metadata_bytes",
            )
