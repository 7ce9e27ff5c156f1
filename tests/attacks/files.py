"""Builds pictures and attack files by script, so that no binary file lies in the repository.

Each function gives the bytes of one file. Parts that Pillow cannot write (chunks, colour profiles, foreign formats) are
packed by hand from the specifications.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}


def photo(width: int = 48, height: int = 32, seed: int = 7) -> np.ndarray:
    """H×W×3 uint8: a smooth ramp with some noise and one red corner, so that each orientation looks different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x * 200 / width, y * 200 / height, (x + y) * 200 / (width + height)], axis=-1)
    pixels = (ramp + rng.integers(0, 30, ramp.shape)).astype(np.uint8)
    pixels[: height // 4, : width // 4] = (230, 10, 10)
    return pixels


def encoded(image: np.ndarray | Image.Image, format_name: str, **options: object) -> bytes:
    """The file of a picture; lossless for WEBP unless `options` say otherwise."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if format_name == "WEBP":
        options.setdefault("lossless", True)
        options.setdefault("exact", True)
    buffer = io.BytesIO()
    picture.save(buffer, format=format_name, **options)
    return buffer.getvalue()


# --- PNG, chunk by chunk ---------------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    size: tuple[int, int], rows: Iterable[bytes], *, depth: int = 8, colour: int = 2, before: Sequence[bytes] = ()
) -> bytes:
    """A PNG from packed rows. `colour` is 0 grey, 2 RGB, 3 palette; `before` are chunks in front of the pixels."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" + row) for row in rows) + packer.flush()
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *before, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def png_with_chunks(*chunks: bytes) -> bytes:
    """A small RGB PNG with `chunks` in front of its pixels."""
    pixels = photo()
    return png((pixels.shape[1], pixels.shape[0]), (row.tobytes() for row in pixels), before=chunks)


def png_bomb(side: int) -> bytes:
    """`side`² pixels of one bit in a few tens of kilobytes."""
    row = bytes((side + 7) // 8)
    return png((side, side), (row for _ in range(side)), depth=1, colour=0)


def png_rgb16(samples: np.ndarray, *before: bytes) -> bytes:
    """A 16-bit RGB PNG from H×W×3 uint16."""
    rows = (row.astype(">u2").tobytes() for row in samples)
    return png((samples.shape[1], samples.shape[0]), rows, depth=16, colour=2, before=before)


def gif(frames: int) -> bytes:
    """An animated GIF of one pixel, as flat as the format allows."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\x04\x01\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + frame * frames + b"\x3b"


def zip_tail() -> bytes:
    """An archive with one stored member, as is hidden behind a picture."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("payload.html", "<script>alert(1)</script>")
    return buffer.getvalue()


FOREIGN: dict[str, bytes] = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%id) (w) file closefile\n",
    "eps-binary": b"\xc5\xd0\xd3\xc6" + bytes(60),
    "svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "svg-bare": b'\xef\xbb\xbf  <svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "psd": b"8BPS\0\1" + bytes(60),
    "gif": gif(1),
    "icon": b"\0\0\1\0\1\0" + bytes(60),
    "heic": b"\0\0\0\x18ftypheic" + bytes(60),
    "jpeg-xl": b"\xff\x0a" + bytes(60),
    "jpeg-2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
    "zip": zip_tail(),
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "camera-raw": b"II*\0\x10\0\0\0CR\x02\0" + bytes(60),
}


# --- colour profiles, by ICC.1 ----------------------------------------------------------------------------------------


def _s15(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _text_tag(text: str) -> bytes:
    body = text.encode("ascii") + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(body)) + body + bytes(78)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name + struct.pack(">II", start + len(body), len(value))
        body += padded
    header = (
        struct.pack(">I", start + len(body)) + bytes(4) + b"\x02\x40\0\0" + kind + space + connection + bytes(12)
        + b"acsp" + bytes(28) + _s15(0.9642, 1.0, 0.8249) + bytes(48)
    )  # fmt: skip
    return header + table + body


P3_COLUMNS = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
"""Display P3's red, green and blue in XYZ relative to D50 (SMPTE EG 432-1 adapted by Bradford)."""

SRGB_COLUMNS = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))


