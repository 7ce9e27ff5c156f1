"""Known distortions: documented, seeded, stronger with severity, and kept inside their box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from zoomiqa.errors import ImageValuesInvalid, OptionInvalid
from zoomiqa.imaging.distortions import DISTORTIONS, HUES, SEVERITIES, distort, soft_mask
from zoomiqa.vocabulary import Flaw

COFFEE = np.ascontiguousarray(data.coffee()[:200, :300])


def test_every_distortion_names_a_flaw_and_five_parameters():
    for name, entry in DISTORTIONS.items():
        assert entry.name == name
        assert isinstance(entry.flaw, Flaw)
        assert len(entry.parameters) == len(SEVERITIES)
        ordered = list(entry.parameters)
        assert ordered in (sorted(ordered), sorted(ordered, reverse=True)), name
        assert len(set(ordered)) == 5
        assert entry.operation.__doc__


def test_every_flaw_has_a_distortion():
    assert {entry.flaw for entry in DISTORTIONS.values()} == set(Flaw)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_error_grows_with_severity(name):
    errors = [
        np.abs(distort(COFFEE, name, severity, seed=3).pixels.astype(float) - COFFEE).mean() for severity in SEVERITIES
    ]
    # The angle and the hue are the seed's, so that only the severity differs.
    assert errors == sorted(errors), errors
    assert errors[0] > 0


@pytest.mark.parametrize("name", DISTORTIONS)
def test_same_seed_same_bytes(name):
    one, two = distort(COFFEE, name, 3, seed=11), distort(COFFEE, name, 3, seed=11)
    assert np.array_equal(one.pixels, two.pixels)
    assert one.detail == two.detail


@pytest.mark.parametrize("name", DISTORTIONS)
def test_outside_the_box_nothing_changes(name):
    box = (0.25, 0.25, 0.75, 0.75)
    result = distort(COFFEE, name, 5, seed=1, box_fraction=box)
    outside = result.mask == 0
    assert outside.mean() > 0.6
    assert np.array_equal(result.pixels[outside], COFFEE[outside])
    assert result.box_fraction == box
    assert (result.pixels != COFFEE).any()


def test_whole_frame_mask_is_one_everywhere():
    assert (distort(COFFEE, "gaussian_blur", 1).mask == 1).all()


def test_mask_is_soft_and_monotone():
    mask = soft_mask((100, 100), (0.2, 0.2, 0.8, 0.8))
    middle = mask[50]
    assert middle[50] == 1
    assert middle[5] == 0
    assert ((middle > 0) & (middle < 1)).any()
    assert (np.diff(middle[:50]) >= 0).all()


def test_color_cast_moves_towards_its_hue():
    grey = np.full((64, 64, 3), 128, np.uint8)
    seen = set()
    for seed in range(40):
        result = distort(grey, "color_cast", 4, seed=seed)
        red, green, blue = (int(v) for v in result.pixels[0, 0])
        seen.add(result.detail)
        if result.detail == "red":
            assert red > green
            assert red > blue
        elif result.detail == "yellow":
            assert min(red, green) > blue
        elif result.detail == "cyan":
            assert min(green, blue) > red
    assert seen == set(HUES)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(DISTORTIONS)),
    st.integers(1, 5),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 2**31),
)
def test_any_size_works(name, severity, height, width, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    result = distort(rgb, name, severity, seed)
    assert result.pixels.shape == rgb.shape
    assert result.pixels.dtype == np.uint8
    assert result.mask.shape == rgb.shape[:2]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": "rust", "severity": 1}, OptionInvalid),
        ({"name": "jpeg", "severity": 0}, OptionInvalid),
        ({"name": "jpeg", "severity": 6}, OptionInvalid),
        ({"name": "jpeg", "severity": 1, "box_fraction": (0.5, 0, 0.5, 1)}, OptionInvalid),
        ({"name": "jpeg", "severity": 1, "box_fraction": (0, 0, 1.5, 1)}, OptionInvalid),
    ],
)
def test_wrong_options_are_refused(arguments, error):
    with pytest.raises(error):
        distort(COFFEE, **arguments)


def test_wrong_arrays_are_refused():
    for bad in (COFFEE.astype(np.float32), COFFEE[..., 0], np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageValuesInvalid):
            distort(bad, "jpeg", 1)
