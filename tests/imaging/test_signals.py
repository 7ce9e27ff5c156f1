"""Measured signals: defined for every picture, in their range, and true to known pictures."""

import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from zoomiqa.errors import ImageValuesInvalid, OptionInvalid
from zoomiqa.imaging.distortions import distort
from zoomiqa.imaging.signals import SIGNALS, hints, hue_name, measure
from zoomiqa.imaging.signals.canvas import FULL_LIMIT_PX, TILE_PX, canvas_of, reduced
from zoomiqa.imaging.signals.color import cast_of_gains, hasler_colorfulness, measure_color
from zoomiqa.imaging.signals.exposure import MOST_STOPS, features, measure_exposure
from zoomiqa.imaging.signals.exposure import weights as exposure_weights
from zoomiqa.imaging.signals.light import weights
from zoomiqa.imaging.signals.noise import chen_sigma

SHARED = Path(os.environ.get("ZOOMIQA_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
KODAK = SHARED / "data/photos/Kodak24"
needs_kodak = pytest.mark.skipif(not KODAK.is_dir(), reason=f"no photographs at {KODAK}")

PHOTOS = {
    "astronaut": data.astronaut(),
    "coffee": data.coffee(),
    "chelsea": data.chelsea(),
    "rocket": data.rocket(),
}


def check(signals):
    assert set(signals.values) == set(SIGNALS)
    for name, value in signals.values.items():
        info = SIGNALS[name]
        assert value is None or (math.isfinite(value) and info.low - 1e-6 <= value <= info.high + 1e-6), (name, value)
        if info.is_native and not signals.is_native:
            assert value is None
            assert signals.map(name) is None
        cells = signals.map(name)
        assert cells is None or (cells.ndim == 2 and info.has_map)
    assert set(signals.maps) <= set(SIGNALS)
    assert set(signals.to_dict()["values"]) == set(SIGNALS)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["noise", "flat", "black", "white", "ramp", "checker"]),
    st.sampled_from([1.0, 0.5]),
    st.integers(0, 1000),
)
def test_every_shape_is_defined(height, width, kind, scale, seed):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    rgb = {
        "noise": rng.integers(0, 256, (height, width, 3)),
        "flat": np.broadcast_to(rng.integers(0, 256, 3), (height, width, 3)),
        "black": np.zeros((height, width, 3)),
        "white": np.full((height, width, 3), 255),
        "ramp": np.repeat(((rows + columns) % 256)[..., None], 3, 2),
        "checker": np.repeat((((rows + columns) % 2) * 255)[..., None], 3, 2),
    }[kind].astype(np.uint8)
    check(measure(rgb, scale=scale))
    found = hints(rgb)
    assert all(math.isfinite(v) for v in (found.brightness, found.contrast, found.colorfulness, found.sharpness))


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs_are_defined_at_both_scales(name):
    rgb = np.ascontiguousarray(PHOTOS[name][:256, :320])
    check(measure(rgb))
    check(measure(rgb[::2, ::2], scale=0.5))


def test_measuring_twice_is_the_same_and_leaves_the_picture_alone():
    original = data.astronaut()[:256, :256]
    rgb = original.copy()
    rgb.setflags(write=False)
    one, two = measure(rgb), measure(rgb)
    assert one.to_dict() == two.to_dict()
    assert np.array_equal(rgb, original)


@pytest.mark.parametrize("sigma", [3, 5, 10, 20, 35])
def test_noise_is_read_in_levels(sigma):
    rng = np.random.default_rng(sigma)
    flat = np.clip(np.round(128 + rng.standard_normal((256, 256, 3)) * sigma), 0, 255).astype(np.uint8)
    found = measure(flat)
    assert found.value("noise_sigma") == pytest.approx(sigma, rel=0.08)
    assert found.value("chroma_noise_sigma") == pytest.approx(sigma, rel=0.08)
    # A cell holds few patches, whose eigenvalues scatter: it reads about 15 % low.
    assert np.nanmedian(found.map("noise_sigma")) == pytest.approx(0.85 * sigma, rel=0.12)


def test_chen_on_a_plain_plane_is_zero_and_needs_sixteen_pixels():
    assert chen_sigma(np.full((64, 64), 7, np.float32)) == 0
    assert chen_sigma(np.zeros((15, 64), np.float32)) is None


def test_noise_does_not_read_as_sharpness():
    blurred = distort(data.astronaut(), "gaussian_blur", 4).pixels
    noisy = distort(blurred, "gaussian_noise", 2, seed=1).pixels
    clean = measure(data.astronaut())
    for rgb in (blurred, noisy):
        found = measure(rgb)
        assert found.value("resolution") < 0.6 * clean.value("resolution")
        assert found.value("edge_sigma_median") is None or found.value("edge_sigma_median") > 1


