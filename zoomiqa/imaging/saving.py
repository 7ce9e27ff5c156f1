"""The one door for saving pictures. It must not know what was done to them.

A result is written as 8-bit sRGB, upright, with an sRGB profile, and with the metadata of the picture it was made from:

=======  =====  =====  ===  =====  =====
Format   EXIF   XMP    dpi  ICC    alpha
=======  =====  =====  ===  =====  =====
JPEG     yes*   yes*   yes  yes    on white
PNG      yes    yes    yes  yes    yes
WEBP     yes    yes    no   yes    yes
TIFF     yes    yes    yes  yes    yes
BMP      no     no     yes  no     on white
=======  =====  =====  ===  =====  =====

\\* up to 64 KB, as the format allows; of a larger EXIF block the maker's note is left out first. What a format cannot
carry is left out without a word, as are EXIF and XMP that its writer rejects. Other text of the source file (PNG text,
comments, IPTC) is never carried over. A TIFF is compressed without loss unless it has EXIF or XMP.

The orientation is always 1, because the pixels are upright; the embedded thumbnail is dropped, because it shows the
picture before the change. With `Limits.strip_private_metadata` only the tags in `_PUBLIC_TAGS` and `_PUBLIC_EXIF_TAGS`
stay: no position, serial number, name of a person, description, maker's note, and of XMP only the IPTC's digital source
type, the mark of an edit by an algorithm. With `Limits.strip_position` coordinates and names of the place go, in EXIF
and XMP; the rest stays.

The same input gives the same bytes (with the same version of Pillow and its libraries).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoomiqa.errors import OptionInvalid, OutputFailed
from zoomiqa.files import atomic_write_bytes, check_target, printable, refuse_inputs
from zoomiqa.imaging.opening import PILLOW_GATE, SUFFIXES
from zoomiqa.imaging.picture import Picture, PixelArray, picture_from_array
from zoomiqa.limits import LOCAL, Limits

if TYPE_CHECKING:
    from PIL import Image

_MODULES = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
}
_CARRIES_ALPHA = ("PNG", "WEBP", "TIFF")

_LONGEST_SIDE = {"JPEG": 65_535, "WEBP": 16_383}
"""In pixels; by ITU-T T.81 B.2.2 and the WebP specification. Other formats allow more than `Limits` does."""

_JPEG_BLOCK_BYTES = 65_500
"""Room in one JPEG segment for an EXIF or XMP block (65,533 bytes less their signatures)."""

_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825
_MAKER_NOTE, _INTEROPERABILITY = 0x927C, 0xA005


def _numbers(text: str) -> frozenset[int]:
    """Tags by their numbers in Exif 2.32 and TIFF 6.0."""
    return frozenset(int(number) for number in text.split())


_LAYOUT_TAGS = _numbers(
    "254 255 256 257 258 259 262 266 273 277 278 279 284 317 318 319 320 322 323 324 325 330 332 338 339 347 513 514"
    " 529 530 531 532 700 33723 34377 34675 50706 50740 50780"
)
"""Tags about the layout of another file, or blocks that are handled on their own (XMP, IPTC, Photoshop, ICC)."""

_PUBLIC_TAGS = _numbers("271 272 282 283 296 305 306")
"""Make, Model, XResolution, YResolution, ResolutionUnit, Software, DateTime."""

_PUBLIC_EXIF_TAGS = _numbers(
    "33434 33437 34850 34855 34864 36864 36867 36868 36880 36881 36882 37377 37378 37379 37380 37381 37382 37383 37384"
    " 37385 37386 40961 40962 40963 41486 41487 41488 41495 41729 41985 41986 41987 41988 41989 41990 41991 41992 41993"
    " 41994 41996 42034 42035 42036"
)
"""Exposure, dates, lens model and the like; not the serial numbers (42033, 42037), owner (42032), comments or ids."""

_PLACE_PROPERTIES = (
    ("http://ns.adobe.com/exif/1.0/", "GPS*"),
    ("http://ns.adobe.com/photoshop/1.0/", "City"),
    ("http://ns.adobe.com/photoshop/1.0/", "State"),
    ("http://ns.adobe.com/photoshop/1.0/", "Country"),
    ("http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/", "Location"),
    ("http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/", "CountryCode"),
    ("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "Location*"),
)
"""XMP properties that say where a picture was taken: coordinates, and the names in the IPTC's core and extension."""

