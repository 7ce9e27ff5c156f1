"""Prompts for diffusers pipelines: the plain function, the modular block, and the example, on tiny real pipelines."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLAutoBlocks, StableDiffusionXLImg2ImgPipeline
from PIL import Image

from restore_bridge.modular import QualityPromptStep
from restore_bridge.pipelines import encoder_of, prompts_for
from tests import tiny_diffusion as tiny
from zoomiqa import assess
from zoomiqa.errors import BackendFailed, OptionInvalid
from zoomiqa.types import Assessment, AssessorInfo, Box, ImageInfo, Round, Sections

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def photo(photos: Path) -> Image.Image:
    """Noisy, so that there is something to say."""
    with Image.open(photos / "astronaut.png") as image:
        pixels = np.asarray(image.convert("RGB").resize((128, 128)), np.float64)
    noise = np.random.default_rng(1).normal(0, 30, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def parts() -> dict[str, object]:
    first, second = tiny.clip_tokenizer(), tiny.clip_tokenizer(pad="!")
    return {
        "vae": tiny.vae(),
        "text_encoder": tiny.clip_encoder(first),
        "text_encoder_2": tiny.clip_encoder(second, projection=tiny.WIDTH),
        "tokenizer": first,
        "tokenizer_2": second,
        "unet": tiny._unet(**tiny.SDXL),
        "scheduler": tiny._euler(),
    }


@pytest.fixture(scope="module")
def pipe(parts: dict[str, object]) -> StableDiffusionXLImg2ImgPipeline:
    made = StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False)
    made.set_progress_bar_config(disable=True)
    return made


def pixels_of(pipe, photo, words: dict[str, str]) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    done = pipe(**words, image=photo, num_inference_steps=4, strength=0.5, generator=generator, output_type="np")
    return done.images[0]


def test_the_words_reach_a_stock_pipeline(pipe, photo) -> None:
    found = prompts_for(photo, pipe, prompt="portrait of a woman")
    assert found.arguments["prompt"].startswith("portrait of a woman")
    assert "noise" in found.arguments["negative_prompt"]
    assert found.prompts.counted_by == "tokenizer"
    with_words = pixels_of(pipe, photo, found.arguments)
    for side in ("prompt", "negative_prompt"):
        assert np.abs(with_words - pixels_of(pipe, photo, {**found.arguments, side: ""})).max() > 0
    assert np.array_equal(with_words, pixels_of(pipe, photo, found.arguments))


def test_it_says_what_the_assessor_said(photo) -> None:
    found = prompts_for(photo)
    assert found.assessment.rating == assess(photo).rating == assess(np.asarray(photo)).rating
    assert found.prompts.counted_by == "estimate"
    assert found.prompts.budget.name == "clip"


class _Zooming:
    """Finds the flaws only in its second look, at a part."""

    info = AssessorInfo("zooming", "1", None, "none", "0")

    def assess(self, pictures):
        looks = (
            Round(0, "", Sections(directions="A natural photograph."), 3.0, "crop", box=Box(10, 10, 60, 60)),
            Round(
                1,
                "",
                Sections(directions="The feathers would show crisp edges.", issues="Severe motion blur. Heavy noise."),
                2.0,
                "final",
                shown_box=Box(10, 10, 60, 60),
            ),
        )
        return [Assessment(looks, 2.0, image=ImageInfo(None, None, 100, 100)) for _ in pictures]


def test_what_a_second_look_found_reaches_the_one_prompt(photo) -> None:
    prompts = prompts_for(photo, assessor=_Zooming()).prompts
    assert prompts.negative.startswith("severe motion blur, heavy noise")
    assert "feathers with crisp edges" in prompts.positive


class _Failing:
    info = AssessorInfo("failing", "1", None, "none", "0")

    def assess(self, pictures):
        return [Assessment(rounds=(), rating=None, error={"code": "ZIQ-401", "message": "no answer"})]


def test_a_failure_is_no_prompt(photo) -> None:
    with pytest.raises(BackendFailed, match="could not be assessed"):
        prompts_for(photo, assessor=_Failing())


class _T5TokenizerFast:
    def __call__(self, text, add_special_tokens=True):
        return type("Encoded", (), {"input_ids": text.split()})


def pipeline_like(*, max_sequence_length=None, clip=False):
    class WithLength:
        tokenizer = _T5TokenizerFast()

        def __call__(self, prompt, max_sequence_length=max_sequence_length):
            """Like a pipeline's."""

    class Without:
        tokenizer = _T5TokenizerFast()

        def __call__(self, prompt):
            """Like a pipeline's."""

    return (Without if max_sequence_length is None else WithLength)()


@pytest.mark.parametrize(
    ("room", "budget"),
    [
        (None, "t5-256"),
        (512, "t5-512"),
        (300, "t5-300"),
        (256, "t5-256"),
        (120, "t5-120"),
        (77, "t5-120"),
        (255, "t5-120"),
    ],
)
def test_long_text_encoders_get_their_budget(room: int | None, budget: str) -> None:
    assert encoder_of(pipeline_like(max_sequence_length=room)) == budget


def test_clip_alone_gets_clips(pipe) -> None:
    assert encoder_of(pipe) == encoder_of(None) == "clip"


def test_an_encoder_of_choice(photo) -> None:
    assert prompts_for(photo, encoder="t5-300").prompts.budget.name == "t5-300"
    with pytest.raises(OptionInvalid, match="no text budget"):
        prompts_for(photo, encoder="nonsense")


def test_the_block_in_a_modular_pipeline(parts, photo) -> None:
    blocks = StableDiffusionXLAutoBlocks()
    blocks.sub_blocks.insert("quality", QualityPromptStep(), 0)
    pipe = blocks.init_pipeline()
    pipe.update_components(**parts)
    pipe.set_progress_bar_config(disable=True)
    state = {"num_inference_steps": 2, "strength": 0.5, "height": 128, "width": 128, "output_type": "np"}
    asked = ["images", "prompt", "negative_prompt", "quality_assessment"]
    done = pipe(image=photo, prompt="portrait of a woman", output=asked, **state)
    words = prompts_for(photo, pipe, prompt="portrait of a woman")
    assert (done["prompt"], done["negative_prompt"]) == tuple(words.arguments.values())
    assert done["quality_assessment"].rating == words.assessment.rating
    assert np.asarray(done["images"]).shape == (1, 128, 128, 3)


def test_the_block_takes_one_image(parts, photo) -> None:
    blocks = QualityPromptStep()
    pipe = blocks.init_pipeline()
    assert pipe(image=[photo], output="prompt") == prompts_for(photo).prompts.positive
    with pytest.raises(OptionInvalid, match="one image"):
        pipe(image=[photo, photo])


def test_the_example_runs(pipe, photo, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    photo.save(tmp_path / "photo.png")
    command = [sys.executable, "examples/diffusers_pipeline.py", str(tmp_path / "photo.png"), str(tmp_path / "out.png")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(tmp_path / "model")], cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "negative:" in done.stdout
    with Image.open(tmp_path / "out.png") as result:
        assert result.size == (128, 128)
