"""The recipes that made what the package ships, in short form."""

import hashlib
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from tests.shared import need
from zoomiqa.assessors.compact.features import extract_features, viewing_copy
from zoomiqa.assessors.compact.rating import RatingModel
from zoomiqa.imaging import open_picture

ROOT = Path(__file__).resolve().parents[2]
DATA = resources.files("zoomiqa.assessors.compact") / "data"


def test_the_shipped_weights_are_those_of_their_card():
    card = json.loads((DATA / "compact_rating.json").read_text("utf-8"))
    assert hashlib.sha256((DATA / "compact_rating.npz").read_bytes()).hexdigest() == card["sha256"]
    for run in card["cross_validation"]["runs"]:
        assert run["second"]["all"]["srcc"] > run["first"]["all"]["srcc"], "a second look must help"
        assert abs(run["mean_second_minus_first"]) < 0.02, "a crop must not look worse for being a crop"


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
