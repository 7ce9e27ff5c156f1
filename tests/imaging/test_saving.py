"""The door for saving, and the atomic writing below it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from PIL import Image

from tests.attacks import files
from tests.attacks.files import FORMATS, SUFFIX, encoded, photo
from zoomiqa import files as writing
from zoomiqa.errors import ImageValuesInvalid, OptionInvalid, OutputFailed, OutputWouldOverwrite
from zoomiqa.files import atomic_write_bytes, atomic_write_text, printable, refuse_inputs
from zoomiqa.imaging import saving
from zoomiqa.imaging.opening import SUFFIXES, open_picture
from zoomiqa.imaging.picture import composite_on_white, picture_from_array
from zoomiqa.imaging.saving import encode_picture, save_picture

ROOT = Path(__file__).resolve().parents[2]


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".part-" in path.name]


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".PNG"])
def test_what_is_saved_opens_again(tmp_path: Path, suffix: str) -> None:
    target = save_picture(photo(), tmp_path / f"a{suffix}", quality=100)
    again = open_picture(target)
    assert again.notes == ()
    tolerance = 12 if "j" in suffix else 0
    assert np.abs(again.pixels.astype(int) - photo()).max() <= tolerance
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", FORMATS)
def test_same_input_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the time inside the colour profile differs."""
    source = open_picture(encoded(photo(), "JPEG", exif=files.exif(6), xmp=files.xmp(), dpi=(300, 300)))
    first = encode_picture(source, SUFFIX[name])
    saving._srgb_profile.cache_clear()
    assert encode_picture(source, SUFFIX[name]) == first
    assert saving._srgb_profile()[24:36] == bytes((7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0))


def test_resolution_is_kept() -> None:
    source = open_picture(encoded(photo(), "JPEG", dpi=(300, 150)))
    for suffix in (".jpg", ".png", ".tif", ".bmp"):
        assert open_picture(encode_picture(source, suffix)).metadata.dpi == pytest.approx((300, 150), abs=0.05)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_alpha_is_put_back(suffix: str) -> None:
    """Where sizes agree; what opens again looks the same on white."""
    rng = np.random.default_rng(2)
    source = picture_from_array(rng.integers(0, 256, (40, 50, 4), dtype=np.uint8))
    again = open_picture(encode_picture(source.pixels, suffix, source=source, quality=100))
    assert again.alpha is not None
    assert source.alpha is not None
    assert (again.alpha == source.alpha).all()
    assert np.abs(again.pixels.astype(int) - source.pixels).max() <= 1
    other_size = open_picture(encode_picture(photo(), suffix, source=source))
    assert other_size.alpha is None
    own = open_picture(encode_picture(np.dstack([photo(), np.full((32, 48), 200, np.uint8)]), suffix, quality=100))
    assert own.alpha is not None
    assert own.alpha.min() == 200


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint8, (4, 5, 3)), arrays.arrays(np.uint8, (4, 5)))
def test_putting_alpha_back_undoes_compositing(rgb: np.ndarray, alpha: np.ndarray) -> None:
    on_white = composite_on_white(rgb, alpha)
    restored = saving._with_alpha(on_white, alpha)
    again = composite_on_white(restored[:, :, :3], restored[:, :, 3])
    assert np.abs(again.astype(int) - on_white).max() <= 1


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    original = tmp_path / "a.png"
    original.write_bytes(encoded(photo(), "PNG"))
    before = original.read_bytes()
    picture = open_picture(original)
    (tmp_path / "hard.png").hardlink_to(original)
    (tmp_path / "soft.png").symlink_to(original)
    (tmp_path / "sub").mkdir()
    for target in (original, tmp_path / "hard.png", tmp_path / "soft.png", tmp_path / "sub" / ".." / "a.png"):
        with pytest.raises(OutputWouldOverwrite, match="is an input"):
            save_picture(picture, target, overwrite=True)
        with pytest.raises(OutputWouldOverwrite, match="is an input"):
            save_picture(photo(), target, protected=[original], overwrite=True)
        with pytest.raises(OutputWouldOverwrite, match="is an input"):
            save_picture(photo(), target, source=picture, overwrite=True)
    with pytest.raises(OutputWouldOverwrite):  # an input that has gone meanwhile is still its name
        save_picture(photo(), tmp_path / "gone.png", protected=[tmp_path / "gone.png"], overwrite=True)
    assert original.read_bytes() == before
    assert leftovers(tmp_path) == []