_SOURCE_TYPE = r"http://cv\.iptc\.org/newscodes/digitalsourcetype/[A-Za-z]{1,64}"

_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|[^<>]*>)\s*)\d+")


def save_picture(
    pixels_or_picture: np.ndarray[Any, Any] | Picture,
    path: str | os.PathLike[str],
    *,
    source: Picture | None = None,
    limits: Limits = LOCAL,
    overwrite: bool = False,
    quality: int = 95,
    protected: Collection[str | os.PathLike[str]] = (),
) -> Path:
    """Write a picture to `path` as one step; its ending chooses the format.

    Args:
        pixels_or_picture: A `Picture`, or an array that `picture_from_array` accepts.
        path: The target, in a folder that exists. Its ending is one of those that open: `.jpg`, `.jpeg`, `.jpe`,
            `.jfif`, `.png`, `.apng` (one frame), `.webp`, `.tif`, `.tiff`, `.bmp`, `.dib`.
        source: The picture it was made from, for its metadata and alpha; by default a given `Picture` itself.
        limits: Only `strip_position` and `strip_private_metadata` matter here.
        overwrite: Whether an existing file may be replaced. An input never is.
        quality: 1..100 for JPEG and WEBP; 100 makes WEBP lossless.
        protected: Further files that must not be replaced: all inputs of a run.

    Returns:
        The target.

    Raises:
        OutputWouldOverwrite: The target is an input (also by another name), or exists and `overwrite` is off.
        OutputFailed: The folder is missing, not writable or full, or the format cannot hold the picture.
        OptionInvalid: An ending or quality outside the above.
        ImageValuesInvalid: An array that is no picture.
    """
    source = source or (pixels_or_picture if isinstance(pixels_or_picture, Picture) else None)
    inputs = [*protected, *([source.info.path] if source and source.info.path else [])]
    target = check_picture_target(path, overwrite=overwrite, protected=inputs)
    data = encode_picture(pixels_or_picture, target.suffix, source=source, limits=limits, quality=quality)
    return atomic_write_bytes(target, data, overwrite=overwrite)


def check_picture_target(
    path: str | os.PathLike[str], *, overwrite: bool = False, protected: Collection[str | os.PathLike[str]] = ()
) -> Path:
    """Refuse a target that `save_picture` would refuse, before the work that makes the picture; see there.

    Returns:
        The target.

    Raises:
        OutputWouldOverwrite: It is one of `protected`, or exists and `overwrite` is off.
        OutputFailed: It is a folder, or its own folder is missing.
        OptionInvalid: Its ending is none of a picture's.
    """
    target = Path(path)
    _format_of(target.suffix)
    refuse_inputs([target], protected)
    return check_target(target, overwrite=overwrite)


def encode_picture(
    pixels_or_picture: np.ndarray[Any, Any] | Picture,
    suffix: str,
    *,
    source: Picture | None = None,
    limits: Limits = LOCAL,
    quality: int = 95,
) -> bytes:
    """The bytes that `save_picture` writes to a file with the ending `suffix` (".png"); see there."""
    format_name = _format_of(suffix)
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise OptionInvalid("a quality must be a whole number of 1..100", quality, "95 is a good one")
    picture = pixels_or_picture if isinstance(pixels_or_picture, Picture) else picture_from_array(pixels_or_picture)
    longest = _LONGEST_SIDE.get(format_name)
    if longest and max(picture.size) > longest:
        raise OutputFailed(
            f"{format_name} holds at most {longest} px per side", f"{picture.width} x {picture.height}", "use PNG"
        )
    source = source or picture
    alpha = picture.alpha
    if alpha is None and source.alpha is not None and source.alpha.shape == picture.pixels.shape[:2]:
        alpha = source.alpha
    pixels = picture.pixels
    if alpha is not None and format_name in _CARRIES_ALPHA:
        pixels = _with_alpha(pixels, alpha)
    with PILLOW_GATE.enter():
        return _encode(pixels, format_name, source, limits, quality)


