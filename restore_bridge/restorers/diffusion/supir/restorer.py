"""`supir`: SUPIR (Yu et al., CVPR 2024) under the guidance's words. Its weights are non-commercial and never fetched unasked.

`weights` is what the user has: the folder of a converted pipeline (or its hub id), or one of the two released files,
SUPIR-v0Q (strong damage) and SUPIR-v0F (light damage), which is joined with a base of SDXL's family while loading. Sizes
are as everywhere here (padded to multiples of 64), words as in `sdxl.py`, windows and the walk as in the original.
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from restore_bridge import weights
from restore_bridge.restorers.base import RestoreSettings
from restore_bridge.restorers.diffusion import loading, sizes
from restore_bridge.restorers.diffusion.base import Job, Licence, Loaded, WindowedRestorer, WorkPlan, redrawing
from restore_bridge.restorers.diffusion.encoding import ClipEmbedding, Sent
from restore_bridge.restorers.diffusion.first_stage import FirstStageOptions
from restore_bridge.restorers.diffusion.memory import Component, Footprint
from restore_bridge.restorers.diffusion.options import ramp
from restore_bridge.restorers.diffusion.sampling import Ramp, Sampling
from restore_bridge.restorers.diffusion.sdxl import BASE, BASE_LICENCE, COMPONENTS, encode_words
from zoomiqa.errors import WeightsMissing, WeightsUnsuitable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from restore_bridge.restorers.diffusion.latent_tiling import Window, WindowText
    from restore_bridge.restorers.diffusion.supir.sampling import Walk
    from zoomiqa.types import Box, Note

LICENCE = Licence(f"SupPixel non-commercial (SUPIR), {BASE_LICENCE}", needs_consent=True)
FOOTPRINT = Footprint(
    (
        *COMPONENTS,
        Component("connectors", 54.8, "denoiser"),
        Component("control copy", 1243.4, "denoiser"),
        Component("robust encoder", 34.2, "decoder"),
    ),
    window_bytes=20_000,
    decoder_bytes=4_000,
)
SDXL_PARTS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet")
OWN_PARTS = ("control", "denoise_encoder", "scheduler")
NEGATIVE_TOKEN = "<supir-negative>"  # noqa: S105 - a mark in a prompt
TENSORS = ("clip_l", "clip_g")
"""Names in a file with an embedding for SDXL's two encoders."""

WALKS = {
    "quality": Sampling(steps=50, denoise=1.0, guidance=Ramp(3.0, 6.0), control=Ramp(0.93, 0.93)),
    "fidelity": Sampling(steps=50, denoise=1.0, guidance=Ramp(1.0, 4.0), control=Ramp(1.0, 1.0)),
}
"""As the original's README advises."""

FEW_STEPS = {
    "quality": Sampling(steps=8, denoise=1.0, guidance=Ramp(2.0, 2.0), control=Ramp(1.0, 1.0)),
    "fidelity": Sampling(steps=8, denoise=1.0, guidance=Ramp(1.5, 1.5), control=Ramp(1.0, 1.0)),
}
"""For distilled bases, as the original's options for Juggernaut-XL Lightning say."""

NOISE_SCALES = {"edm": {"quality": 1.02, "fidelity": 1.01}, "dpmpp-2m": {"quality": 1.003, "fidelity": 1.003}}
"""Of the added noise, by sampler and preset."""


@dataclass(frozen=True, slots=True)
class SUPIROptions(FirstStageOptions):
    """With what is SUPIR's own."""

    base: str | Path | None = None
    """With a released file: SDXL or a fine-tune of it, as a pipeline's folder, hub id, or single file."""

    configs: str | Path | None = None
    """With a single file as base: pipeline of its family that brings tokenizers and configurations."""

    control: float | None = None
    """How strongly the control holds in the last step, 0..2."""

    control_start: float | None = None
    """Likewise where there is most noise."""

    pull: float | None = None
    """Pull towards the first stage while the noise is high, as an exponent: 0 is off, and larger ones pull less."""

    churn: float = 5.0
    """Noise added on the way, 0..100; 0 is none."""

    noise_scale: float | None = None
    """Of the added noise, 0.9..1.2."""

    sampler: str = "edm"
    """edm, or dpmpp-2m for distilled bases (8 steps)."""

    negative_embedding: str | Path | None = None
    """Safetensors file with an embedding for SDXL's two encoders (clip_l, clip_g), put before the negative prompt."""

    faithful: bool = True
    """Whether to keep what looks like mistakes of the original; docs/supir.md lists them."""

    def __post_init__(self) -> None:
        FirstStageOptions.__post_init__(self)  # no plain `super()`: slots make the decorator build the class anew
        for name in ("base", "configs", "negative_embedding"):
            self._as_text(name)
        self._within("control", 0, 2)
        self._within("control_start", 0, 2)
        self._within("pull", 0, 100)
        self._within("churn", 0, 100)
        self._within("noise_scale", 0.9, 1.2)
        self._one_of("sampler", tuple(NOISE_SCALES))
        self._flags("faithful")

    def sampling(self, preset: Sampling, strength: float) -> Sampling:
        plain = FirstStageOptions.sampling(self, preset, strength)
        control = ramp(preset.control, self.control_start, self.control)
        return Sampling(plain.steps, plain.denoise, plain.guidance, control, self.pull or 0.0)


