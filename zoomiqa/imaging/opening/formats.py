"""The accepted formats and how a file shows its own. It knows first bytes and endings, not limits and not pixels.

The format is recognised from the first bytes; Pillow's plug-in for that format is called directly. So no other reader
(EPS, PDF, ...) is ever imported, and `Image.open`, which warns about large sizes, is not used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from zoomiqa.errors import ImageFormatRefused, ImageUnreadable

if TYPE_CHECKING:
    from PIL import ImageFile

_FORMATS: dict[str, tuple[str, str, str]] = {
    "JPEG": (".jpg .jpeg .jpe .jfif", "PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": (".png .apng", "PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": (".webp", "PIL.WebPImagePlugin", "WebPImageFile"),
    "TIFF": (".tif .tiff", "PIL.TiffImagePlugin", "TiffImageFile"),
    "BMP": (".bmp .dib", "PIL.BmpImagePlugin", "BmpImageFile"),
}
"""Accepted formats: endings of file names, Pillow's module and its reader (not JPEG's factory, which gives MPO)."""

SUFFIXES: dict[str, str] = {ending: name for name, entry in _FORMATS.items() for ending in entry[0].split()}
"""File name endings (lower case) of the accepted formats."""

ACCEPTED = "use JPEG, PNG, WEBP, TIFF or BMP"

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_REFUSED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF"),
    (0, b"%!PS", "an EPS or PostScript file"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (4, b"ftyp", "a HEIC, AVIF or video file"),
    (0, b"v/1\x01", "an OpenEXR file"),
    (0, b"#?RADIANCE", "a Radiance file"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"DDS ", "a DDS file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (8, b"CR\x02", "a camera raw file"),
)
"""(offset, bytes, what it is) of files that people do hand in, to name them in the refusal."""

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
"""Sizes in bytes of the bitmap headers in use; "BM" alone starts many a text."""


def recognise(data: bytes, subject: str) -> str:
    """The format by content, or the refusal."""
    head = data[:1024]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    kind = _refused_kind(head)
    if kind:
        raise ImageFormatRefused(f"{subject} is of a format that is not opened here", kind, ACCEPTED)
    if head.startswith(_TIFF_STARTS):
        return "TIFF"
    raise ImageUnreadable(f"{subject} is not a picture", f"a file that starts with {head[:8].hex(' ')}", ACCEPTED)


def _refused_kind(head: bytes) -> str | None:
    for offset, mark, kind in _REFUSED:
        if head.startswith(mark, offset):
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")):
        return "an SVG" if b"<svg" in text else "an XML file"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return None


def reader(format_name: str) -> Callable[[BinaryIO], ImageFile.ImageFile]:
    """Pillow's class for that format; its module is imported here, and no other."""
    _, module, name = _FORMATS[format_name]
    reader: Callable[[BinaryIO], ImageFile.ImageFile] = getattr(importlib.import_module(module), name)
    return reader
