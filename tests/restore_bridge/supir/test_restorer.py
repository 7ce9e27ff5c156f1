"""The restorer `supir` as a user meets it: weights, consent, options, record, and the command."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from restore_bridge.guidance import split_text
from restore_bridge.prompts import RegionalPrompt
from restore_bridge.restorers import REGISTRY, load_restorer
from tests.restore_bridge.redrawing import prompts, redraw
from tests.restore_bridge.supir.test_convert import released  # noqa: F401 - a fixture
from zoomiqa.errors import OptionInvalid, WeightsMissing, WeightsUnsuitable
from zoomiqa.imaging.picture import picture_from_array

SMALL = {"min_side": 64, "steps": 2, "tile": 64, "accept_licence": True}


@pytest.fixture(scope="module")
def picture():
    from skimage import data

    return picture_from_array(np.ascontiguousarray(data.astronaut()[60:117, 180:281]))  # 101 x 57


def test_both_prompts_the_seed_and_the_strength_change_the_picture(tiny, picture):
    restorer = load_restorer("supir", weights=tiny("supir"), **SMALL)
    first = redraw(restorer, picture)
    assert first.picture.size == picture.size
    assert redraw(restorer, picture).picture.pixels.tobytes() == first.picture.pixels.tobytes()
    for other in (
        redraw(restorer, picture, prompts(positive="a red cat")),
        redraw(restorer, picture, prompts(negative="grass wall")),
        redraw(restorer, picture, seed=1),
        redraw(restorer, picture, strength=0.5),
    ):
        assert not np.array_equal(other.picture.pixels, first.picture.pixels)
    step = first.steps[0]
    assert step["operation"] == "supir"
    assert step["supir"] == {"sampler": "edm", "churn": 5.0, "noise_scale": 1.02, "faithful": True}
    assert step["guidance"] == [3.0, 6.0]
    assert "non-commercial" in step["licence"]
    assert step["tiles"] == 3


def test_regional_words_go_to_their_windows(tiny, picture):
    restorer = load_restorer("supir", weights=tiny("supir"), **SMALL)
    corner = RegionalPrompt((0.0, 0.0, 0.25, 0.4), "a red cat", "ringing")
    sent = redraw(restorer, picture, prompts(regional=[corner])).steps[0]["sent"]
    words = {number: entry for entry in sent for number in entry["windows"]}
    assert ["a red cat" in words[number]["positive"]["chunks"][0] for number in range(3)] == [True, False, False]


def test_a_released_file_with_a_base_gives_what_the_folder_gives(tiny, released, picture):  # noqa: F811
    folder = redraw(load_restorer("supir", weights=tiny("supir"), **SMALL), picture)
    for base in ({"base": released / "base"}, {"base": released / "base.safetensors", "configs": released / "base"}):
        file = load_restorer("supir", weights=released / "SUPIR-v0Q.safetensors", **base, **SMALL)
        done = redraw(file, picture)
        assert np.array_equal(done.picture.pixels, folder.picture.pixels)
        step = done.steps[0]
        assert step["weights"]["supir"].endswith("SUPIR-v0Q.safetensors")
        assert len(step["checkpoint_sha256"]) == 64
        assert not done.notes


def test_presets_differ_and_a_distilled_base_takes_eight_steps():
    plans = {}
    for preset in ("quality", "fidelity"):
        for sampler in ("edm", "dpmpp-2m"):
            restorer = load_restorer("supir", weights="a/b", preset=preset, sampler=sampler)
            plans[preset, sampler] = restorer.walk(restorer.plan((400, 300)))
    assert [plan.steps for plan in plans.values()] == [50, 8, 50, 8]
    ends = {key: (plan.guidance.start, plan.guidance.end, plan.control.end) for key, plan in plans.items()}
    assert ends["quality", "edm"] == (3.0, 6.0, 0.93)
    assert ends["fidelity", "edm"] == (1.0, 4.0, 1.0)
    assert ends["quality", "dpmpp-2m"] == (2.0, 2.0, 1.0)
    assert ends["fidelity", "dpmpp-2m"] == (1.5, 1.5, 1.0)
    assert (plans["quality", "edm"].noise_scale, plans["fidelity", "edm"].noise_scale) == (1.02, 1.01)


def test_windows_are_the_originals():
    restorer = load_restorer("supir", weights="a/b")
    plan = restorer.plan((2048, 1600))
    assert [(box.x1, box.y1) for box in plan.boxes] == [(x, y) for y in (0, 64, 72) for x in (0, 64, 128)]
    assert plan.boxes[0].width == 128


def test_nothing_is_fetched_unasked(picture):
    with pytest.raises(WeightsMissing, match="not fetched unasked"):
        redraw(load_restorer("supir"), picture)
    with pytest.raises(OptionInvalid, match="SupPixel non-commercial"):
        redraw(load_restorer("supir", weights="/absent.safetensors"), picture)
    with pytest.raises(WeightsMissing, match="no folder"):
        redraw(load_restorer("supir", weights="/absent.safetensors", accept_licence=True), picture)
    assert "non-commercial" in REGISTRY.find("supir").capabilities.licence


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sampler": "euler"}, "edm, dpmpp-2m"),
        ({"first_stage_color": "lab"}, "wavelet, adain, none"),
        ({"churn": -1}, r"churn must lie in 0\.\.100"),
        ({"noise_scale": 2}, "noise_scale must lie"),
        ({"faithful": "perhaps"}, "true or false"),
        ({"control": 3}, "control must lie"),
        ({"controlnet": "x"}, "it has: weights"),
    ],
)
def test_options_outside_their_range_are_refused_at_once(options, match):
    with pytest.raises(OptionInvalid, match=match):
        load_restorer("supir", **options)


@pytest.mark.parametrize(
    "change",
    [
        {"churn": 0.0},
        {"pull": 1.0},
        {"sampler": "dpmpp-2m"},
        {"first_stage_color": "none"},
        {"control_start": 0.0},
        {"preset": "fidelity"},
    ],
    ids=str,
)
def test_every_option_has_an_effect(change, tiny, picture):
    options = {**SMALL, "steps": 3}
    before = redraw(load_restorer("supir", weights=tiny("supir"), **options), picture).picture.pixels
    after = redraw(load_restorer("supir", weights=tiny("supir"), **options, **change), picture).picture.pixels
    assert not np.array_equal(after, before)


def test_oddities_are_kept_or_mended(tiny, picture):
    options = {**SMALL, "steps": 3, "sampler": "dpmpp-2m"}
    kept, mended = (
        redraw(load_restorer("supir", weights=tiny("supir"), faithful=faithful, **options), picture)
        for faithful in (True, False)
    )
    assert not np.array_equal(kept.picture.pixels, mended.picture.pixels)
    assert [done.steps[0]["supir"]["faithful"] for done in (kept, mended)] == [True, False]


def test_a_negative_embedding_stands_before_the_negative_prompt(tiny, picture, tmp_path):
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(4)) * 5
    save_file({"clip_l": vectors, "clip_g": vectors.flip(0).contiguous()}, tmp_path / "ugly.safetensors")
    plain = redraw(load_restorer("supir", weights=tiny("supir"), **SMALL), picture)
    file = tmp_path / "ugly.safetensors"
    learned = redraw(load_restorer("supir", weights=tiny("supir"), negative_embedding=file, **SMALL), picture)
    assert not np.array_equal(learned.picture.pixels, plain.picture.pixels)
    assert learned.steps[0]["sent"][0]["negative"]["chunks"][0].startswith("<supir-negative>")
    save_file({"clip_l": vectors}, tmp_path / "half.safetensors")
    with pytest.raises(WeightsUnsuitable, match="clip_g as vectors of 32"):
        redraw(
            load_restorer("supir", weights=tiny("supir"), negative_embedding=tmp_path / "half.safetensors", **SMALL),
            picture,
        )


def test_the_command_restores_with_a_released_file(released, photos, tmp_path, capsys):  # noqa: F811
    from restore_bridge.cli import main

    photo = str(photos / "coffee-part.jpg")
    file, base = str(released / "SUPIR-v0Q.safetensors"), f"base={released / 'base'}"
    options = ["--restorer", "supir", "--weights", file, "--steps", "2", "--candidates", "1"]
    given = [item for pair in (base, "min-side=64", "tile=256") for item in ("--restorer-option", pair)]
    assert main(["run", photo, "--out", str(tmp_path), *options, *given]) == 2
    assert "SupPixel" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is written before the terms are accepted"
    again = [*options, *given, "--restorer-option", "accept-licence=true"]
    assert main(["run", photo, "--out", str(tmp_path), *again]) == 0
    record = json.loads((tmp_path / "records.jsonl").read_text("utf-8").splitlines()[-1])
    (candidate,) = record["candidates"]
    assert candidate["error"] is None
    assert candidate["steps"][0]["operation"] == "supir"
    assert "non-commercial" in candidate["steps"][0]["licence"]
    capsys.readouterr()


def test_a_change_of_tone_is_not_undone_by_the_first_stage(tiny, picture):
    brighter = split_text("Brighten the whole picture.", "Severe underexposure.")
    sharper = split_text("Sharp focus.", "Severe blur.")

    def restored(guidance, **options):
        restorer = load_restorer("supir", weights=tiny("supir"), **options, **SMALL)
        return restorer.restore(picture, guidance, prompts=prompts())

    held, free = (restored(sharper, first_stage_color=name) for name in ("wavelet", "none"))
    assert not np.array_equal(held.picture.pixels, free.picture.pixels)
    for guidance, options, expected, method in (
        (sharper, {}, held, "wavelet"),
        (brighter, {}, free, "none"),
        (brighter, {"first_stage_color": "wavelet"}, held, "wavelet"),
    ):
        done = restored(guidance, **options)
        assert np.array_equal(done.picture.pixels, expected.picture.pixels)
        assert done.steps[0]["first_stage_color"] == method
        codes = [note.code for note in done.notes]
        assert ("first-stage-color-free" in codes) == (method == "none")
