"""The recipes that made what the package ships, in short form."""

import hashlib
import importlib
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.shared import need
from training.compact.agreement import by_subset
from training.compact.files import command_line
from zoomiqa.assessors.compact.features import extract_features, viewing_copy
from zoomiqa.assessors.compact.rating import RatingModel
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import open_picture

ROOT = Path(__file__).resolve().parents[2]
DATA = resources.files("zoomiqa.assessors.compact") / "data"


def test_the_shipped_weights_are_those_of_their_card():
    card = json.loads((DATA / "compact_rating.json").read_text("utf-8"))
    assert hashlib.sha256((DATA / "compact_rating.npz").read_bytes()).hexdigest() == card["sha256"]
    for run in card["cross_validation"]["runs"]:
        assert run["second"]["all"]["srcc"] > run["first"]["all"]["srcc"], "a second look must help"
        assert abs(run["mean_second_minus_first"]) < 0.02, "a crop must not look worse for being a crop"


def recipe(name):
    for package in ("torch", "lightgbm"):
        pytest.importorskip(package)
    return importlib.import_module(f"training.compact.{name}.command")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("signals", "{0}/none.json --image-root {0} --out {0}/x.npz"),
        ("signals", "{0}/few.json --image-root {0} --out {0}/x.npz"),
        ("rating", "all --annotations {0}/none.json --image-root {0} --photos {0} --work {0} --out {0}/x.onnx"),
        (
            "rating",
            "all --annotations {0}/few.json --image-root {0} --photos {0} --work {0} --out {0}/x --backbone {0}/none",
        ),
        ("restorer", "tone --photos {0} --rated {0} --run {0}/run --short"),
        ("diagnosis", "tones --photos {0} --more {0} --out {0}/out"),
        ("diagnosis", "tones --photos {0} --more {0} --out {0}/out --shorter"),
    ],
)
def test_a_recipe_fails_in_one_line(name, words, tmp_path, capsys, monkeypatch):
    (tmp_path / "few.json").write_text("[]")
    Image.fromarray(np.full((140, 140, 3), 99, np.uint8)).save(tmp_path / "00.png")
    for number in range(1, 4):
        Image.fromarray(np.full((140, 140, 3), 50 * number, np.uint8)).save(tmp_path / f"{number:02}.png")
    module = recipe(name)
    if name == "rating" and "--backbone" not in words:
        monkeypatch.setattr(module, "load_backbone", lambda file: None)
    try:
        code = module.main(words.format(tmp_path).split())
    except SystemExit as usage:
        code = usage.code
    told = capsys.readouterr()
    assert code == 2
    assert any(word in told.err for word in ("OptionInvalid", "WeightsDamaged", "did you mean --short?"))
    assert len(told.err.splitlines()) <= 2


def test_cached_features_are_of_these_photos_and_settings(tmp_path, capsys, monkeypatch):
    module = recipe("signals")

    def stop(*others):
        raise OptionInvalid("features are made")

    monkeypatch.setattr(module.table, "gather", stop)
    rows = [{"image": f"{number}.png", "gt_score": 3.0} for number in range(20)]
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(b"%d" % number)
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(rows))
    words = f"{labels} --image-root {tmp_path} --out {tmp_path}/x.npz --cache {tmp_path}/cache".split()

    def told(*more):
        assert module.main([*words, *more]) == 2
        return capsys.readouterr().err

    assert "features are made" in told()
    assert "features are made" in told("--repeats", "2")
    assert "ZIQ-301" in told("--seed", "1")
    labels.write_text(json.dumps([{**rows[0], "gt_score": 1.0}, *rows[1:]]))
    assert "scored:" in told()


@pytest.mark.parametrize("name", ["signals", "rating", "restorer", "diagnosis"])
def test_help_is_short_and_every_option_explained(name):
    page = recipe(name).build_parser().format_help()
    assert "RankIQA" not in page
    assert len(page.splitlines()) < 60


def test_scenes_stay_in_one_fold_of_the_regressor(monkeypatch):
    from training.compact.signals import measure, table

    count = 40
    rows = {name: np.zeros((count, 1)) for name in table.FIELDS}
    rows |= {"source": np.arange(count), "subset": np.array(["a", "b"] * (count // 2))}
    whole = table.Table(**rows)
    seen = []
    monkeypatch.setattr(measure, "_held_out", lambda table, photos, fold, seed: seen.append(fold) or {})
    monkeypatch.setattr(measure, "_figures", lambda *others: {})
    scenes = np.arange(count)
    scenes[0:12:2] = 0
    report, _ = measure.cross_validate(whole, [0, 1], scenes)
    assert report["scenes_kept_together"]
    assert all(len(set(fold[0:12:2].tolist())) == 1 for fold in seen)
    assert not measure.cross_validate(whole, [0])[0]["scenes_kept_together"]


def test_one_subset_is_told_once_and_few_photos_not_at_all():
    rating, subset = np.arange(10.0), np.array(["a"] * 10)
    assert set(by_subset(rating, rating, subset)) == {"all"}
    subset[6:] = "b"
    assert by_subset(rating, rating[::-1], subset) == {name: {"srcc": -1.0, "plcc": -1.0} for name in ("all", "a")}


def test_a_card_names_no_folder_of_the_machine():
    told = command_line("training.compact.x", ["all", "--photos", "/home/me/my photos", "--seed", "3", "here"])
    assert told == "python -m training.compact.x all --photos 'my photos' --seed 3 here"


@pytest.mark.slow
@pytest.mark.shared
def test_the_rating_recipe_makes_weights_that_load_and_rate(tmp_path):
    folder = need("data/BIQ2021_train_part")
    out = tmp_path / "small.npz"
    command = [
        sys.executable,
        "-m",
        "training.compact.signals",
        str(folder / "annotations.json"),
        "--image-root",
        str(folder),
        "--out",
        str(out),
        "--limit",
        "60",
        "--repeats",
        "1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "exported predictor differs" in done.stdout
    model = RatingModel.load(out)
    picture = open_picture(next(iter(sorted((folder / "images").iterdir()))))
    assert 1 <= model.first(extract_features(viewing_copy(picture.pixels))).value <= 5