def test_inputs_are_recognised_without_a_file(tmp_path: Path) -> None:
    """Links to what is gone, and names that no system call takes."""
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(OutputWouldOverwrite, match="is an input"):
        refuse_inputs([tmp_path / "dangling.png"], [tmp_path / "a.png", tmp_path / "gone.png"])
    refuse_inputs([tmp_path / "new.png"], [tmp_path / "a.png", "a\0b", tmp_path])
    refuse_inputs([tmp_path / "new.png"], [])


@pytest.mark.parametrize(
    ("name", "overwrite", "error", "words"),
    [
        ("a.png", False, OutputWouldOverwrite, "--overwrite"),
        ("a.png", True, OutputWouldOverwrite, "is an input"),
        ("folder.png", True, OutputFailed, "is a folder"),
        ("none/a.png", True, OutputFailed, "does not exist"),
        ("a.png/b.png", True, OutputFailed, "does not exist"),
        ("a.xyz", False, OptionInvalid, "ending"),
        ("x" * 300 + ".png", False, OutputFailed, "too long"),
        ("a\0.png", False, OutputFailed, "cannot be used"),
        ("new.png", False, None, ""),
    ],
)
def test_a_target_is_checked_before_there_is_a_picture(
    tmp_path: Path, name: str, overwrite: bool, error: type[Exception] | None, words: str
) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    before = sorted(os.listdir(tmp_path))
    protected = [tmp_path / "a.png"] if overwrite else []
    with pytest.raises(error, match=words) if error else contextlib.nullcontext():
        saving.check_picture_target(tmp_path / name, overwrite=overwrite, protected=protected)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_what_opens_by_its_ending_is_saved_by_it(tmp_path: Path, suffix: str) -> None:
    again = open_picture(save_picture(photo(), tmp_path / f"a{suffix}"))
    assert again.info.format == SUFFIXES[suffix]
    assert again.notes == ()


def test_existing_files_are_replaced_only_when_allowed(tmp_path: Path) -> None:
    target = tmp_path / "b.png"
    target.write_bytes(b"old")
    with pytest.raises(OutputWouldOverwrite, match="exists"):
        save_picture(photo(), target)
    assert target.read_bytes() == b"old"
    save_picture(photo(), target, overwrite=True)
    assert open_picture(target).size == (48, 32)


