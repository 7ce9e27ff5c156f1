"""Inputs, results and pristine pictures of the commands that work on folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from restore_bridge.cli import main
from restore_bridge.cli.names import find_references
from restore_bridge.cli.watch import Settled
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
