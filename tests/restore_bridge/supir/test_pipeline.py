"""SUPIR's pipeline end to end, at tiny size with random weights."""

import numpy as np
import pytest
import torch

from restore_bridge.restorers.diffusion.supir.pipeline import SUPIRPipeline
from restore_bridge.restorers.diffusion.supir.sampling import Walk
from zoomiqa.errors import OptionInvalid


@pytest.fixture(scope="module")
def picture():
    from skimage import data

    return data.astronaut()[60:124, 130:258].astype(np.float32) / 255  # 128 x 64


def run(pipe, picture, seed=1, **options):
    chosen = {"prompt": "a red cat", "negative_prompt": "blur", "num_inference_steps": 3, "output_type": "np"}
    generator = torch.Generator().manual_seed(seed)
    return pipe(picture, generator=generator, **{**chosen, **options}).images[0]


@pytest.fixture(scope="module")
def plain(pipe, picture):
    return run(pipe, picture)


def test_a_picture_comes_out_and_the_seed_decides_which(pipe, picture, plain):
    assert plain.shape == picture.shape
    assert plain.min() >= 0
    assert plain.max() <= 1
    assert np.array_equal(run(pipe, picture), plain)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "sky"},
        {"negative_prompt": "grass"},
        {"seed": 2},
        {"guidance_scale": 2.0},
        {"guidance_scale_start": 1.0},
        {"control_scale": 0.5},
        {"control_scale_start": 0.0},
        {"strength": 0.5},
        {"color_fix": "none"},
        {"color_fix": "adain"},
        {"walk": Walk(churn=0.0)},
        {"walk": Walk(noise_scale=1.2)},
        {"walk": Walk(pull=1.0)},
        {"walk": Walk(sampler="dpmpp-2m")},
        {"prompt": "a red cat " * 60},
    ],
    ids=str,
)
def test_every_argument_changes_the_picture(change, pipe, picture, plain):
    assert np.abs(run(pipe, picture, **change) - plain).max() > 0.5 / 255


def test_windows_agree_with_the_whole(pipe, picture, plain):
    """Measured: 0.6 levels in the mean, as windows lack the context beyond their edge."""
    tiled = run(pipe, picture, tile=10, stride=4)
    assert 0 < np.abs(tiled - plain).mean() < 2 / 255


def test_windows_read_their_own_words(pipe, picture):
    """Two windows side by side; only the right one's words differ."""
    first = run(pipe, picture, tile=10, stride=6, prompt=["a red cat", "a red cat"], color_fix="none")
    other = run(pipe, picture, tile=10, stride=6, prompt=["a red cat", "sky"], color_fix="none")
    assert np.array_equal(first, run(pipe, picture, tile=10, stride=6, prompt="a red cat", color_fix="none"))
    change = np.abs(first - other).mean(axis=(0, 2))
    assert change[-40:].mean() > change[:40].mean()
    negative = run(pipe, picture, tile=10, stride=6, negative_prompt=["blur", "grass"])
    assert not np.array_equal(negative, run(pipe, picture, tile=10, stride=6))
    with pytest.raises(OptionInvalid, match="there are 2 windows, got 3 prompts"):
        run(pipe, picture, tile=10, stride=6, prompt=["a", "b", "c"])


def test_sixteen_bit_numbers_give_nearly_the_same(pipe, picture, plain, tmp_path):
    """Measured: 0.15 levels in the mean, 2.6 at most."""
    pipe.save_pretrained(tmp_path)
    half = SUPIRPipeline.from_pretrained(
        tmp_path, dtype={"default": torch.bfloat16, "vae": torch.float32, "denoise_encoder": torch.float32}
    )
    half.set_progress_bar_config(disable=True)
    assert half.unet.dtype == half.control.dtype == torch.bfloat16
    assert half.denoise_encoder.dtype == torch.float32
    apart = np.abs(run(half, picture) - plain)
    assert 0 < apart.mean() < 1 / 255
    assert apart.max() < 10 / 255