@pytest.mark.parametrize(
    ("distortion", "signal", "rises"),
    [
        ("gaussian_blur", "resolution", False),
        ("gaussian_blur", "edge_sigma_median", True),
        ("gaussian_noise", "noise_sigma", True),
        ("camera_noise", "chroma_noise_sigma", True),
        ("jpeg", "blocking", True),
        ("low_light", "luma_p99", False),
        ("low_light", "exposure", False),
        ("overexposure", "brightness", True),
        ("overexposure", "exposure", True),
        ("low_contrast", "contrast_range", False),
        ("haze", "haze", True),
        ("desaturation", "colorfulness", False),
        ("oversaturation", "colorfulness", True),
    ],
)
@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
def test_signals_follow_severity(distortion, signal, rises, photo):
    rgb = np.ascontiguousarray(PHOTOS[photo][60:316, 60:380])
    values = [measure(distort(rgb, distortion, severity, seed=5).pixels).value(signal) for severity in (1, 3, 5)]
    assert all(value is not None for value in values)
    assert values == sorted(values, reverse=not rises), values


def test_cast_follows_severity_away_from_the_scenes_own_tint():
    rgb = reduced(data.astronaut(), 144)
    for seed in range(4):
        values = [measure_color(distort(rgb, "color_cast", s, seed=seed).pixels)["cast"] for s in range(1, 6)]
        assert values == sorted(values)


def test_a_gain_on_two_channels_is_a_cast_and_a_grey_picture_has_none():
    rgb = reduced(data.coffee(), 144)
    warm = measure_color(np.clip(rgb * np.array([1.4, 1.0, 0.65]), 0, 255).astype(np.uint8))
    assert warm["cast"] > 20
    assert hue_name(warm["cast_hue"]) in ("red", "orange", "yellow")
    grey = measure_color(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2))
    assert grey["cast"] < 5


def test_the_light_needs_usable_pixels():
    for level in (0, 255):
        assert measure_color(np.full((64, 64, 3), level, np.uint8))["cast"] is None
    assert measure_color(np.full((9, 9, 3), 127, np.uint8))["cast"] is None


def test_gains_have_a_strength_and_a_hue():
    assert cast_of_gains(np.zeros(3))[0] == 0
    strength, hue = cast_of_gains(np.array([-0.2, 0.4, -0.2]))
    assert strength == pytest.approx(100 * 0.24**0.5)
    assert hue_name(hue) == "green"
    strength, hue = cast_of_gains(np.array([0.4, 0.0, -0.4]))
    assert strength == pytest.approx(70 * 0.32**0.5)
    assert hue_name(hue) == "orange"


def test_the_lights_weights_are_small_and_finite():
    for arrays, most in ((weights(), 200_000), (exposure_weights(), 20_000)):
        assert sum(array.size for array in arrays.values()) < most
        assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("name", PHOTOS)
def test_untouched_photographs_have_no_stops_to_gain(name):
    found = measure_exposure(reduced(PHOTOS[name], 144))["exposure"]
    assert abs(found) < 0.9


def test_exposure_is_defined_at_the_ends():
    for level in (0, 1, 128, 255):
        rgb = np.full((5, 7, 3), level, np.uint8)
        assert np.isfinite(features(rgb)).all()
        assert abs(measure_exposure(rgb)["exposure"]) <= MOST_STOPS


def test_a_flat_or_veiled_picture_is_not_misexposed():
    for distortion in ("low_contrast", "haze"):
        rgb = distort(reduced(PHOTOS["coffee"], 144), distortion, 3).pixels
        assert abs(measure_exposure(rgb)["exposure"]) < 0.9


@pytest.mark.parametrize("sigma", [1.5, 2.5, 4.0])
def test_edge_width_is_in_pixels(sigma):
    step = np.where(np.arange(256) < 128, 60.0, 190.0)
    plane = cv2.GaussianBlur(np.tile(step, (256, 1)), (0, 0), sigma)
    found = measure(np.repeat(np.round(plane).astype(np.uint8)[..., None], 3, 2))
    assert found.value("edge_sigma") == pytest.approx(sigma, rel=0.12)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (3, 5), (7, 1), (4, 4)])
def test_blocking_is_found_at_any_phase(dy, dx):
    rgb = distort(data.coffee(), "jpeg", 4).pixels
    found = measure(np.ascontiguousarray(rgb[dy : dy + 320, dx : dx + 480]))
    assert found.value("blocking") > 0.4
    assert found.value("grid_zeroed") > 0.1
    assert measure(data.coffee()).value("blocking") < 0.15


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_motion_takes_resolution_in_one_direction(seed):
    result = distort(data.astronaut(), "motion_blur", 3, seed=seed)
    found = measure(result.pixels)
    angle = float(result.detail.rstrip("°"))
    away = abs((found.value("resolution_angle") - angle + 90) % 180 - 90)
    assert away <= 34  # eight directions, and neighbours are joined
    assert found.value("resolution_least") < 0.64 * found.value("resolution")


def test_enlarging_leaves_a_trace():
    found = measure(distort(data.astronaut(), "low_resolution", 4).pixels)
    assert found.value("interpolation") > 6
    assert found.value("resolution") < 0.45


