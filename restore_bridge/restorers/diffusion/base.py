"""What every diffusion restorer does, from a picture to a picture. It must not know a particular model.

A restorer of this room is a description (which weights, which sizes, which presets, what it costs) and a few methods
that speak to its networks. This module holds the order of things: size, words, latent, denoising, and the way back.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from restore_bridge.prompts import Prompts, compose
from restore_bridge.restorers.base import DEFAULT_SETTINGS, Capabilities, Restored, RestoreSettings, check_scale
from restore_bridge.restorers.diffusion import loading, sizes
from restore_bridge.restorers.diffusion.encoding import Count, Sent, counter, with_suffix
from restore_bridge.restorers.diffusion.latent_tiling import (
    Window,
    WindowText,
    blend_weights,
    latent_boxes,
    plan_windows,
)
from restore_bridge.restorers.diffusion.memory import (
    DTYPE_BYTES,
    OFFLOADS,
    Footprint,
    MemoryEstimate,
    Offload,
    estimate,
)
from restore_bridge.restorers.diffusion.options import Options
from restore_bridge.restorers.diffusion.sampling import Sampling, Step, check_finite, denoise, schedule_for
from zoomiqa.errors import OptionInvalid, WeightsError, WeightsUnsuitable, ZoomIQAError
from zoomiqa.types import Note

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from restore_bridge.guidance import Guidance
    from zoomiqa.imaging.picture import Picture
    from zoomiqa.types import Box

LATENT_PX = 8
"""Pixels of a latent pixel's side, unless a model says otherwise."""

MULTIPLE = 64
"""Both sides of what a model sees are multiples of this many pixels: its latent is halved three times."""


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of a model's weights."""

    name: str
    needs_consent: bool = False
    """Whether some uses are forbidden, commercial ones for example, so that the user has to agree first."""


