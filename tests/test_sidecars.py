"""XMP sidecars beside photographs."""

import json
from pathlib import Path

import pytest

from zoomiqa import assess, open_picture
from zoomiqa.cli import main
from zoomiqa.errors import OptionInvalid, OutputFailed, OutputWouldOverwrite
from zoomiqa.sidecars import read_sidecar, sidecar_path, write_sidecar
from zoomiqa.types import Assessment
from zoomiqa.xmp import BASIC, Name, Property, merge, read

STARS = Name(BASIC, "Rating")


@pytest.fixture(scope="module")
def assessment(photos: Path) -> Assessment:
    return assess(photos / "coffee.png")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The sidecar's room looks at names only."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"")
    return path


def test_what_a_sidecar_says(assessment: Assessment, photo: Path) -> None:
    assert read_sidecar(photo) is None
    assert write_sidecar(assessment, photo) == photo.with_name("photo.jpg.xmp") == sidecar_path(photo)
    said = read_sidecar(photo)
    assert said is not None
    assert said["Rating"] == f"{assessment.rating:.2f}"
    assert said["Directions"] == assessment.positive
    assert said["Issues"] == assessment.negative
    assert [0 <= float(corner) <= 1 for corner in said["Box"]] == [True] * 4
    assert "stars" not in said


def test_stars_are_the_photographers(assessment: Assessment, photo: Path) -> None:
    sidecar_path(photo).write_bytes(merge(None, [Property(STARS, "1")]))
    write_sidecar(assessment, photo)
    assert read_sidecar(photo)["stars"] == "1"
    write_sidecar(assessment, photo, stars=True)
    assert read_sidecar(photo)["stars"] == str(int(assessment.rating + 0.5))


def test_a_second_assessment_replaces_the_first(assessment: Assessment, photo: Path) -> None:
    write_sidecar(assessment, photo, stars=True)
    first = sidecar_path(photo).read_bytes()
    write_sidecar(assessment, photo, stars=True)
    assert read(sidecar_path(photo).read_bytes()) == read(first)
    assert sidecar_path(photo).read_bytes().count(b"<zoomiqa:Rating>") == 1


def test_adobes_name_is_read_and_left_alone(assessment: Assessment, photo: Path) -> None:
    adobe = photo.with_suffix(".xmp")
    adobe.write_bytes(merge(None, [Property(STARS, "5")]))
    before = adobe.read_bytes()
    write_sidecar(assessment, photo)
    assert read_sidecar(photo)["stars"] == "5"
    assert adobe.read_bytes() == before


def test_a_raw_files_sidecar_is_not_the_jpegs(assessment: Assessment, photo: Path) -> None:
    photo.with_suffix(".NEF").write_bytes(b"")
    photo.with_suffix(".xmp").write_bytes(merge(None, [Property(STARS, "5")]))
    write_sidecar(assessment, photo)
    assert "stars" not in read_sidecar(photo)


def test_an_unreadable_sidecar_is_left_alone(assessment: Assessment, photo: Path) -> None:
    sidecar_path(photo).write_bytes(b"<broken")
    with pytest.raises(OutputWouldOverwrite, match="move it away"):
        write_sidecar(assessment, photo)
    assert sidecar_path(photo).read_bytes() == b"<broken"


def test_a_failed_assessment_has_none(photo: Path) -> None:
    with pytest.raises(OptionInvalid, match="needs a rating"):
        write_sidecar(Assessment(rounds=(), rating=None, error={"code": "ZIQ-401", "message": "x"}), photo)


def test_a_name_that_leaves_no_room_for_the_sidecars_ending(assessment: Assessment, tmp_path: Path) -> None:
    photo = tmp_path / ("x" * 251 + ".jpg")
    assert read_sidecar(photo) is None
    with pytest.raises(OutputFailed, match="name is too long"):
        write_sidecar(assessment, photo)


def test_resume_writes_the_sidecars_that_are_missing(photos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "r.jsonl"
    folder.mkdir()
    names = ("chelsea.png", "coffee.png", "astronaut.png")
    for name in names:
        (folder / name).write_bytes((photos / name).read_bytes())
    (folder / "broken.png").write_bytes(b"x")
    run = ["assess", str(folder), "--out", str(out), "--jobs", "1", "--attributes"]
    assert main([*run, "--xmp"]) == 1
    fresh = {name: sidecar_path(folder / name).read_bytes() for name in names}
    sidecar_path(folder / names[0]).unlink()
    sidecar_path(folder / names[1]).write_bytes(merge(None, [Property(STARS, "1")]))
    assert main([*run, "--xmp", "--resume"]) == 1
    assert sidecar_path(folder / names[0]).read_bytes() == fresh[names[0]]
    ours = {name.local: value for name, value in read(fresh[names[1]]).items()}
    assert read_sidecar(folder / names[1]) == {**ours, "stars": "1"}
    assert sidecar_path(folder / names[2]).read_bytes() == fresh[names[2]]
    assert main([*run, "--xmp-rating", "--resume"]) == 1
    assert read_sidecar(folder / names[2])["stars"] in set("12345")
    assert read_sidecar(folder / names[1])["stars"] == "1", "set by hand, and ours is there"
    assert not sidecar_path(folder / "broken.png").exists()


def test_assess_writes_sidecars(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("coffee.png", "chelsea.png"):
        (tmp_path / name).write_bytes((photos / name).read_bytes())
    (tmp_path / "chelsea.png.xmp").write_bytes(b"<broken")
    assert main(["assess", str(tmp_path), "--xmp-rating", "--format", "json", "--jobs", "1"]) == 1
    out, err = capfd.readouterr()
    records = {Path(record["image"]["path"]).name: record for record in map(json.loads, out.splitlines())}
    assert len(records) == 2
    assert read_sidecar(tmp_path / "coffee.png")["Rating"] == f"{records['coffee.png']['rating']:.2f}"
    assert "no sidecar for" in err
    assert "ZIQ-601" in err


def test_a_sidecar_is_no_picture(photos: Path, tmp_path: Path, assessment: Assessment) -> None:
    """A folder with sidecars is found to hold its pictures only."""
    from zoomiqa.imaging import find_pictures

    target = tmp_path / "coffee.png"
    target.write_bytes((photos / "coffee.png").read_bytes())
    write_sidecar(assessment, target)
    assert find_pictures([str(tmp_path)]) == [target]
    assert open_picture(target).metadata.xmp is None
