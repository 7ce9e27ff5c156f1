"""Pictures made to harm. C8 numbers, here and in other tests, are those of the list of attacks held to."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.attacks import files
from tests.attacks.files import FORMATS, SUFFIX, encoded, photo
from zoomiqa.errors import (
    ImageError,
    ImageFormatRefused,
    ImageMetadataTooLarge,
    ImageShapeRefused,
    ImageTooLarge,
    ImageTruncated,
    ImageUnreadable,
    ImageValuesInvalid,
    OptionInvalid,
)
from zoomiqa.imaging.opening import PILLOW_GATE, open_picture
from zoomiqa.imaging.picture import Picture
from zoomiqa.imaging.saving import encode_picture, save_picture
from zoomiqa.limits import LOCAL, SERVER, Limits

ROOT = Path(__file__).resolve().parents[2]


def codes(picture: Picture) -> list[str]:
    return [note.code for note in picture.notes]


def difference(first: np.ndarray, second: np.ndarray) -> int:
    assert first.shape == second.shape
    return int(np.abs(first.astype(np.int16) - second).max())


# --- limits -----------------------------------------------------------------------------------------------------------

GROWTH = """
import sys
from pathlib import Path
from zoomiqa.errors import ImageTooLarge
from zoomiqa.imaging.opening import open_picture

def peak():  # of this process alone; ru_maxrss would begin with the parent's
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

open_picture(sys.argv[1])
before = peak()
try:
    open_picture(sys.argv[2])
    print("opened", peak() - before)
except ImageTooLarge:
    print("refused", peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.parametrize("side", [9_450, 13_300])
def test_bomb_is_refused_before_decoding(tmp_path: Path, side: int) -> None:
    """C8.1, C8.2: 89.3 and 176.9 Mpx of one bit are refused with less than 20 MiB."""
    small, bomb = tmp_path / "small.png", tmp_path / "bomb.png"
    small.write_bytes(encoded(photo(), "PNG"))
    bomb.write_bytes(files.png_bomb(side))
    assert bomb.stat().st_size < 60_000
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", GROWTH, small, bomb], cwd=ROOT, capture_output=True, text=True, check=True
    )
    verdict, growth = done.stdout.split()
    assert verdict == "refused"
    assert float(growth) < 20
    assert done.stderr == ""


def test_size_is_refused_in_every_format() -> None:
    """C8.1: the limit holds for each format, one pixel decides, and the message says what to do."""
    for name in FORMATS:
        data = encoded(photo(48, 32), name)
        assert open_picture(data, limits=Limits(pixels=48 * 32)).size == (48, 32)
        with pytest.raises(ImageTooLarge, match=r"48 x 32 .* resize it"):
            open_picture(data, limits=Limits(pixels=48 * 32 - 1))
        with pytest.raises(ImageTooLarge, match="side"):
            open_picture(data, limits=Limits(side_px=47))
        with pytest.raises(ImageTooLarge, match="bytes"):
            open_picture(data, limits=Limits(file_bytes=len(data) - 1))


def test_webp_canvas_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """C8.1: WEBP's plug-in allocates on opening, so it must not even be called."""
    data = bytearray(encoded(np.dstack([photo(), photo()[:, :, :1]]), "WEBP", exif=files.exif()))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\xff\0\xff\xff\0"
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile", None)
    with pytest.raises(ImageTooLarge):
        open_picture(bytes(data), limits=Limits(side_px=100_000))