def redrawing(
    name: str,
    description: str,
    *,
    encoder: str,
    licence: Licence,
    footprint: Footprint,
    tiled: bool = True,
    scales: tuple[int, ...] = (1, 2, 3, 4),
    tile_px: int = 1024,
    overlap_px: int | None = None,
) -> Capabilities:
    """The capabilities of a restorer of this room: words guide it, it invents detail, and it needs the same extra.

    Args:
        name: Of the restorer.
        description: In one line, for lists.
        encoder: Name of the text budget in `restore_bridge.prompts.BUDGETS`.
        licence: Of the weights.
        footprint: What it costs.
        tiled: Whether it works in tiles.
        scales: Enlargements.
        tile_px: Side of a tile.
        overlap_px: What neighbours share; half a tile without it.
    """
    return Capabilities(
        name=name,
        description=description,
        text_guided=True,
        tiled=tiled,
        scales=scales,
        licence=licence.name,
        memory=footprint.words(),
        extra="diffusion",
        generative=True,
        encoder=encoder,
        tile_px=tile_px,
        overlap_px=tile_px // 2 if overlap_px is None else overlap_px,
    )


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """What a restoration would do and take; made without loading anything."""

    size: sizes.WorkSize
    tile: int
    overlap: int
    boxes: tuple[Box, ...]
    """Windows, in latent pixels."""

    latent_px: int
    sampling: Sampling
    memory: Mapping[str, Mapping[Offload, MemoryEstimate]]
    """Estimates by number format and offload mode."""

    @property
    def latent_size(self) -> tuple[int, int]:
        """(width, height) of the latent."""
        return (self.size.padded[0] // self.latent_px, self.size.padded[1] // self.latent_px)

    def to_dict(self) -> dict[str, Any]:
        return {
            "sizes": self.size.to_dict(),
            "tile_px": self.tile,
            "overlap_px": self.overlap,
            "tiles": len(self.boxes),
            "steps": self.sampling.walked,
            "predictions": self.sampling.walked * len(self.boxes),
            "memory": {
                dtype: {mode: need.to_dict() for mode, need in modes.items()} for dtype, modes in self.memory.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Job:
    """One restoration: what is asked for, and what follows from it."""

    guidance: Guidance
    prompts: Prompts | None
    """Ready text, in the place of the guidance's."""

    settings: RestoreSettings
    plan: WorkPlan

    def words(self, encoder: str, count: Count) -> Prompts:
        """The ready text, or the guidance's as a text encoder takes it (see `restore_bridge.prompts.compose`)."""
        return self.prompts or compose(self.guidance, encoder, count=count, limits=self.settings.limits)


@dataclass(slots=True)
class Loaded:
    """A pipeline in memory."""

    pipe: Any
    placement: loading.Placement
    device: Any
    """torch's own name of the device."""

    notes: tuple[Note, ...] = field(default_factory=tuple)


class DiffusionRestorer(ABC):
    """Redraws a picture with a diffusion model under the guidance of words.

    Options are keywords of the constructor; see `options_type`. Nothing is loaded before the first picture.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    capabilities: Capabilities
    options_type: ClassVar[type[Options]] = Options
    footprint: ClassVar[Footprint]
    licence: ClassVar[Licence]
    default_weights: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    """Networks and tokenizers that a pipeline folder must name."""

    tokenizers: ClassVar[Mapping[str, str]]
    """Those of `parts` by which tokens are counted, with their classes in transformers. A text has as many tokens as
    the one that finds most in it."""

    presets: ClassVar[Mapping[str, Sampling]]
    quality_suffix: ClassVar[str] = ""
    negative_suffix: ClassVar[str] = ""
    min_side: ClassVar[int] = 1024
    latent_px: ClassVar[int] = LATENT_PX

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.__signature__ = inspect.signature(cls.options_type)  # type: ignore[attr-defined]

    def __init__(self, **options: Any) -> None:
        self.options = self.options_type(**options)
        own = type(self).capabilities
        tile = self.options.tile or own.tile_px
        overlap = tile // 2 if self.options.overlap is None else self.options.overlap
        self.capabilities = replace(own, tile_px=tile, overlap_px=overlap)
        self._kept: Loaded | None = None
        self._unusable: WeightsError | None = None

    def restore(
        self,
        picture: Picture,
        guidance: Guidance,
        *,
        prompts: Prompts | None = None,
        settings: RestoreSettings = DEFAULT_SETTINGS,
    ) -> Restored:
        """Redraw `picture` as the words ask.

        Args:
            picture: What the pre-pass gave; it is the start of the denoising and what is held on to.
            guidance: Read only where `prompts` is not given.
            prompts: Text to send as it is, within what the encoder reads.
            settings: `strength` is the share of the preset's redrawing; at 0 nothing is redrawn.

        Raises:
            OptionInvalid: no such scale, or weights whose licence was not accepted.
            ImageTooLarge: the result would be too large.
            ExtraMissing: torch or diffusers is not installed.
            WeightsError: the weights cannot be used.
            BackendFailed: the model gave NaN.
            MemoryError: memory ran out; smaller tiles help.
        """
        check_scale(self.capabilities, settings, picture.size)
        if settings.strength == 0:
            target = (picture.width * settings.scale, picture.height * settings.scale)
            return Restored(_resized(picture, sizes.resize(picture.pixels, target)))
        self.check_licence()
        torch = loading.import_torch()
        from zoomiqa.devices import memory_errors

        plan = self.plan(picture.size, settings)
        with memory_errors(), torch.no_grad():
            loaded = self._loaded(plan)
            start = sizes.to_work(picture.pixels, plan.size)
            redrawn, step, notes = self._redraw(loaded, start, Job(guidance, prompts, settings, plan))
        result = _resized(picture, self._finish(picture.pixels, start, redrawn, plan, settings))
        steps = (
            {
                "operation": self.capabilities.name,
                "weights": self.sources(),
                "options": self.options.to_dict(),
                "placement": loaded.placement.to_dict(),
                "versions": loading.versions(),
                "seed": settings.seed,
                **step,
            },
        )
        return Restored(result, (*loaded.notes, *notes), steps)

    def plan(self, size: tuple[int, int], settings: RestoreSettings = DEFAULT_SETTINGS) -> WorkPlan:
        """What `restore` would do with a picture of `size` (width, height); nothing is loaded or imported.

        Raises:
            OptionInvalid, ImageTooLarge: as `restore`.
        """
        check_scale(self.capabilities, settings, size)
        tile_px, overlap_px = settings.tiles(self.capabilities)
        tile = max(MULTIPLE, tile_px // MULTIPLE * MULTIPLE)
        overlap = min(overlap_px, tile - self.latent_px) // self.latent_px * self.latent_px
        work = sizes.plan_size(
            size, scale=settings.scale, min_side=self.options.min_side or self.min_side, multiple=MULTIPLE
        )
        latent = (work.padded[0] // self.latent_px, work.padded[1] // self.latent_px)
        boxes = latent_boxes(latent, tile // self.latent_px, overlap // self.latent_px)
        return self.plan_for(work, tile, overlap, boxes, settings)

    def plan_for(
        self, size: sizes.WorkSize, tile: int, overlap: int, boxes: tuple[Box, ...], settings: RestoreSettings
    ) -> WorkPlan:
        """The plan for these sizes and windows, with what it takes."""
        largest = max(box.area for box in boxes)
        memory = {
            dtype: {mode: estimate(self.footprint, dtype, mode, size.padded, largest) for mode in OFFLOADS}
            for dtype in DTYPE_BYTES
        }
        sampling = self.options.sampling(self.presets[self.options.preset], settings.strength)
        return WorkPlan(size, tile, overlap, boxes, self.latent_px, sampling, memory)

    def unload(self) -> None:
        """Give the memory back; the next picture loads the weights again."""
        if self._kept is None:
            return
        self._kept = None
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def count(self, pipe: Any) -> Count:
        """Counts tokens with the pipeline's own tokenizers."""
        return counter(*(getattr(pipe, name) for name in self.tokenizers))

    def token_counter(self) -> Count | None:
        """See `CountsTokens`; the tokenizers are loaded alone, and once."""
        return self._counter

    @cached_property
    def _counter(self) -> Count | None:
        try:
            self.check_licence()
            loading.import_torch()
            return counter(*(loading.load_tokenizer(self.source, *each) for each in self.tokenizers.items()))
        except ZoomIQAError:  # `restore` meets it as well, and says it
            return None

    def sources(self) -> dict[str, str]:
        """Where the weights come from, for the record."""
        return {"pipeline": self.source.text}

    @property
    def source(self) -> loading.Source:
        """Where the pipeline comes from."""
        return loading.Source(str(self.options.weights or self.default_weights))

    def check_ready(self) -> None:
        """Refuse weights whose terms were not accepted, or that are not where they should be on this machine.

        Raises:
            OptionInvalid, WeightsError: as `restore`.
        """
        self.check_licence()
        for text in self.sources().values():
            self.check_source(text)

    def check_source(self, text: str) -> None:
        """Refuse one of `sources` where it is a path without weights; what the hub has is not asked."""
        loading.Source(text).check()

    def check_licence(self) -> None:
        """Refuse weights whose terms were not accepted, before they are fetched.

        Raises:
            OptionInvalid: they were not.
        """
        if self.licence.needs_consent and not self.options.accept_licence:
            raise OptionInvalid(
                f"the weights of {self.capabilities.name!r} are under {self.licence.name}, which forbids some uses",
                None,
                "read it, then pass accept_licence=true if it allows yours",
            )

    @abstractmethod
    def load_pipeline(self, source: loading.Source, dtype: str) -> Any:
        """The pipeline with all its networks, on the CPU."""

    @abstractmethod
    def denoisers(self, pipe: Any) -> tuple[Any, ...]:
        """The networks that work in every step."""

    @abstractmethod
    def _redraw(
        self, loaded: Loaded, start: np.ndarray, job: Job
    ) -> tuple[np.ndarray, dict[str, Any], tuple[Note, ...]]:
        """(h, w, 3) uint8 of `job.plan.size.padded` → the same size redrawn, what to record, and notes."""

    def _finish(
        self,
        source: np.ndarray,  # noqa: ARG002
        start: np.ndarray,  # noqa: ARG002
        redrawn: np.ndarray,
        plan: WorkPlan,
        settings: RestoreSettings,  # noqa: ARG002
    ) -> np.ndarray:
        """The result at `plan.size.target`.

        Args:
            source: The picture.
            start: As the model saw it.
            redrawn: What `_redraw` gave.
            plan: With the sizes.
            settings: Of the restoration.
        """
        return sizes.from_work(redrawn, plan.size)

    def _loaded(self, plan: WorkPlan) -> Loaded:
        """The pipeline, loaded once. Weights that cannot be used are asked for once as well: a hub that is out of
        reach takes a minute to say so, and a folder has many pictures."""
        if self._unusable is not None:
            raise self._unusable.with_traceback(None)
        try:
            return self._kept or self._load(plan)
        except WeightsError as error:
            self._unusable = error
            raise

    def _load(self, plan: WorkPlan) -> Loaded:
        import torch

        options = self.options
        placement = loading.choose_placement(
            options.device, options.dtype, options.offload, lambda dtype, mode: plan.memory[dtype][mode].total
        )
        source = self.source
        index = loading.model_index(source)
        missing = [] if index is None else [part for part in self.parts if not _is_named(index, part)]
        if missing:
            raise WeightsUnsuitable(
                f"the folder holds a pipeline of another kind ({(index or {}).get('_class_name')}, without"
                f" {', '.join(missing)})",
                source.text,
                f"restorer {self.capabilities.name!r} needs one like {self.default_weights}",
            )
        pipe = self.load_pipeline(source, placement.dtype.value)
        loading.place(
            pipe,
            placement,
            attention=options.attention,
            compile_with=options.compile,
            denoisers=self.denoisers(pipe),
        )
        unpinned = [text for text in self.sources().values() if not loading.Source(text).is_pinned]
        notes = (
            (Note("weights-not-pinned", f"{', '.join(unpinned)}: no commit is named, so the weights may change"),)
            if unpinned
            else ()
        )
        self._kept = Loaded(pipe, placement, torch.device(placement.device.value), notes)
        return self._kept

    def with_suffixes(self, positive: Sequence[str], negative: Sequence[str]) -> tuple[list[str], list[str]]:
        """Both sides' phrases, each followed by its suffix."""
        chosen, own = self.options, type(self)
        quality = own.quality_suffix if chosen.quality_suffix is None else chosen.quality_suffix
        avoid = own.negative_suffix if chosen.negative_suffix is None else chosen.negative_suffix
        return with_suffix(positive, quality), with_suffix(negative, avoid)


class WindowedRestorer(DiffusionRestorer):
    """A model that redraws a latent window by window, each under its own words."""

    @abstractmethod
    def encode_text(self, loaded: Loaded, text: WindowText) -> tuple[Any, Sent, Sent]:
        """(embedding, what was sent of the positive side, and of the negative side)."""

    def _redraw(
        self, loaded: Loaded, start: np.ndarray, job: Job
    ) -> tuple[np.ndarray, dict[str, Any], tuple[Note, ...]]:
        import torch

        pipe, plan = loaded.pipe, job.plan
        words = job.words(self.capabilities.encoder, self.count(pipe))
        visible = (plan.size.work[0] / plan.size.padded[0], plan.size.work[1] / plan.size.padded[1])
        windows = plan_windows(plan.boxes, plan.latent_size, words, visible)
        texts = {text: self.encode_text(loaded, text) for text in dict.fromkeys(window.text for window in windows)}
        generator = torch.Generator("cpu").manual_seed(job.settings.seed)
        image = torch.from_numpy(start.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        embeddings = {text: found[0] for text, found in texts.items()}
        result = self._work(loaded, image.to(loaded.device), job, windows, embeddings, generator)
        check_finite(result, "the decoder")
        values = result[0].permute(1, 2, 0).float().add(1).mul(127.5).round().clamp(0, 255)
        pipe.maybe_free_model_hooks()
        return values.to(torch.uint8).cpu().numpy(), self._record(job, windows, texts), self._notes(job, texts)

    @abstractmethod
    def _work(
        self,
        loaded: Loaded,
        image: Tensor,
        job: Job,
        windows: tuple[Window, ...],
        texts: Mapping[WindowText, Any],
        generator: Any,
    ) -> Tensor:
        """The picture (1, 3, h, w) in -1..1, 32-bit → the same redrawn, about -1..1."""

    def _check_latent(self, latent: Tensor, plan: WorkPlan) -> None:
        """Refuse a VAE that makes latents of another size.

        Raises:
            WeightsUnsuitable: it does.
        """
        if tuple(latent.shape[:1:-1]) != plan.latent_size:
            raise WeightsUnsuitable(
                f"this VAE makes latents of {latent.shape[-1]} x {latent.shape[-2]},"
                f" {self.capabilities.name!r} needs {plan.latent_size[0]} x {plan.latent_size[1]}",
                self.source.text,
                f"use a pipeline like {self.default_weights}",
            )

    def _notes(self, job: Job, texts: Mapping[WindowText, tuple[Any, Sent, Sent]]) -> tuple[Note, ...]:  # noqa: ARG002
        """What the record says of this restoration in words."""
        return cut_notes([side for _, *sides in texts.values() for side in sides])

    def _record(
        self, job: Job, windows: tuple[Window, ...], texts: Mapping[WindowText, tuple[Any, Sent, Sent]]
    ) -> dict[str, Any]:
        """What was done and what was sent, for the record."""
        sent = [
            {
                "windows": [number for number, window in enumerate(windows) if window.text == text],
                "positive": positive.to_dict(),
                "negative": negative.to_dict(),
            }
            for text, (_, positive, negative) in texts.items()
        ]
        plan, sampling = job.plan, job.plan.sampling
        return {
            "sizes": plan.size.to_dict(),
            "tile_px": plan.tile,
            "overlap_px": plan.overlap,
            "tiles": len(plan.boxes),
            "steps": sampling.walked,
            "denoise": round(sampling.denoise, 4),
            "guidance": [sampling.guidance.start, sampling.guidance.end],
            "control": [sampling.control.start, sampling.control.end],
            "pull": sampling.pull,
            "sent": sent,
        }


class LatentRestorer(WindowedRestorer):
    """A model whose networks are called window by window, in a loop of our own (`sampling.denoise`)."""

    def prepare(self, loaded: Loaded, image: Tensor, plan: WorkPlan, generator: Any) -> Any:  # noqa: ARG002
        """What every window's prediction needs of the picture; `image` is (1, 3, h, w) in -1..1, 32-bit."""
        return None

    @abstractmethod
    def predict(self, loaded: Loaded, part: Tensor, box: Box, text: Any, scene: Any, step: Step) -> Tensor:
        """Noise of a window.

        Args:
            loaded: The networks.
            part: Latent of the window (1, c, h, w), scaled as the model wants it.
            box: Its place, in latent pixels.
            text: What `encode_text` gave.
            scene: What `prepare` gave.
            step: Where in the schedule.

        Returns:
            (2, c, h, w), the negative side first.
        """

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
        first = self.encode_picture(pipe, image)
        self._check_latent(first, plan)
        scene = self.prepare(loaded, image, plan, generator)

        def predict(part: Tensor, number: int, step: Step) -> Tensor:
            window = windows[number]
            return self.predict(loaded, part, window.box, texts[window.text], scene, step)

        latent = denoise(
            schedule_for(pipe.scheduler, max(box.area for box in plan.boxes) // 4),
            first.to(torch_type(loaded)),
            predict,
            plan.boxes,
            blend_weights(plan.boxes, plan.latent_size),
            plan.sampling,
            generator=generator,
        )
        return self.decode_latent(pipe, latent)

    def encode_picture(self, pipe: Any, image: Tensor) -> Tensor:
        """(1, 3, h, w) in -1..1 → its latent, the most likely one, in the denoiser's scale."""
        latent = pipe.vae.encode(image.to(pipe.vae.dtype)).latent_dist.mode()
        check_finite(latent, "the encoder")
        shift, scale = _latent_scale(pipe)
        return (latent - shift) * scale

    def decode_latent(self, pipe: Any, latent: Tensor) -> Tensor:
        """A latent → (1, 3, h, w), about -1..1."""
        shift, scale = _latent_scale(pipe)
        return pipe.vae.decode(latent.to(pipe.vae.dtype) / scale + shift, return_dict=False)[0]


def torch_type(loaded: Loaded) -> Any:
    """The torch type that the denoiser works in."""
    return loading.torch_dtype(loaded.placement.dtype.value)


def _latent_scale(pipe: Any) -> tuple[float, float]:
    """(shift, scale) between a VAE's latents and the denoiser's."""
    config = pipe.vae.config
    return float(config.get("shift_factor") or 0.0), float(config.scaling_factor)


def _is_named(index: Mapping[str, Any], part: str) -> bool:
    entry = index.get(part)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _resized(picture: Picture, pixels: np.ndarray) -> Picture:
    """`picture` with other pixels, and its alpha at their size."""
    result = picture.with_pixels(pixels)
    if picture.alpha is None or result.alpha is not None:
        return result
    return replace(result, alpha=sizes.resize(picture.alpha, result.size))


def cut_notes(sides: Iterable[Sent]) -> tuple[Note, ...]:
    """One note on all that was cut of what these sides should have said."""
    cut = dict.fromkeys(phrase for side in sides for phrase in side.cut)
    return (Note("prompt-cut", f"beyond what the encoder reads, not sent: {'; '.join(cut)}"),) if cut else ()
