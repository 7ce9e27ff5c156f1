"""`dreamclear` as a restorer: from a released file or a saved folder, with words, windows, records and refusals."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra diffusion)")
pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")

from restore_bridge.guidance import split_text
from restore_bridge.prompts import RegionalPrompt
from restore_bridge.restorers import REGISTRY, RestoreSettings, load_restorer
from tests.restore_bridge import redrawing
from tests.restore_bridge.redrawing import redraw
from zoomiqa.errors import (
    BackendFailed,
    OptionInvalid,
    WeightsMissing,
    WeightsRefused,
    WeightsUnsuitable,
)
from zoomiqa.imaging.picture import picture_from_array

SMALL = {"min_side": 64, "steps": 4, "tile": 64}


@pytest.fixture(scope="module")
def picture(photo):
    return picture_from_array(np.ascontiguousarray(photo[:57, :101]))


@pytest.fixture(scope="module")
def restorer(folders):
    """From a saved folder; it stays loaded."""
    return load_restorer("dreamclear", weights=folders["saved"], **SMALL)


prompts = partial(redrawing.prompts, encoder="t5-120")


def notes_of(result):
    return [note.code for note in result.notes]


@pytest.fixture(scope="module")
def plain(restorer, picture):
    return redraw(restorer, picture)


def test_positive_words_seed_and_strength_matter(restorer, picture, plain):
    assert plain.picture.size == picture.size
    assert redraw(restorer, picture).picture.pixels.tobytes() == plain.picture.pixels.tobytes()
    for other in (
        redraw(restorer, picture, prompts(positive="a red cat")),
        redraw(restorer, picture, seed=1),
        redraw(restorer, picture, strength=0.5),
    ):
        assert not np.array_equal(other.picture.pixels, plain.picture.pixels)
    assert redraw(restorer, picture, strength=0.5).steps[0]["steps"] == 2


def test_negative_words_are_kept_from_the_encoder_unless_asked_for(folders, restorer, picture, plain):
    step = plain.steps[0]
    assert step["dreamclear"]["negative"] == "learned null embedding"
    assert step["sent"][0]["negative"] == {"chunks": [], "tokens": [], "cut": []}
    assert "negative-not-sent" in notes_of(plain)
    other = redraw(restorer, picture, prompts(negative="slight blur"))
    assert np.array_equal(other.picture.pixels, plain.picture.pixels)
    trial = load_restorer("dreamclear", weights=folders["saved"], text_negative=True, **SMALL)
    noise, blur = (redraw(trial, picture, prompts(negative=text)) for text in ("severe noise", "slight blur"))
    assert not np.array_equal(noise.picture.pixels, blur.picture.pixels)
    assert not np.array_equal(noise.picture.pixels, plain.picture.pixels)
    assert noise.steps[0]["dreamclear"]["negative"] == "text (an experiment)"
    assert noise.steps[0]["sent"][0]["negative"]["chunks"] == ["severe noise"]
    assert notes_of(noise) == []


def test_the_record_says_what_was_done(restorer, picture, plain):
    step = plain.steps[0]
    assert step["operation"] == "dreamclear"
    assert step["licence"].startswith("Apache-2.0 (DreamClear")
    assert step["prepass"] == "swinir"
    assert (step["tile_px"], step["overlap_px"], step["tiles"], step["steps"]) == (64, 16, 3, 4)
    assert step["guidance"] == [4.5, 4.5]
    json.dumps(step)
    assert restorer.plan(picture.size).to_dict()["tiles"] == 3


def test_a_released_file_gives_the_picture_of_the_saved_folder(folders, picture, plain):
    parts = {"weights": folders["checkpoint"], "base": folders["base"], "swinir": folders["swinir"]}
    ours = redraw(load_restorer("dreamclear", **parts, **SMALL), picture)
    assert ours.picture.pixels.tobytes() == plain.picture.pixels.tobytes()
    step = ours.steps[0]
    assert step["weights"] == {"checkpoint": parts["weights"], "pipeline": parts["base"], "swinir": parts["swinir"]}
    assert len(step["checkpoint_sha256"]) == 64
    pickled = {**parts, "weights": folders["pickle"]}
    with pytest.raises(WeightsRefused, match="weights convert"):
        redraw(load_restorer("dreamclear", **pickled, **SMALL), picture)
    again = redraw(load_restorer("dreamclear", **pickled, allow_pickle=True, **SMALL), picture)
    assert again.picture.pixels.tobytes() == plain.picture.pixels.tobytes()


def test_without_the_pre_passs_weights_a_stand_in_is_noted(folders, picture, plain):
    bare = load_restorer("dreamclear", weights=folders["checkpoint"], base=folders["base"], **SMALL)
    result = redraw(bare, picture)
    assert "prepass-stand-in" in notes_of(result)
    assert result.steps[0]["prepass"] == "classical"
    assert not np.array_equal(result.picture.pixels, plain.picture.pixels)


def test_regional_words_go_only_to_the_windows_that_meet_their_box(restorer, picture, plain):
    corner = RegionalPrompt((0.0, 0.0, 0.25, 0.4), "a red cat", "")
    marked = redraw(restorer, picture, prompts(regional=[corner]))
    words = {number: entry for entry in marked.steps[0]["sent"] for number in entry["windows"]}
    assert ["a red cat" in words[number]["positive"]["chunks"][0] for number in range(3)] == [True, False, False]
    change = np.abs(marked.picture.pixels.astype(int) - plain.picture.pixels).mean(axis=2)
    assert change[:, :30].mean() > 2 * change[:, 80:].mean()


def test_words_beyond_120_tokens_are_left_out_and_noted(restorer, picture):
    many = ", ".join(f"sharp detail number {index}" for index in range(40))
    result = redraw(restorer, picture, prompts(positive=many))
    sent = result.steps[0]["sent"][0]["positive"]
    assert sent["tokens"][0] <= 119
    assert sent["cut"]
    assert "prompt-cut" in notes_of(result)


@pytest.mark.parametrize(
    "change",
    [
        {"guidance": 9.0},
        {"guidance_start": 1.5},
        {"mend": "attention"},
        {"mend": "channels, mask"},
        {"first_stage_color": "none"},
        {"preset": "fidelity"},
    ],
)
def test_options_have_an_effect(change, folders, picture, plain):
    changed = redraw(load_restorer("dreamclear", weights=folders["saved"], **SMALL, **change), picture)
    assert not np.array_equal(changed.picture.pixels, plain.picture.pixels)


def test_text_on_the_cpu_and_sixteen_bits_change_little(folders, picture, plain):
    ours = load_restorer("dreamclear", weights=folders["saved"], text_device="cpu", **SMALL)
    assert np.array_equal(redraw(ours, picture).picture.pixels, plain.picture.pixels)
    assert ours._kept.pipe.text_encoder is None
    assert ours.footprint.parameters < REGISTRY.find("dreamclear").footprint.parameters / 2
    ours.unload()
    assert np.array_equal(redraw(ours, picture).picture.pixels, plain.picture.pixels)
    half = redraw(load_restorer("dreamclear", weights=folders["saved"], dtype="bf16", **SMALL), picture)
    difference = np.abs(half.picture.pixels.astype(int) - plain.picture.pixels)
    assert difference.mean() < 0.5
    assert difference.max() <= 4


@pytest.mark.parametrize("text_device", ["auto", "cpu"])
def test_networks_that_wait_elsewhere_give_the_same_picture(text_device, folders, picture, plain, monkeypatch):
    """`offload=model` with the CPU in the place of a card: every network is called so that its hooks run, twice."""
    from restore_bridge.restorers.diffusion import loading
    from zoomiqa.types import Choice

    placement = loading.Placement(Choice("cpu", ""), Choice("fp32", ""), Choice("model", ""))
    monkeypatch.setattr(loading, "choose_placement", lambda *request: placement)
    waiting = load_restorer("dreamclear", weights=folders["saved"], text_device=text_device, **SMALL)
    for _ in range(2):
        again = redraw(waiting, picture).picture.pixels
        assert np.abs(again.astype(int) - plain.picture.pixels).max() <= 1
    assert waiting._kept.pipe._all_hooks


def test_running_out_of_memory_halves_the_tile_once(folders, picture, monkeypatch):
    import torch

    from restore_bridge.bridge import RestoreBridge
    from restore_bridge.restorers.diffusion.dreamclear import prediction
    from restore_bridge.settings import BridgeSettings

    restorer = load_restorer("dreamclear", weights=folders["saved"], **{**SMALL, "tile": 128})
    real, sides = prediction._raw, []

    def raw(network, latent, *rest, **sizes):
        sides.append(latent.shape[-1])
        if latent.shape[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(network, latent, *rest, **sizes)

    monkeypatch.setattr(prediction, "_raw", raw)
    (candidate,) = RestoreBridge(settings=BridgeSettings(candidates=1), restorer=restorer).run(picture).candidates
    assert candidate.error is None
    assert "tiles-halved" in [note.code for note in candidate.notes]
    assert (sides[0], set(sides[1:])) == (16, {8})


def test_a_picture_of_nan_is_an_error_with_a_remedy(folders, picture):
    import torch

    restorer = load_restorer("dreamclear", weights=folders["saved"], **SMALL)
    restorer._load(restorer.plan(picture.size))
    with torch.no_grad():
        restorer._kept.pipe.transformer.proj_out.weight.fill_(float("nan"))
    with pytest.raises(BackendFailed, match="NaN or infinite at step 1 of 4"):
        redraw(restorer, picture)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stepz": 3}, "it has: weights, variant"),
        ({"text_device": "gpu"}, "auto, cpu"),
        ({"first_stage_color": "lab"}, "wavelet, adain, none"),
        ({"mend": "taste"}, "attention, channels, mask, windows, or all"),
        ({"start_point": 1000}, "start_point must lie"),
        ({"text_negative": "yes"}, "true or false"),
        ({"steps": 0}, "steps must lie"),
    ],
)
def test_options_outside_their_range_are_refused_at_once(options, match):
    with pytest.raises(OptionInvalid, match=match):
        load_restorer("dreamclear", **options)


def test_weights_that_cannot_be_used_are_told_apart(folders, tiny, picture, tmp_path):
    def fail(error, match, **options):
        with pytest.raises(error, match=match):
            redraw(load_restorer("dreamclear", **SMALL, **options), picture)

    fail(WeightsMissing, "there is no weights file", weights=str(tmp_path / "absent.safetensors"), base=folders["base"])
    fail(WeightsUnsuitable, "no checkpoint of DreamClear", weights=folders["swinir"], base=folders["base"])
    fail(WeightsUnsuitable, "without", weights=tiny("sdxl-tile"))
    fail(WeightsUnsuitable, "do not fit|another kind", weights=tiny("pixart"))
    fail(WeightsUnsuitable, "belong to no model|not of SwinIR", weights=folders["saved"], swinir=folders["checkpoint"])


def test_what_a_name_of_weights_means(tmp_path):
    (tmp_path / "a@b.pth").write_bytes(b"x")
    kinds = {
        None: "shallowdream204/DreamClear:DreamClear-1024.pth",
        "owner/name": None,
        "owner/name@main": None,
        "owner/name:file.safetensors": "owner/name:file.safetensors",
        str(tmp_path): None,
        str(tmp_path / "a@b.pth"): str(tmp_path / "a@b.pth"),
        "absent.safetensors": "absent.safetensors",
    }
    found = {name: load_restorer("dreamclear", weights=name)._checkpoint for name in kinds}
    assert found == kinds


def test_a_large_picture_is_planned_without_a_library():
    code = (
        "import sys\n"
        "from restore_bridge.restorers import load_restorer, RestoreSettings\n"
        "plan = load_restorer('dreamclear').plan((512, 512), RestoreSettings(scale=4)).to_dict()\n"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'cv2') if name in sys.modules])\n"
        "import json; print(json.dumps(plan))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    loaded, plan = done.stdout.splitlines()
    assert loaded == "[]"
    plan = json.loads(plan)
    assert plan["sizes"]["padded"] == [2048, 2048]
    assert (plan["tile_px"], plan["overlap_px"], plan["tiles"], plan["steps"]) == (1024, 256, 9, 50)
    need = plan["memory"]["bf16"]
    assert need["none"]["total_gib"] > need["model"]["total_gib"] > need["sequential"]["total_gib"]


def test_a_narrow_picture_has_windows_too():
    plan = load_restorer("dreamclear", min_side=64).plan((3000, 64), RestoreSettings())
    assert plan.overlap < 64
    assert plan.boxes[-1].x2 == plan.latent_size[0]


def test_the_command_restores_with_a_released_file(folders, photos, tmp_path, capsys):
    from restore_bridge.cli import main

    photo = str(photos / "coffee-part.jpg")
    options = ["--restorer", "dreamclear", "--weights", folders["checkpoint"], "--steps", "2"]
    for name in ("base", "swinir"):
        options += ["--restorer-option", f"{name}={folders[name]}"]
    options += ["--restorer-option", "min-side=64"]
    run = ["run", photo, "--out", str(tmp_path), *options, "--candidates", "1", "--prompt", "a cup of coffee"]
    assert main(run) == 0
    record = json.loads((tmp_path / "records.jsonl").read_text("utf-8").splitlines()[-1])
    (candidate,) = record["candidates"]
    assert candidate["error"] is None
    step = candidate["steps"][0]
    assert step["operation"] == "dreamclear"
    assert "a cup of coffee" in step["sent"][0]["positive"]["chunks"][0]
    assert main([*run, "--restorer-option", "text-negative=perhaps", "--overwrite"]) == 2
    assert "true or false" in capsys.readouterr().err


def test_a_change_of_tone_is_not_undone_by_the_first_stage(folders, picture):
    brighter = split_text("Brighten the whole picture.", "Severe underexposure.")
    sharper = split_text("Sharp focus.", "Severe blur.")

    def restored(guidance, **options):
        restorer = load_restorer("dreamclear", weights=folders["saved"], **options, **SMALL)
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
