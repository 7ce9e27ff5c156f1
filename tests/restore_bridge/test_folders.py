"""Inputs, results and pristine pictures of the commands that work on folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from restore_bridge.cli import main
from restore_bridge.cli.names import find_references
from restore_bridge.cli.watch import Settled
from restore_bridge.restorers import load_restorer
from zoomiqa.imaging import save_picture
from zoomiqa.records import read_records

NOISE = np.random.default_rng(0).integers(0, 256, (64, 72, 3)).astype(np.uint8)
RUN = ("run", "--restorer", "identity", "--candidates", "1", "--no-report")
ABLATE = ("ablate", "--restorer", "classical", "--seeds", "0", "--format", "json")


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_picture(NOISE, path)


def last(folder: Path) -> dict:
    return list(read_records(folder / "records.jsonl"))[-1]


@pytest.mark.parametrize(("words", "records"), [(RUN, "records.jsonl"), (ABLATE, "ablation.jsonl")])
def test_results_are_never_inputs(words, records, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(Path("a.png"), Path("b.png"))
    command, *options = words
    sizes = []
    for given in (".", ".", "**/*.png"):
        assert main([command, given, "--out", "restored", *options]) == 0
        sizes.append(Path("restored", records).stat().st_size)
    assert len(set(sizes)) == 1
    assert "earlier results in restored are left out" in capsys.readouterr().err
    assert main([command, "restored", "--out", "restored", *options]) == 2
    assert "no picture but earlier results" in capsys.readouterr().err


def test_a_folder_may_hold_its_own_results(tmp_path):
    write(tmp_path / "a.png", tmp_path / "pictures/a.png", tmp_path / "sheets/a.png")
    files = Settled(tmp_path, 0.0, without=tmp_path)
    assert files.take(0.0) == [tmp_path / "a.png"]


def test_references_are_found_by_path_then_name_and_are_pictures(tmp_path):
    photos, pristine = tmp_path / "photos", tmp_path / "pristine"
    names = ("x/a.png", "y/a.png", "y/b.png", "c.png", "d.png")
    write(*(photos / name for name in names))
    write(*(pristine / name for name in ("x/a.jpg", "a.png", "b.png", "d.png")))
    (pristine / "c.aaa").write_bytes(b"no picture")
    paths = [photos / name for name in names]
    found = find_references(paths, [str(photos)], pristine)
    expected = {"x/a.png": "x/a.jpg", "y/b.png": "b.png", "d.png": "d.png"}
    assert found == {photos / name: pristine / other for name, other in expected.items()}
    alone = find_references(paths, [str(path) for path in paths], pristine)
    assert alone == {photos / name: pristine / other for name, other in {"y/b.png": "b.png", "d.png": "d.png"}.items()}


@pytest.mark.parametrize("words", [RUN, ABLATE])
def test_a_folder_of_references_must_exist(words, tmp_path, capsys):
    write(tmp_path / "a.png")
    command, *options = words
    out = tmp_path / "out"
    missing = str(tmp_path / "none")
    assert main([command, str(tmp_path / "a.png"), "--out", str(out), "--reference", missing, *options]) == 2
    assert "folder of references must exist" in capsys.readouterr().err
    assert not out.exists()
    assert main(["score", str(tmp_path / "a.png"), str(tmp_path / "a.png"), "--reference", missing]) == 2


def test_a_reference_that_cannot_be_opened_is_a_note(tmp_path, capsys):
    photo, pristine = tmp_path / "photos/a.png", tmp_path / "pristine/a.png"
    write(photo)
    pristine.parent.mkdir()
    pristine.write_bytes(b"no picture")
    references = ("--reference", str(pristine.parent))
    command, *options = RUN
    assert main([command, str(photo), "--out", str(tmp_path / "run"), *references, *options]) == 0
    record = last(tmp_path / "run")
    command, *options = ABLATE
    assert main([command, str(photo), "--out", str(tmp_path / "ablate"), *references, *options]) == 0
    capsys.readouterr()
    assert main(["score", str(photo.parent), str(photo.parent), *references, "--format", "json"]) == 0
    rows = [record, *read_records(tmp_path / "ablate/ablation.jsonl"), json.loads(capsys.readouterr().out)]
    assert all("reference-unusable" in [note["code"] for note in row["notes"]] for row in rows)
    assert {row["metric"] for row in record["scores"]} >= {"psnr", "ssim"}


@pytest.mark.parametrize(("words", "records"), [(RUN, "records.jsonl"), (ABLATE, "ablation.jsonl")])
def test_what_failed_is_done_again_where_asked(words, records, tmp_path, monkeypatch, capsys):
    write(tmp_path / "a.png", tmp_path / "b.png")
    command, *options = words
    line = [command, str(tmp_path), "--out", str(tmp_path / "out"), *options]
    with monkeypatch.context() as patched:
        patched.setattr(type(load_restorer(options[1])), "restore", None)
        assert main(line) == 1
    assert main(line) == 1, "failures are finished"
    assert main([*line, "--retry-failed"]) == 0
    size = (tmp_path / "out" / records).stat().st_size
    assert main([*line, "--retry-failed"]) == 0
    assert main(line) == 0, "the last record of a picture counts"
    assert (tmp_path / "out" / records).stat().st_size == size
    capsys.readouterr()
    if command == "run":
        assert main(["report", str(tmp_path / "out")]) == 0
        page = (tmp_path / "out/report.html").read_text()
        assert "2 pictures assessed" in page
        assert "failed." not in page


SUPIR = ("--restorer", "supir", "--weights")


@pytest.mark.parametrize("command", ["run", "watch", "ablate"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--restorer", "classical", "--scale", "2"), "has no scale 2"),
        (("--restorer", "sdxl-tile", "--weights", "./none"), "no folder of weights"),
        (("--restorer", "sdxl-tile", "--weights", "a.png"), "must be a folder"),
        (("--restorer", "sdxl-tile", "--restorer-option", "controlnet=./none"), "no folder of weights"),
        (("--restorer", "dreamclear", "--weights", "none.pth"), "no folder of weights"),
        (("--restorer", "supir"), "not fetched unasked"),
        ((*SUPIR, "owner/name"), "forbids some uses"),
        ((*SUPIR, "none.safetensors", "--restorer-option", "accept_licence=true"), "no folder of weights"),
        ((*SUPIR, "a.png", "--restorer-option", "accept_licence=true"), "not weights"),
    ],
)
def test_what_can_do_no_picture_is_said_once_before_any(command, options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(Path("a.png"))
    assert main([command, ".", "--out", "out", *options, *(["--once"] if command == "watch" else [])]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("ZIQ-") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize("quality", ["0", "101"])
def test_a_quality_out_of_range(quality, tmp_path, capsys):
    write(tmp_path / "a.png")
    command, *options = RUN
    assert main([command, str(tmp_path), "--out", str(tmp_path / "out"), "--quality", quality, *options]) == 2
    assert "--quality must lie in 1..100" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_plan_of_a_scale_that_is_not_there(tmp_path, capsys):
    write(tmp_path / "a.png")
    assert main(["plan", str(tmp_path / "a.png"), "--scale", "2"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "'compact' has no scale 2" in err