def test_what_is_saved_comes_back(pipe, picture, plain, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = SUPIRPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(run(again, picture), plain)


def test_embeddings_go_over_texts(pipe, picture, plain):
    text, pooled, unwanted, unwanted_pooled = pipe.encode_prompt("a red cat", "blur")
    given = {"prompt_embeds": text, "pooled_prompt_embeds": pooled}
    refused = {"negative_prompt_embeds": unwanted, "negative_pooled_prompt_embeds": unwanted_pooled}
    assert np.array_equal(run(pipe, picture, prompt="", negative_prompt="", **given, **refused), plain)
    assert np.array_equal(run(pipe, picture, prompt="", **given), plain)
    assert np.array_equal(run(pipe, picture, negative_prompt="", **refused), plain)
    with pytest.raises(OptionInvalid, match="belong together"):
        run(pipe, picture, prompt_embeds=text)
    longer = pipe.encode_prompt("a red cat " * 60, "")[0]
    with pytest.raises(OptionInvalid, match="of one length"):
        run(pipe, picture, **{**given, "prompt_embeds": longer}, **refused)


def test_both_sides_are_as_long_as_the_longer(pipe):
    text, pooled, unwanted, unwanted_pooled = pipe.encode_prompt("a red cat, " * 80, "blur")
    assert text.shape == unwanted.shape
    assert text.shape[1] > 77
    assert text.shape[1] % 77 == 0
    assert pooled.shape == unwanted_pooled.shape == (1, 32)


def test_size_numbers_are_those_of_diffusers(pipe):
    """1024 x 1024 without a crop, embedded as SDXL's own denoiser does."""
    pooled = torch.randn(2, 32)
    ours = pipe.words(torch.zeros(2, 77, 64), pooled).added
    numbers = torch.tensor([1024, 1024, 0, 0, 1024, 1024] * 2)
    theirs = pipe.unet.add_time_proj(numbers).reshape(2, -1)
    assert torch.allclose(ours, torch.cat([pooled, theirs], dim=1), atol=1e-6)


def test_without_guidance_one_side_is_read(pipe, picture, monkeypatch):
    sides = []
    real = pipe.denoised
    monkeypatch.setattr(pipe, "denoised", lambda *given: sides.append(len(given[3].text)) or real(*given))
    alone = run(pipe, picture, guidance_scale=1.0)
    assert set(sides) == {1}
    assert np.abs(alone - run(pipe, picture, guidance_scale=1.0, negative_prompt="grass")).max() == 0
    almost = run(pipe, picture, guidance_scale=1.0, guidance_scale_start=1.0001)
    assert np.abs(alone - almost).mean() < 0.2 / 255


def test_a_callback_sees_and_may_change_the_latent(pipe, picture, plain):
    seen = []

    def watch(given, step, sigma, tensors):
        assert given is pipe
        seen.append((step, round(float(sigma), 4), tuple(tensors["latents"].shape)))
        return {}

    assert np.array_equal(run(pipe, picture, callback_on_step_end=watch), plain)
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert seen[-1][1:] == (0.0, (1, 4, 8, 16))
    changed = run(pipe, picture, callback_on_step_end=lambda p, i, s, t: {"latents": t["latents"] * 0.5})
    assert not np.array_equal(changed, plain)
    with pytest.raises(OptionInvalid, match="latents alone"):
        run(pipe, picture, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=["prompt_embeds"])


def test_a_progress_bar_is_shown(pipe, picture, capsys):
    pipe.set_progress_bar_config(disable=False)
    run(pipe, picture)
    pipe.set_progress_bar_config(disable=True)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pil", "np", "pt", "latent"])
def test_results_come_in_every_form(kind, pipe, picture, plain):
    from PIL import Image

    given = Image.fromarray(np.rint(picture * 255).astype(np.uint8)) if kind == "pil" else picture
    (images,) = pipe(
        given, "a red cat", "blur", num_inference_steps=3, generator=torch.Generator().manual_seed(1), output_type=kind,
        return_dict=False,
    )  # fmt: skip
    if kind == "latent":
        assert images.shape == (1, 4, 8, 16)
        return
    pixels = {
        "pil": lambda: np.asarray(images[0]) / 255,
        "np": lambda: images[0],
        "pt": lambda: images[0].permute(1, 2, 0),
    }
    assert np.abs(np.asarray(pixels[kind]()) - plain).max() <= 1 / 255


def test_the_first_stage_is_the_robust_encoders(pipe, picture):
    image = torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1
    stage = pipe.first_stage(image)
    scale = pipe.vae.config.scaling_factor
    assert torch.equal(stage.control, pipe.denoise_encoder(image) * scale)
    assert torch.allclose(stage.picture, pipe.vae.decode(stage.control / scale).sample)
    assert torch.allclose(stage.centre, pipe.vae.encode(stage.picture).latent_dist.mode() * scale)
    assert (stage.control - pipe.vae.encode(image).latent_dist.mode() * scale).abs().max() > 0.01


def test_the_robust_encoder_starts_as_the_vaes(pipe, picture):
    from restore_bridge.restorers.diffusion.supir.autoencoder import RobustEncoder

    image = torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1
    fresh = RobustEncoder.like(pipe.vae).eval()
    assert torch.equal(fresh(image), pipe.vae.encode(image).latent_dist.mode())
    assert not any(name.startswith(("decoder", "post_quant")) for name in fresh.state_dict())


def test_large_pictures_are_encoded_in_tiles(pipe, monkeypatch):
    encoder = pipe.denoise_encoder
    image = torch.rand(1, 3, 64, 320) * 2 - 1
    whole = encoder(image)
    pipe.enable_tiling()
    try:
        tiled = encoder(image)
    finally:
        for model in (encoder, pipe.vae):
            model.disable_tiling()
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)