def test_no_bomb_warning_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """C8.2: between Pillow's warning and its ceiling nothing is said; beyond the ceiling it is our error."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for name in FORMATS:
            assert open_picture(encoded(photo(48, 32), name)).size == (48, 32)
            with pytest.raises(ImageTooLarge):
                open_picture(encoded(photo(64, 64), name))
    assert [str(warning.message) for warning in heard] == []
    assert Image.MAX_IMAGE_PIXELS == 1_000


def test_long_gif_is_refused_quickly() -> None:
    """C8.3: 20,000 frames."""
    data = files.gif(20_000)
    start = time.perf_counter()
    with pytest.raises(ImageFormatRefused, match="a GIF; use JPEG, PNG"):
        open_picture(data)
    assert time.perf_counter() - start < 0.2


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt-compressed", "eXIf", "iCCP"])
def test_large_png_metadata_is_refused(kind: str) -> None:
    """C8.5: 2 MiB of text, EXIF or profile, plain or compressed."""
    import zlib

    block = b"A" * 2**21
    body = {
        "tEXt": b"Comment\0" + block,
        "zTXt": b"Comment\0\0" + zlib.compress(block),
        "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + block,
        "iTXt-compressed": b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(block),
        "eXIf": block,
        "iCCP": b"icc\0\0" + zlib.compress(block),
    }[kind]
    with pytest.raises(ImageMetadataTooLarge):
        open_picture(files.png_with_chunks(files.chunk(kind[:4].encode(), body)))
    behind = files.png_with_chunks()
    with pytest.raises(ImageMetadataTooLarge):
        open_picture(behind[:-12] + files.chunk(b"tEXt", b"Comment\0" + block) + behind[-12:])


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "TIFF"])
def test_large_profile_is_refused(name: str) -> None:
    """C8.5: 2 MiB of colour profile in the other formats."""
    data = encoded(photo(), name, icc_profile=files.rgb_profile() + bytes(2**21))
    with pytest.raises(ImageMetadataTooLarge, match="raise the limit metadata_bytes"):
        open_picture(data)
    assert open_picture(data, limits=Limits(metadata_bytes=2**22)).size == (48, 32)


def test_extreme_shapes() -> None:
    """C8.6: one pixel opens; 200:1 opens, 201:1 and 5000:1 do not."""
    for name in FORMATS:
        assert open_picture(encoded(photo(1, 1), name)).size == (1, 1)
        assert open_picture(encoded(photo(200, 1), name)).size == (200, 1)
        for shape in ((201, 1), (1, 201), (1, 5000), (5000, 1)):
            with pytest.raises(ImageShapeRefused, match="200 times"):
                open_picture(encoded(photo(*shape), name))


def test_files_of_almost_nothing() -> None:
    """C8.7: no byte, one byte, and the first bytes of every kind."""
    with pytest.raises(ImageUnreadable, match="is empty"):
        open_picture(b"")
    with pytest.raises(ImageUnreadable):
        open_picture(b"\xff")
    for name, data in files.seeds().items():
        for length in (1, 2, 4, 8, 12, 16, 24, 30, 40):
            with pytest.raises((ImageUnreadable, ImageTruncated)):
                open_picture(data[:length])
            if not name.startswith("bmp"):
                with pytest.raises((ImageUnreadable, ImageTruncated)):
                    open_picture(data[:length], allow_truncated=True)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(files.FOREIGN))
def test_foreign_formats_are_refused_by_code(tmp_path: Path, kind: str) -> None:
    """C8.8: EPS, SVG, PDF, PSD and more, under whatever name."""
    disguised = tmp_path / "holiday.png"
    disguised.write_bytes(files.FOREIGN[kind])
    for source in (disguised, files.FOREIGN[kind]):
        with pytest.raises(ImageFormatRefused) as caught:
            open_picture(source)
        assert caught.value.code == "ZIQ-103"


def test_no_other_reader_is_imported() -> None:
    """C8.8: not one of Pillow's other plug-ins is loaded, whatever is handed in."""
    program = """
import sys
from tests.attacks.files import FOREIGN, png_with_chunks
from zoomiqa.errors import ImageError
from zoomiqa.imaging.opening import open_picture
for data in FOREIGN.values():
    try:
        open_picture(data)
    except ImageError:
        pass
open_picture(png_with_chunks())
print(sorted(name for name in sys.modules if name.startswith("PIL.") and name.endswith("Plugin")))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['PIL.PngImagePlugin']"


def test_jpeg_named_png_opens_with_a_note(tmp_path: Path) -> None:
    """C8.9."""
    for ending in (".png", ".PNG", ".gif", ".part"):
        path = tmp_path / f"picture{ending}"
        path.write_bytes(encoded(photo(), "JPEG"))
        picture = open_picture(path)
        assert (picture.info.format, codes(picture)) == ("JPEG", ["extension-mismatch"])
    for name in FORMATS:
        path = tmp_path / f"picture{SUFFIX[name].upper()}"
        path.write_bytes(encoded(photo(), name))
        assert codes(open_picture(path)) == []


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP"])
def test_polyglot_is_noted_and_its_tail_not_copied(name: str) -> None:
    """C8.10: a picture with an archive behind it."""
    tail = files.zip_tail()
    picture = open_picture(encoded(photo(), name) + tail)
    assert codes(picture) == ["trailing-data"]
    assert str(len(tail)) in picture.notes[0].message
    for suffix in SUFFIX.values():
        assert b"PK\x03\x04" not in encode_picture(picture, suffix)
    assert codes(open_picture(encoded(photo(), name) + bytes(64))) == []  # padding hides nothing


def test_progressive_jpeg_ends_where_it_ends() -> None:
    """C8.10: the end is found behind several scans, and a thumbnail's end is not taken for it."""
    thumbnail = encoded(photo(16, 16), "JPEG")
    block = files.with_thumbnail(files.exif(), thumbnail)
    for data in (encoded(photo(), "JPEG", progressive=True), encoded(photo(), "JPEG", exif=block)):
        assert codes(open_picture(data)) == []
        assert codes(open_picture(data + b"tail")) == ["trailing-data"]


