"""The door itself: `open_picture`, from a source to a picture or one of our errors. It must not know bytes of formats.

The order is the defence: bytes within the limit, format by content, header within the limits, and only then pixels.
"""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING

from zoomiqa.errors import (
    ImageMetadataTooLarge,
    ImageTooLarge,
    ImageTruncated,
    ImageUnreadable,
    OptionInvalid,
    ZoomIQAError,
)
from zoomiqa.files import printable
from zoomiqa.imaging.opening.formats import SUFFIXES, reader, recognise
from zoomiqa.imaging.opening.gate import PILLOW_GATE
from zoomiqa.imaging.opening.header import check_metadata, check_size, choose_frame, refuse_camera_raw
from zoomiqa.imaging.opening.metadata import TURNS, read_metadata
from zoomiqa.imaging.opening.samples import to_pixels
from zoomiqa.imaging.opening.source import PictureFile, Source, read_source
from zoomiqa.imaging.opening.structure import (
    bits_per_sample,
    declared_end,
    jpeg_structure,
    tiff_is_cut,
    tiff_tag,
    webp_size,
)
from zoomiqa.imaging.picture import Picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import ImageInfo, Note

if TYPE_CHECKING:
    from PIL import ImageFile


def open_picture(source: Source, *, limits: Limits = LOCAL, allow_truncated: bool = False, frame: int = 0) -> Picture:
    """Open a JPEG, PNG (also animated), WEBP, TIFF or BMP file as an upright sRGB picture on white.

    Args:
        source: A path, the file's bytes, or a binary file object (read from its start where it can seek).
        limits: What the file may cost; see `zoomiqa.limits`.
        allow_truncated: Decode a file that is cut short; what is missing is grey or black, and a note says so.
            While such a file is decoded, other threads wait.
        frame: Which frame or page of an animated or multi-page file, from 0.

    Returns:
        The picture; `info.sha256` is that of all bytes of the file. Notes have one of the codes `extension-mismatch`,
        `trailing-data`, `further-pictures`, `frame-chosen`, `orientation-applied`, `profile-converted`,
        `profile-broken`, `profile-mismatched`, `cmyk-without-profile`, `lab-converted`, `gamma-ignored`,
        `sixteen-bit-reduced`, `float-reduced`, `transparency-composited`, `exif-broken`, `truncated-decoded`.

    Raises:
        ImageNotFound: No file there.
        ImageFormatRefused: A format that this door does not open.
        ImageUnreadable: Not a picture, empty, damaged, or the file cannot be read.
        ImageTruncated: The file ends before the picture does.
        ImageTooLarge: More bytes, pixels or side length than `limits`.
        ImageShapeRefused: A longer aspect ratio than `limits`.
        ImageMetadataTooLarge: A metadata block larger than `limits`.
        ImageValuesInvalid: Non-finite samples, or a sample type without a defined range.
        OptionInvalid: `source` or `frame` makes no sense.
    """
    if isinstance(frame, bool) or not isinstance(frame, int) or frame < 0:
        raise OptionInvalid("a frame is counted from 0", frame, "give a whole number")
    file = read_source(source, limits)
    format_name = recognise(file.data, file.subject)
    try:
        with PILLOW_GATE.enter():
            return _decode(file, format_name, limits, frame)
    except ImageTruncated:
        if not allow_truncated:
            raise
    with PILLOW_GATE.enter(lenient=True):
        return _decode(file, format_name, limits, frame, lenient=True)


def _decode(file: PictureFile, format_name: str, limits: Limits, frame: int, *, lenient: bool = False) -> Picture:
    """Decode `file`; `lenient` says that the gate is held so, for the note."""
    image: ImageFile.ImageFile | None = None
    try:
        if format_name == "WEBP":
            check_size(webp_size(file.data), file.subject, limits)  # its plug-in allocates the canvas at once
        if format_name == "JPEG" and not jpeg_structure(file.data).is_readable:
            raise ValueError("too much between its segments")
        image = reader(format_name)(io.BytesIO(file.data))
        return _finish(file, format_name, image, limits, frame, lenient)
    except ZoomIQAError:
        raise
    except Exception as error:  # a decoder fed with garbage may raise anything
        raise _explain(error, file, format_name, image) from error


