"""`dreamclear`: DreamClear under the words of the reasoning.

Weights are a released checkpoint (one file, beside a PixArt-α pipeline that brings VAE, T5 and tokenizer) or a folder
that `DreamClearPipeline.save_pretrained` wrote. The pre-pass is SwinIR's general model; without its weights the
weightless one stands in, and a note says so. T5 reads 120 tokens.

What guidance leads away from is a learned null embedding, as DreamClear was trained; the negative words go to T5 only
with `text_negative`, an experiment. Which habits of the original are kept: see `prediction`.

Differs from the original: words come from the reasoning, each window's own included; sizes go the way of all restorers
here (`sizes`: what is too narrow for the model's multiple is padded, not stretched); `strength` below 1 walks the last
part of the schedule only. Source: Ai et al., "DreamClear" (NeurIPS 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from restore_bridge import weights
from restore_bridge.restorers.base import RestoreSettings
from restore_bridge.restorers.diffusion import loading, sizes
from restore_bridge.restorers.diffusion.base import Job, Licence, Loaded, WindowedRestorer, WorkPlan, redrawing
from restore_bridge.restorers.diffusion.dreamclear.convert import BASE
from restore_bridge.restorers.diffusion.dreamclear.prediction import TOKENS, Mends
from restore_bridge.restorers.diffusion.dreamclear.tiling import window_boxes
from restore_bridge.restorers.diffusion.encoding import Sent, fit_phrases
from restore_bridge.restorers.diffusion.first_stage import FirstStageOptions
from restore_bridge.restorers.diffusion.memory import Component, Footprint
from restore_bridge.restorers.diffusion.sampling import (
    LEAST_GUIDANCE,
    DiffusionSchedule,
    Ramp,
    Sampling,
    check_finite,
)
from zoomiqa.errors import WeightsUnsuitable
from zoomiqa.types import Note

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor

    from restore_bridge.restorers.diffusion.dreamclear.prediction import Words
    from restore_bridge.restorers.diffusion.latent_tiling import Window, WindowText
    from zoomiqa.types import Box

CHECKPOINT = "shallowdream204/DreamClear:DreamClear-1024.pth"
"""The released file on the hub, a pickle of 8.9 GB."""

TILE_PX, OVERLAP_PX = 1024, 256
"""Of the original: 128 and 32 latent pixels."""

DECODED_PX = 1024
"""Side that the VAE encodes and decodes at once."""

TEXT = Component("T5 v1.1 XXL", 4762.3, "text")
NETWORKS = (
    Component("transformer with its branches", 2211.9, "denoiser"),
    Component("VAE", 83.7, "decoder"),
    Component("SwinIR", 15.8, "decoder"),
)
FOOTPRINT = Footprint((TEXT, *NETWORKS), window_bytes=21_500, decoder_bytes=4_000)
LICENCE = Licence("Apache-2.0 (DreamClear; SwinIR of DiffBIR), CreativeML Open RAIL++-M (PixArt-alpha)")
TEXT_DEVICES = ("auto", "cpu")
BASE_PARTS = ("vae", "text_encoder", "tokenizer")
STAND_IN = Note(
    "prepass-stand-in",
    "SwinIR's weights were not given (option swinir); the classical pre-pass stands in, on which DreamClear was not"
    " trained",
)
NOT_SENT = Note(
    "negative-not-sent",
    "DreamClear was trained without negative words; its learned null embedding stands for them (option text_negative)",
)


@dataclass(frozen=True, slots=True)
class DreamClearOptions(FirstStageOptions):
    """With what is DreamClear's own."""

    base: str | Path | None = None
    """With a released file: folder or hub id of a PixArt-alpha pipeline, which brings VAE, T5 and tokenizer."""

    swinir: str | Path | None = None
    """File or hub id of SwinIR's general model; without one, what a saved folder brings, or the weightless pre-pass."""

    text_device: str = "auto"
    """auto, or cpu: T5 stays in the machine's memory and works there, as in the original."""

    text_negative: bool = False
    """Send the negative words in place of the learned null embedding: an experiment."""

    lre: bool = True
    """Whether a whole walk begins at the clean picture's latent under noise, as in the authors' command; pure noise otherwise."""  # noqa: E501

    start_point: int = 999
    """How far that one is noised, 0..999."""

    mend: str = ""
    """Habits of the original to mend, with commas between: attention, channels, mask, windows; or all."""

    def __post_init__(self) -> None:
        FirstStageOptions.__post_init__(self)  # no plain `super()`: slots make the decorator build the class anew
        self._as_text("base")
        self._as_text("swinir")
        self._within("start_point", 0, 999, is_whole=True)
        self._one_of("text_device", TEXT_DEVICES)
        self._flags("text_negative", "lre")
        Mends.of(self.mends)

    @property
    def mends(self) -> tuple[str, ...]:
        """The names in `mend`."""
        return tuple(filter(None, (name.strip() for name in str(self.mend).split(","))))


