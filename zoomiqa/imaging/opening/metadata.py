"""What a file says beside its pixels: EXIF, XMP, resolution, text. It must not know pixels, colour or limits.

Nothing here is trusted: a block that cannot be read becomes a note, never an error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zoomiqa.imaging.opening.structure import tiff_tag
from zoomiqa.imaging.picture import Metadata
from zoomiqa.types import Note

if TYPE_CHECKING:
    from PIL import Image, ImageFile

TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation → value of `PIL.Image.Transpose` that makes the picture upright (Exif 2.32, table 6)."""

_TIFF_DESCRIPTIVE = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432)
"""Tags of a TIFF's directory that describe the photograph and not the file; the rest of it is about strips."""


def read_metadata(image: ImageFile.ImageFile, format_name: str, notes: list[Note]) -> tuple[Metadata, int | None]:
    """The metadata, and the `Transpose` that is still to be applied."""
    from PIL import Image

    exif_bytes: bytes | None = None
    turn: int | None = None
    description: str | None = None
    try:
        Image.Exif().load(image.info.get("exif") or b"")  # the plug-in for JPEG keeps quiet about a broken one
        exif = image.getexif()
        exif_bytes = image.info.get("exif") or _rebuilt_exif(exif)
        description = _text(exif.get(270))
        # Pillow's reading of EXIF first and XMP second; a TIFF is upright by now.
        turn = TURNS.get(exif.get(274, 1)) if format_name != "TIFF" else None
    except Exception:  # the directory is attacker-made
        exif_bytes = None
        notes.append(Note("exif-broken", "The EXIF block cannot be read and was ignored."))
    xmp = image.info.get("xmp")
    text = description or _text(image.info.get("Description")) or _text(image.info.get("comment"))
    return (
        Metadata(
            exif=exif_bytes if isinstance(exif_bytes, bytes) else None,
            xmp=xmp if isinstance(xmp, bytes) else None,
            # Pillow states one dot per inch for a TIFF that says nothing.
            dpi=_resolution(image.info.get("dpi")) if format_name != "TIFF" or tiff_tag(image, 282) else None,
            description=text,
        ),
        turn,
    )


def _rebuilt_exif(exif: Image.Exif) -> bytes | None:
    """An EXIF block from a TIFF's directory or from hexadecimal text, without what concerns the file's layout."""
    from PIL import Image

    kept = Image.Exif()
    for tag in _TIFF_DESCRIPTIVE:
        if tag in exif:
            kept[tag] = exif[tag]
    for directory in (0x8769, 0x8825):
        entries = exif.get_ifd(directory) if directory in exif else {}
        if entries:
            kept.get_ifd(directory).update(entries)
    return kept.tobytes() if len(kept) or kept.get_ifd(0x8769) or kept.get_ifd(0x8825) else None


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return (value.strip("\0 \r\n\t") or None) if isinstance(value, str) else None


def _resolution(value: object) -> tuple[float, float] | None:
    """Dots per inch as two positive finite numbers, else nothing."""
    if not (isinstance(value, tuple) and len(value) == 2):
        return None
    try:
        across, down = float(value[0]), float(value[1])
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    usable = all(math.isfinite(dots) and 0 < dots < 1e6 for dots in (across, down))
    return (across, down) if usable else None