def _finish(
    file: PictureFile, format_name: str, image: ImageFile.ImageFile, limits: Limits, frame: int, lenient: bool
) -> Picture:
    """From an opened header to the picture."""
    notes: list[Note] = []
    check_size(image.size, file.subject, limits)
    refuse_camera_raw(image, file.subject)
    choose_frame(image, format_name, frame, file.subject, limits, notes)
    if frame:
        check_size(image.size, file.subject, limits)  # a page may be larger than the first
    check_metadata(image, file.subject, limits)
    # A TIFF is turned upright by its plug-in while loading, which also removes the tag.
    orientation = tiff_tag(image, 274) if format_name == "TIFF" else None
    image.load()
    check_metadata(image, file.subject, limits)  # a PNG may bring more behind its pixels
    metadata, turn = read_metadata(image, format_name, notes)
    if turn is not None or orientation in TURNS:
        notes.append(Note("orientation-applied", "The picture was turned upright as its metadata says."))
    notes += _notes_about_file(file, format_name, image)
    depth = bits_per_sample(file.data, format_name, image)
    pixels, alpha = to_pixels(image, turn, depth, file.subject, notes)
    if lenient:
        notes.append(
            Note("truncated-decoded", "The file is cut short; the missing part of the picture is grey or black.")
        )
    info = ImageInfo(
        path=file.path,
        sha256=hashlib.sha256(file.data).hexdigest(),
        width=pixels.shape[1],
        height=pixels.shape[0],
        format=format_name,
    )
    return Picture(pixels=pixels, info=info, alpha=alpha, metadata=metadata, notes=tuple(notes))


def _notes_about_file(file: PictureFile, format_name: str, image: ImageFile.ImageFile) -> list[Note]:
    notes = []
    suffix = os.path.splitext(file.path)[1].lower() if file.path else ""
    if suffix and SUFFIXES.get(suffix) != format_name:
        notes.append(Note("extension-mismatch", f"The file is named {printable(suffix)} but is a {format_name}."))
    if "mp" in image.info:
        notes.append(Note("further-pictures", "The file holds further pictures; only the main one is used."))
    else:
        end = declared_end(file.data, format_name)
        tail = file.data[int(end) :] if end is not None and end < len(file.data) else b""
        if tail.strip(b"\0\r\n"):
            notes.append(Note("trailing-data", f"{len(tail)} bytes follow the picture in the file; they were ignored."))
    gamma = image.info.get("gamma")
    plain = "srgb" not in image.info and not image.info.get("icc_profile")
    if format_name == "PNG" and isinstance(gamma, float) and plain and abs(gamma - 0.45455) > 0.01:
        notes.append(Note("gamma-ignored", f"The file states a gamma of {gamma:g}; sRGB was assumed."))
    return notes


def _explain(error: Exception, file: PictureFile, format_name: str, image: ImageFile.ImageFile | None) -> ZoomIQAError:
    """Our error for whatever a decoder raised."""
    from PIL import Image

    reason = str(error)
    if isinstance(error, MemoryError | Image.DecompressionBombError):
        return ImageTooLarge(f"{file.subject} does not fit in memory", fix="resize it")
    if reason.startswith(("Decompressed data too large", "Too much memory used in text")):
        return ImageMetadataTooLarge(
            f"{file.subject} carries a metadata block larger than 1048576 bytes", fix="remove its metadata"
        )
    end = declared_end(file.data, format_name)
    is_cut = end is not None and end > len(file.data)
    if is_cut or "truncat" in reason.lower() or (format_name == "TIFF" and tiff_is_cut(file.data, image)):
        return ImageTruncated(
            f"{file.subject} ends before its picture does",
            f"{len(file.data)} bytes",
            "fetch it again, or allow cut files",
        )
    # A decoder's own words may carry addresses of objects.
    shown = None if not reason or "0x" in reason else printable(reason)
    return ImageUnreadable(f"{file.subject} is not a sound {format_name} file", shown, "save it again")
