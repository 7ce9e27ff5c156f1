"""Exposure and cast by what a picture shows, read beside what is measured."""

import hashlib
import json
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from zoomiqa.assessors.compact import tones as room
from zoomiqa.assessors.compact.diagnosis import diagnose
from zoomiqa.assessors.compact.features import viewing_copy
from zoomiqa.assessors.compact.network import SHOWN, WEIGHTS, shipped_network
from zoomiqa.assessors.compact.raters import NetworkRater, SignalsRater
from zoomiqa.imaging.distortions import distort
from zoomiqa.imaging.signals import SIGNALS, Signals, measure
from zoomiqa.vocabulary import Flaw

DATA = resources.files("zoomiqa.assessors.compact") / "data"
PHOTOS = [np.ascontiguousarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")]


@pytest.fixture(scope="module")
def network():
    return shipped_network()


def test_the_shipped_networks_are_those_of_their_card_and_read_the_shipped_rating_network():
    card = json.loads((DATA / "tones.json").read_text("utf-8"))
    stored = (DATA / "tones.npz").read_bytes()
    assert hashlib.sha256(stored).hexdigest() == card["sha256"]
    assert len(stored) == card["bytes"]
    assert card["reads"] == {WEIGHTS: hashlib.sha256((DATA / WEIGHTS).read_bytes()).hexdigest()}
    alone, both = (card["beyond_the_limit"][name] for name in ("measured alone", "both"))
    for change in ("color_cast", "overexposure"):
        found = [np.mean([shares[f"{change} {severity}"] for severity in (2, 3, 4, 5)]) for shares in (alone, both)]
        assert found[1] > found[0] + 0.03, "else measurement would do"
        untouched = f"untouched, taken for {change}"
        assert both[untouched] <= alone[untouched] + 0.02, "the limits are chosen for that"


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (64, 64), (130, 333), (700, 1)])
def test_every_size_can_be_read(network, shape):
    found = room.tones(network, np.full((*shape, 3), 120, np.uint8))
    assert np.isfinite(found["exposure"])
    assert (found["cast"] is None) == (shape[0] * shape[1] < 100)
    assert network.shown(np.full((*shape, 3), 120, np.uint8)).shape == (SHOWN,)


def test_black_and_white_frames_have_an_exposure_and_no_cast(network):
    for level in (0, 255):
        found = room.tones(network, np.full((90, 120, 3), level, np.uint8))
        assert found["cast"] is None
        assert found["cast_hue"] is None
        assert abs(found["exposure"]) <= 6


@pytest.mark.parametrize("photo", PHOTOS, ids=("astronaut", "coffee", "chelsea", "rocket"))
def test_estimates_follow_what_was_done(network, photo):
    stops = [room.tones(network, distort(photo, name, 4).pixels)["exposure"] for name in ("low_light", "overexposure")]
    clean = room.tones(network, photo)
    assert stops[0] < clean["exposure"] < stops[1]
    casts = [room.tones(network, distort(photo, "color_cast", severity, 1).pixels)["cast"] for severity in (3, 5)]
    assert clean["cast"] < casts[0] < casts[1]


def test_the_rater_tells_tones_only_where_it_has_a_network(network):
    view = viewing_copy(PHOTOS[0])
    assert SignalsRater().tones(view) == {}
    assert NetworkRater().tones(view) == room.tones(network, view)
    measured = measure(view)
    assert set(NetworkRater().tones(view)) <= set(measured.values)


def test_a_limit_of_its_own_is_used_and_stated():
    values = dict.fromkeys(SIGNALS) | {"exposure": 1.3, "saturation_p95": 30.0, "cast": 28.0, "cast_hue": 100.0}
    signals = Signals((300, 200), 0.5, values)
    assert diagnose(signals) == ()
    found = {finding.flaw: finding for finding in diagnose(signals, limits=room.limits())}
    assert set(found) == {Flaw.OVEREXPOSURE, Flaw.COLOR_CAST}
    assert found[Flaw.COLOR_CAST].limit == pytest.approx(room.limits()["cast"])
    assert SignalsRater().limits == {}
    assert NetworkRater().limits == room.limits()


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.floats(-3, 3), min_size=3, max_size=3)] * 2)
def test_both_estimates_count_the_same(seen, measured):
    cast, stops = room.combined(np.array(seen), np.array(measured))
    assert np.append(cast, stops) == pytest.approx((np.array(seen) + measured) / 2)
    assert room.combined(np.array(measured), np.array(seen))[1] == stops
