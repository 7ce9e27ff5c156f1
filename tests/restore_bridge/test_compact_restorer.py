"""The compact restorer: does what it is told, where it is told, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from restore_bridge.actions import plan_actions
from restore_bridge.guidance import Guidance, split_text
from restore_bridge.restorers import RestoreSettings, load_restorer
from restore_bridge.restorers.compact.condition import CHANNELS, condition_maps
from restore_bridge.restorers.compact.networks import Networks, packaged
from restore_bridge.scoring import psnr
from zoomiqa.imaging.distortions import DISTORTIONS, distort
from zoomiqa.imaging.picture import picture_from_array


def scene(height=192, width=240, seed=3):
    """Something like a photograph: soft gradients, edges of many sizes, and a little texture."""
    import cv2

    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    pixels += np.linspace(70, 190, width)[None, :, None] + np.linspace(-20, 30, height)[:, None, None]
    for _ in range(40):
        x, y, radius = int(rng.integers(width)), int(rng.integers(height)), int(rng.integers(4, 32))
        colour = tuple(float(value) for value in rng.uniform(20, 240, 3))
        cv2.circle(pixels, (x, y), radius, colour, -1, lineType=cv2.LINE_AA)
    texture = cv2.GaussianBlur(rng.normal(0, 30, (height, width)).astype(np.float32), (0, 0), 1.2)
    return np.clip(cv2.GaussianBlur(pixels, (0, 0), 0.6) + texture[:, :, None], 0, 255).astype(np.uint8)


def spoiled(name, parameter, clean, seed=5):
    changed, _ = DISTORTIONS[name].operation(clean, parameter, np.random.default_rng(seed))
    return picture_from_array(np.clip(np.rint(changed), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def compact():
    return load_restorer("compact")


@pytest.fixture(scope="module")
def clean():
    return scene()


@pytest.mark.parametrize(
    "guidance",
    [Guidance(), split_text(None, None), split_text("A better, more beautiful photo.", "No noise. No blur.")],
    ids=["empty", "defaults", "wishes"],
)
def test_told_nothing_it_changes_nothing(compact, clean, guidance):
    picture = spoiled("gaussian_noise", 25, clean)
    result = compact.restore(picture, guidance)
    assert result.picture.pixels.tobytes() == picture.pixels.tobytes()
    assert result.notes[0].code == "compact-nothing-asked"
    assert not result.steps


@pytest.mark.parametrize(
    ("name", "parameter", "words", "least"),
    [
        ("gaussian_noise", 25, "Severe noise.", 4.0),
        ("gaussian_noise", 12, "Slight grain.", 2.5),
        ("gaussian_blur", 1.3, "Slight blur.", 0.5),
        ("jpeg", 18, "JPEG artifacts.", 0.2),
        ("low_light", 0.2, "Underexposure.", 5.0),
    ],
)
def test_does_what_is_named(compact, clean, name, parameter, words, least):
    picture = spoiled(name, parameter, clean)
    result = compact.restore(picture, split_text(None, words)).picture
    assert psnr(result.pixels, clean) > psnr(picture.pixels, clean) + least


@pytest.mark.parametrize("words", ["Blur.", "Motion blur.", "Compression blocking."])
def test_another_name_leaves_noise_alone(compact, clean, words):
    picture = spoiled("gaussian_noise", 25, clean)
    right = compact.restore(picture, split_text(None, "Noise.")).picture.pixels
    other = compact.restore(picture, split_text(None, words)).picture.pixels
    assert psnr(right, clean) > psnr(other, clean) + 3


def test_what_is_outside_the_place_stays(compact, clean):
    picture = spoiled("gaussian_noise", 25, clean)
    result = compact.restore(
        picture, split_text(None, "Severe noise on the left side. Slight underexposure at the top.")
    )
    changed = np.any(result.picture.pixels != picture.pixels, axis=2)
    height, width = changed.shape
    left = np.zeros_like(changed)
    left[int(0.25 * height) : int(np.ceil(0.75 * height)), : int(np.ceil(0.4 * width))] = True
    top = np.zeros_like(changed)
    top[: int(np.ceil(0.4 * height)), int(0.25 * width) : int(np.ceil(0.75 * width))] = True
    assert not changed[~(left | top)].any()
    assert changed[int(0.45 * height) : int(0.7 * height), : int(0.3 * width)].mean() > 0.5
    assert {step["operation"] for step in result.steps} == {"denoise", "lift"}


def test_tiles_do_not_show(compact):
    picture = spoiled("gaussian_noise", 20, scene(330, 420))
    guidance = split_text(None, "Noise. Blur. Compression blocking.")
    whole = compact.restore(picture, guidance, settings=RestoreSettings(tile_px=1024)).picture.pixels
    tiled = compact.restore(picture, guidance, settings=RestoreSettings(tile_px=256)).picture.pixels
    assert np.abs(whole.astype(int) - tiled).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (8, 9), (65, 31)])
def test_any_size(compact, size):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = compact.restore(picture_from_array(pixels), split_text(None, "Severe noise, blur and underexposure."))
    assert result.picture.pixels.shape == pixels.shape


def test_strength_is_a_share_of_the_way(compact, clean):
    picture = spoiled("gaussian_noise", 25, clean)
    guidance = split_text(None, "Noise.")
    full, half = (
        compact.restore(picture, guidance, settings=RestoreSettings(strength=value)).picture.pixels.astype(float)
        for value in (1.0, 0.5)
    )
    assert np.abs(half - (full + picture.pixels) / 2).max() <= 1.01


def test_what_it_does_not_know_goes_on_to_classical(compact, clean):
    picture = picture_from_array(distort(clean, "color_cast", 4, seed=1).pixels)
    guidance = split_text(None, "Severe green cast. Noise.")
    result = compact.restore(picture, guidance)
    assert [step["operation"] for step in result.steps] == ["denoise", "balance"]
    only = compact.restore(picture, split_text(None, "Severe green cast.")).picture.pixels
    peer = load_restorer("classical").restore(picture, split_text(None, "Severe green cast.")).picture.pixels
    assert np.array_equal(only, peer)


def test_steps_say_on_whose_word(compact, clean):
    step = compact.restore(spoiled("jpeg", 15, clean), split_text(None, "Severe compression blocking.")).steps[0]
    assert step["operation"] == "deblock"
    assert step["because"] == "severe compression blocking"
    assert step["amount"]["mean_change_of_255"] > 0.1


def test_condition_maps_hold_words_where_they_are_said():
    plan = plan_actions(split_text(None, "Severe noise. Slight blur in the upper left. Garish colours."))
    maps = condition_maps(plan, (100, 80))
    assert maps.shape == (len(CHANNELS), 80, 100)
    assert np.all(maps[CHANNELS.index("noise")] == 1.0)
    blur = maps[CHANNELS.index("blur")]
    assert blur[5, 5] == pytest.approx(0.4)
    assert blur[60:, :].max() == blur[:, 50:].max() == 0
    assert maps[[CHANNELS.index(name) for name in ("motion", "blocking", "dark")]].max() == 0


def test_places_that_nothing_is_said_of_are_not_computed(monkeypatch):
    networks, seen = Networks(), []
    monkeypatch.setattr(networks, "_run", lambda name, **inputs: seen.append(inputs) or inputs["pixels"])
    pixels = np.random.default_rng(0).random((64, 600, 3), np.float32)
    condition = np.zeros((len(CHANNELS), 64, 600), np.float32)
    condition[0, :, :40] = 1
    result = networks.detail(pixels, pixels, condition, tile=64, overlap=16)
    assert np.allclose(result, pixels)
    assert len(seen) == 1


def test_networks_are_small_and_self_contained():
    import onnx

    paths = [packaged(name) for name in ("detail.onnx", "tone.onnx")]
    assert sum(path.stat().st_size for path in paths) <= 4_000_000
    for path in paths:
        model = onnx.load(path, load_external_data=False)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert {node.domain for node in model.graph.node} == {""}


def test_it_needs_no_torch():
    code = (
        "import sys, numpy as np\n"
        "from restore_bridge.guidance import split_text\n"
        "from restore_bridge.restorers import load_restorer\n"
        "from zoomiqa import picture_from_array\n"
        "picture = picture_from_array(np.full((16, 16, 3), 40, np.uint8))\n"
        "load_restorer('compact').restore(picture, split_text(None, 'Noise and underexposure.'))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