def test_options_are_checked(tmp_path: Path) -> None:
    for name in ("a.gif", "a", "a.png.exe", ".png"):
        with pytest.raises(OptionInvalid, match=re.escape(".jpg, .jpeg, .jpe")):
            save_picture(photo(), tmp_path / name)
    for quality in (0, 101, 1.5, True):
        with pytest.raises(OptionInvalid, match=r"1\.\.100"):
            save_picture(photo(), tmp_path / "a.jpg", quality=quality)  # type: ignore[arg-type]
    with pytest.raises(ImageValuesInvalid):
        save_picture(np.full((4, 4), np.nan), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_too_long_for_the_format() -> None:
    for suffix, side in ((".webp", 16_384), (".jpg", 65_536)):
        with pytest.raises(OutputFailed, match="px per side"):
            encode_picture(np.zeros((1, side, 3), np.uint8), suffix)


def test_exif_beyond_a_jpeg_segment() -> None:
    """The maker's note goes first; other formats keep all of it."""
    block = Image.Exif()
    block[272] = "Model 1"
    block.get_ifd(0x8769)[37500] = b"note" * 20_000
    source = open_picture(encoded(photo(), "PNG", exif=block.tobytes()))
    with Image.open(io.BytesIO(encode_picture(source, ".jpg"))) as saved:
        assert saved.getexif()[272] == "Model 1"
        assert 37500 not in saved.getexif().get_ifd(0x8769)
    with Image.open(io.BytesIO(encode_picture(source, ".png"))) as saved:
        assert len(saved.getexif().get_ifd(0x8769)[37500]) == 80_000


@pytest.mark.parametrize("name", FORMATS)
def test_a_writer_that_rejects_metadata_still_stores_the_picture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A costly result is not lost to a value in a foreign block."""
    write = saving._written

    def picky(image: Image.Image, format_name: str, options: dict[str, object]) -> bytes:
        if {"exif", "xmp", "pnginfo"} & set(options):
            raise RuntimeError("Error setting from dictionary")
        return write(image, format_name, options)

    monkeypatch.setattr(saving, "_written", picky)
    source = open_picture(encoded(photo(), "JPEG", exif=files.exif(), xmp=files.xmp()))
    assert open_picture(encode_picture(source, SUFFIX[name])).size == (48, 32)
    monkeypatch.setattr(saving, "_written", lambda *_: 1 / 0)
    with pytest.raises(OutputFailed, match=f"cannot be stored as {name}"):
        encode_picture(source, SUFFIX[name])


def test_xmp_in_another_coding_is_left_out() -> None:
    """An orientation inside UTF-16 could not be corrected."""
    source = open_picture(encoded(photo(), "JPEG", xmp=files.xmp(6).decode().encode("utf-16")))
    assert open_picture(encode_picture(source, ".jpg")).metadata.xmp is None


# --- atomic writing ---------------------------------------------------------------------------------------------------


def test_bytes_text_and_functions(tmp_path: Path) -> None:
    assert atomic_write_bytes(tmp_path / "a", b"\0\1") == tmp_path / "a"
    assert (tmp_path / "a").read_bytes() == b"\0\1"
    atomic_write_bytes(tmp_path / "a", lambda stream: stream.write(b"two"))
    assert (tmp_path / "a").read_bytes() == b"two"
    atomic_write_text(tmp_path / "b", "ß\r\n\udcff")
    assert (tmp_path / "b").read_bytes() == b"\xc3\x9f\r\n\\udcff"
    assert leftovers(tmp_path) == []


def broken_write(stream: BinaryIO) -> None:
    stream.write(b"half")
    raise KeyboardInterrupt


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(target, broken_write)
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not be written"),
        (errno.EIO, "could not be written"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_errors_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str, call: str) -> None:
    """C8.57, C8.58: at whatever step, it is our error, the old file stays and nothing is left behind."""
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(writing.os, call, fail)
    with pytest.raises(OutputFailed, match=words) as caught:
        save_picture(photo(), target, overwrite=True)
    monkeypatch.undo()
    assert caught.value.code == "ZIQ-602"
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on the size of files")
def test_a_full_disk_for_real(tmp_path: Path) -> None:
    """C8.57: a write that stops in the middle (here at 4 KiB per file)."""
    program = """
import resource, signal, sys
from zoomiqa.errors import OutputFailed
from zoomiqa.files import atomic_write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    atomic_write_bytes(sys.argv[1], bytes(100_000))
except OutputFailed as error:
    print(error)
"""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    argv = [sys.executable, "-W", "error", "-c", program, target]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "larger than a file may be" in done.stdout
    assert done.stderr == ""
    assert (target.read_bytes(), os.listdir(tmp_path)) == (b"old", ["a.bin"])


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for target, words in (
        (tmp_path / "none" / "a.png", "does not exist; create it first|does not exist, got"),
        (tmp_path / "file" / "a.png", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / ("x" * 300), "too long"),
        ("a\0b", "cannot be used"),
    ):
        with pytest.raises(OutputFailed, match=words):
            atomic_write_bytes(target, b"x")
    assert leftovers(tmp_path) == []
    longest = tmp_path / ("ä" * 125 + ".png")  # 254 bytes: the temporary name must not be longer
    assert atomic_write_bytes(longest, b"x").read_bytes() == b"x"


def test_without_overwrite_only_one_of_many_wins(tmp_path: Path) -> None:
    """C8.56: nobody's finished file is replaced, though all looked before any wrote."""
    target = tmp_path / "a"
    ready = threading.Barrier(8)
    won: list[int] = []

    def write(index: int) -> None:
        def content(stream: BinaryIO) -> None:
            ready.wait(5)
            stream.write(bytes([index]) * 1000)

        try:
            atomic_write_bytes(target, content, overwrite=False)
        except OutputWouldOverwrite:
            return
        won.append(index)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(won) == 1
    assert target.read_bytes() == bytes([won[0]]) * 1000
    assert os.listdir(tmp_path) == ["a"]


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(writing.os, "link", refuse)
    atomic_write_bytes(tmp_path / "a", b"one", overwrite=False)
    with pytest.raises(OutputWouldOverwrite):
        atomic_write_bytes(tmp_path / "a", b"two", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX")
def test_permissions(tmp_path: Path) -> None:
    """New files follow the umask (unlike those of tempfile); a private file stays private."""
    old = os.umask(0o022)
    try:
        atomic_write_bytes(tmp_path / "a", b"x")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
        (tmp_path / "a").chmod(0o600)
        atomic_write_bytes(tmp_path / "a", b"y")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    finally:
        os.umask(old)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "real").read_bytes() == b"real"
    assert not (tmp_path / "link").is_symlink()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputWouldOverwrite):
        atomic_write_bytes(tmp_path / "broken", b"new", overwrite=False)


def test_printable() -> None:
    assert printable("plain name ü.png") == "plain name ü.png"
    shown = printable("\x1b[31m\u202e\udcff\n" + "x" * 500)
    assert shown.isprintable()
    assert len(shown) <= 80
