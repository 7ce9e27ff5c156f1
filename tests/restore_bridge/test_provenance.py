"""The mark of an edit by an algorithm, and what is stripped."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore_bridge import restore
from restore_bridge.cli import main
from restore_bridge.provenance import digital_source_type, mark
from restore_bridge.restorers import load_restorer
from tests.attacks import files
from zoomiqa import open_picture
from zoomiqa.imaging import encode_picture, picture_from_array
from zoomiqa.limits import Limits
from zoomiqa.sidecars import read_sidecar
from zoomiqa.xmp import BASIC, EXIF, IPTC_EXTENSION, OWN, Name, Property, merge, read

KIND = Name(IPTC_EXTENSION, "DigitalSourceType")
GPS = Name(EXIF, "GPSLatitude")
ENHANCED = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def noisy(path: Path, photos: Path) -> Path:
    """A photograph with noise that is worth removing, a position and a caption."""
    with Image.open(photos / "astronaut.png") as image:
        pixels = np.asarray(image.convert("RGB"), np.float64)
    pixels = np.clip(pixels + np.random.default_rng(3).normal(0, 28, pixels.shape), 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[271], exif[315] = "Maker", "A. Person"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 1.0, 2.0)})
    packet = merge(files.xmp(), [Property(GPS, "48,1.03N")])
    Image.fromarray(pixels).save(path, quality=95, exif=exif, xmp=packet)
    return path


def metadata(path: Path) -> tuple[dict[Name, object], dict[int, object], dict[int, object]]:
    with Image.open(path) as image:
        exif = image.getexif()
        return read(image.info["xmp"]) if image.info.get("xmp") else {}, dict(exif), dict(exif.get_ifd(0x8825))


def test_kinds_of_restorers() -> None:
    assert digital_source_type(load_restorer("classical").capabilities) == ENHANCED
    assert digital_source_type(load_restorer("sdxl-tile").capabilities).endswith("compositeWithTrainedAlgorithmicMedia")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_every_format_carries_the_mark(suffix: str) -> None:
    picture = picture_from_array(np.full((16, 24, 3), 99, np.uint8))
    marked = mark(picture, load_restorer("classical").capabilities)
    for limits in (Limits(), Limits(strip_position=True), Limits(strip_private_metadata=True)):
        saved = open_picture(encode_picture(marked, suffix, limits=limits))
        assert read(saved.metadata.xmp)[KIND] == ENHANCED


def test_the_mark_survives_a_packet_without_room() -> None:
    picture = picture_from_array(np.full((16, 24, 3), 99, np.uint8))
    marked = mark(picture, load_restorer("classical").capabilities)
    full = merge(marked.metadata.xmp, [Property(Name(OWN, "Summary"), "word " * 20_000)])
    from dataclasses import replace

    crowded = replace(marked, metadata=replace(marked.metadata, xmp=full))
    assert set(read(open_picture(encode_picture(crowded, ".jpg")).metadata.xmp)) == {KIND}
    assert len(read(open_picture(encode_picture(crowded, ".png")).metadata.xmp)) == 3


def test_an_unreadable_packet_gives_way_to_the_mark(photos: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", xmp=b"<broken")
    marked = mark(open_picture(buffer.getvalue()), load_restorer("classical").capabilities)
    assert read(marked.metadata.xmp)[KIND] == ENHANCED


def test_a_restored_picture_is_marked_and_the_original_is_not(photos: Path, tmp_path: Path) -> None:
    source = open_picture(noisy(tmp_path / "a.jpg", photos))
    result = restore(source)
    assert result.kept == "restored"
    said = read(result.picture.metadata.xmp)
    assert said[KIND] == ENHANCED
    assert said[Name(OWN, "RestoredBy")].startswith("compact ")
    assert said[Name(BASIC, "Rating")] == "4"  # what the photographer set
    assert KIND not in read(source.metadata.xmp)


@pytest.mark.parametrize("strip", ["none", "place", "private"])
def test_what_a_run_strips(strip: str, photos: Path, tmp_path: Path) -> None:
    """Of a restored picture and of one that was kept as it is."""
    noisy(tmp_path / "restored.jpg", photos)
    clean = noisy(tmp_path / "kept.jpg", photos)
    with Image.open(photos / "coffee.png") as image, Image.open(clean) as old:
        image.save(clean, quality=97, exif=old.getexif(), xmp=old.info["xmp"])
    command = ["run", str(tmp_path), "--out", str(tmp_path / "out"), "--strip", strip, "--xmp", "--candidates", "1"]
    assert main([*command, "--no-report"]) == 0
    for name in ("restored.jpg", "kept.jpg"):
        xmp, exif, gps = metadata(tmp_path / "out" / "pictures" / name)
        assert bool(gps) == (strip == "none")
        assert (GPS in xmp) == (strip == "none")
        assert (exif.get(315) == "A. Person") == (strip != "private")
        assert exif[271] == "Maker"
        assert (KIND in xmp) == (name == "restored.jpg")
        assert 1 <= float(read_sidecar(tmp_path / "out" / "pictures" / name)["Rating"]) <= 5
