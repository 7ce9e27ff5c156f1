"""DreamClear's pipeline end to end on a real photograph, with tiny networks and random weights."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra diffusion)")
pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")

import torch
from PIL import Image

from restore_bridge.restorers.diffusion.dreamclear import pipeline as room
from restore_bridge.restorers.diffusion.dreamclear.pipeline import DreamClearPipeline
from restore_bridge.restorers.diffusion.loading import quiet
from tests import tiny_dreamclear
from zoomiqa.errors import OptionInvalid


@pytest.fixture(scope="module")
def pipe():
    return tiny_dreamclear.build()


def restore(pipe, photo, prompt="sharp focus", *, seed=0, **options):
    """(h, w, 3) in 0..255."""
    settings = {"upscale": 1, "min_size": 64, "num_inference_steps": 5, "output_type": "np", **options}
    generator = torch.Generator().manual_seed(seed)
    return pipe(photo, prompt, generator=generator, **settings).images[0] * 255


@pytest.fixture(scope="module")
def plain(pipe, photo):
    return restore(pipe, photo)


def apart(first, second):
    """Mean difference in levels of 255."""
    return float(np.abs(first - second).mean())


def test_one_seed_gives_the_same_bytes(pipe, photo, plain):
    assert plain.shape == photo.shape
    assert restore(pipe, photo).tobytes() == plain.tobytes()
    assert apart(restore(pipe, photo, seed=1), plain) > 5


def test_words_matter_on_both_sides(pipe, photo, plain):
    assert apart(restore(pipe, photo, "a red cat"), plain) > 1
    noise = restore(pipe, photo, negative_prompt="severe noise")
    assert apart(noise, plain) > 1, "a negative prompt takes the place of the null embedding"
    assert apart(restore(pipe, photo, negative_prompt="slight blur"), noise) > 1


def test_picture_and_pre_pass_matter(pipe, photo, plain):
    assert apart(restore(pipe, photo[:, ::-1].copy(), cleaned_image=photo), plain) > 1
    assert apart(restore(pipe, photo, cleaned_image=photo[:, ::-1].copy()), plain) > 1
    own = pipe.cleaner.clean(photo)
    assert restore(pipe, photo, cleaned_image=own).tobytes() == plain.tobytes()


def test_windows_agree_with_the_whole(pipe, photo, plain):
    """Positions are stretched to each window, so they cannot agree to the pixel; 2.5 levels of 255 in the mean."""
    small = restore(pipe, photo, tile=8, overlap=4)
    assert 0 < apart(small, plain) < 2.5
    assert restore(pipe, photo, tile=16, overlap=4).tobytes() == plain.tobytes()


def test_sixteen_bit_numbers_give_nearly_the_same(photo, plain):
    """Half a level of 255 in the mean, 4 at most."""
    half = restore(tiny_dreamclear.build(torch.bfloat16), photo)
    assert 0 < apart(half, plain) < 0.5
    assert np.abs(half - plain).max() <= 4


@pytest.mark.parametrize("name", ["attention", "channels", "mask"])
def test_each_habit_of_the_original_can_be_mended(pipe, photo, plain, name):
    assert apart(restore(pipe, photo, mend=[name]), plain) > 0.5


def test_windows_can_be_centred(pipe, photo):
    tall = np.ascontiguousarray(photo.transpose(1, 0, 2))
    crooked, centred = (restore(pipe, tall, tile=8, overlap=4, mend=mend) for mend in ([], ["windows"]))
    assert 0 < apart(crooked, centred) < 1


def test_a_saved_pipeline_gives_the_same_picture(folders, photo, plain):
    with quiet():
        again = DreamClearPipeline.from_pretrained(folders["saved"])
    again.set_progress_bar_config(disable=True)
    assert restore(again, photo).tobytes() == plain.tobytes()


def test_embeddings_stand_for_words(pipe, photo, plain):
    hidden, mask, *_ = pipe.encode_prompt("Sharp focus")
    assert hidden.shape == (1, 120, 32)
    assert int(mask.sum()) == 3, "two words and the end mark"
    ours = restore(pipe, photo, None, prompt_embeds=hidden, prompt_attention_mask=mask)
    assert ours.tobytes() == plain.tobytes()
    short = restore(pipe, photo, None, prompt_embeds=hidden[:, :3], prompt_attention_mask=mask[:, :3])
    assert apart(short, plain) < 0.01, "filling is not read"
    negative = restore(
        pipe,
        photo,
        None,
        prompt_embeds=hidden,
        prompt_attention_mask=mask,
        negative_prompt_embeds=hidden * 0.5,
        negative_prompt_attention_mask=mask,
    )
    assert apart(negative, plain) > 1


def test_the_null_embedding_is_as_long_as_the_caption_unless_mended(pipe):
    hidden, mask, *_ = pipe.encode_prompt("a red cat")
    words = pipe.words(hidden, mask)
    assert words.mask.sum(1).tolist() == [4, 4]
    assert torch.equal(words.hidden[1], pipe.transformer.null_embedding)
    assert pipe.words(hidden, mask, mends=room.Mends(mask=True)).mask.sum(1).tolist() == [4, 120]
    assert len(pipe.words(hidden, mask, guided=False).hidden) == 1
    other, other_mask, *_ = pipe.encode_prompt("noise")
    assert pipe.words(hidden, mask, other, other_mask).mask.sum(1).tolist() == [4, 2]


def test_captions_are_made_plain_and_lower_case(pipe):
    assert room.clean_caption("A (red:1.4) CAT <lora:x:1> #1") == "a red cat 1"
    ours, _, theirs, _ = pipe.encode_prompt("A Red [Cat]", "a red cat")
    assert torch.equal(ours, theirs)


def test_without_guidance_one_side_is_predicted(pipe, photo, plain):
    sides = []
    hook = pipe.transformer.register_forward_pre_hook(lambda module, inputs: sides.append(len(inputs[0])))
    unguided = restore(pipe, photo, guidance_scale=1.0)
    hook.remove()
    assert sides == [1] * 5
    assert apart(unguided, plain) > 1


def test_each_window_may_have_its_own_words(pipe, photo):
    boxes = pipe.windows((128, 64), 8, 4)
    assert [(box.x1, box.x2) for box in boxes] == [(0, 8), (4, 12), (8, 16)]
    sharp, cat = (pipe.words(*pipe.encode_prompt(text)[:2]) for text in ("sharp focus", "a red cat"))
    common = {"tile": 8, "overlap": 4}
    same = restore(pipe, photo, None, window_words=[sharp] * 3, **common)
    assert same.tobytes() == restore(pipe, photo, **common).tobytes()
    change = np.abs(restore(pipe, photo, None, window_words=[cat, sharp, sharp], **common) - same).mean((0, 2))
    assert change[:32].mean() > 2 * change[96:].mean()
    with pytest.raises(OptionInvalid, match="there are 3 windows"):
        restore(pipe, photo, None, window_words=[sharp], **common)


def test_the_start_is_the_clean_picture_noised_or_noise_alone(pipe, photo, plain):
    """At the highest noise hardly anything of the picture is left; further down it shows."""
    assert apart(restore(pipe, photo, start_from_cleaned=False), plain) < 1
    assert apart(restore(pipe, photo, start_point=500), plain) > 0.2
    part = restore(pipe, photo, strength=0.4)
    assert apart(part, plain) > 1


def test_callbacks_see_and_change_the_latent(pipe, photo, plain):
    seen = []

    def watch(pipe, index, timestep, tensors):
        seen.append((index, int(timestep), pipe.guidance_scale))
        return {"latents": tensors["latents"] * (0 if index == 4 else 1)}

    empty = restore(pipe, photo, callback_on_step_end=watch)
    assert [timestep for _, timestep, _ in seen] == [999, 749, 500, 250, 0]
    assert pipe.num_timesteps == 5
    assert apart(empty, plain) > 1

    def stop(pipe, index, timestep, tensors):
        pipe._interrupt = index == 1
        seen.append(index)
        return tensors

    seen.clear()
    restore(pipe, photo, callback_on_step_end=stop)
    assert seen == [0, 1]

    def stronger(pipe, index, timestep, tensors):
        pipe._guidance_scale = 9.0
        return tensors

    assert apart(restore(pipe, photo, callback_on_step_end=stronger), plain) > 0.1


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_schedulers_of_diffusers_fit(photo):
    from diffusers import DPMSolverMultistepScheduler

    pipe = tiny_dreamclear.build()
    pipe.scheduler = DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    first = restore(pipe, photo)
    assert first.tobytes() == restore(pipe, photo).tobytes()
    assert apart(restore(pipe, photo, strength=0.5), first) > 1


def test_outputs_of_every_type(pipe, photo, plain):
    def done(kind, **options):
        generator = torch.Generator().manual_seed(0)
        return pipe(
            photo,
            "sharp focus",
            upscale=1,
            min_size=64,
            num_inference_steps=5,
            generator=generator,
            output_type=kind,
            **options,
        )

    picture = done("pil")
    assert np.abs(np.asarray(picture.images[0]) - plain).max() < 0.01
    assert picture.cleaned.shape == photo.shape
    tensor = done("pt").images
    assert tensor.shape == (1, 3, 64, 128)
    assert np.abs(tensor[0].permute(1, 2, 0).numpy() * 255 - plain).max() <= 0.51
    assert done("latent").images.shape == (1, 4, 8, 16)
    assert isinstance(done("pil", return_dict=False), tuple)


def test_given_noise_takes_the_place_of_the_generators(pipe, photo, plain):
    noise = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    torch.randn(1, 4, 8, 16, generator=generator)
    ours = pipe(
        photo,
        "sharp focus",
        upscale=1,
        min_size=64,
        num_inference_steps=5,
        output_type="np",
        latents=noise,
        generator=generator,
    )
    assert (ours.images[0] * 255).tobytes() == plain.tobytes()
    with pytest.raises(OptionInvalid, match=r"latents must be \(1, 4, 8, 16\)"):
        restore(pipe, photo, latents=noise[..., :8])


@pytest.mark.parametrize(
    ("size", "upscale", "least", "work", "result"),
    [
        ((256, 256), 4, 1024, (1024, 1024), (1024, 1024)),
        ((300, 200), 4, 1024, (1536, 1024), (1536, 1024)),
        ((500, 333), 4, 1024, (1984, 1344), (2000, 1332)),
        ((128, 64), 1, 0, (128, 64), (128, 64)),
        ((10, 7), 1, 0, (64, 64), (10, 7)),
    ],
)
def test_sizes_follow_the_original(size, upscale, least, work, result):
    assert room.work_size(size, upscale, least) == (work, result)


def test_results_have_the_size_that_was_asked_for(pipe):
    small = Image.effect_noise((50, 37), 40).convert("L")
    done = pipe(small, "", upscale=2, min_size=64, num_inference_steps=2)
    assert done.images[0].size == (100, 74)
    assert done.images[0].mode == "RGB"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prompt": None}, "give one of prompt, prompt_embeds and window_words"),
        ({"strength": 0}, "strength must lie above 0"),
        ({"color_fix": "lab"}, "wavelet, adain, none"),
        ({"output_type": "jpeg"}, "pil, np, pt or latent"),
        ({"start_point": 1000}, r"0\.\.999"),
        ({"mend": ["all", "taste"]}, "nothing of that name can be mended"),
        ({"num_inference_steps": 0}, r"steps must lie in 1\.\.1000"),
        ({"upscale": 0}, "upscale must be above 0"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "it can be given latents"),
    ],
)
def test_arguments_outside_their_range_are_refused(pipe, photo, options, match):
    with pytest.raises(OptionInvalid, match=match):
        restore(pipe, photo, **options)


def test_what_is_no_picture_is_refused(pipe, photo):
    with pytest.raises(OptionInvalid, match=r"\(h, w, 3\) uint8"):
        restore(pipe, photo.astype(np.float32))


def test_missing_parts_are_named(photo):
    pipe = tiny_dreamclear.build()
    hidden, mask, *_ = pipe.encode_prompt("sharp focus")
    pipe.cleaner = None
    with pytest.raises(OptionInvalid, match="no pre-pass"):
        restore(pipe, photo)
    pipe.text_encoder = None
    with pytest.raises(OptionInvalid, match="no text encoder"):
        restore(pipe, photo, cleaned_image=photo)
    assert (
        restore(pipe, photo, None, prompt_embeds=hidden, prompt_attention_mask=mask, cleaned_image=photo).shape
        == photo.shape
    )
