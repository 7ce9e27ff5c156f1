"""One contract for all restorers."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from restore_bridge.guidance import Guidance, split_text
from restore_bridge.prepass import load_prepass, prepass_names
from restore_bridge.restorers import RestoreSettings, load_restorer, restorer_names
from zoomiqa.errors import BackendUnknown, ExtraMissing, OptionInvalid
from zoomiqa.imaging.picture import picture_from_array

GUIDANCE = split_text("Clean.", "Severe noise. Slight blur. Moderate banding in the upper left. Strong yellow cast.")
DIFFUSION = ["sdxl-tile", "sdxl-union", "pixart", "sd-upscale", "qwen-edit", "flux-upscaler", "supir", "dreamclear"]
BUILT_IN = ["identity", "classical", "compact", "realesrgan", *DIFFUSION]


@pytest.fixture
def picture():
    generator = np.random.default_rng(7)
    ramp = np.linspace(40, 200, 24)[None, :, None] + np.linspace(0, 40, 16)[:, None, None]
    return picture_from_array(np.clip(ramp + generator.normal(0, 12, (16, 24, 3)), 0, 255).astype(np.uint8))


@pytest.fixture(params=BUILT_IN)
def restorer(request):
    if request.param == "realesrgan" and not importlib.util.find_spec("ncnn"):
        pytest.skip("ncnn is not installed (extra upscale)")
    if request.param not in DIFFUSION:
        return load_restorer(request.param)
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")
    request.getfixturevalue("small_qwen")
    weights = request.getfixturevalue("tiny")(request.param)
    consent = {"accept_licence": True} if request.param in ("flux-upscaler", "supir") else {}
    return load_restorer(request.param, weights=weights, steps=3, min_side=64, **consent)


def test_keeps_its_contract(restorer, picture):
    before = picture.pixels.copy()
    for scale in restorer.capabilities.scales[:1]:
        result = restorer.restore(picture, GUIDANCE, settings=RestoreSettings(scale=scale)).picture
        assert result.size == (picture.width * scale, picture.height * scale)
        assert result.pixels.dtype == np.uint8
        assert not result.pixels.flags.writeable
    assert np.array_equal(picture.pixels, before)


def test_same_seed_same_bytes(restorer, picture):
    first, second = (restorer.restore(picture, GUIDANCE, settings=RestoreSettings(seed=3)).picture for _ in range(2))
    assert first.pixels.tobytes() == second.pixels.tobytes()


def test_strength_zero_changes_nothing(restorer, picture):
    result = restorer.restore(picture, GUIDANCE, settings=RestoreSettings(strength=0.0)).picture
    assert np.array_equal(result.pixels, picture.pixels)


def test_refuses_a_scale_it_lacks(restorer, picture):
    with pytest.raises(OptionInvalid, match="scale"):
        restorer.restore(picture, GUIDANCE, settings=RestoreSettings(scale=7))


def test_capabilities_are_data(restorer):
    data = restorer.capabilities.to_dict()
    assert data["name"] in BUILT_IN
    assert data["licence"]
    assert data["memory"]


def test_identity_and_unguided_classical_are_pixel_equal(picture):
    for name in ("identity", "classical"):
        for guidance in (Guidance(), split_text(None, None)):
            result = load_restorer(name).restore(picture, guidance).picture
            assert np.array_equal(result.pixels, picture.pixels)


def test_other_seed_other_dither(picture):
    guidance = split_text(None, "Severe banding.")
    first, second = (
        load_restorer("classical").restore(picture, guidance, settings=RestoreSettings(seed=seed)).picture
        for seed in (0, 1)
    )
    assert not np.array_equal(first.pixels, second.pixels)


def test_missing_extra_names_the_install(monkeypatch, picture):
    monkeypatch.setitem(__import__("sys").modules, "ncnn", None)
    with pytest.raises(ExtraMissing, match=r'pip install "zoomiqa\[upscale\]"'):
        load_restorer("realesrgan").restore(picture, GUIDANCE)


def test_realesrgan_enlarges(picture):
    pytest.importorskip("ncnn")
    result = load_restorer("realesrgan").restore(picture, GUIDANCE, settings=RestoreSettings(scale=2)).picture
    assert result.size == (48, 32)
    small = result.pixels.reshape(16, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - picture.pixels).mean() < 15


def test_unknown_name_suggests_the_near_one():
    with pytest.raises(BackendUnknown, match="classical"):
        load_restorer("clasical")


def test_plugins_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("ZOOMIQA_PLUGINS", "0")
    assert restorer_names() == tuple(BUILT_IN)


@pytest.mark.parametrize("name", ["none", "classical"])
def test_prepass_keeps_size_and_input(name, picture):
    assert name in prepass_names()
    cleaned = load_prepass(name).clean(picture)
    assert cleaned.size == picture.size
    if name == "none":
        assert cleaned is picture
