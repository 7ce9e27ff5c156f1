"""The fits of the compact diagnosis, in short form."""

import hashlib
import json
from importlib import resources

import numpy as np
import pytest

from tests.shared import need
from training.compact.diagnosis import command, exposure, tones
from training.compact.diagnosis.places import logistic
from training.compact.photos import FIT, clean_photos
from zoomiqa.assessors.compact.diagnosis import RULES
from zoomiqa.assessors.compact.tones import LIMITED
from zoomiqa.imaging.signals.exposure import FEATURES, features, stops_of

DATA = resources.files("zoomiqa.imaging.signals") / "data"


def test_the_shipped_arrays_are_those_of_their_card():
    card = json.loads((DATA / "card.json").read_text("utf-8"))
    assert set(card["files"]) == {"color_light.npz", "exposure.npz"}
    for name, entry in card["files"].items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == entry["sha256"]
    assert set(card["data"]) == {"photos", "more", "camera"}
    in_sample = card["figures"]["exposure_beyond_its_limit"]["photos"]
    assert in_sample["accused"] < 0.05


def test_the_logistic_fit_finds_a_known_plane():
    rng = np.random.default_rng(0)
    cues = rng.normal(size=(4000, 2)) * (1.0, 5.0)
    chance = 1 / (1 + np.exp(-(0.5 + 2 * cues[:, 0] - 0.4 * cues[:, 1])))
    found = logistic(cues, rng.random(4000) < chance)
    assert found == pytest.approx((0.5, 2.0, -0.4), rel=0.15)


def test_exposed_curves_have_their_stops():
    rng = np.random.default_rng(3)
    grey = np.full((40, 40, 3), 120, np.uint8)
    seen = set()
    for _ in range(40):
        curves, stops = exposure.exposed(exposure.identity(), rng)
        level = exposure.applied(grey, curves).mean()
        assert (level > 121) == (stops > 0)
        assert (level < 119) == (stops < 0)
        seen.add(np.sign(stops))
    assert seen == {-1, 0, 1}


@pytest.mark.shared
def test_exposure_can_be_fitted_and_read(tmp_path):
    clean, more = need("data/photos"), need("data/BIQ2021_train_part/images")
    arguments = ["exposure", "--photos", str(clean), "--more", str(more), "--out", str(tmp_path), "--short"]
    assert command.main(arguments) == 0
    with np.load(tmp_path / "exposure.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name].astype(np.float32) for name in archive.files}
    read = features(np.full((90, 144, 3), 90, np.uint8))
    assert read.shape == (FEATURES,)
    assert np.isfinite(stops_of(arrays, read))


@pytest.mark.shared
def test_only_odd_photographs_are_fitted_on():
    names = [path.name for path in clean_photos(need("data/photos"), FIT)]
    assert "01.png" in names
    assert "02.png" not in names
    assert len(names) == 112


def test_as_many_pass_the_new_limits_as_the_old_ones():
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(4000, 3)) * (0.2, 0.2, 0.8)
    found = dict(zip(LIMITED, tones.limits_for(0.7 * measured, measured), strict=True))
    assert found == {name: pytest.approx(0.7 * RULES[name].limit, rel=0.02) for name in LIMITED}


def test_spoiled_pictures_have_the_stops_and_the_cast_that_were_put_on():
    grey, rng = np.full((96, 120, 3), 110, np.uint8), np.random.default_rng(5)
    for _ in range(60):
        part, truth = tones.spoiled(grey, 0.0, rng)
        assert min(part.shape[:2]) >= 0.6 * 96
        spread = np.ptp(part.mean((0, 1)))
        if np.hypot(*truth[:2]) > 0.3 and 20 < part.mean() < 235:
            assert spread > 3
        if not truth[:2].any():
            assert spread < 4


@pytest.mark.shared
def test_tones_can_be_fitted_and_read(tmp_path):
    clean, more = need("data/photos"), need("data/BIQ2021_train_part/images")
    arguments = ["tones", "--photos", str(clean), "--more", str(more), "--out", str(tmp_path), "--short"]
    assert command.main(arguments) == 0
    card = json.loads((tmp_path / "tones.json").read_text("utf-8"))
    assert card["sha256"] == hashlib.sha256((tmp_path / "tones.npz").read_bytes()).hexdigest()
    assert set(card["beyond_the_limit"]) == {"measured alone", "both"}
    assert card["made_by"].endswith("diagnosis tones --photos photos --more images --out " + tmp_path.name + " --short")