def test_multi_picture_jpeg_gives_the_main_one() -> None:
    """C8.10: what phones write (MPO) is a JPEG with further pictures, not another format."""
    frames = [Image.fromarray(photo(seed=seed)) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="MPO", save_all=True, append_images=frames[1:])
    picture = open_picture(buffer.getvalue())
    assert (picture.info.format, codes(picture)) == ("JPEG", ["further-pictures"])


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_half_a_file(name: str) -> None:
    """C8.11: refused; with the option decoded and noted, and Pillow's switch is put back."""
    whole = encoded(photo(200, 200), name)
    half = whole[: len(whole) // 2]
    with pytest.raises(ImageTruncated, match="ends before its picture does") as caught:
        open_picture(half)
    assert caught.value.code == "ZIQ-104"
    picture = open_picture(half, allow_truncated=True)
    assert codes(picture) == ["truncated-decoded"]
    assert difference(picture.pixels[:40], photo(200, 200)[:40]) < 60
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert codes(open_picture(whole, allow_truncated=True)) == []


def test_half_of_any_format_is_refused() -> None:
    """C8.11: no format gives half a picture for a whole one."""
    for name in FORMATS:
        whole = encoded(photo(200, 200), name)
        with pytest.raises(ImageTruncated):
            open_picture(whole[: len(whole) // 2])


def test_lenient_decoding_is_alone() -> None:
    """C8.11: while one thread accepts cut files, no other may decode; its own cut file would come out grey."""
    order: list[str] = []

    def strict() -> None:
        with PILLOW_GATE.enter():
            order.append(f"strict {ImageFile.LOAD_TRUNCATED_IMAGES}")

    thread = threading.Thread(target=strict)
    with PILLOW_GATE.enter(lenient=True):
        thread.start()
        time.sleep(0.05)
        order.append(f"lenient {ImageFile.LOAD_TRUNCATED_IMAGES}")
    thread.join(5)
    assert order == ["lenient True", "strict False"]


def test_gate_lets_strict_decodes_overlap_and_restores_warnings() -> None:
    """C8.2: readers do not wait for one another, and the last one leaves the filters as they were."""
    before = list(warnings.filters)
    inside = threading.Barrier(2, timeout=5)

    def strict() -> None:
        with PILLOW_GATE.enter():
            inside.wait()

    threads = [threading.Thread(target=strict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not inside.broken
    assert list(warnings.filters) == before


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_first_frame_is_used(name: str) -> None:
    """C8.12: animated PNG and WEBP, multi-page TIFF."""
    frames = [photo(seed=seed) for seed in range(3)]
    rest = [Image.fromarray(frame) for frame in frames[1:]]
    data = encoded(frames[0], name, save_all=True, append_images=rest)
    for index, frame in enumerate(frames):
        picture = open_picture(data, frame=index)
        assert codes(picture) == ["frame-chosen"]
        assert difference(picture.pixels, frame) == 0
    for wrong in (3, 10**6, -1, True, 1.0):
        with pytest.raises(OptionInvalid):
            open_picture(data, frame=wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionInvalid):
        open_picture(encoded(photo(), "JPEG"), frame=1)


def test_pages_are_checked_one_by_one() -> None:
    """C8.12: a large second page behind a small first one."""
    pages = [Image.fromarray(photo(8, 8)), Image.fromarray(photo(80, 80))]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    limits = Limits(pixels=100)
    assert open_picture(data, limits=limits).size == (8, 8)
    with pytest.raises(ImageTooLarge):
        open_picture(data, limits=limits, frame=1)


def test_far_frame_is_too_costly() -> None:
    """C8.12: reaching a frame decodes all before it, so that is limited as well."""
    frames = [Image.fromarray(photo(40, 40, seed)) for seed in range(12)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert open_picture(data, limits=Limits(pixels=1600), frame=9).size == (40, 40)
    with pytest.raises(ImageTooLarge, match="costly"):
        open_picture(data, limits=Limits(pixels=1600), frame=10)


def test_markers_without_end_are_refused_quickly() -> None:
    """A JPEG of nothing but fill bytes or markers would take Pillow half a minute per 64 MiB."""
    for filler in (b"\xff", b"\0", b"\xff\xd0", b"\xff\x00"):
        start = time.perf_counter()
        with pytest.raises(ImageUnreadable):
            open_picture(b"\xff\xd8\xff" + filler * (2**25 // len(filler)))
        assert time.perf_counter() - start < 1


# --- colour -----------------------------------------------------------------------------------------------------------

UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}
"""By Exif 2.32, table 6, without Pillow: what a viewer shows of the stored rows."""


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(name: str, orientation: int) -> None:
    """C8.13: pixels and size are those of the upright picture, once, in each format."""
    picture = open_picture(encoded(photo(), name, exif=files.exif(orientation)))
    expected = UPRIGHT[orientation](photo())
    assert difference(picture.pixels, expected) == 0
    assert picture.size == (picture.info.width, picture.info.height) == expected.shape[1::-1]
    assert codes(picture) == ([] if orientation == 1 else ["orientation-applied"])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_of_jpeg_and_alpha(orientation: int) -> None:
    """C8.13: JPEG within its loss; alpha turns with the picture."""
    picture = open_picture(encoded(photo(), "JPEG", quality=100, subsampling=0, exif=files.exif(orientation)))
    assert difference(picture.pixels, UPRIGHT[orientation](photo())) < 12
    alpha = np.full((32, 48), 255, np.uint8)
    alpha[:8, :12] = 0
    turned = open_picture(encoded(np.dstack([photo(), alpha]), "PNG", exif=files.exif(orientation)))
    assert turned.alpha is not None
    assert difference(turned.alpha, UPRIGHT[orientation](alpha)) == 0


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_no_double_rotation_after_save(name: str, orientation: int) -> None:
    """C8.14: what is saved opens as it was, in our door and in another program that heeds orientation."""
    first = open_picture(encoded(photo(), "PNG", exif=files.exif(orientation)))
    saved = encode_picture(first, SUFFIX[name], quality=100)
    again = open_picture(saved)
    assert difference(again.pixels, first.pixels) <= (12 if name == "JPEG" else 0)
    assert codes(again) == []
    with Image.open(io.BytesIO(saved)) as other:
        assert other.getexif().get(274, 1) == 1


def test_orientation_in_xmp_does_not_turn_again() -> None:
    """C8.14: a file whose XMP says it, as attribute or element, keeps its XMP but upright."""
    element = files.xmp(6).replace(b' tiff:Orientation="6"', b"").replace(
        b"/></rdf:RDF>", b"><tiff:Orientation>6</tiff:Orientation></rdf:Description></rdf:RDF>"
    )  # fmt: skip
    for block in (files.xmp(6), element):
        first = open_picture(encoded(photo(), "JPEG", xmp=block))
        assert first.size == (32, 48)
        for name in ("JPEG", "PNG", "WEBP", "TIFF"):
            again = open_picture(encode_picture(first, SUFFIX[name]))
            assert again.size == (32, 48)
            assert codes(again) == []
            assert again.metadata.xmp is not None
            assert b"Rating" in again.metadata.xmp


def sixteen_bit_files() -> dict[str, bytes]:
    ramp = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    grey = Image.fromarray(ramp)
    big_endian = Image.frombytes("I;16B", grey.size, ramp.astype(">u2").tobytes())
    wide = Image.fromarray(ramp.astype(np.int32))
    return {
        "png": encoded(grey, "PNG"),
        "tiff": encoded(grey, "TIFF"),
        "tiff-big-endian": encoded(big_endian, "TIFF"),
        "tiff-lzw": encoded(grey, "TIFF", compression="tiff_lzw"),
        "tiff-32": encoded(wide, "TIFF"),
    }


@pytest.mark.parametrize("kind", sorted(sixteen_bit_files()))
def test_sixteen_bit_ramp_stays_a_ramp(kind: str) -> None:
    """C8.15: within one level of value / 257; Pillow's own conversion would make all but 0.4 % of it white."""
    picture = open_picture(sixteen_bit_files()[kind])
    expected = np.linspace(0, 65535, 64 * 48).reshape(48, 64) / 257
    assert np.abs(picture.pixels - expected[:, :, None]).max() <= 1
    assert codes(picture) == ["sixteen-bit-reduced"]


def test_integers_beyond_sixteen_bits_are_refused() -> None:
    """C8.15: a range that nobody stated."""
    for value in (-1, 65536, 2**31 - 1):
        image = Image.fromarray(np.array([[0, value], [5, 6]], np.int32))
        with pytest.raises(ImageValuesInvalid, match=r"outside 0\.\.65535"):
            open_picture(encoded(image, "TIFF"))


def test_sixteen_bit_colour_is_noted() -> None:
    """C8.16, with its transparent colour, which is stated in 16 bits as well."""
    samples = photo().astype(np.uint16) * 256 + 5
    picture = open_picture(files.png_rgb16(samples))
    assert codes(picture) == ["sixteen-bit-reduced"]
    assert difference(picture.pixels, photo()) == 0
    key = files.chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes())
    keyed = open_picture(files.png_rgb16(samples, key))
    assert keyed.alpha is not None
    assert (keyed.alpha[:8, :12] == 0).all()
    assert (keyed.alpha[8:] == 255).all()


def test_transparent_colour_of_few_bits() -> None:
    """C8.18: a grey PNG of two bits states its transparent value as 0..3."""
    row = bytes([0b00011011] * 2)
    data = files.png((8, 4), [row] * 4, depth=2, colour=0, before=[files.chunk(b"tRNS", b"\0\1")])
    picture = open_picture(data)
    assert picture.alpha is not None
    assert picture.alpha[0].tolist() == [255, 0, 255, 255] * 2
    assert picture.pixels[0, :4, 0].tolist() == [0, 255, 170, 255]


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_hidden_colour_does_not_appear(name: str) -> None:
    """C8.17: red under alpha 0 is white; alpha is kept apart; half-transparent is blended."""
    image = np.zeros((20, 30, 4), np.uint8)
    image[:, :, 0] = 255
    image[:, 10:20, 3] = 128
    image[:, 20:, 3] = 255
    picture = open_picture(encoded(image, name))
    assert (picture.pixels[:, :10] == 255).all()
    assert difference(picture.pixels[:, 10:20], np.broadcast_to([255, 127, 127], (20, 10, 3))) <= 1
    assert (picture.pixels[:, 20:] == (255, 0, 0)).all()
    assert picture.alpha is not None
    assert difference(picture.alpha, image[:, :, 3]) == 0
    assert codes(picture) == ["transparency-composited"]
    for suffix in SUFFIX.values():
        with Image.open(io.BytesIO(encode_picture(picture, suffix, quality=100))) as saved:
            hidden = np.asarray(saved.convert("RGBA"))[:, :8, :3]
        assert hidden.min() > 250, suffix  # nor does the saved file hide it


def test_palette_with_transparency() -> None:
    """C8.18: one transparent entry, and a table of alphas; grey with alpha too."""
    image = Image.new("P", (12, 6), 1)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.paste(2, (0, 0, 4, 6))
    for transparency, alpha in ((2, 0), (bytes([255, 255, 0]), 0), (bytes([255, 255, 51]), 51)):
        picture = open_picture(encoded(image, "PNG", transparency=transparency))
        assert picture.alpha is not None
        assert picture.alpha[0, 0] == alpha
        assert picture.pixels[0, 0].tolist() == [255 - alpha, 255, 255 - alpha]
        assert picture.pixels[0, 11].tolist() == [255, 0, 0]
    grey = open_picture(encoded(Image.new("LA", (4, 4), (0, 0)), "PNG"))
    assert (grey.pixels == 255).all()
    plain = open_picture(encoded(image, "PNG"))
    assert plain.alpha is None
    assert codes(plain) == []


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk(name: str) -> None:
    """C8.19: by its profile (this one prints grey), else by arithmetic with a note; no CMYK profile in a result."""
    image = Image.new("CMYK", (16, 16), (0, 255, 0, 0))
    rough = open_picture(encoded(image, name))
    assert codes(rough) == ["cmyk-without-profile"]
    assert difference(rough.pixels, np.broadcast_to([255, 0, 255], (16, 16, 3))) <= 3
    exact = open_picture(encoded(image, name, icc_profile=files.cmyk_profile()))
    assert codes(exact) == ["profile-converted"]
    assert np.ptp(exact.pixels, axis=2).max() <= 2
    assert 60 < exact.pixels.mean() < 220
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        with Image.open(io.BytesIO(encode_picture(exact, suffix))) as saved:
            assert saved.mode in ("RGB", "L")
            assert saved.info["icc_profile"][16:20] == b"RGB "


def linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(xyz: np.ndarray) -> np.ndarray:
    ratio = xyz / np.array([0.9642, 1.0, 0.8249])
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (ratio * 24389 / 27 + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_display_p3_within_one_delta_e(name: str) -> None:
    """C8.20: patches inside sRGB keep their colour (CIE 1976 difference below 1.5 at 8 bits, 1 on average)."""
    patches = np.array([[(180, 100, 80), (90, 120, 160), (60, 140, 70), (200, 190, 60), (128, 128, 128)]], np.uint8)
    picture = open_picture(encoded(np.repeat(patches, 8, axis=0), name, icc_profile=files.rgb_profile()))
    assert codes(picture) == ["profile-converted"]
    meant = lab(linear(patches[0] / 255) @ np.array(files.P3_COLUMNS))
    shown = lab(linear(picture.pixels[0] / 255) @ np.array(files.SRGB_COLUMNS))
    away = np.linalg.norm(meant - shown, axis=-1)
    assert away.mean() < 1
    assert away.max() < 1.5
    assert difference(picture.pixels[:1], patches) > 5  # so it was not left as it is


def test_srgb_profile_is_recognised_by_what_it_does() -> None:
    """C8.20: sRGB under a foreign name is left alone, another profile named sRGB is not."""
    same = open_picture(encoded(photo(), "PNG", icc_profile=files.rgb_profile(files.SRGB_COLUMNS, name="Foreign")))
    assert codes(same) == []
    assert difference(same.pixels, photo()) == 0
    linear_light = files.rgb_profile(files.SRGB_COLUMNS, gamma=1.0, name="sRGB IEC61966-2.1")
    assert codes(open_picture(encoded(photo(), "PNG", icc_profile=linear_light))) == ["profile-converted"]


def test_grey_profile_and_grey_with_colour_profile() -> None:
    """C8.20: grey pictures have profiles too."""
    grey = Image.fromarray(np.full((8, 8), 128, np.uint8))
    darker = open_picture(encoded(grey, "PNG", icc_profile=files.grey_profile(1.0)))
    assert codes(darker) == ["profile-converted"]
    assert 180 < darker.pixels[0, 0, 0] < 195  # 128 / 255 of linear light is 188 in sRGB
    tinted = open_picture(encoded(grey, "PNG", icc_profile=files.rgb_profile(gamma=1.0)))
    assert codes(tinted) == ["profile-converted"]
    assert difference(tinted.pixels, darker.pixels) <= 1


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_garbage_profile(name: str) -> None:
    """C8.21: a note, no exception, the pixels as stored; also for profiles cut or of another kind."""
    sound = files.rgb_profile()
    broken = {
        "noise": random.Random(3).randbytes(400),
        "short": b"x",
        "cut": sound[:150],
        "tags": sound[:140] + random.Random(4).randbytes(len(sound) - 140),
        "class": sound[:12] + b"link" + sound[16:],
    }
    plain = open_picture(encoded(photo(), name))
    for kind, profile in broken.items():
        picture = open_picture(encoded(photo(), name, icc_profile=profile))
        assert codes(picture) == ["profile-broken"], kind
        assert difference(picture.pixels, plain.pixels) == 0
    picture = open_picture(encoded(photo(), name, icc_profile=files.cmyk_profile()))
    assert codes(picture) == ["profile-mismatched"]


def test_float_samples() -> None:
    """C8.22: NaN, infinity and values outside 0..1 are refused; 0..1 opens with a note."""
    for value in (np.nan, np.inf, -np.inf, 1e9, -0.1, 1.01):
        samples = np.full((8, 8), 0.5, np.float32)
        samples[3, 4] = value
        with pytest.raises(ImageValuesInvalid) as caught:
            open_picture(encoded(Image.fromarray(samples), "TIFF"))
        assert caught.value.code == "ZIQ-105"
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    picture = open_picture(encoded(Image.fromarray(ramp), "TIFF"))
    assert codes(picture) == ["float-reduced"]
    assert np.abs(picture.pixels[:, :, 0] / 255 - ramp).max() <= 0.5 / 255 + 1e-6


# --- names and metadata -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX only")
def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    """C8.61: it opens, saves beside itself, and its messages can be printed."""
    name = os.fsdecode(b"gr\xfc\xdfe \x1b[31m\xe2\x80\xae.png")
    path = tmp_path / name
    path.write_bytes(encoded(photo(), "PNG"))
    for given in (path, str(path)):
        picture = open_picture(given)
        assert picture.info.path == str(path)
    saved = save_picture(picture, path.with_suffix(".jpg"))
    assert os.path.exists(saved)
    path.write_bytes(b"nothing")
    for broken in (path, tmp_path / (name + "x")):
        with pytest.raises(ImageError) as caught:
            open_picture(broken)
        shown = str(caught.value)
        shown.encode("utf-8")
        assert shown.isprintable()


@pytest.mark.parametrize("origin", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("name", FORMATS)
def test_private_metadata_is_gone_in_server_mode(origin: str, name: str) -> None:
    """C8.62: no position, serial number, name, maker's note, thumbnail or XMP; exposure and lens stay."""
    thumbnail = encoded(photo(16, 16), "JPEG", comment=b"THUMBNAIL")
    block = files.exif(6) if origin == "TIFF" else files.with_thumbnail(files.exif(6), thumbnail)
    secret = files.xmp(6).replace(b"xmp:Rating", b'exif:GPSLatitude="48,51.5N" xmp:Rating')
    options = {"xmp": secret} if origin in ("JPEG", "WEBP") else {}
    picture = open_picture(encoded(photo(), origin, exif=block, **options), limits=SERVER)
    saved = encode_picture(picture, SUFFIX[name], limits=SERVER)
    for hidden in (files.OWNER, files.SERIAL, "GPSLatitude", "THUMBNAIL", "maker "):
        assert hidden.encode() not in saved
    again = open_picture(saved)
    assert again.size == (32, 48)
    if name != "BMP":
        with Image.open(io.BytesIO(saved)) as other:
            tags = other.getexif()
            details = tags.get_ifd(0x8769)
            assert tags[272] == "Model 1"
            assert 0x8825 not in tags
            assert tags.get_ifd(0x8825) == {}
            assert tags.get_ifd(1) == {}
            assert details[42036] == "Lens 50mm"
            assert set(details) <= {33434, 36867, 42036, 40961, 40962, 40963}


@pytest.mark.parametrize("origin", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_metadata_is_kept_in_local_mode(origin: str, name: str) -> None:
    """C8.66: EXIF with position, XMP, and an sRGB profile; what the change made untrue is corrected."""
    thumbnail = encoded(photo(16, 16), "JPEG", comment=b"THUMBNAIL")
    block = files.exif(6) if origin == "TIFF" else files.with_thumbnail(files.exif(6), thumbnail)
    options: dict[str, object] = {"xmp": files.xmp()} if origin in ("JPEG", "WEBP") else {}
    picture = open_picture(
        encoded(photo(), origin, exif=block, icc_profile=files.rgb_profile(), **options), limits=LOCAL
    )
    larger = np.repeat(np.repeat(picture.pixels, 2, axis=0), 2, axis=1)
    saved = encode_picture(larger, SUFFIX[name], source=picture)
    assert b"THUMBNAIL" not in saved
    with Image.open(io.BytesIO(saved)) as other:
        tags = other.getexif()
        details = tags.get_ifd(0x8769)
        assert (tags.get(274, 1), tags[315], details[42033]) == (1, files.OWNER, files.SERIAL)
        assert (details[40961], details[40962], details[40963]) == (1, 64, 96)
        assert tags.get_ifd(0x8825)[2] == (48.0, 51.0, pytest.approx(29.6, abs=1e-3))
        assert other.info["icc_profile"][16:20] == b"RGB "
        assert other.info["icc_profile"] != files.rgb_profile()
    again = open_picture(saved)
    assert codes(again) == []
    if options:
        assert again.metadata.xmp is not None
        assert b"Rating" in again.metadata.xmp


def test_hostile_exif_does_not_stop_a_save() -> None:
    """C8.66: the result of a costly restoration is stored, with the block or without."""
    rng = random.Random(5)
    base = files.exif(6)
    for _ in range(40):
        block = bytearray(base)
        for _ in range(rng.randint(1, 8)):
            block[rng.randrange(6, len(block))] = rng.randrange(256)
        picture = open_picture(encoded(photo(), "JPEG", exif=bytes(block)))
        for suffix in (".jpg", ".tif", ".png", ".webp"):
            assert open_picture(encode_picture(picture, suffix)).size == picture.size


# --- replay -----------------------------------------------------------------------------------------------------------


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One of the usual mutations: flipped, replaced, removed, repeated or extreme bytes, mostly near the header."""
    body = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        reach = rng.choice((40, 200, len(body)))
        position = rng.randrange(min(reach, len(body)))
        kind = rng.randrange(6)
        if kind == 0:
            body[position] ^= 1 << rng.randrange(8)
        elif kind == 1:
            body[position] = rng.randrange(256)
        elif kind == 2:
            body[position : position + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\x01\0"))
        elif kind == 3:
            del body[position : position + rng.randrange(1, 20)]
        elif kind == 4:
            body[position:position] = body[position : position + rng.randrange(1, 40)]
        else:
            del body[max(position, 4) :]
        if not body:
            break
    return bytes(body)


def test_fuzz_replay() -> None:
    """C8.82 in small: mutations of every kind of file give a lawful picture or one of our errors, and no warning."""
    rng = random.Random(20260101)
    grounds = files.seeds()
    limits = Limits(pixels=1_000_000)
    end, opened, refused = time.perf_counter() + 8, 0, 0
    messages: set[str] = set()
    for turn in range(400):
        for data in grounds.values():
            attack = mutated(data, rng)
            try:
                picture = open_picture(attack, limits=limits, allow_truncated=turn % 4 == 0, frame=int(turn % 8 == 7))
            except (ImageError, OptionInvalid) as error:
                refused += 1
                messages.add(str(error))
            else:
                opened += 1
                assert picture.pixels.dtype == np.uint8
                assert picture.pixels.flags.c_contiguous
                assert not picture.pixels.flags.writeable
                if turn % 10 == 0:
                    encode_picture(picture, rng.choice(list(SUFFIX.values())))
        if time.perf_counter() > end:
            break
    assert [text for text in messages if not text.isprintable() or "0x" in text] == []
    assert opened > 100
    assert refused > 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