def _format_of(suffix: str) -> str:
    name = SUFFIXES.get(suffix.lower())
    if name is None:
        raise OptionInvalid(
            "a picture cannot be saved with that ending",
            printable(suffix) or "none",
            f"use one of {', '.join(SUFFIXES)}",
        )
    return name


def _with_alpha(pixels: PixelArray, alpha: PixelArray) -> PixelArray:
    """H×W×4 whose composite on white is `pixels` again, to one level: the inverse of `composite_on_white`."""
    result = np.empty((*alpha.shape, 4), np.uint8)
    result[:, :, 3] = alpha
    step = max(1, 1_000_000 // alpha.shape[1])
    for start in range(0, alpha.shape[0], step):
        rows = slice(start, start + step)
        weight = alpha[rows, :, None].astype(np.int32)
        colour = (pixels[rows].astype(np.int32) - 255 + weight) * 255 + weight // 2
        np.floor_divide(colour, np.maximum(weight, 1), out=colour)
        colour[alpha[rows] == 0] = 255  # nothing to recover; white hides nothing
        result[rows, :, :3] = np.clip(colour, 0, 255)
    return result


def _encode(pixels: PixelArray, format_name: str, source: Picture, limits: Limits, quality: int) -> bytes:
    from PIL import Image

    importlib.import_module(_MODULES[format_name])  # else Pillow would import all its plug-ins to find this one
    height, width = pixels.shape[:2]
    options: dict[str, Any] = {}
    if format_name != "BMP":
        options["icc_profile"] = _srgb_profile()
        exif = _exif_for(source, format_name, (width, height), limits)
        if exif:
            options["exif"] = exif
        _add_xmp(options, _xmp_for(source, limits), format_name)
    if source.metadata.dpi and format_name != "WEBP":
        options["dpi"] = source.metadata.dpi
    if format_name == "JPEG":
        # Above 90 the colour is worth its full resolution: halved chroma is the larger error there.
        options |= {"quality": quality, "subsampling": 0 if quality >= 90 else 2}
    elif format_name == "WEBP":
        options |= {"quality": quality, "lossless": quality == 100, "exact": True}
    elif format_name == "TIFF" and "exif" not in options:
        options["compression"] = "tiff_adobe_deflate"  # the compressing writer cannot store EXIF directories
    image = Image.fromarray(pixels)
    try:
        return _written(image, format_name, options)
    except Exception:  # values in a foreign EXIF block may be of types that the writer chokes on
        plain = {name: value for name, value in options.items() if name not in ("exif", "xmp", "pnginfo")}
    try:
        return _written(image, format_name, plain)
    except Exception as error:
        raise OutputFailed(f"the picture cannot be stored as {format_name}", fix="use PNG") from error


def _written(image: Image.Image, format_name: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()


@cache
def _srgb_profile() -> bytes:
    """An sRGB profile without its time of creation, which would make every file differ (ICC.1 §7.2: bytes 24..35)."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes((7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0)) + profile[36:]  # 1 January 2000


def _exif_for(source: Picture, format_name: str, size: tuple[int, int], limits: Limits) -> bytes | None:
    """The EXIF block of the result; `None` where the source has none that can be read."""
    if source.metadata.exif is None:
        return None
    with contextlib.suppress(Exception):  # the block may be attacker-made, and Pillow's parser raises anything
        block = _clean_exif(source.metadata.exif, size, limits, keep_maker_note=True)
        if format_name == "JPEG" and len(block) > _JPEG_BLOCK_BYTES:
            block = _clean_exif(source.metadata.exif, size, limits, keep_maker_note=False)
        return block if format_name != "JPEG" or len(block) <= _JPEG_BLOCK_BYTES else None
    return None


def _clean_exif(raw: bytes, size: tuple[int, int], limits: Limits, *, keep_maker_note: bool) -> bytes:
    """`raw` rebuilt from the tags that may stay. The thumbnail's directory is never copied."""
    from PIL import Image

    old, new = Image.Exif(), Image.Exif()
    old.load(raw)
    new.endian = old.endian
    for tag in sorted(old):
        is_kept = tag in _PUBLIC_TAGS if limits.strip_private_metadata else tag not in _LAYOUT_TAGS
        if is_kept and tag not in (_EXIF_DIRECTORY, _GPS_DIRECTORY):
            new[tag] = old[tag]
    new[274] = 1
    details = old.get_ifd(_EXIF_DIRECTORY) if _EXIF_DIRECTORY in old else {}
    kept = {}
    for tag in sorted(details):
        if limits.strip_private_metadata and tag not in _PUBLIC_EXIF_TAGS:
            continue
        if tag != _INTEROPERABILITY and (keep_maker_note or tag != _MAKER_NOTE):
            kept[tag] = details[tag]
    # What is true of the result and not of the source: sRGB, and its own size.
    kept |= {tag: value for tag, value in ((40961, 1), (40962, size[0]), (40963, size[1])) if tag in kept}
    if kept:
        new.get_ifd(_EXIF_DIRECTORY).update(kept)
    if _GPS_DIRECTORY in old and not limits.strips:
        new.get_ifd(_GPS_DIRECTORY).update(old.get_ifd(_GPS_DIRECTORY))
    return new.tobytes()


def _xmp_for(source: Picture, limits: Limits) -> bytes | None:
    """The XMP of the result: that of the source, less what the limits forbid to pass on."""
    packet = source.metadata.xmp
    if packet is None or not limits.strips:
        return packet
    from zoomiqa import xmp

    if limits.strip_private_metadata:
        return _mark_of(packet)
    try:
        return xmp.merge(packet, (), drop=(xmp.Name(*each) for each in _PLACE_PROPERTIES))
    except OptionInvalid:  # what cannot be read cannot be searched for what must go
        return None


def _mark_of(packet: bytes) -> bytes | None:
    """A packet that says of `packet` only its digital source type; `None` where it has none of the IPTC's."""
    from zoomiqa import xmp

    mark = xmp.Name(xmp.IPTC_EXTENSION, "DigitalSourceType")
    try:
        kind = xmp.read(packet).get(mark)
    except OptionInvalid:
        return None
    if not isinstance(kind, str) or not re.fullmatch(_SOURCE_TYPE, kind):
        return None
    return xmp.merge(None, [xmp.Property(mark, kind)])


def _add_xmp(options: dict[str, Any], xmp: bytes | None, format_name: str) -> None:
    """Hand `xmp` to the encoder in the way that the format wants, saying that the picture is upright."""
    if not xmp or b"\0" in xmp.strip(b"\0"):  # UTF-16 or worse: an orientation in it could not be found
        return
    upright = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp.strip(b"\0"))
    if format_name == "PNG":
        from PIL.PngImagePlugin import PngInfo

        with contextlib.suppress(UnicodeDecodeError):
            text = PngInfo()
            text.add_itxt("XML:com.adobe.xmp", upright.decode("utf-8"))
            options["pnginfo"] = text
    elif format_name == "TIFF":
        from PIL import Image

        # The writer takes its tags from one place: the EXIF block, if there is one.
        tags = Image.Exif()
        if "exif" in options:
            tags.load(options["exif"])
        tags[700] = upright
        options["exif"] = tags
    elif format_name == "WEBP" or len(upright) <= _JPEG_BLOCK_BYTES:
        options["xmp"] = upright
    elif (mark := _mark_of(xmp)) is not None:  # the rest has no room
        options["xmp"] = mark
