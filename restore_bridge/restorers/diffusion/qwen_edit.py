"""`qwen-edit`: Qwen-Image-Edit, which reads the guidance as an instruction and sees the picture itself.

The model works at about one megapixel, whatever comes in. What it changed there is carried over: a larger picture keeps
its own detail beyond that size (`carry_over`), so its fine noise stays as well. There is no part-way denoising:
`strength` mixes the result with the picture. Editing models may shift the picture by a pixel or two
(github.com/QwenLM/Qwen-Image issues 160 and 229); the bridge's consistency check is what catches it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from restore_bridge.prompts import QUALITY_NEGATIVE, Prompts
from restore_bridge.restorers.base import DEFAULT_SETTINGS, RestoreSettings, check_scale
from restore_bridge.restorers.diffusion import sizes
from restore_bridge.restorers.diffusion.base import (
    DiffusionRestorer,
    Job,
    Licence,
    Loaded,
    WorkPlan,
    cut_notes,
    redrawing,
)
from restore_bridge.restorers.diffusion.encoding import fit_phrases, phrases_of
from restore_bridge.restorers.diffusion.loading import Source, from_pretrained, quiet
from restore_bridge.restorers.diffusion.memory import Component, Footprint
from restore_bridge.restorers.diffusion.sampling import Ramp, Sampling, check_finite
from zoomiqa.types import Box, Note

if TYPE_CHECKING:
    import numpy as np

    from zoomiqa.types import BoxFraction

AREA = 1024 * 1024
"""Pixels that the model works at."""

GRID = 32
"""Both sides are multiples of this."""

TOKENS = 512
"""Of one side of the guidance; the template around it is not counted."""

OPENING = "Restore this photograph without changing its content, framing or anyone's identity"

FOOTPRINT = Footprint(
    (
        Component("Qwen2.5-VL 7B", 8292.2, "text"),
        Component("transformer", 20430.4, "denoiser"),
        Component("VAE", 126.9, "decoder"),
    ),
    window_bytes=90_000,
    decoder_bytes=6_000,
)
LICENCE = Licence("Apache-2.0 (Qwen-Image-Edit)")


class QwenEditRestorer(DiffusionRestorer):
    """An editing model under a written instruction."""

    capabilities = redrawing(
        "qwen-edit",
        "Qwen-Image-Edit; reads the guidance as an instruction, works at one megapixel",
        encoder="t5-512",
        licence=LICENCE,
        footprint=FOOTPRINT,
        tiled=False,
        scales=(1, 2),
        overlap_px=0,
    )
    footprint = FOOTPRINT
    licence = LICENCE
    default_weights = "Qwen/Qwen-Image-Edit-2509"
    parts = ("vae", "text_encoder", "tokenizer", "processor", "transformer", "scheduler")
    tokenizers: ClassVar = {"tokenizer": "Qwen2Tokenizer"}
    presets: ClassVar = {
        "quality": Sampling(steps=40, denoise=1.0, guidance=Ramp(4.0, 4.0), control=Ramp(0.0, 0.0)),
        "fidelity": Sampling(steps=40, denoise=1.0, guidance=Ramp(2.5, 2.5), control=Ramp(0.0, 0.0)),
    }
    negative_suffix = "changed faces, moved or added objects, other framing, text, frame"

    def load_pipeline(self, source: Source, dtype: str) -> Any:
        from diffusers import QwenImageEditPlusPipeline

        return from_pretrained(QwenImageEditPlusPipeline, source, dtype=dtype, variant=self.options.variant)

    def denoisers(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.transformer,)

    def plan(self, size: tuple[int, int], settings: RestoreSettings = DEFAULT_SETTINGS) -> WorkPlan:
        check_scale(self.capabilities, settings, size)
        model = model_size(size)
        target = (size[0] * settings.scale, size[1] * settings.scale)
        latent = (model[0] // self.latent_px, model[1] // self.latent_px)
        return self.plan_for(sizes.WorkSize(size, target, model, model), max(model), 0, (Box(0, 0, *latent),), settings)

    def _redraw(
        self, loaded: Loaded, start: np.ndarray, job: Job
    ) -> tuple[np.ndarray, dict[str, Any], tuple[Note, ...]]:
        import torch
        from PIL import Image

        pipe, plan, settings = loaded.pipe, job.plan, job.settings
        count = self.count(pipe)
        words = job.words(self.capabilities.encoder, count)
        sides = self.with_suffixes(instruction(words), phrases_of(words.negative))
        wanted, unwanted = (fit_phrases(phrases, count, TOKENS) for phrases in sides)
        width, height = plan.size.padded

        def check(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            check_finite(tensors["latents"], f"step {index + 1} of {plan.sampling.steps}")
            return {}

        with quiet():
            values = pipe(
                image=[Image.fromarray(start)],
                prompt=wanted.text,
                negative_prompt=unwanted.text or " ",
                true_cfg_scale=plan.sampling.guidance.end,
                num_inference_steps=plan.sampling.steps,
                generator=torch.Generator("cpu").manual_seed(settings.seed),
                width=width,
                height=height,
                output_type="pt",
                callback_on_step_end=check,
            ).images[0]
        check_finite(values, "the decoder")
        pixels = values.permute(1, 2, 0).float().mul(255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        sent = {"positive": wanted.to_dict(), "negative": unwanted.to_dict()}
        record = {
            "sizes": plan.size.to_dict(),
            "steps": plan.sampling.steps,
            "guidance": plan.sampling.guidance.end,
            "share": settings.strength,
            "sent": [sent],
        }
        return pixels, record, cut_notes((wanted, unwanted))

    def _finish(
        self, source: np.ndarray, start: np.ndarray, redrawn: np.ndarray, plan: WorkPlan, settings: RestoreSettings
    ) -> np.ndarray:
        return carry_over(source, start, redrawn, plan.size.target, settings.strength)


def model_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of about `AREA` pixels in the shape of `size`, in multiples of `GRID`."""
    ratio = (AREA / (size[0] * size[1])) ** 0.5
    width, height = (max(GRID, round(side * ratio / GRID) * GRID) for side in size)
    return width, height