def test_banding_counts_steps():
    ramp = np.repeat(np.repeat(np.linspace(20, 230, 512)[None], 256, 0)[..., None], 3, 2)
    assert measure(np.round(ramp).astype(np.uint8)).value("banding") == 0
    assert measure((np.round(ramp / 16) * 16).astype(np.uint8)).value("banding") > 0.5


def test_colorfulness_is_haslers():
    assert hasler_colorfulness(np.full((8, 8, 3), 77, np.uint8)) == 0
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[0] = (255, 0, 0)
    # rg = 255, 0: mean 127.5, deviation 127.5; yb = 127.5, 0: mean 63.75, deviation 63.75
    assert hasler_colorfulness(rgb) == pytest.approx(math.hypot(127.5, 63.75) * 1.3)


@pytest.mark.parametrize(
    ("degrees", "name"),
    [
        (0, "red"),
        (40, "red"),
        (65, "orange"),
        (107, "yellow"),
        (142, "green"),
        (198, "cyan"),
        (294, "blue"),
        (326, "magenta"),
        (359, "red"),
    ],
)
def test_hues_have_names(degrees, name):
    assert hue_name(degrees) == name
    assert hue_name(degrees + 360) == name


def test_a_dominant_colour_is_less_than_a_cast():
    """A green field before grey stones is no cast; the same scene under green light is one."""
    rng = np.random.default_rng(0)
    scene = rng.integers(60, 200, (192, 256, 1)).repeat(3, 2).astype(np.uint8)
    scene = cv2.GaussianBlur(scene, (0, 0), 3)
    scene[:, :120] = (scene[:, :120] * np.array([0.5, 0.9, 0.35])).astype(np.uint8)
    scene[:20, -20:] = 250
    lit = np.clip(scene * np.array([0.7, 1.05, 0.7]), 0, 255).astype(np.uint8)
    assert measure(lit).value("cast") > 1.5 * measure(scene).value("cast")


def test_hints_are_what_they_say():
    grey = hints(np.full((16, 16, 3), 51, np.uint8))
    assert grey.brightness == pytest.approx(0.2, abs=1e-3)
    assert (grey.contrast, grey.colorfulness, grey.sharpness) == (0, 0, 0)
    checker = np.indices((16, 16)).sum(0) % 2 * 255
    found = hints(np.repeat(checker[..., None], 3, 2).astype(np.uint8))
    assert found.contrast == pytest.approx(0.5, abs=1e-2)
    assert found.sharpness > hints(cv2.GaussianBlur(data.coffee(), (0, 0), 2)).sharpness


def test_large_pictures_are_measured_on_native_tiles():
    rng = np.random.default_rng(1)
    large = np.clip(np.round(120 + 8 * rng.standard_normal((1400, 2000, 3))), 0, 255).astype(np.uint8)
    canvas = canvas_of(large)
    assert large.shape[0] * large.shape[1] > FULL_LIMIT_PX
    assert canvas.is_tiled
    assert canvas.luma.shape[0] % TILE_PX == 0
    assert measure(large).value("noise_sigma") == pytest.approx(8, rel=0.08)


def test_the_grid_survives_tiling():
    coffee = distort(data.coffee(), "jpeg", 4).pixels
    large = np.tile(coffee, (4, 4, 1))[3:, 5:]
    assert canvas_of(large).is_tiled
    assert measure(large).value("blocking") > 0.4


@pytest.mark.parametrize("shape", [(20, 80_000), (80_000, 20)])
def test_long_strips_are_measured(shape):
    check(measure(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)))


def test_wrong_input_is_refused():
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageValuesInvalid):
            measure(bad)
        with pytest.raises(ImageValuesInvalid):
            hints(bad)
    for scale in (0, -1, 1.5, math.nan):
        with pytest.raises(OptionInvalid):
            measure(np.zeros((4, 4, 3), np.uint8), scale=scale)
    with pytest.raises(KeyError):
        measure(np.zeros((4, 4, 3), np.uint8)).value("rust")


def test_cost_stays_bounded():
    """A loose bound, for shared machines: the budget is 45 ms of one core."""
    rgb = np.ascontiguousarray(data.astronaut()[:384])
    costs = []
    for _ in range(3):
        start = time.perf_counter()
        measure(rgb)
        costs.append(time.perf_counter() - start)
    assert min(costs) < 2


@pytest.mark.shared
@needs_kodak
@pytest.mark.parametrize("sigma", [5, 20])
def test_noise_on_kodak(sigma):
    found = []
    for path in sorted(KODAK.glob("*.png"))[::8]:
        with Image.open(path) as opened:
            rgb = np.asarray(opened.convert("RGB"))[:384, :384]
        noise = np.random.default_rng(sigma).standard_normal(rgb.shape) * sigma
        found.append(measure(np.clip(np.round(rgb + noise), 0, 255).astype(np.uint8)).value("chroma_noise_sigma"))
    assert np.mean(found) == pytest.approx(sigma, rel=0.06)
