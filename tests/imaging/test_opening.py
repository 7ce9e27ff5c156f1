"""The door for picture files: what it reads beside attacks (those are in tests/attacks/test_pictures.py)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.attacks import files
from tests.attacks.files import FORMATS, SUFFIX, encoded, photo
from zoomiqa.errors import ImageNotFound, ImageTruncated, ImageUnreadable, OptionInvalid
from zoomiqa.imaging.opening import find_pictures, open_picture

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "BMP"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, name: str) -> None:
    data = encoded(photo(), name)
    path = tmp_path / f"a{SUFFIX[name]}"
    path.write_bytes(data)
    picture = open_picture(path)
    assert (picture.pixels == photo()).all()
    assert picture.notes == ()
    assert picture.alpha is None
    info = picture.info
    assert (info.path, info.format, info.width, info.height) == (str(path), name, 48, 32)
    assert info.sha256 == hashlib.sha256(data).hexdigest()
    assert picture.pixels.flags.c_contiguous
    assert not picture.pixels.flags.writeable


def test_all_kinds_of_source_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    read_on = io.BytesIO(data)
    read_on.seek(10)
    with open("a.jpg", "rb") as stream, io.BufferedReader(OneWay(data)) as pipe:
        sources = [data, bytearray(data), memoryview(data), io.BytesIO(data), read_on, stream, pipe]
        pictures = [open_picture(source) for source in sources]
    assert {picture.info.path for picture in pictures} == {None}
    for given in ("a.jpg", Path("a.jpg"), "./a.jpg"):
        pictures.append(open_picture(given))
        assert pictures[-1].info.path == str(given)
    assert len({picture.info.sha256 for picture in pictures}) == 1
    assert len({picture.pixels.tobytes() for picture in pictures}) == 1


class OneWay(io.RawIOBase):
    """A stream that cannot seek, as an upload or a pipe."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece, self.rest = self.rest[: min(len(buffer), 100)], self.rest[100:]
        buffer[: len(piece)] = piece
        return len(piece)