class SUPIRRestorer(WindowedRestorer):
    """SUPIR under both prompts."""

    capabilities = redrawing(
        "supir",
        "SUPIR over SDXL; redraws from noise under both prompts, for strong damage; bring its weights",
        encoder="clip-2",
        licence=LICENCE,
        footprint=FOOTPRINT,
    )
    options_type = SUPIROptions
    footprint = FOOTPRINT
    licence = LICENCE
    default_weights = "a pipeline that restore_bridge.restorers.diffusion.supir.convert wrote"
    parts: tuple[str, ...] = (*SDXL_PARTS, *OWN_PARTS)  # type: ignore[misc]
    tokenizers: ClassVar = {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer"}
    presets: ClassVar = WALKS
    quality_suffix = (
        "a sharp photograph taken with a good camera, high contrast, very fine true-to-life detail, clean edges,"
        " natural skin and fabric texture, balanced colours"
    )
    negative_suffix = (
        "painting, drawing, cartoon, rendered image, plastic skin, blur, smeared texture, dirt, invented pattern,"
        " frame, watermark, signature, compression blocks, deformed, low resolution"
    )

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        chosen = self._chosen
        if chosen.sampler == "dpmpp-2m":
            self.presets = FEW_STEPS  # type: ignore[misc]
        if self._is_released:
            self.parts = SDXL_PARTS
        self._digest: str | None = None
        self._negative: str | None = None

    @property
    def _chosen(self) -> SUPIROptions:
        return cast("SUPIROptions", self.options)

    @property
    def _is_released(self) -> bool:
        """Whether the weights are a released file, to be joined with a base."""
        from restore_bridge.restorers.diffusion.supir.convert import is_single_file

        return self.options.weights is not None and is_single_file(self.options.weights)

    @property
    def source(self) -> loading.Source:
        """The pipeline that brings tokenizers, configurations and, unless a single file does, SDXL's weights."""
        from restore_bridge.restorers.diffusion.supir.convert import is_single_file

        chosen = self._chosen
        if not self._is_released:
            return loading.Source(str(chosen.weights))
        base = str(chosen.base or BASE)
        return loading.Source(str(chosen.configs or BASE) if is_single_file(base) else base)

    def sources(self) -> dict[str, str]:
        chosen = self._chosen
        if not self._is_released:
            return {"pipeline": str(chosen.weights)}
        base = str(chosen.base or BASE)
        given = {"pipeline": self.source.text, "base": base, "supir": str(chosen.weights)}
        return given if base != self.source.text else {"pipeline": base, "supir": str(chosen.weights)}

    def check_licence(self) -> None:
        """Refuse to run without weights, or without consent to their terms.

        Raises:
            WeightsMissing: none were named.
            OptionInvalid: the terms were not accepted.
        """
        if self.options.weights is None:
            raise WeightsMissing(
                "SUPIR's weights are non-commercial and are not fetched unasked",
                None,
                "name them: weights=SUPIR-v0Q.safetensors, or a converted folder (docs/supir.md)",
            )
        super().check_licence()

    def check_source(self, text: str) -> None:
        loading.check_file_or_folder(text, allow_pickle=self._chosen.allow_pickle)

    def plan_for(
        self, size: sizes.WorkSize, tile: int, overlap: int, boxes: tuple[Box, ...], settings: RestoreSettings
    ) -> WorkPlan:
        from restore_bridge.restorers.diffusion.supir.windows import sliding_boxes

        edge = self.latent_px
        latent = (size.padded[0] // edge, size.padded[1] // edge)
        boxes = sliding_boxes(latent, tile // edge, max(1, (tile - overlap) // edge))
        return super().plan_for(size, tile, overlap, boxes, settings)

    def load_pipeline(self, source: loading.Source, dtype: str) -> Any:
        from restore_bridge.restorers.diffusion.supir import convert
        from restore_bridge.restorers.diffusion.supir.autoencoder import RobustEncoder
        from restore_bridge.restorers.diffusion.supir.pipeline import SUPIRPipeline

        chosen = self._chosen
        if self._is_released:
            file = weights.resolve(str(chosen.weights), allow_pickle=chosen.allow_pickle)
            self._digest = weights.sha256_of(file)
            pipe: Any = convert.assemble(
                file,
                str(chosen.base or BASE),
                configs=chosen.configs,
                dtype=dtype,
                allow_pickle=chosen.allow_pickle,
                variant=chosen.variant,
            )
        else:
            encoder = loading.from_pretrained(
                RobustEncoder, source, dtype="fp32", variant=chosen.variant, subfolder="denoise_encoder"
            )
            pipe = loading.from_pretrained(
                SUPIRPipeline,
                source,
                dtype=dtype,
                variant=chosen.variant,
                vae_dtype="fp32",
                denoise_encoder=encoder,
            )
        self._negative = self._learn(pipe)
        pipe.enable_tiling()
        return pipe

    def _learn(self, pipe: Any) -> str | None:
        """Teach both encoders the negative embedding; what to write for it in a prompt."""
        file = self._chosen.negative_embedding
        if file is None:
            return None
        vectors = weights.load_state_dict(weights.resolve(file))
        encoders = ((pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2))
        for name, (encoder, tokenizer) in zip(TENSORS, encoders, strict=True):
            width = encoder.config.hidden_size
            found = vectors.get(name)
            if found is None or found.ndim != 2 or found.shape[1] != width:
                raise WeightsUnsuitable(
                    f"the embedding must hold {name} as vectors of {width} numbers",
                    str(file),
                    "give a textual inversion for SDXL as safetensors",
                )
            with loading.quiet():
                pipe.load_textual_inversion(found, token=NEGATIVE_TOKEN, text_encoder=encoder, tokenizer=tokenizer)
        return cast("str", pipe.maybe_convert_prompt(NEGATIVE_TOKEN, pipe.tokenizer))

    def denoisers(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.unet, pipe.control)

    def encode_text(self, loaded: Loaded, text: WindowText) -> tuple[ClipEmbedding, Sent, Sent]:
        wanted, unwanted = self.with_suffixes(text.positive, text.negative)
        learned = [] if self._negative is None else [self._negative]
        return encode_words(loaded.pipe, wanted, [*learned, *unwanted], loaded.device)

    def walk(self, plan: WorkPlan) -> Walk:
        """SUPIR's own settings of the plan's sampling."""
        from restore_bridge.restorers.diffusion.supir.sampling import Sampler, Walk

        chosen, sampling = self._chosen, plan.sampling
        scale = NOISE_SCALES[chosen.sampler][chosen.preset] if chosen.noise_scale is None else chosen.noise_scale
        return Walk(
            steps=sampling.steps,
            begin=sampling.steps - sampling.walked,
            guidance=sampling.guidance,
            control=sampling.control,
            churn=chosen.churn,
            noise_scale=scale,
            pull=sampling.pull,
            sampler=cast("Sampler", chosen.sampler),
            faithful=chosen.faithful,
        )

    def _notes(self, job: Job, texts: Mapping[WindowText, tuple[Any, Sent, Sent]]) -> tuple[Note, ...]:
        return (*super()._notes(job, texts), *self._chosen.colour_notes(job.guidance))

    def _record(
        self, job: Job, windows: tuple[Window, ...], texts: Mapping[WindowText, tuple[Any, Sent, Sent]]
    ) -> dict[str, Any]:
        walk = self.walk(job.plan)
        own = {"sampler": walk.sampler, "churn": walk.churn, "noise_scale": walk.noise_scale, "faithful": walk.faithful}
        found = {
            **super()._record(job, windows, texts),
            "supir": own,
            "first_stage_color": self._chosen.colour_for(job.guidance),
            "licence": self.licence.name,
        }
        return found if self._digest is None else {**found, "checkpoint_sha256": self._digest}

    def _work(
        self,
        loaded: Loaded,
        image: Tensor,
        job: Job,
        windows: tuple[Window, ...],
        texts: Mapping[WindowText, Any],
        generator: Any,
    ) -> Tensor:
        pipe, plan = loaded.pipe, job.plan
        words = {text: pipe.words(found.hidden, found.pooled) for text, found in texts.items()}
        return cast(
            "Tensor",
            pipe.run(
                image,
                [words[window.text] for window in windows],
                self.walk(plan),
                tuple(window.box for window in windows),
                generator=generator,
                color_fix=self._chosen.colour_for(job.guidance),
                check=lambda latent: self._check_latent(latent, plan),
            ),
        )
