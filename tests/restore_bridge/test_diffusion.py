"""Diffusion restorers end to end, on tiny pipelines with random weights (`tests.tiny_diffusion`)."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra diffusion)")
pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")

from restore_bridge.guidance import split_text
from restore_bridge.prompts import RegionalPrompt
from restore_bridge.restorers import REGISTRY, RestoreSettings, load_restorer
from restore_bridge.restorers.diffusion import encoding, latent_tiling, memory, sampling, sizes
from tests import tiny_diffusion
from tests.restore_bridge.redrawing import prompts, redraw
from zoomiqa.errors import (
    BackendFailed,
    ExtraMissing,
    ImageTooLarge,
    OptionInvalid,
    WeightsDamaged,
    WeightsError,
    WeightsMissing,
    WeightsRefused,
    WeightsUnsuitable,
)
from zoomiqa.imaging.picture import picture_from_array

WINDOWED = ["sdxl-tile", "pixart", "sd-upscale", "sdxl-union", "flux-upscaler"]
CONSENT = {"flux-upscaler": {"accept_licence": True}}
SMALL = {"min_side": 64, "steps": 8, "tile": 64}


@pytest.fixture(scope="module")
def picture():
    from skimage import data

    return picture_from_array(np.ascontiguousarray(data.astronaut()[60:117, 180:281]))  # 101 x 57


@pytest.fixture(scope="module")
def loaded():
    """Restorers that stay loaded between tests."""
    return {}


@pytest.fixture
def make(tiny, loaded):
    def load(name, **options):
        key = (name, *sorted(options.items()))
        if key not in loaded:
            loaded[key] = load_restorer(name, weights=tiny(name), **{**SMALL, **CONSENT.get(name, {}), **options})
        return loaded[key]

    return load


@pytest.mark.parametrize("name", WINDOWED)
def test_both_prompts_and_the_seed_change_the_picture(name, make, picture):
    restorer = make(name)
    first = redraw(restorer, picture)
    assert first.picture.size == picture.size
    assert not np.array_equal(first.picture.pixels, picture.pixels)
    assert redraw(restorer, picture).picture.pixels.tobytes() == first.picture.pixels.tobytes()
    for other in (
        redraw(restorer, picture, prompts(positive="a red cat")),
        redraw(restorer, picture, prompts(negative="slight blur")),
        redraw(restorer, picture, seed=1),
        redraw(restorer, picture, strength=0.5),
    ):
        assert not np.array_equal(other.picture.pixels, first.picture.pixels)


def _tensor(pixels):
    import torch

    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def _by_sdxl(pipe, start, latents, plan, words):
    from PIL import Image

    picture = Image.fromarray(start)
    is_union = hasattr(pipe.controlnet.config, "num_control_type")
    return pipe(
        image=picture,
        control_image=picture,
        latents=latents,
        strength=plan.sampling.walked / plan.sampling.steps + 1e-6,
        num_inference_steps=plan.sampling.steps,
        controlnet_conditioning_scale=plan.sampling.control.end,
        original_size=(1024, 1024),
        target_size=(1024, 1024),
        **words,
        **({"control_mode": [6]} if is_union else {}),
    )


def _by_pixart(pipe, start, latents, plan, words):
    timesteps = sampling.schedule_for(pipe.scheduler, 0).start(plan.sampling, "cpu").tolist()
    height, width = start.shape[:2]
    return pipe(
        latents=latents,
        timesteps=timesteps,
        height=height,
        width=width,
        use_resolution_binning=False,
        clean_caption=False,
        **words,
    )


def _by_upscale(pipe, start, latents, plan, words):
    import torch

    return pipe(
        image=(torch.nn.functional.avg_pool2d(_tensor(start), 4) + 1) / 2,
        latents=latents,
        noise_level=20,
        num_inference_steps=plan.sampling.steps,
        generator=torch.Generator().manual_seed(7),
        **words,
    )


def _by_flux(pipe, start, latents, plan, words):
    from restore_bridge.restorers.diffusion.flux_upscaler import pack

    words["true_cfg_scale"] = words.pop("guidance_scale")
    height, width = start.shape[:2]
    pipe.vae.disable_tiling()
    return pipe(
        latents=pack(latents),
        control_image=_tensor(start),
        controlnet_conditioning_scale=plan.sampling.control.end,
        guidance_scale=3.5,
        height=height,
        width=width,
        num_inference_steps=plan.sampling.steps,
        **words,
    )


PEERS = {
    "sdxl-tile": (_by_sdxl, {}),
    "sdxl-union": (_by_sdxl, {}),
    "pixart": (_by_pixart, {}),
    "sd-upscale": (_by_upscale, {"denoise": 1.0}),
    "flux-upscaler": (_by_flux, {"denoise": 1.0}),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("name", WINDOWED)
def test_one_window_agrees_with_the_pipelines_own_loop(name, make, picture, monkeypatch):
    """The loop of `sampling` is written anew; with one window and constant scales it must give diffusers' picture."""
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    # FLUX's pipeline draws the control latent at random; ours takes the most likely one.
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())

    peer, options = PEERS[name]
    restorer = make(name, tile=192, steps=6, guidance=4.0, guidance_start=4.0, **options)
    ours = redraw(restorer, picture, seed=7).picture.pixels
    pipe = restorer._kept.pipe
    plan = restorer.plan(picture.size, RestoreSettings(seed=7))
    start = sizes.to_work(picture.pixels, plan.size)
    text = latent_tiling.plan_windows(plan.boxes, plan.latent_size, prompts())[0].text
    positive, negative = map(encoding.SEPARATOR.join, restorer.with_suffixes(text.positive, text.negative))
    generator = torch.Generator().manual_seed(7)
    if name == "sd-upscale":  # the noise of the small picture is drawn first
        torch.randn((1, 3, start.shape[0] // 4, start.shape[1] // 4), generator=generator)
    with torch.no_grad():
        first = restorer.encode_picture(pipe, _tensor(start))
        noise = torch.randn(first.shape, generator=generator)
        schedule = sampling.schedule_for(pipe.scheduler, first[0, 0].numel() // 4)
        latents = schedule.noised(first, noise, schedule.start(plan.sampling, "cpu")[:1])
        words = {"prompt": positive, "negative_prompt": negative, "guidance_scale": 4.0, "output_type": "np"}
        theirs = peer(pipe, start, latents, plan, words).images[0]
    theirs = sizes.from_work(np.rint(theirs * 255).astype(np.uint8), plan.size)
    assert np.abs(theirs.astype(int) - ours).max() <= 1


def test_regional_words_go_only_to_the_windows_that_meet_their_box(make, picture):
    """Section 8.3 of the design notes: on every window they would draw the region's flaw everywhere."""
    restorer = make("sdxl-tile")
    corner = RegionalPrompt((0.0, 0.0, 0.25, 0.4), "a red cat", "ringing")
    plain, marked = redraw(restorer, picture), redraw(restorer, picture, prompts(regional=[corner]))
    steps = marked.steps[0]
    assert steps["tiles"] == 3
    words = {number: entry for entry in steps["sent"] for number in entry["windows"]}
    assert sorted(words) == list(range(3))
    for number, entry in words.items():
        has_words = ["a red cat" in entry["positive"]["chunks"][0], "ringing" in entry["negative"]["chunks"][0]]
        assert has_words == [number == 0] * 2
    change = np.abs(marked.picture.pixels.astype(int) - plain.picture.pixels).mean(axis=2)
    assert change[:, :30].mean() > 4 * change[:, 70:].mean()


@pytest.mark.parametrize(("overlap", "largest"), [(96, 0.05), (64, 0.10), (32, 0.15), (0, 1.0)])
def test_windows_that_disagree_entirely_leave_no_seam(overlap, largest):
    """Neighbours say 0 and 1: what is blended passes from one to the other in small steps, unless nothing overlaps."""
    size = (512, 256)
    boxes = latent_tiling.latent_boxes(size, 128, overlap)
    columns = sorted({box.x1 for box in boxes})
    blended = np.zeros((size[1], size[0]))
    for box, weight in zip(boxes, latent_tiling.blend_weights(boxes, size), strict=True):
        blended[box.y1 : box.y2, box.x1 : box.x2] += weight * (columns.index(box.x1) % 2)
    step = np.abs(np.diff(blended, axis=1)).max()
    assert step == pytest.approx(1) if overlap == 0 else step <= largest


def test_windows_cover_the_latent_and_their_weights_sum_to_one():
    boxes = latent_tiling.latent_boxes((37, 20), 16, 8)
    total = np.zeros((20, 37))
    for box, weight in zip(boxes, latent_tiling.blend_weights(boxes, (37, 20)), strict=True):
        assert (box.width, box.height) == (16, 16)
        total[box.y1 : box.y2, box.x1 : box.x2] += weight
    assert np.allclose(total, 1, atol=1e-6)


def test_padding_does_not_shift_where_a_region_lies():
    """Fractions are of the picture; the latent is wider by the padding."""
    text = prompts(regional=[RegionalPrompt((0.9, 0.0, 1.0, 1.0), "right edge", "")])
    boxes = latent_tiling.latent_boxes((32, 8), 8, 0)
    windows = latent_tiling.plan_windows(boxes, (32, 8), text, visible=(0.5, 1.0))
    assert ["right edge" in window.text.positive for window in windows] == [False, True, False, False]


@pytest.mark.parametrize("change", [{"guidance_start": 20.0}, {"control": 0.1}, {"control_start": 0.0}, {"pull": 2.0}])
def test_what_follows_the_noise_has_an_effect(change, make, picture):
    """A guidance scale that is set between steps has none in diffusers' own loop for ControlNets."""
    base = {"denoise": 1.0, "steps": 4, "tile": 128}
    before = redraw(make("sdxl-tile", **base), picture).picture.pixels
    assert not np.array_equal(redraw(make("sdxl-tile", **base, **change), picture).picture.pixels, before)


def test_the_pull_brings_the_latent_back(make, picture):
    """The stronger (the smaller the exponent), the nearer to where the latent started."""
    import torch

    restorer = make("sdxl-tile", steps=4)
    redraw(restorer, picture)
    scheduler = restorer._kept.pipe.scheduler
    generator = torch.Generator().manual_seed(0)
    first = torch.randn((1, 4, 8, 8), generator=generator)
    boxes = latent_tiling.latent_boxes((8, 8), 8, 0)
    weights = latent_tiling.blend_weights(boxes, (8, 8))
    far = []
    for pull in (0.0, 4.0, 0.25):
        plan = sampling.Sampling(10, 1.0, sampling.Ramp(2, 2), sampling.Ramp(0, 0), pull)
        end = sampling.denoise(
            sampling.schedule_for(scheduler, 16),
            first,
            lambda part, number, step: torch.tanh(torch.cat([part, part * 2])),
            boxes,
            weights,
            plan,
            generator=torch.Generator().manual_seed(1),
        )
        far.append(float((end - first).norm()))
    assert far[0] > far[1] > far[2]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_a_prediction_and_the_latent_that_it_means_are_inverses(kind):
    import torch
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler() if kind == "flow" else DDIMScheduler(prediction_type=kind)
    schedule = sampling.schedule_for(scheduler, 16)
    plan = sampling.Sampling(10, 0.5, sampling.Ramp(2, 2), sampling.Ramp(0, 0))
    timestep = schedule.start(plan, "cpu")[0]
    first, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    shown = schedule.shown(schedule.noised(first, noise, timestep[None]), timestep)
    assert torch.allclose(
        schedule.clean(schedule.prediction(first, shown, timestep), shown, timestep), first, atol=1e-4
    )
    if kind != "v_prediction":
        expected = noise - first if kind == "flow" else noise
        assert torch.allclose(schedule.prediction(first, shown, timestep), expected, atol=1e-3)


@pytest.mark.parametrize(("size", "scale"), [((1, 1), 1), ((5, 3), 2), ((67, 129), 1), ((64, 64), 3), ((40, 31), 4)])
def test_odd_sizes_come_back_exactly(size, scale, make):
    generator = np.random.default_rng(0)
    small = picture_from_array(generator.integers(0, 255, (size[1], size[0], 3), np.uint8))
    result = redraw(make("pixart", steps=3), small, scale=scale).picture
    assert result.size == (size[0] * scale, size[1] * scale)


@pytest.mark.parametrize("size", [(101, 73), (1, 1), (64, 64), (1, 500), (200, 64)])
def test_to_the_models_size_and_back_is_exact(size):
    """Where nothing is enlarged, what was padded on is cut off again."""
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    plan = sizes.WorkSize(size, size, size, (-(-size[0] // 64) * 64, -(-size[1] // 64) * 64))
    padded = sizes.to_work(pixels, plan)
    assert padded.shape[:2] == plan.padded[::-1]
    assert np.array_equal(sizes.from_work(padded, plan), pixels)


def test_a_strip_does_not_grow_without_bound():
    plan = sizes.plan_size((5000, 1), scale=1, min_side=1024, multiple=64)
    assert plan.work[0] * plan.work[1] <= 16 * 1024**2
    assert plan.padded[0] % 64 == plan.padded[1] % 64 == 0


def test_alpha_comes_along(make, picture):
    alpha = np.random.default_rng(2).integers(0, 255, picture.pixels.shape[:2], np.uint8)
    clear = picture_from_array(np.dstack([picture.pixels, alpha]))
    assert np.array_equal(redraw(make("pixart"), clear).picture.alpha, alpha)
    assert redraw(make("pixart"), clear, scale=2).picture.alpha.shape == (114, 202)


def test_nothing_is_redrawn_at_strength_zero(picture):
    result = load_restorer("sdxl-tile", weights="no/folder/there").restore(
        picture, split_text(None, None), settings=RestoreSettings(strength=0.0, scale=2)
    )
    assert result.picture.size == (202, 114)


def test_twenty_megapixels_are_planned_without_a_library():
    code = (
        "import sys\n"
        "from restore_bridge.restorers import load_restorer, RestoreSettings\n"
        "plan = load_restorer('sdxl-tile').plan((5472, 3648), RestoreSettings()).to_dict()\n"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'cv2') if name in sys.modules])\n"
        "import json; print(json.dumps(plan))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    loaded, plan = done.stdout.splitlines()
    assert loaded == "[]"
    plan = json.loads(plan)
    assert plan["sizes"]["padded"] == [5504, 3648]
    assert plan["tiles"] == 10 * 7
    assert plan["predictions"] == 70 * plan["steps"]
    need = plan["memory"]["bf16"]
    assert need["none"]["total_gib"] > need["model"]["total_gib"] > need["sequential"]["total_gib"]
    assert need["none"]["total_gib"] < plan["memory"]["fp32"]["none"]["total_gib"]


@pytest.mark.parametrize("name", sorted(tiny_diffusion.BUILDERS))
def test_capabilities_need_no_torch(name):
    code = (
        "import sys\nsys.modules['torch'] = sys.modules['diffusers'] = None\n"
        f"from restore_bridge.restorers import REGISTRY\nprint(REGISTRY.find({name!r}).capabilities.to_dict())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "GiB" in done.stdout, done.stderr


def test_without_torch_the_extra_is_named(monkeypatch, picture, tiny):
    restorer = load_restorer("sdxl-tile", weights=tiny("sdxl-tile"))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ExtraMissing, match=r'pip install "zoomiqa\[diffusion\]"'):
        redraw(restorer, picture)


LONG = ", ".join(f"sharp detail of the {word}" for word in tiny_diffusion.WORDS.split()[:40])


def test_long_prompts_on_one_side_are_read_to_the_end(make, picture):
    """SUPIR issue 80: beyond 77 tokens the words were dropped in silence."""
    restorer = make("sdxl-tile")
    first = redraw(restorer, picture, prompts(positive=LONG))
    sent = first.steps[0]["sent"][0]
    assert len(sent["positive"]["chunks"]) > 1
    assert len(sent["negative"]["chunks"]) == 1
    assert max(sent["positive"]["tokens"]) <= 75
    assert sent["positive"]["cut"] == []
    last = redraw(restorer, picture, prompts(positive=LONG.rpartition(", ")[0]))
    assert not np.array_equal(first.picture.pixels, last.picture.pixels), "the last phrase was not read"
    other = redraw(restorer, picture, prompts(negative=LONG))
    assert len(other.steps[0]["sent"][0]["negative"]["chunks"]) > 1


def test_short_prompts_are_embedded_as_the_pipeline_does(make, picture):
    import torch

    restorer = make("sdxl-tile")
    redraw(restorer, picture)
    pipe = restorer._kept.pipe
    ours, _, _ = restorer.encode_text(restorer._kept, latent_tiling.WindowText(("a red cat",), ("severe noise",)))
    quality, avoid = map(encoding.SEPARATOR.join, restorer.with_suffixes((), ()))
    with torch.no_grad():
        theirs = pipe.encode_prompt(f"a red cat, {quality}", negative_prompt=f"severe noise, {avoid}", device="cpu")
    assert torch.allclose(ours.hidden, torch.cat([theirs[1], theirs[0]]), atol=1e-6)
    assert torch.allclose(ours.pooled, torch.cat([theirs[3], theirs[2]]), atol=1e-6)


def test_chunks_keep_phrases_whole_and_lose_no_word():
    count = encoding.counter(tiny_diffusion.clip_tokenizer(), tiny_diffusion.clip_tokenizer(pad="!"))
    phrases = encoding.phrases_of(LONG)
    sent = encoding.chunk_phrases(phrases, count)
    assert [phrase for chunk in sent.chunks for phrase in encoding.phrases_of(chunk)] == phrases
    assert list(sent.tokens) == [count(chunk) for chunk in sent.chunks]
    endless = "noise " * 200 + "z" * 300
    sent = encoding.chunk_phrases([endless], count, most=99)
    assert max(sent.tokens) <= 75
    assert "".join("".join(sent.chunks).split()).replace(",", "") == "".join(endless.split())
    cut = encoding.chunk_phrases([endless], count, most=2)
    assert len(cut.chunks) == 2
    assert cut.cut
    assert encoding.chunk_phrases([], count).chunks == ("",)
    assert encoding.equal_length(sent, cut)[1][2:] == [""] * (len(sent.chunks) - 2)


def test_t5_leaves_whole_phrases_out_and_says_so(make, picture):
    count = encoding.counter(tiny_diffusion.t5_tokenizer())
    sent = encoding.fit_phrases(["sharp focus", "a red cat", "noise"], count, 5)
    assert (sent.chunks, sent.cut) == (("sharp focus, noise",), ("a red cat",))
    assert sent.tokens[0] <= 5
    assert encoding.fit_phrases(["grain " * 50], count, 6).tokens[0] <= 6
    result = redraw(
        make("pixart"),
        picture,
        prompts(positive=f"{LONG}, {LONG.replace('sharp', 'clean')}, {LONG.replace('sharp', 'crisp')}"),
    )
    assert max(result.steps[0]["sent"][0]["positive"]["tokens"]) <= 299
    assert result.steps[0]["sent"][0]["positive"]["cut"]
    assert [note.code for note in result.notes] == ["prompt-cut"]


def test_without_prompts_the_guidance_is_composed_with_the_real_tokenizer(make, picture):
    guidance = split_text("Sharp focus.", "Severe noise in the upper left.")
    result = make("sdxl-tile").restore(picture, guidance, settings=RestoreSettings())
    first, *others = result.steps[0]["sent"]
    assert "noise" in first["negative"]["chunks"][0]
    assert others
    assert all("noise" not in entry["negative"]["chunks"][0] for entry in others)


def test_suffixes_can_be_left_out(make, picture):
    result = redraw(make("sdxl-tile", quality_suffix="", negative_suffix=""), picture)
    sent = result.steps[0]["sent"][0]
    assert (sent["positive"]["chunks"], sent["negative"]["chunks"]) == (["sharp focus"], ["severe noise"])


def test_weights_are_loaded_once_and_can_be_given_back(tiny, picture, monkeypatch):
    from restore_bridge.restorers.diffusion import loading

    calls = []
    real = loading.from_pretrained
    monkeypatch.setattr(
        "restore_bridge.restorers.diffusion.pixart.from_pretrained",
        lambda *args, **options: calls.append(args) or real(*args, **options),
    )
    restorer = load_restorer("pixart", weights=tiny("pixart"), **SMALL)
    first = redraw(restorer, picture).picture.pixels
    redraw(restorer, picture)
    assert len(calls) == 1
    restorer.unload()
    assert np.array_equal(redraw(restorer, picture).picture.pixels, first)
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["sdxl-tile", "pixart", "sd-upscale", "flux-upscaler"])
def test_sixteen_bit_numbers_give_nearly_the_same(name, make, picture):
    """Every tensor on the way has the format that the next network wants; the VAE stays in 32 bits."""
    full, half = redraw(make(name), picture), redraw(make(name, dtype="bf16"), picture)
    assert half.steps[0]["placement"]["dtype"] == {"value": "bf16", "reason": "asked for"}
    assert np.abs(full.picture.pixels.astype(int) - half.picture.pixels).mean() < 4


@pytest.mark.parametrize("options", [{"attention": "sliced"}, {"compile": "eager"}])
def test_what_saves_memory_or_time_keeps_the_picture(options, make, picture):
    plain = redraw(make("sdxl-tile", steps=4), picture).picture.pixels.astype(int)
    assert np.abs(redraw(make("sdxl-tile", steps=4, **options), picture).picture.pixels - plain).max() <= 2


def fail(options, picture, error, match, name="sdxl-tile"):
    with pytest.raises(error, match=match) as caught:
        redraw(load_restorer(name, **{**SMALL, **options}), picture)
    assert "0x" not in str(caught.value)


def test_weights_that_cannot_be_used_are_told_apart(tiny, picture, tmp_path):
    good = tiny("sdxl-tile")
    fail({"weights": str(tmp_path / "absent")}, picture, WeightsMissing, "there is no folder")
    (tmp_path / "file.safetensors").write_bytes(b"x")
    fail({"weights": str(tmp_path / "file.safetensors")}, picture, WeightsMissing, "must be a folder")
    (tmp_path / "empty").mkdir()
    fail({"weights": str(tmp_path / "empty"), "controlnet": good}, picture, WeightsUnsuitable, "model_index.json")
    fail({"weights": tiny("pixart"), "controlnet": good}, picture, WeightsUnsuitable, "PixArtSigmaPipeline, without")
    fail({"weights": good, "controlnet": tiny("pixart")}, picture, WeightsUnsuitable, "do not fit")
    fail({"weights": good}, picture, WeightsUnsuitable, "without transformer", name="pixart")


def test_networks_of_other_families_are_refused(tiny, tmp_path, picture):
    import shutil

    from diffusers import ControlNetModel

    other = tmp_path / "control"
    narrow = tiny_diffusion._unet(cross_attention_dim=8)
    ControlNetModel.from_unet(narrow, conditioning_embedding_out_channels=(4, 4, 8, 8)).save_pretrained(other)
    options = {"weights": tiny("sdxl-tile"), "controlnet": other}
    fail(options, picture, WeightsUnsuitable, "the ControlNet reads words 8 wide, the model 64")
    folder = shutil.copytree(tiny("pixart"), tmp_path / "other_vae")
    tiny_diffusion.vae(levels=3).save_pretrained(folder / "vae")
    fail({"weights": folder}, picture, WeightsUnsuitable, "this VAE makes latents of 32 x 16", name="pixart")


def test_a_union_without_a_tile_mode_is_refused(tmp_path, picture):
    folder = tiny_diffusion.sdxl_union(tmp_path, modes=6)
    fail({"weights": str(folder)}, picture, WeightsUnsuitable, "6 modes and none for tiles", name="sdxl-union")


@pytest.fixture
def broken(tiny, tmp_path):
    """A copy of a tiny pipeline to spoil."""
    import shutil

    return shutil.copytree(tiny("pixart"), tmp_path / "copy")


def test_pickles_are_refused_and_damaged_files_named(broken, picture):
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    fail({"weights": str(broken)}, picture, WeightsDamaged, "cut short", name="pixart")
    weights.unlink()
    fail({"weights": str(broken)}, picture, (WeightsUnsuitable, WeightsMissing), "safetensors", name="pixart")
    weights.with_suffix(".bin").write_bytes(b"\x80\x04whatever")
    fail({"weights": str(broken)}, picture, WeightsRefused, "pickles", name="pixart")


HUB = """
import http.server, os, sys, threading
class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        kind = "GatedRepo" if "gated" in self.path else "RevisionNotFound" if "pinned" in self.path else "RepoNotFound"
        self.send_response({"GatedRepo": 403, "RevisionNotFound": 404}.get(kind, 401))
        self.send_header("X-Error-Code", kind)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_GET = do_HEAD
    def log_message(self, *words): pass
hub = http.server.HTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=hub.serve_forever, daemon=True).start()
os.environ.update(HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}", HF_HOME=sys.argv[1], HF_HUB_DISABLE_TELEMETRY="1")
import numpy
from restore_bridge.guidance import split_text
from restore_bridge.restorers import load_restorer
from zoomiqa.imaging.picture import picture_from_array
picture = picture_from_array(numpy.full((32, 32, 3), 99, "uint8"))
def ask(source):
    try:
        load_restorer("pixart", weights=source).restore(picture, split_text("Sharp.", "Blur."))
    except Exception as error:
        print(type(error).__name__, error)
ask("owner/gated")
ask("owner/absent")
ask("owner/pinned@" + "a" * 40)
hub.shutdown()
hub.server_close()
ask("owner/model")
"""


def test_what_the_hub_says_no_to_is_told_apart(tmp_path):
    """Against a hub of our own: consent asked for, no such repository, no such commit, no connection."""
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    gated, absent, commit, unreachable = done.stdout.splitlines()
    assert all(line.startswith("WeightsMissing") for line in done.stdout.splitlines())
    assert "accepted their terms" in gated
    assert "https://huggingface.co/owner/gated" in gated
    assert "no such repository" in absent
    assert "no such revision" in commit
    assert "nor could the hub be reached" in unreachable
    assert done.stderr == "", "libraries wrote between the lines"


def test_weights_that_cannot_be_had_are_asked_for_once(tmp_path, picture, monkeypatch):
    restorer = load_restorer("pixart", weights=str(tmp_path), **SMALL)
    asked, load = [], restorer.load_pipeline
    monkeypatch.setattr(restorer, "load_pipeline", lambda *words: asked.append(words) or load(*words))
    messages = set()
    for _ in range(3):
        with pytest.raises(WeightsError) as caught:
            redraw(restorer, picture)
        messages.add(str(caught.value))
        restorer.unload()
    assert len(messages) == 1
    assert len(asked) <= 1


@pytest.mark.parametrize("name", ["sdxl-tile", "qwen-edit"])
def test_a_picture_of_nan_is_an_error_with_a_remedy(name, tiny, picture, monkeypatch, small_qwen):
    import torch

    restorer = load_restorer(name, weights=tiny(name), dtype="bf16", **({} if name == "qwen-edit" else SMALL))
    restorer._load(restorer.plan(picture.size))
    network = restorer.denoisers(restorer._kept.pipe)[0]
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(BackendFailed, match=r"NaN or infinite at step 1 of \d+, got number format bfloat16; use dtype"):
        redraw(restorer, picture)


@pytest.mark.parametrize("name", sorted(tiny_diffusion.BUILDERS))
def test_tokenizers_loaded_alone_count_as_the_pipelines_do(name, tiny):
    restorer = load_restorer(name, weights=tiny(name), accept_licence=True)
    count = restorer.token_counter()
    assert restorer._kept is None
    of_pipeline = restorer.count(restorer.load_pipeline(restorer.source, "fp32"))
    for text in ("sharp focus", "severe noise in the upper left, a red cat"):
        assert count(text) == of_pipeline(text) > 0


def test_the_bridge_counts_with_the_restorers_tokenizer(make, picture):
    from restore_bridge.bridge import RestoreBridge
    from restore_bridge.settings import BridgeSettings

    restorer = make("sdxl-tile")
    many = ", ".join(f"sharp focus {number} on the red cat" for number in range(40))
    guidance = split_text(many, "Severe noise.")
    bridge = RestoreBridge(settings=BridgeSettings(candidates=1), restorer=restorer)
    (first,) = bridge.run(picture, guidance=guidance).rounds
    report = first.prompts.report
    assert report["counted_by"] == "tokenizer"
    assert report["positive_tokens"] == restorer.token_counter()(first.prompts.positive) <= 150
    assert report["cut"]
    sent = first.candidates[0].steps[0]["sent"][0]["positive"]["chunks"]
    assert ", ".join(sent).startswith(first.prompts.positive)
    assert bridge.plan(picture, guidance=guidance).prompts.report["counted_by"] == "estimate"


def test_without_a_tokenizer_the_length_is_estimated_and_the_reason_told(picture, tmp_path):
    from restore_bridge.bridge import RestoreBridge
    from restore_bridge.settings import BridgeSettings

    for options, error in (({"weights": str(tmp_path)}, "WeightsUnsuitable"), ({}, "OptionInvalid")):
        restorer = load_restorer("sdxl-tile" if options else "flux-upscaler", **options, **SMALL)
        assert restorer.token_counter() is None
        (first,) = RestoreBridge(settings=BridgeSettings(candidates=1), restorer=restorer).run(picture).rounds
        assert first.prompts.report["counted_by"] == "estimate"
        assert first.candidates[0].error["type"] == error


def test_running_out_of_memory_halves_the_tile_once(make, picture, monkeypatch):
    import torch

    from restore_bridge.bridge import RestoreBridge
    from restore_bridge.settings import BridgeSettings

    restorer = make("sdxl-tile", tile=128)
    sides = []
    real = type(restorer).predict

    def predict(self, loaded, part, *rest):
        sides.append(part.shape[-1])
        if part.shape[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, loaded, part, *rest)

    monkeypatch.setattr(type(restorer), "predict", predict)
    bridge = RestoreBridge(settings=BridgeSettings(candidates=1), restorer=restorer)
    (candidate,) = bridge.run(picture).candidates
    assert candidate.error is None
    assert [note.code for note in candidate.notes if note.code == "tiles-halved"] == ["tiles-halved"]
    assert (sides[0], set(sides[1:])) == (16, {8})
    with pytest.raises(MemoryError):
        redraw(restorer, picture)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stepz": 3}, "it has: weights, variant"),
        ({"steps": 0}, "steps must lie in 1..1000"),
        ({"steps": True}, "steps must lie"),
        ({"steps": 2.5}, "steps must lie in 1..1000 and be whole"),
        ({"tile": 512.0}, "tile must lie .* and be whole"),
        ({"min_side": 64.0}, "min_side must lie .* and be whole"),
        ({"overlap": 8.5}, "overlap must lie .* and be whole"),
        ({"variant": 3}, "variant must be text"),
        ({"compile": True}, "compile must be text"),
        ({"device": "banana"}, "no such device, got banana"),
        ({"accept_licence": "yes"}, "accept_licence must be true or false"),
        ({"denoise": 0}, "denoise must lie above 0"),
        ({"guidance": "high"}, "guidance must lie"),
        ({"tile": 100}, "multiple of 64"),
        ({"overlap": 4096, "tile": 512}, "overlap"),
        ({"preset": "best"}, "quality, fidelity"),
        ({"dtype": "int4"}, "bf16, fp16, fp32"),
        ({"offload": "disk"}, "none, model, sequential"),
        ({"attention": "magic"}, "sdpa, sliced"),
        ({"control": 3}, "control must lie"),
        ({"distilled_guidance": 3}, "it has: weights"),
    ],
)
def test_options_outside_their_range_are_refused_at_once(options, match):
    with pytest.raises(OptionInvalid, match=match):
        load_restorer("sdxl-tile", **options)


def test_options_that_need_the_machine_are_refused_before_loading(tiny, picture):
    for options, match in (
        ({"offload": "model", "device": "cpu"}, "nothing can be offloaded"),
        ({"device": "cuda:77"}, "device"),
        ({"device": "toaster"}, "device"),
        ({"compile": "toaster"}, "inductor"),
    ):
        fail({"weights": tiny("sdxl-tile"), **options}, picture, OptionInvalid, match)


def test_too_large_results_are_refused_before_anything_is_loaded():
    large = picture_from_array(np.zeros((2700, 2700, 3), np.uint8))
    with pytest.raises(ImageTooLarge):
        redraw(load_restorer("sdxl-tile", weights="/absent"), large, scale=4)


def test_weights_that_are_not_free_ask_for_consent(tiny, picture):
    assert "Non-Commercial" in REGISTRY.find("flux-upscaler").capabilities.licence
    fail({"weights": tiny("flux-upscaler")}, picture, OptionInvalid, "FLUX.1-dev Non-Commercial", name="flux-upscaler")


def test_a_hub_id_without_a_commit_is_noted():
    from restore_bridge.restorers.diffusion.loading import Source

    assert [Source(text).is_pinned for text in ("a/b", "a/b@main", "a/b@" + "0" * 40)] == [False, False, True]
    assert (Source("a/b@main").where, Source("a/b@main").revision) == ("a/b", "main")


def test_offload_follows_the_free_memory(monkeypatch):
    """What would be chosen on a card, without one: the figures are asked of the plan."""
    import torch

    from restore_bridge.restorers.diffusion import loading
    from zoomiqa.types import Choice

    monkeypatch.setattr(loading, "choose_device", lambda wanted: Choice("cuda", "as told"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    need = {"none": 14.0, "model": 9.0, "sequential": 3.0}
    for free, expected in ((40, "none"), (12, "model"), (6, "sequential"), (1, "sequential")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free * 2**30, 80 * 2**30))
        placement = loading.choose_placement("auto", "auto", "auto", lambda dtype, mode: need[mode])
        assert (placement.offload.value, placement.dtype.value) == (expected, "bf16")
        assert f"{free:.1f} GiB free" in placement.offload.reason


@pytest.mark.parametrize("name", ["sdxl-tile", "pixart", "sd-upscale", "flux-upscaler"])
def test_networks_that_wait_elsewhere_give_the_same_picture(name, make, tiny, picture, monkeypatch):
    """`offload=model` with the CPU in the place of a card: every network is called so that its hooks run, twice."""
    from restore_bridge.restorers.diffusion import loading
    from zoomiqa.types import Choice

    plain = redraw(make(name, steps=3), picture).picture.pixels
    placement = loading.Placement(Choice("cpu", ""), Choice("fp32", ""), Choice("model", ""))
    monkeypatch.setattr(loading, "choose_placement", lambda *request: placement)
    waiting = load_restorer(name, weights=tiny(name), **{**SMALL, "steps": 3}, **CONSENT.get(name, {}))
    for _ in range(2):
        again = redraw(waiting, picture).picture.pixels
        assert np.abs(again.astype(int) - plain).max() <= 1
    assert waiting._kept.pipe._all_hooks


def test_estimates_grow_with_what_costs():
    footprint = REGISTRY.find("sdxl-tile").footprint
    small = memory.estimate(footprint, "bf16", "none", (1024, 1024), 64 * 64)
    for other in (
        memory.estimate(footprint, "bf16", "none", (1024, 1024), 128 * 128),
        memory.estimate(footprint, "bf16", "none", (4096, 4096), 64 * 64),
        memory.estimate(footprint, "fp32", "none", (1024, 1024), 64 * 64),
    ):
        assert other.total >= small.total
        assert other != small
    assert small.resident == pytest.approx(2 * (123.1 + 694.7 + 2567.5 + 1251.0) * 1e6 / 2**30 + 4 * 83.7e6 / 2**30)


def test_an_editing_model_reads_both_prompts(small_qwen, tiny, picture):
    restorer = load_restorer("qwen-edit", weights=tiny("qwen-edit"), steps=2)
    corner = RegionalPrompt((0.0, 0.0, 0.3, 0.4), "", "ringing")
    first = redraw(restorer, picture)
    assert first.picture.size == picture.size
    assert redraw(restorer, picture).picture.pixels.tobytes() == first.picture.pixels.tobytes()
    for other in (
        redraw(restorer, picture, prompts(positive="a red cat")),
        redraw(restorer, picture, prompts(negative="slight blur")),
        redraw(restorer, picture, prompts(regional=[corner])),
        redraw(restorer, picture, seed=1),
        redraw(restorer, picture, strength=0.5),
    ):
        assert not np.array_equal(other.picture.pixels, first.picture.pixels)
    sent = first.steps[0]["sent"][0]["positive"]["chunks"][0]
    assert sent.startswith("Restore this photograph")
    assert sent.endswith("sharp focus, remove severe noise")


def test_the_negative_prompt_alone_matters_to_an_editing_model(small_qwen, tiny, picture):
    first, other = (
        redraw(load_restorer("qwen-edit", weights=tiny("qwen-edit"), steps=2, negative_suffix=words), picture)
        for words in ("red", "blue")
    )
    assert not np.array_equal(first.picture.pixels, other.picture.pixels)


def test_an_instruction_says_what_where_and_what_to_keep():
    from restore_bridge.restorers.diffusion.qwen_edit import instruction

    corner = RegionalPrompt((0.7, 0.0, 1.0, 0.3), "crisp leaves", "severe noise")
    middle = RegionalPrompt((0.4, 0.4, 0.6, 0.6), "", "grain")
    parts = instruction(prompts("soft light", "slight blur, painting", [corner, middle]))
    assert parts[1:] == [
        "soft light",
        "remove slight blur",
        "in the upper right part crisp leaves",
        "in the upper right part remove severe noise",
        "in the middle part remove grain",
    ]


def test_what_an_editing_model_changes_is_carried_to_the_full_size():
    from restore_bridge.restorers.diffusion.qwen_edit import carry_over

    source = np.random.default_rng(3).integers(60, 120, (80, 120, 3), np.uint8)
    start = sizes.resize(source, (60, 40))
    lighter = (start + 30).astype(np.uint8)
    result = carry_over(source, start, lighter, (120, 80), 1.0)
    assert np.abs(result.astype(int) - source - 30).max() <= 1, "detail beyond the model's size stays"
    assert np.array_equal(carry_over(source, start, start, (120, 80), 1.0), source)
    assert np.array_equal(carry_over(start, start, lighter, (60, 40), 1.0), lighter)
    assert np.abs(carry_over(start, start, lighter, (60, 40), 0.5).astype(int) - start - 15).max() <= 1


def test_the_command_restores_with_a_pipeline_folder(tiny, photos, tmp_path, capsys):
    from restore_bridge.cli import main

    photo = str(photos / "coffee-part.jpg")
    options = [
        "--restorer",
        "sdxl-tile",
        "--weights",
        tiny("sdxl-tile"),
        "--steps",
        "4",
        "--restorer-option",
        "min-side=64",
    ]
    assert main(["plan", photo, *options]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["work"]["sizes"]["padded"] == [384, 256]
    run = ["run", photo, "--out", str(tmp_path), *options, "--candidates", "1", "--color-fix", "wavelet"]
    assert main(run) == 0
    record = json.loads((tmp_path / "records.jsonl").read_text("utf-8").splitlines()[-1])
    (candidate,) = record["candidates"]
    assert candidate["error"] is None
    assert candidate["steps"][0]["operation"] == "sdxl-tile"
    assert record["settings"]["restorer_options"]["steps"] == 4
    assert main([*run, "--preset", "best", "--overwrite"]) == 2
    assert "quality, fidelity" in capsys.readouterr().err
    for wrong in (["steps"], ["steps=4"]):
        assert main([*run, "--restorer-option", *wrong]) == 2
    assert main(["run", photo, "--out", str(tmp_path), "--preset", "quality"]) == 2
    assert "compact" in capsys.readouterr().err
