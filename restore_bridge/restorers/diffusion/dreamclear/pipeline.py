"""DreamClear as a pipeline of diffusers: a picture and a caption in, a restored picture out.

Source: Ai et al., "DreamClear" (NeurIPS 2024), section 4, in the order of the released code:

1. the picture is enlarged (`work_size`) and cleaned by SwinIR;
2. T5 reads the caption, in lower case, 120 tokens; what guidance leads away from is a learned null embedding;
3. the VAE encodes the picture and the clean one (the most likely latents);
4. 50 steps from the clean latent under noise, or from pure noise (`start_from_cleaned=False`), under guidance of 4.5; a
   latent larger than 128 is predicted in windows that share 32;
5. the VAE decodes, and the result takes its colours from the clean picture.

Differs from the original: captions come from the caller, not from LLaVA, and go through `restore_bridge.textclean` in
place of PixArt-α's cleaning; the latent stays in 32-bit numbers between steps, and the VAE works in them; the loop
walks the wanted side alone, as the other side's latent never comes back into it; noise is drawn on the CPU when the
generator is one of the CPU's. In addition: a negative prompt in the place of the null embedding (an experiment: the
weights were never trained on one), words for each window, `strength` below 1, mended habits (`prediction.Mends`).

It must not know restorers, files or guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from restore_bridge.restorers.diffusion.colour import METHODS, align_colour
from restore_bridge.restorers.diffusion.dreamclear.cleaner import SwinIRModel
from restore_bridge.restorers.diffusion.dreamclear.prediction import (
    TOKENS,
    Conditions,
    Mends,
    Words,
    predict,
    predict_windows,
)
from restore_bridge.restorers.diffusion.dreamclear.scheduler import IDDPMScheduler
from restore_bridge.restorers.diffusion.dreamclear.tiling import window_boxes
from restore_bridge.restorers.diffusion.dreamclear.transformer import DreamClearTransformer2DModel
from restore_bridge.textclean import sanitise
from zoomiqa.errors import OptionInvalid

if TYPE_CHECKING:
    from torch import Tensor

MULTIPLE = 64
"""Both sides of what is worked at are multiples of this many pixels."""

Picture = Image.Image | np.ndarray


@dataclass
class DreamClearPipelineOutput(BaseOutput):  # type: ignore[misc]
    """Restored pictures.

    Attributes:
        images: One, as `output_type` says.
        cleaned: What the pre-pass made of the picture, at the size worked at (h, w, 3) uint8.
    """

    images: Any
    cleaned: np.ndarray


class DreamClearPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Restores one picture at a time.

    Args:
        vae: Of Stable Diffusion (sd-vae-ft-ema).
        text_encoder: T5 v1.1 XXL; not needed where embeddings are given.
        tokenizer: Its tokenizer.
        transformer: The denoiser.
        scheduler: `IDDPMScheduler`, or one of diffusers for models that predict noise; the learned variance is then
            left aside.
        cleaner: The pre-pass; not needed where a clean picture is given.
    """

    model_cpu_offload_seq = "text_encoder->cleaner->transformer->vae"
    _optional_components: ClassVar = ["text_encoder", "tokenizer", "cleaner"]
    _callback_tensor_inputs: ClassVar = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: T5EncoderModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        transformer: DreamClearTransformer2DModel,
        scheduler: IDDPMScheduler,
        cleaner: SwinIRModel | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=transformer,
            scheduler=scheduler,
            cleaner=cleaner,
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        # A copy of its own: where layers wait elsewhere, a network's buffers are there only while it works.
        self._null = transformer.null_embedding.detach().clone()
        self._guidance_scale, self._num_timesteps, self._interrupt = 1.0, 0, False

    @property
    def guidance_scale(self) -> float:
        """Of the step under way; a callback may set `_guidance_scale` for the next one."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Steps that are walked."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether a callback asked to stop, by setting `_interrupt`."""
        return self._interrupt

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(
        self,
        image: Picture,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        *,
        cleaned_image: Picture | None = None,
        upscale: float = 4,
        min_size: int = 1024,
        num_inference_steps: int = 50,
        guidance_scale: float = 4.5,
        strength: float = 1.0,
        start_from_cleaned: bool = True,
        start_point: int = 999,
        tile: int = 128,
        overlap: int = 32,
        color_fix: str = "wavelet",
        mend: Iterable[str] = (),
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        window_words: Sequence[Words] | None = None,
        max_sequence_length: int = TOKENS,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Restore a picture.

        Args:
            image: Damaged picture: Pillow's, or (h, w, 3) uint8.
            prompt: What it shows, as prose.
            negative_prompt: In place of the learned null embedding: an experiment.
            cleaned_image: What the pre-pass would give, at any size; the pre-pass is then not run.
            upscale: Enlargement.
            min_size: Short side in pixels to which smaller pictures are enlarged further.
            num_inference_steps: Of the whole schedule.
            guidance_scale: How closely the words are followed; at 1 or less one side alone is predicted.
            strength: Share of the schedule that is walked, above 0 to 1; below 1 it begins at the clean picture.
            start_from_cleaned: Whether a whole walk begins at the clean picture's latent under noise, too.
            start_point: How far that one is noised, 0..999.
            tile: Side of a window in latent pixels.
            overlap: Latent pixels that neighbouring windows share.
            color_fix: One of `colour.METHODS`.
            mend: Names of `prediction.Mends`, or "all".
            generator: Draws the noise.
            latents: Noise to begin with (1, c, h, w).
            prompt_embeds: T5's embedding in place of `prompt` (1, tokens, width).
            prompt_attention_mask: (1, tokens), 1 where there is text; all where it is not given.
            negative_prompt_embeds: In place of `negative_prompt`.
            negative_prompt_attention_mask: Likewise.
            window_words: What `words` gives, for each window of `windows`, in place of all prompts.
            max_sequence_length: Tokens of a prompt.
            output_type: pil, np (1, h, w, 3) in 0..1, pt (1, 3, h, w) in 0..1, or latent.
            return_dict: Whether to return `DreamClearPipelineOutput` rather than a tuple.
            callback_on_step_end: Called as (pipeline, index, timestep, tensors) after each step; tensors that it
                returns are taken over.
            callback_on_step_end_tensor_inputs: Which tensors it is given.

        Raises:
            OptionInvalid: an argument is outside its range, or one that is needed is missing.
        """
        mends = Mends.of(mend)
        self._check(prompt, prompt_embeds, window_words, strength, color_fix, output_type, start_point)
        foreign = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if foreign:
            raise OptionInvalid("a callback cannot be given this", min(foreign), "it can be given latents")
        self._guidance_scale, self._interrupt = guidance_scale, False
        device = self._execution_device

        if window_words is None:
            if prompt_embeds is None:
                prompt_embeds, prompt_attention_mask, *others = self.encode_prompt(
                    str(prompt), negative_prompt, max_sequence_length=max_sequence_length, device=device
                )
                if negative_prompt_embeds is None:
                    negative_prompt_embeds, negative_prompt_attention_mask = others
            same = self.words(
                prompt_embeds,
                prompt_attention_mask,
                negative_prompt_embeds,
                negative_prompt_attention_mask,
                guided=guidance_scale > 1,
                mends=mends,
            )

        source = as_picture(image)
        size, result_size = work_size(source.size, upscale, min_size)
        work = np.asarray(fitted(source, size))
        cleaned = self._cleaned(work, size, cleaned_image, device)
        conditions = Conditions(self._encode(work, device), self._encode(cleaned, device))

        timesteps = self._timesteps(num_inference_steps, strength, device)
        latents = self._noise(conditions.pre, latents, generator)
        if len(timesteps) < len(self.scheduler.timesteps):
            latents = self.scheduler.add_noise(conditions.pre, latents, timesteps[:1])
        elif start_from_cleaned:
            latents = self.scheduler.add_noise(conditions.pre, latents, torch.tensor([start_point], device=device))
        else:
            latents = latents * self.scheduler.init_noise_sigma

        boxes = self.windows(size, tile, overlap)
        words = [same] * len(boxes) if window_words is None else list(window_words)
        if len(words) != len(boxes):
            raise OptionInvalid(f"there are {len(boxes)} windows", len(words), "give words for each of `windows`")

        def after_step(index: int, timestep: Tensor, latents: Tensor) -> Tensor:
            if callback_on_step_end is None:
                return latents
            given = {name: {"latents": latents}[name] for name in callback_on_step_end_tensor_inputs}
            return callback_on_step_end(self, index, timestep, given).get("latents", latents)

        latents = self._walk(latents, timesteps, boxes, words, conditions, mends, generator, after_step)
        images = latents if output_type == "latent" else self._decode(latents, cleaned, color_fix)
        if output_type in ("pil", "np"):
            images = finished(images, result_size, output_type)
        self.maybe_free_model_hooks()
        return DreamClearPipelineOutput(images=images, cleaned=cleaned) if return_dict else (images, cleaned)

    def _timesteps(self, steps: int, strength: float, device: Any) -> Tensor:
        """The last `strength` of a schedule of `steps`; the scheduler is set to the first of them."""
        self.scheduler.set_timesteps(steps, device=device)
        walked = max(1, min(steps, int(steps * strength + 1e-6)))
        begin = (steps - walked) * getattr(self.scheduler, "order", 1)
        if begin and hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(begin)
        timesteps: Tensor = self.scheduler.timesteps[begin:]
        return timesteps

    @staticmethod
    def _noise(like: Tensor, given: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Noise of the shape of `like`, 32-bit, where it is; drawn unless it is given."""
        if given is None:
            given = randn_tensor(like.shape, generator=generator, device=like.device, dtype=torch.float32)
        elif given.shape != like.shape:
            raise OptionInvalid(f"latents must be {tuple(like.shape)}", tuple(given.shape), "leave them out")
        return given.to(like.device, torch.float32)

    def _walk(
        self,
        latents: Tensor,
        timesteps: Tensor,
        boxes: Sequence[Any],
        words: Sequence[Words],
        conditions: Conditions,
        mends: Mends,
        generator: torch.Generator | None,
        after_step: Callable[[int, Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Take the noise away, step by step; a step that is interrupted, and all after it, is left out.

        Args:
            latents: (1, c, h, w), under the noise of the first of `timesteps`.
            timesteps: To walk.
            boxes: Windows, in latent pixels.
            words: Of each.
            conditions: What the denoiser sees of the picture.
            mends: Habits of the original that are mended.
            generator: For schedulers that draw.
            after_step: (number, timestep, latents) → latents to go on with.
        """
        words = [one.to(latents.device) for one in words]
        extra = self.prepare_extra_step_kwargs(generator)
        is_learned = getattr(self.scheduler.config, "variance_type", None) in ("learned", "learned_range")
        self._num_timesteps = len(timesteps)
        with self.progress_bar(total=len(timesteps)) as progress:
            for index, timestep in enumerate(timesteps):
                if self._interrupt:
                    continue
                shown = self.scheduler.scale_model_input(latents, timestep)
                common = (self.transformer, shown, timestep)
                scale = self._guidance_scale
                if len(boxes) == 1:
                    output = predict(*common, words[0], conditions, scale, mends)[:1]
                else:
                    output = predict_windows(*common, words, conditions, scale, mends, boxes)[:1]
                if not is_learned:
                    output = output[:, : latents.shape[1]]
                latents = self.scheduler.step(output, timestep, latents, **extra, return_dict=False)[0]
                latents = after_step(index, timestep, latents)
                progress.update()
        return latents

    def prepare_extra_step_kwargs(self, generator: Any) -> dict[str, Any]:
        """The generator, for schedulers that draw."""
        import inspect

        return {"generator": generator} if "generator" in inspect.signature(self.scheduler.step).parameters else {}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def encode_prompt(
        self,
        prompt: str,
        negative_prompt: str | None = None,
        *,
        max_sequence_length: int = TOKENS,
        device: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Embed a caption, and a negative one where there is one.

        Args:
            prompt: As prose; it is made plain and lower-cased.
            negative_prompt: Likewise; `None` is the learned null embedding, which needs no encoder.
            max_sequence_length: Tokens that each is filled or cut to.
            device: Where the encoder runs; its own device where not given.

        Returns:
            Embedding (1, tokens, width) and mask (1, tokens) of the caption, then of the negative one.

        Raises:
            OptionInvalid: there is no encoder.
        """
        if self.text_encoder is None or self.tokenizer is None:
            raise OptionInvalid("this pipeline has no text encoder", None, "give prompt_embeds, or load it with one")
        device = device or self.text_encoder.device
        found: list[Tensor | None] = []
        for text in (prompt, negative_prompt):
            if text is None:
                found += [None, None]
                continue
            found += embed(
                clean_caption(text), self.tokenizer, self.text_encoder, tokens=max_sequence_length, device=device
            )
        return tuple(found)  # type: ignore[return-value]

    def words(
        self,
        prompt_embeds: Tensor,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        *,
        guided: bool = True,
        mends: Mends | None = None,
    ) -> Words:
        """Both sides of the guidance as the denoiser reads them.

        The null embedding is given the caption's mask, so that no more of it is read than the caption is long, unless
        that is mended. A negative prompt has its own mask.
        """
        mask = _full_mask(prompt_embeds) if prompt_attention_mask is None else prompt_attention_mask
        if not guided:
            return Words(prompt_embeds, mask)
        if negative_prompt_embeds is not None:
            other = negative_prompt_embeds
            other_mask = negative_prompt_attention_mask
            other_mask = _full_mask(other) if other_mask is None else other_mask
        else:
            other = self._null.to(prompt_embeds.device, prompt_embeds.dtype)[None]
            length = other.shape[1]
            if (mends or Mends()).mask:
                other_mask = _full_mask(other)
            else:
                other_mask = torch.nn.functional.pad(mask, (0, max(0, length - mask.shape[1])))[:, :length]
        tokens = max(prompt_embeds.shape[1], other.shape[1])
        sides = [
            (
                torch.nn.functional.pad(hidden, (0, 0, 0, tokens - hidden.shape[1])),
                torch.nn.functional.pad(own, (0, tokens - own.shape[1])),
            )
            for hidden, own in ((prompt_embeds, mask), (other, other_mask.to(mask)))
        ]
        return Words(torch.cat([side[0] for side in sides]), torch.cat([side[1] for side in sides]))

    def windows(self, size: tuple[int, int], tile: int = 128, overlap: int = 32) -> tuple[Any, ...]:
        """The windows of a picture that is worked at `size` (width, height), in latent pixels; one where it is small.

        Raises:
            OptionInvalid: the overlap leaves no step forward.
        """
        latent = (size[0] // self.vae_scale_factor, size[1] // self.vae_scale_factor)
        return window_boxes(latent, tile, overlap)

    def _check(
        self,
        prompt: str | None,
        embeds: Tensor | None,
        windows: Sequence[Words] | None,
        strength: float,
        color_fix: str,
        output_type: str,
        start_point: int,
    ) -> None:
        if sum(given is not None for given in (prompt, embeds, windows)) != 1:
            raise OptionInvalid("give one of prompt, prompt_embeds and window_words", prompt, 'prompt="" is no words')
        if not 0 < strength <= 1:
            raise OptionInvalid("strength must lie above 0 to 1", strength, "1 walks the whole schedule")
        if color_fix not in METHODS:
            raise OptionInvalid("there is no colour fix of that name", color_fix, f"choose of {', '.join(METHODS)}")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise OptionInvalid("there is no output of that type", output_type, "choose pil, np, pt or latent")
        if not 0 <= start_point <= 999:
            raise OptionInvalid("start_point must lie in 0..999", start_point, "999 is DreamClear's own")

    def _cleaned(self, work: np.ndarray, size: tuple[int, int], given: Picture | None, device: Any) -> np.ndarray:
        """The clean picture (h, w, 3) uint8."""
        if given is not None:
            return np.asarray(fitted(as_picture(given), size))
        if self.cleaner is None:
            raise OptionInvalid("this pipeline has no pre-pass", None, "give cleaned_image, or load it with a cleaner")
        cleaned: np.ndarray = self.cleaner.clean(work, device=device)
        return cleaned

    def _encode(self, pixels: np.ndarray, device: Any) -> Tensor:
        """(h, w, 3) uint8 → latent (1, c, h / 8, w / 8), 32-bit, in the denoiser's scale."""
        image = as_tensor(pixels).to(device, self.vae.dtype) * 2 - 1
        latent = self.vae.encode(image).latent_dist.mode().float()
        return latent * float(self.vae.config.scaling_factor)

    def _decode(self, latents: Tensor, cleaned: np.ndarray, color_fix: str) -> Tensor:
        """Latent → picture (1, 3, h, w) in 0..1, in the colours of the clean one."""
        scaled = latents.to(self.vae.dtype) / float(self.vae.config.scaling_factor)
        image = (self.vae.decode(scaled, return_dict=False)[0].float() + 1) / 2
        return align_colour(image, as_tensor(cleaned).to(image.device), color_fix).clamp(0, 1)


def embed(text: str, tokenizer: Any, encoder: Any, *, tokens: int = TOKENS, device: Any) -> tuple[Tensor, Tensor]:
    """T5's embedding of one text (1, tokens, width), filled or cut to `tokens`, and its mask (1, tokens)."""
    batch = tokenizer([text], padding="max_length", max_length=tokens, truncation=True, return_tensors="pt").to(device)
    return encoder(batch.input_ids, attention_mask=batch.attention_mask)[0], batch.attention_mask


def clean_caption(text: str) -> str:
    """A caption as PixArt-α was trained on: plain words in lower case."""
    return sanitise(text).lower()


def work_size(size: tuple[int, int], upscale: float, min_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) worked at, and of the result.

    The picture is enlarged `upscale` times, then further where its short side is below `min_size`; that is the result's
    size. Sides are rounded to the nearest multiple of 64 for the work.

    Raises:
        OptionInvalid: nothing would be left.
    """
    if upscale <= 0:
        raise OptionInvalid("upscale must be above 0", upscale, "4 is DreamClear's own")
    width, height = (side * upscale for side in size)
    growth = max(1.0, min_size / min(width, height))
    width, height = width * growth, height * growth
    work = tuple(max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in (width, height))
    return (work[0], work[1]), (max(1, round(width)), max(1, round(height)))


def as_picture(image: Picture) -> Image.Image:
    """Pillow's picture of three colours.

    Raises:
        OptionInvalid: an array that is no (h, w, 3) uint8.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise OptionInvalid("a picture must be (h, w, 3) uint8", f"{image.shape} {image.dtype}", "convert it first")
        return Image.fromarray(image)
    return image.convert("RGB")


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at `size` (width, height), by bicubic interpolation."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


def as_tensor(pixels: np.ndarray) -> Tensor:
    """(h, w, 3) uint8 → (1, 3, h, w) in 0..1."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255


def finished(images: Tensor, size: tuple[int, int], output_type: str) -> Any:
    """(1, 3, h, w) in 0..1 → a picture of `size`, in a list for Pillow's, in an array otherwise."""
    values = (images[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
    picture = fitted(Image.fromarray(values), size)
    return [picture] if output_type == "pil" else np.asarray(picture, np.float32)[None] / 255


def _full_mask(hidden: Tensor) -> Tensor:
    return torch.ones(hidden.shape[:2], dtype=torch.int64, device=hidden.device)