def test_compiled_networks_give_the_same(picture, plain):
    from tests.tiny_supir import pipeline

    own = pipeline()
    own.set_progress_bar_config(disable=True)
    own.unet.compile(backend="eager")
    own.control.compile(backend="eager")
    assert np.abs(run(own, picture) - plain).max() <= 1 / 255


def test_networks_that_wait_elsewhere_give_the_same(picture, plain):
    """`enable_model_cpu_offload` with the CPU in the place of a card: every network is called so that its hook runs."""
    from tests.tiny_supir import pipeline

    own = pipeline()
    own.set_progress_bar_config(disable=True)
    own.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        assert np.abs(run(own, picture) - plain).max() <= 1 / 255
    assert len(own._all_hooks) == 6


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_inference_steps": 0}, "steps must be at least 1"),
        ({"num_inference_steps": 1001}, r"1\.\.1000"),
        ({"strength": 0.0}, "strength above 0"),
        ({"color_fix": "lab"}, "colour fix"),
    ],
)
def test_nonsense_is_refused(options, match, pipe, picture):
    with pytest.raises(OptionInvalid, match=match):
        run(pipe, picture, **options)


def test_a_picture_that_is_too_small_is_refused(pipe):
    with pytest.raises(OptionInvalid, match="at least 64 x 64"):
        run(pipe, np.zeros((40, 200, 3), np.float32))


def test_learned_embeddings_stand_for_their_vectors(picture):
    from tests.tiny_supir import pipeline

    own = pipeline()
    own.set_progress_bar_config(disable=True)
    before = run(own, picture, negative_prompt="<ugly>")
    for encoder, tokenizer in ((own.text_encoder, own.tokenizer), (own.text_encoder_2, own.tokenizer_2)):
        vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(3)) * 5
        own.load_textual_inversion(vectors, token="<ugly>", text_encoder=encoder, tokenizer=tokenizer)
    assert np.abs(run(own, picture, negative_prompt="<ugly>") - before).max() > 0.5 / 255