def carry_over(
    source: np.ndarray, start: np.ndarray, redrawn: np.ndarray, target: tuple[int, int], share: float
) -> np.ndarray:
    """What was changed at the model's size, on the picture at its own.

    Args:
        source: The picture (h, w, 3) uint8.
        start: The picture as the model saw it.
        redrawn: What the model made of it, of the same size.
        target: (width, height) of the result.
        share: How much of the change is taken, 0..1.

    Returns:
        Where the target has no more pixels than the model's size, the redrawn picture made smaller; otherwise the
        picture with the change added, so that detail finer than the model's size stays.
    """
    import cv2
    import numpy as np

    plain = sizes.resize(source, target).astype(np.float32)
    if target[0] * target[1] <= start.shape[0] * start.shape[1]:
        change = sizes.resize(redrawn, target).astype(np.float32) - plain
    else:
        change = cv2.resize(redrawn.astype(np.float32) - start, target, interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(plain + share * change), 0, 255).astype(np.uint8)


def instruction(prompts: Prompts) -> list[str]:
    """The guidance as sentences' parts: what to keep, what is wanted, what to take away, and where."""
    parts = [OPENING, *phrases_of(prompts.positive)]
    # The general tail names things that nobody saw: "remove painting" would take one off a wall.
    parts += [f"remove {phrase}" for phrase in phrases_of(prompts.negative) if phrase not in QUALITY_NEGATIVE]
    known = {phrase.casefold() for side in (prompts.positive, prompts.negative) for phrase in phrases_of(side)}
    for part in prompts.regional:
        where = place_words(part.box_fraction)
        for text, verb in ((part.positive, ""), (part.negative, "remove ")):
            parts += [f"{where} {verb}{phrase}" for phrase in phrases_of(text) if phrase.casefold() not in known]
    return list(dict.fromkeys(parts))


def place_words(box: BoxFraction) -> str:
    """A box in words, by the third of the frame that its middle lies in."""
    across = ("left", "", "right")[min(2, int((box[0] + box[2]) * 1.5))]
    down = ("upper", "", "lower")[min(2, int((box[1] + box[3]) * 1.5))]
    return f"in the {' '.join(filter(None, (down, across))) or 'middle'} part"