def rgb_profile(columns: Sequence[Sequence[float]] = P3_COLUMNS, gamma: float | None = None, name: str = "P3") -> bytes:
    """A display profile of three primaries, with sRGB's curve or a power law."""
    if gamma is None:
        curve = b"para\0\0\0\0\0\3\0\0" + _s15(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    else:
        curve = b"para\0\0\0\0\0\0\0\0" + _s15(gamma)
    tags = {b"desc": _text_tag(name), b"wtpt": b"XYZ \0\0\0\0" + _s15(0.9642, 1.0, 0.8249)}
    for letter, column in zip((b"r", b"g", b"b"), columns, strict=True):
        tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + _s15(*column)
        tags[letter + b"TRC"] = curve
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    """A grey display profile with a power law."""
    tags = {
        b"desc": _text_tag("grey"),
        b"wtpt": b"XYZ \0\0\0\0" + _s15(0.9642, 1.0, 0.8249),
        b"kTRC": b"para\0\0\0\0\0\0\0\0" + _s15(gamma),
    }
    return _profile(b"mntr", b"GRAY", b"XYZ ", tags)


def cmyk_profile() -> bytes:
    """A printer profile whose inks only darken: whatever their hue, the result is grey. No arithmetic would do that."""
    grid = np.indices((2, 2, 2, 2)).reshape(4, -1).T  # last ink fastest
    lightness = np.clip(255 - grid @ np.array([40, 80, 20, 200]), 0, 255)
    table = np.stack([lightness, np.full_like(lightness, 128), np.full_like(lightness, 128)], axis=1).astype(np.uint8)
    ramp = bytes(range(256))
    lut = (
        b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _s15(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + table.tobytes() + ramp * 3
    )
    tags = {b"desc": _text_tag("inks"), b"wtpt": b"XYZ \0\0\0\0" + _s15(0.9642, 1.0, 0.8249), b"A2B0": lut}
    return _profile(b"prtr", b"CMYK", b"Lab ", tags)


# --- metadata ---------------------------------------------------------------------------------------------------------

OWNER, SERIAL = "Jane Q. Owner", "SN-0042-4711"


def exif(orientation: int | None = 1, *, private: bool = True) -> bytes:
    """A camera's EXIF block; with `private` also position, serial numbers, names and a maker's note."""
    block = Image.Exif()
    if orientation is not None:
        block[274] = orientation
    block[271], block[272] = "Maker", "Model 1"
    details = block.get_ifd(0x8769)
    details[33434], details[36867], details[42036] = 0.01, "2025:06:01 12:00:00", "Lens 50mm"
    details[40961], details[40962], details[40963] = 65535, 6000, 4000
    if private:
        block[315], block[33432], block[270] = OWNER, OWNER, f"Home of {OWNER}"
        details[42032], details[42033], details[42037] = OWNER, SERIAL, SERIAL
        details[37500], details[37510] = b"maker " + SERIAL.encode(), b"ASCII\0\0\0" + OWNER.encode()
        position = block.get_ifd(0x8825)
        position[1], position[2], position[3], position[4] = "N", (48.0, 51.0, 29.6), "E", (2.0, 17.0, 40.2)
    return block.tobytes()


def with_thumbnail(block: bytes, thumbnail: bytes) -> bytes:
    """`block` (from `exif`) with a second directory that holds a JPEG."""
    body = bytearray(block.removeprefix(b"Exif\0\0"))
    (first,) = struct.unpack_from(">I", body, 4)
    (count,) = struct.unpack_from(">H", body, first)
    body += bytes(len(body) % 2)
    struct.pack_into(">I", body, first + 2 + 12 * count, len(body))
    start = len(body) + 2 + 12 * 2 + 4
    body += struct.pack(">HHHIIHHIII", 2, 513, 4, 1, start, 514, 4, 1, len(thumbnail), 0) + thumbnail
    return b"Exif\0\0" + bytes(body)


def xmp(orientation: int = 1) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        f' tiff:Orientation="{orientation}" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
    ).encode()


# --- valid files of every kind, as the ground of mutations ------------------------------------------------------------


def seeds() -> dict[str, bytes]:
    """Small valid files that together touch most of what the door reads."""
    pixels = photo(24, 16)
    rgba = np.dstack([pixels, np.linspace(0, 255, 16 * 24).reshape(16, 24).astype(np.uint8)])
    frames = [Image.fromarray(photo(24, 16, seed)) for seed in range(3)]
    rest = {"save_all": True, "append_images": frames[1:]}
    rich = {"exif": exif(6), "icc_profile": rgb_profile()}
    cmyk = Image.fromarray(pixels).convert("CMYK")
    grey16 = Image.fromarray(np.linspace(0, 65535, 384).reshape(16, 24).astype(np.uint16))
    return {
        "jpeg": encoded(pixels, "JPEG", xmp=xmp(), **rich),
        "jpeg-progressive": encoded(pixels, "JPEG", progressive=True),
        "jpeg-cmyk": encoded(cmyk, "JPEG", icc_profile=cmyk_profile()),
        "png": encoded(pixels, "PNG", **rich),
        "png-alpha": encoded(rgba, "PNG"),
        "png-palette": encoded(Image.fromarray(pixels).quantize(16), "PNG", transparency=3),
        "png-16": encoded(grey16, "PNG"),
        "apng": encoded(frames[0], "PNG", **rest),
        "webp": encoded(rgba, "WEBP", **rich),
        "webp-lossy": encoded(pixels, "WEBP", lossless=False),
        "webp-animated": encoded(frames[0], "WEBP", **rest),
        "tiff": encoded(pixels, "TIFF", icc_profile=rgb_profile(), dpi=(72, 72)),
        "tiff-lzw": encoded(rgba, "TIFF", compression="tiff_lzw"),
        "tiff-pages": encoded(frames[0], "TIFF", **rest),
        "tiff-float": encoded(Image.fromarray(np.linspace(0, 1, 384, dtype=np.float32).reshape(16, 24)), "TIFF"),
        "bmp": encoded(pixels, "BMP"),
        "bmp-palette": encoded(Image.fromarray(pixels).quantize(16), "BMP"),
    }
