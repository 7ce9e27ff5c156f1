"""Where things lie in a file's bytes: sizes, tags, depth, the picture's end. It knows no `Limits`, errors or notes.

Sources: the PNG, WebP container and TIFF 6.0 specifications; ITU-T T.81 (markers of JPEG).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import ImageFile


def webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the canvas, from the first chunk; raises ValueError where there is none."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        return (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 " and len(body) == 10:
        return (int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
    raise ValueError("no picture chunk")


def tiff_tag(image: ImageFile.ImageFile, tag: int) -> Any:
    """The value of `tag` in the directory of the current page; `None` where it is missing or `image` is no TIFF."""
    tags = getattr(image, "tag_v2", None)
    return None if tags is None else tags.get(tag)


def tiff_is_cut(data: bytes, image: ImageFile.ImageFile | None) -> bool:
    """Whether a TIFF ends before what it points at; `image` is `None` where its header could not be read."""
    if image is None:
        return len(data) < 8 or int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") + 2 > len(data)
    for offsets_tag, counts_tag in ((273, 279), (324, 325)):
        offsets, counts = tiff_tag(image, offsets_tag), tiff_tag(image, counts_tag)
        if isinstance(offsets, tuple) and isinstance(counts, tuple):
            return any(start + count > len(data) for start, count in zip(offsets, counts, strict=False))
    return False


@dataclass(frozen=True, slots=True)
class Depth:
    """Bits per sample in the file, and whether it is a grey PNG of few bits."""

    bits: int
    is_grey_png: bool = False


def bits_per_sample(data: bytes, format_name: str, image: ImageFile.ImageFile) -> Depth:
    """As the file states it; Pillow's modes have lost it."""
    if format_name == "PNG":
        return Depth(data[24], data[25] == 0)  # bit depth and colour type of IHDR, the first chunk
    bits = tiff_tag(image, 258)
    first = bits[0] if isinstance(bits, tuple) and bits else bits
    return Depth(first if isinstance(first, int) else 8)


def declared_end(data: bytes, format_name: str) -> float | None:
    """Offset behind the picture as the file's structure says; infinity where its end is missing, else `None`."""
    if format_name == "JPEG":
        return jpeg_structure(data).end
    if format_name == "PNG":
        return _png_end(data)
    if format_name == "WEBP":
        size = int.from_bytes(data[4:8], "little")
        return 8 + size + size % 2 if len(data) >= 12 else math.inf
    if format_name == "BMP":
        size = int.from_bytes(data[2:6], "little")
        return size if size >= 26 else None
    return None


_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The next marker in a JPEG's coded data, where FF is stuffed with 00 and restarts are D0..D7."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")

_MAX_SEGMENTS = 10_000
"""Of a JPEG: beyond, it is not readable before its first scan, and its end stays unknown after it."""

_MAX_FILL_BYTES = 65_536
"""Between all segments of a JPEG together."""

_MAX_CHUNKS = 100_000
"""Of a PNG; beyond, its end stays unknown."""


@dataclass(frozen=True, slots=True)
class JpegStructure:
    """What the markers of a JPEG say."""

    end: float | None
    """As in `declared_end`."""

    is_readable: bool
    """Whether Pillow may read the header: it steps over bytes between segments one at a time, and 64 MiB of them would
    take it half a minute."""


def jpeg_structure(data: bytes) -> JpegStructure:
    """Walk the segments up to the first scan, and from there to the end of the picture."""
    position, fill = 2, 0
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position, position + _MAX_FILL_BYTES + 2)
        fill += (found.start() if found else len(data)) - position
        if fill > _MAX_FILL_BYTES:
            return JpegStructure(None, False)
        if found is None:
            return JpegStructure(math.inf, True)
        marker = data[found.end() - 1]
        position = found.end()
        if marker == 0xD9:
            return JpegStructure(position, True)
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        position += int.from_bytes(data[position : position + 2], "big")
        if marker == 0xDA:
            return JpegStructure(_jpeg_scans_end(data, position), True)
    return JpegStructure(None, False)


def _jpeg_scans_end(data: bytes, position: int) -> float | None:
    """End of the picture, from the first scan's coded data on; a progressive file has further segments and scans."""
    for _ in range(_MAX_SEGMENTS):
        found = _SCAN_END.search(data, position)
        if found is None:
            return math.inf
        if data[found.end() - 1] == 0xD9:
            return found.end()
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return None


def _png_end(data: bytes) -> float | None:
    position = 8
    for _ in range(_MAX_CHUNKS):
        if position + 12 > len(data):
            return math.inf
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        position += 12 + length
        if kind == b"IEND":
            return position
    return None