class DreamClearRestorer(WindowedRestorer):
    """DreamClear: PixArt-α between a branch that sees the picture and one that sees the pre-pass."""

    capabilities = redrawing(
        "dreamclear",
        "DreamClear: PixArt-alpha under the picture and a SwinIR pre-pass, redraws from noise; 120 tokens",
        encoder="t5-120",
        licence=LICENCE,
        footprint=FOOTPRINT,
        tile_px=TILE_PX,
        overlap_px=OVERLAP_PX,
    )
    options_type = DreamClearOptions
    footprint: Footprint = FOOTPRINT  # type: ignore[misc]
    licence = LICENCE
    default_weights = CHECKPOINT
    parts: tuple[str, ...] = BASE_PARTS  # type: ignore[misc]
    tokenizers: ClassVar = {"tokenizer": "T5Tokenizer"}
    presets: ClassVar = {
        "quality": Sampling(steps=50, denoise=1.0, guidance=Ramp(4.5, 4.5), control=Ramp(1.0, 1.0)),
        "fidelity": Sampling(steps=50, denoise=0.6, guidance=Ramp(2.0, 3.0), control=Ramp(1.0, 1.0)),
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.options.overlap is None:
            self.capabilities = replace(self.capabilities, overlap_px=self.capabilities.tile_px // 4)
        if self._chosen.text_device == "cpu":
            self.footprint = replace(FOOTPRINT, components=NETWORKS)
        if self._checkpoint is None:
            self.parts = (*BASE_PARTS, "transformer", "scheduler")
        self._text_encoder: Any = None
        self._digest: str | None = None

    @property
    def _chosen(self) -> DreamClearOptions:
        return cast("DreamClearOptions", self.options)

    @property
    def _checkpoint(self) -> str | None:
        """The released file; `None` where the weights are a saved pipeline, in a folder or on the hub."""
        given = str(self.options.weights or CHECKPOINT)
        path, hub = Path(given).expanduser(), weights.hub_id(given)
        is_pinned_id = hub is None and "@" in given and not path.is_file()
        is_saved = path.is_dir() or (hub is not None and hub[1] is None) or is_pinned_id
        return None if is_saved else given

    @property
    def source(self) -> loading.Source:
        """The pipeline that brings all parts, or all but the denoiser."""
        return loading.Source(str(self.options.weights if self._checkpoint is None else self._chosen.base or BASE))

    def sources(self) -> dict[str, str]:
        given = {"checkpoint": self._checkpoint, "pipeline": self.source.text, "swinir": self._chosen.swinir}
        return {name: str(text) for name, text in given.items() if text is not None}

    def unload(self) -> None:
        """Give the memory back; the next picture loads the weights again."""
        self._text_encoder = None
        super().unload()

    def check_source(self, text: str) -> None:
        loading.check_file_or_folder(text, allow_pickle=self._chosen.allow_pickle)

    def plan_for(
        self, size: sizes.WorkSize, tile: int, overlap: int, boxes: tuple[Box, ...], settings: RestoreSettings
    ) -> WorkPlan:
        edge = self.latent_px
        side = min(tile, *size.padded)
        overlap = overlap if overlap < side else side // 4
        latent = (size.padded[0] // edge, size.padded[1] // edge)
        boxes = window_boxes(latent, tile // edge, overlap // edge)
        return super().plan_for(size, tile, overlap, boxes, settings)

    def load_pipeline(self, source: loading.Source, dtype: str) -> Any:
        from restore_bridge.restorers.diffusion.dreamclear import convert
        from restore_bridge.restorers.diffusion.dreamclear.cleaner import read_cleaner
        from restore_bridge.restorers.diffusion.dreamclear.pipeline import DreamClearPipeline

        chosen, checkpoint = self._chosen, self._checkpoint
        if checkpoint is not None:
            file = weights.resolve(checkpoint, allow_pickle=chosen.allow_pickle)
            self._digest = weights.sha256_of(file)
            pipe: Any = convert.assemble(
                file,
                source.text,
                swinir=chosen.swinir,
                dtype=dtype,
                allow_pickle=chosen.allow_pickle,
                variant=chosen.variant,
            )
        else:
            own = {}
            if chosen.swinir is not None:
                own["cleaner"] = read_cleaner(chosen.swinir, allow_pickle=chosen.allow_pickle)
            pipe = loading.from_pretrained(
                DreamClearPipeline, source, dtype=dtype, variant=chosen.variant, vae_dtype="fp32", **own
            )
        widths = pipe.text_encoder.config.d_model, pipe.transformer.config.caption_channels
        if widths[0] != widths[1]:
            raise WeightsUnsuitable(
                f"the text encoder gives embeddings {widths[0]} wide, the denoiser reads {widths[1]}",
                source.text,
                f"use the encoder of {BASE}",
            )
        if pipe.vae_scale_factor != self.latent_px:
            raise WeightsUnsuitable(
                f"this VAE's latent pixels are {pipe.vae_scale_factor} pixels wide, not {self.latent_px}",
                source.text,
                f"use the VAE of {BASE}",
            )
        pipe.vae.tile_sample_min_size = DECODED_PX
        pipe.vae.tile_latent_min_size = DECODED_PX // self.latent_px
        self._text_encoder = pipe.text_encoder
        if chosen.text_device == "cpu":
            pipe.text_encoder = None  # so that nothing moves it
        return pipe

    def denoisers(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.transformer,)

    def encode_text(self, loaded: Loaded, text: WindowText) -> tuple[Words, Sent, Sent]:
        from restore_bridge.restorers.diffusion.dreamclear.pipeline import embed

        pipe, count = loaded.pipe, self.count(loaded.pipe)
        device = "cpu" if self._chosen.text_device == "cpu" else loaded.device
        wanted, unwanted = self.with_suffixes(text.positive, text.negative)
        positive, negative = (
            # PixArt-α was trained on lower-cased captions.
            fit_phrases([phrase.lower() for phrase in phrases], count, TOKENS - 1)
            for phrases in (wanted, unwanted if self._chosen.text_negative else [])
        )
        embeddings: list[Tensor] = []
        for side in (positive, negative) if self._chosen.text_negative else (positive,):
            found = embed(side.text, pipe.tokenizer, self._text_encoder, tokens=TOKENS, device=device)
            embeddings += (tensor.to(loaded.device) for tensor in found)
        words: Words = pipe.words(*embeddings, mends=Mends.of(self._chosen.mends))
        return words, positive, negative if self._chosen.text_negative else Sent((), ())

    def _redraw(
        self, loaded: Loaded, start: np.ndarray, job: Job
    ) -> tuple[np.ndarray, dict[str, Any], tuple[Note, ...]]:
        words = job.words(self.capabilities.encoder, self.count(loaded.pipe))
        pixels, record, notes = super()._redraw(loaded, start, replace(job, prompts=words))
        has_cleaner = loaded.pipe.cleaner is not None
        if not has_cleaner:
            notes = (*notes, STAND_IN)
        if not self._chosen.text_negative and (words.negative or any(part.negative for part in words.regional)):
            notes = (*notes, NOT_SENT)
        return pixels, {**record, "prepass": "swinir" if has_cleaner else "classical"}, notes

    def _work(
        self,
        loaded: Loaded,
        image: Tensor,
        job: Job,
        windows: tuple[Window, ...],
        texts: Mapping[WindowText, Any],
        generator: Any,
    ) -> Tensor:
        pipe, chosen, plan, sampling = loaded.pipe, self._chosen, job.plan, job.plan.sampling
        pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().byte().cpu().numpy()
        pipe.scheduler.set_timesteps(sampling.steps)
        walk = [int(timestep) for timestep in pipe.scheduler.timesteps][-sampling.walked :]
        noise = DiffusionSchedule(pipe.scheduler)
        scales = [max(LEAST_GUIDANCE, sampling.guidance.at(noise.share(timestep))) for timestep in walk]

        def after_step(pipe: Any, index: int, _: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            check_finite(tensors["latents"], f"step {index + 1} of {len(walk)}")
            pipe._guidance_scale = scales[min(index + 1, len(walk) - 1)]
            return {}

        done = pipe(
            pixels,
            window_words=[texts[window.text] for window in windows],
            cleaned_image=None if pipe.cleaner is not None else _classical(pixels),
            upscale=1,
            min_size=0,
            num_inference_steps=sampling.steps,
            strength=sampling.walked / sampling.steps,
            guidance_scale=scales[0],
            start_from_cleaned=chosen.lre,
            start_point=chosen.start_point,
            tile=plan.tile // self.latent_px,
            overlap=plan.overlap // self.latent_px,
            color_fix=chosen.colour_for(job.guidance),
            mend=chosen.mends,
            generator=generator,
            output_type="pt",
            callback_on_step_end=after_step,
        )
        return cast("Tensor", done.images * 2 - 1)

    def _notes(self, job: Job, texts: Mapping[WindowText, tuple[Any, Sent, Sent]]) -> tuple[Note, ...]:
        return (*super()._notes(job, texts), *self._chosen.colour_notes(job.guidance))

    def _record(
        self, job: Job, windows: tuple[Window, ...], texts: Mapping[WindowText, tuple[Any, Sent, Sent]]
    ) -> dict[str, Any]:
        chosen = self._chosen
        own = {
            "negative": "text (an experiment)" if chosen.text_negative else "learned null embedding",
            "text_device": chosen.text_device,
            "mended": Mends.of(chosen.mends).to_list(),
        }
        found = {
            **super()._record(job, windows, texts),
            "dreamclear": own,
            "first_stage_color": chosen.colour_for(job.guidance),
            "licence": self.licence.name,
        }
        return found if self._digest is None else {**found, "checkpoint_sha256": self._digest}


def _classical(pixels: np.ndarray) -> np.ndarray:
    """What stands in for SwinIR: (h, w, 3) uint8 → the same."""
    from restore_bridge.prepass import load_prepass
    from zoomiqa.imaging.picture import picture_from_array

    return load_prepass("classical").clean(picture_from_array(pixels)).pixels