def test_sources_that_are_none(tmp_path: Path) -> None:
    for wrong in (None, 3, 1.5, ["a.png"]):
        with pytest.raises(OptionInvalid, match="path, bytes or a binary file"):
            open_picture(wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionInvalid, match="binary mode"):
        open_picture(io.StringIO("text"))  # type: ignore[arg-type]
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(ImageUnreadable, match="cannot be read"):
        open_picture(closed)
    for missing in (tmp_path / "none.png", tmp_path / "none" / "a.png", "a\0b.png", "x" * 5000, ""):
        with pytest.raises(ImageNotFound):
            open_picture(missing)
    with pytest.raises(ImageNotFound, match="download"):
        open_picture("https://example.org/a.png")
    with pytest.raises(ImageUnreadable, match="is a folder"):
        open_picture(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
def test_pipes_and_devices_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for special in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(ImageUnreadable, match="device or a pipe"):
            open_picture(special)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(ImageNotFound):
        open_picture(tmp_path / "loop.png")


def test_messages_hold_only_the_callers_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(encoded(photo(), "PNG")[:100])
    for given in ("a.png", "b.png", "."):
        with pytest.raises((ImageTruncated, ImageNotFound, ImageUnreadable)) as caught:
            open_picture(given)
        assert str(tmp_path) not in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert str(again) == str(caught.value)


def test_metadata() -> None:
    block, text = files.exif(), files.xmp()
    picture = open_picture(encoded(photo(), "JPEG", exif=block, xmp=text, dpi=(300, 150)))
    assert picture.metadata.exif == block
    assert picture.metadata.xmp == text
    assert picture.metadata.dpi == (300, 150)
    assert picture.metadata.description == f"Home of {files.OWNER}"
    tiff = open_picture(encoded(photo(), "TIFF", exif=block, dpi=(300, 150)))
    assert tiff.metadata.dpi == (300, 150)
    rebuilt = Image.Exif()
    assert tiff.metadata.exif is not None
    rebuilt.load(tiff.metadata.exif)
    assert rebuilt[272] == "Model 1"
    assert 273 not in rebuilt  # where the strips of that file lay
    assert rebuilt.get_ifd(0x8769)[42036] == "Lens 50mm"
    assert rebuilt.get_ifd(0x8825)[1] == "N"


def test_metadata_that_is_not_there() -> None:
    for name in FORMATS:
        metadata = open_picture(encoded(photo(), name)).metadata
        assert (metadata.exif, metadata.xmp, metadata.description) == (None, None, None)
        assert metadata.dpi is None or name == "BMP"


def test_description_of_a_png_or_a_comment() -> None:
    info = PngInfo()
    info.add_text("Description", "a lamp")
    assert open_picture(encoded(photo(), "PNG", pnginfo=info)).metadata.description == "a lamp"
    assert open_picture(encoded(photo(), "JPEG", comment="ein Gerät".encode())).metadata.description == "ein Gerät"


def test_broken_exif_is_noted() -> None:
    picture = open_picture(encoded(photo(), "JPEG", exif=b"Exif\0\0garbage, not a directory"))
    assert [note.code for note in picture.notes] == ["exif-broken"]
    assert picture.metadata.exif is None


def test_foreign_gamma_is_noted() -> None:
    for gamma, codes in ((45455, []), (100000, ["gamma-ignored"])):
        data = files.png_with_chunks(files.chunk(b"gAMA", gamma.to_bytes(4, "big")))
        assert [note.code for note in open_picture(data).notes] == codes


def test_lab_tiff() -> None:
    image = Image.frombytes("LAB", (1, 1), bytes((255, 0, 0)))  # a* and b* are signed in a file
    picture = open_picture(encoded(image.resize((8, 8)), "TIFF"))
    assert [note.code for note in picture.notes] == ["lab-converted"]
    assert picture.pixels.min() > 250  # L* of 100 without colour is white


def test_notes_and_info_fit_a_record() -> None:
    picture = open_picture(encoded(photo(), "TIFF", exif=files.exif(3)))
    json.dumps([picture.info.to_dict(), [note.to_dict() for note in picture.notes]])


def test_bands_meet() -> None:
    """Colour is converted in bands of rows; a tall picture shows whether they fit together."""
    rng = np.random.default_rng(1)
    tall = rng.integers(0, 256, (2500, 900, 4), dtype=np.uint8)
    picture = open_picture(encoded(tall, "PNG", compress_level=1))
    weight = tall[:, :, 3:] / 255
    assert np.abs(picture.pixels - (tall[:, :, :3] * weight + 255 * (1 - weight))).max() <= 0.51
    assert picture.alpha is not None
    assert (picture.alpha == tall[:, :, 3]).all()


def test_threads_agree() -> None:
    data = list(files.seeds().values())
    alone = [open_picture(each).pixels.tobytes() for each in data]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            together = pool.map(lambda each: open_picture(each, allow_truncated=True).pixels.tobytes(), data)
            assert list(together) == alone


def test_importing_the_door_does_not_import_pillow() -> None:
    program = "import sys, zoomiqa.imaging.opening, zoomiqa.imaging.saving; print('PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


GROWTH = """
import sys
from pathlib import Path
from zoomiqa.imaging.opening import open_picture

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

open_picture(sys.argv[1])
before = peak()
open_picture(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_twelve_megapixels_are_cheap(tmp_path: Path) -> None:
    """At most 130 MiB beside the interpreter (98 measured) and 0.6 s of processor time (0.16 measured)."""
    rows = np.linspace(0, 255, 3000).astype(np.uint8)
    large = np.empty((3000, 4000, 3), np.uint8)
    large[:] = rows[:, None, None]
    large[::7, ::5] += 30
    (tmp_path / "large.jpg").write_bytes(encoded(large, "JPEG", quality=92, exif=files.exif(6)))
    (tmp_path / "small.jpg").write_bytes(encoded(photo(), "JPEG"))
    argv = [sys.executable, "-c", GROWTH, tmp_path / "small.jpg", tmp_path / "large.jpg"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 130
    spent = []
    for _ in range(3):
        start = time.process_time()
        open_picture(tmp_path / "large.jpg")
        spent.append(time.process_time() - start)
    assert min(spent) < 0.6


# --- lists of pictures ------------------------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """b.jpg, A.PNG, notes.txt, .hidden.jpg, sub/c.webp, sub/deep/d.tif, .cache/e.jpg, empty/."""
    for name in ("b.jpg", "A.PNG", "notes.txt", ".hidden.jpg", "sub/c.webp", "sub/deep/d.tif", ".cache/e.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [path.as_posix() for path in paths]


def test_folder(album: Path) -> None:
    assert names(find_pictures(["."])) == ["A.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]
    assert names(find_pictures([album / "sub"])) == [f"{album}/sub/c.webp", f"{album}/sub/deep/d.tif"]


def test_files_are_taken_as_given_in_order_and_once(album: Path) -> None:
    given = ["notes.txt", "b.jpg", "missing.png", "./b.jpg", str(album / "b.jpg"), ".hidden.jpg", "a\0b"]
    assert names(find_pictures(given)) == ["notes.txt", "b.jpg", "missing.png", ".hidden.jpg", "a\0b"]
    assert names(find_pictures(["sub", "b.jpg", "."])) == ["sub/c.webp", "sub/deep/d.tif", "b.jpg", "A.PNG"]
    assert find_pictures([]) == []


def test_patterns(album: Path) -> None:
    assert names(find_pictures(["*.jpg"])) == ["b.jpg"]
    assert names(find_pictures(["[Ab].*"])) == ["A.PNG", "b.jpg"]
    assert names(find_pictures(["**/*.tif"])) == ["sub/deep/d.tif"]
    assert names(find_pictures(["**"])) == ["A.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]
    assert names(find_pictures(["s*"])) == ["sub/c.webp", "sub/deep/d.tif"]
    assert names(find_pictures(["s*/**/?.webp"])) == ["sub/c.webp"]
    (album / "odd[1].png").write_bytes(b"x")
    assert names(find_pictures(["odd[1].png"])) == ["odd[1].png"]


def test_nothing_found_is_said(album: Path) -> None:
    with pytest.raises(ImageNotFound, match="no picture in that folder, got empty"):
        find_pictures(["empty"])
    for pattern in ("*.tiff", "notes.*", "**/*.bmp", "none/*.jpg"):
        with pytest.raises(ImageNotFound, match="no picture matches"):
            find_pictures([pattern])


def test_links_that_lead_back(album: Path) -> None:
    (album / "sub" / "again").symlink_to(album, target_is_directory=True)
    (album / "sub" / "deep" / "up").symlink_to(album / "sub", target_is_directory=True)
    (album / "broken.jpg").symlink_to(album / "gone.jpg")
    start = time.perf_counter()
    assert names(find_pictures(["."])) == ["A.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]
    assert names(find_pictures(["**/*.tif"])) == ["sub/deep/d.tif"]
    assert time.perf_counter() - start < 1
    assert names(find_pictures(["broken.jpg"])) == ["broken.jpg"]


def test_names_that_are_not_utf8(album: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.png")
    (album / name).write_bytes(b"x")
    assert Path(name) in find_pictures(["."])
    assert Path(name) in find_pictures(["*.png"])
