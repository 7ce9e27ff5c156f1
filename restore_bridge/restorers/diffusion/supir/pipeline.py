"""SUPIR as a pipeline of diffusers: one picture and two prompts in, a restored picture out.

Source: SUPIR (Yu et al., CVPR 2024), section 3, in the order of the released code:

1. the degradation-robust encoder gives the control latent; the VAE decodes it to the first-stage picture and encodes
   that again, which is what the walk is pulled to;
2. both CLIP encoders read the words; the size numbers are always 1024 x 1024, no crop;
3. the walk from pure noise (`sampling.py`), in windows where the latent is large;
4. the VAE decodes, and the colours of the first-stage picture are carried over.

Different from the original: prompts of any length in chunks of 75 tokens; words of its own for every window; the VAE
works in 32-bit numbers; noise is drawn on the CPU, so that a seed gives one picture on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin, TextualInversionLoaderMixin
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from restore_bridge.restorers.diffusion.colour import align_colour
from restore_bridge.restorers.diffusion.encoding import phrases_of
from restore_bridge.restorers.diffusion.sampling import Ramp, check_finite
from restore_bridge.restorers.diffusion.sdxl import encode_words
from restore_bridge.restorers.diffusion.supir.architecture import TIME_IDS
from restore_bridge.restorers.diffusion.supir.autoencoder import RobustEncoder
from restore_bridge.restorers.diffusion.supir.control import SUPIRControl
from restore_bridge.restorers.diffusion.supir.sampling import OnStep, Walk, restore, sigmas_of, start
from restore_bridge.restorers.diffusion.supir.schedule import SUPIRSchedule
from restore_bridge.restorers.diffusion.supir.unet import SUPIRUNet
from restore_bridge.restorers.diffusion.supir.windows import blended, sliding_boxes
from zoomiqa.errors import OptionInvalid

if TYPE_CHECKING:
    from torch import Tensor

    from zoomiqa.types import Box

SIDE = 1024
"""Width and height that SDXL is told, whatever the picture's size."""

TILE, STRIDE = 128, 64
"""Latent pixels of a window's side, and from one window to the next."""


@dataclass(frozen=True, slots=True)
class Words:
    """One window's two prompts, ready for the networks."""

    text: Tensor
    """(2, tokens, width), the unwanted side first; (1, tokens, width) without guidance."""

    added: Tensor
    """(2, width): pooled text and embedded sizes."""


@dataclass(frozen=True, slots=True)
class FirstStage:
    """What SUPIR makes of the damaged picture before the walk."""

    control: Tensor
    """Latent by the robust encoder (b, 4, h, w), in the denoiser's scale: what the control copy sees."""

    picture: Tensor
    """That latent decoded (b, 3, 8h, 8w), about -1..1: what colours are taken from."""

    centre: Tensor
    """The picture encoded again (b, 4, h, w): what the walk is pulled to."""


class SUPIRPipeline(DiffusionPipeline, StableDiffusionXLLoraLoaderMixin, TextualInversionLoaderMixin):  # type: ignore[misc]
    """SUPIR over SDXL or a model of its family.

    Args:
        vae: SDXL's.
        text_encoder, text_encoder_2: CLIP ViT-L and OpenCLIP ViT-bigG.
        tokenizer, tokenizer_2: Of both.
        unet: SDXL's denoiser with the connectors.
        control: The control copy.
        denoise_encoder: The degradation-robust encoder.
        scheduler: Noise levels.
    """

    model_cpu_offload_seq = "denoise_encoder->text_encoder->text_encoder_2->unet->vae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        tokenizer_2: CLIPTokenizer,
        unet: SUPIRUNet,
        control: SUPIRControl,
        denoise_encoder: RobustEncoder,
        scheduler: SUPIRSchedule,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            unet=unet,
            control=control,
            denoise_encoder=denoise_encoder,
            scheduler=scheduler,
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1))

    def enable_tiling(self) -> None:
        """Encode and decode pictures that are larger than the VAE was made for in tiles."""
        self.vae.enable_tiling()
        self.denoise_encoder.enable_tiling()

    def first_stage(self, image: Tensor) -> FirstStage:
        """What the robust encoder makes of a picture (b, 3, h, w) in -1..1."""
        scale, kind = self.vae.config.scaling_factor, self.vae.dtype
        latent = self.denoise_encoder(image).float() * scale
        picture = self.vae.decode((latent / scale).to(kind), return_dict=False)[0].float()
        centre = self.vae.encode(picture.to(kind)).latent_dist.mode().float() * scale
        return FirstStage(latent, picture, centre)

    def decode(self, latent: Tensor) -> Tensor:
        """(b, 4, h, w) in the denoiser's scale → (b, 3, 8h, 8w), about -1..1."""
        return self.vae.decode((latent / self.vae.config.scaling_factor).to(self.vae.dtype), return_dict=False)[
            0
        ].float()

    def encode_prompt(
        self, prompt: str, negative_prompt: str = "", device: Any = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both sides of the words, of equal length.

        Returns:
            (1, tokens, width) and (1, pooled width) of the prompt, then both of the negative prompt.
        """
        wanted, unwanted = (phrases_of(self._read(text)) for text in (prompt, negative_prompt))
        found, _, _ = encode_words(self, wanted, unwanted, device or self._execution_device)
        pooled = cast("Tensor", found.pooled)
        return found.hidden[1:], pooled[1:], found.hidden[:1], pooled[:1]

    def _read(self, text: str) -> str:
        """`text` with the names of loaded embeddings written out, one mark per vector."""
        return cast("str", self.maybe_convert_prompt(text, self.tokenizer))

    def words(self, text: Tensor, pooled: Tensor) -> Words:
        """For the networks: (n, tokens, width) and (n, pooled width), the unwanted side first."""
        import torch

        numbers = torch.tensor([SIDE, SIDE, 0, 0, SIDE, SIDE], device=pooled.device)
        width = self.unet.config.addition_time_embed_dim
        embedded = get_timestep_embedding(numbers, width, flip_sin_to_cos=True, downscale_freq_shift=0)
        sizes = embedded.reshape(1, TIME_IDS * width).expand(len(pooled), -1)
        return Words(text, torch.cat([pooled, sizes.to(pooled.dtype)], dim=1))

    def denoised(self, part: Tensor, sigma: Tensor, control: Tensor, words: Words, control_scale: float) -> Tensor:
        """Clean latents of one window, both sides of the words.

        Args:
            part: Noisy latent (1, 4, h, w), 32-bit.
            sigma: Its noise level.
            control: Latent of the low-quality picture at the same place (1, 4, h, w).
            words: Of the window, n of them.
            control_scale: 1 is the full effect.

        Returns:
            (n, 4, h, w), in the order of `words`.
        """
        sides = len(words.text)

        def noise(seen: Tensor, level: Tensor) -> Tensor:
            features = self.control(control.expand(sides, -1, -1, -1), level, seen, words.text, words.added)
            return cast("Tensor", self.unet(seen, level, words.text, words.added, features, control_scale))

        return cast("Tensor", self.scheduler.denoised(noise, part.expand(sides, -1, -1, -1), sigma))

    def run(
        self,
        image: Tensor,
        words: Sequence[Words],
        walk: Walk,
        boxes: tuple[Box, ...],
        *,
        generator: Any,
        color_fix: str | None = "wavelet",
        on_step: OnStep | None = None,
        check: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Steps 1, 3 and 4 of the module's list: what `__call__` and the restorer share.

        Args:
            image: (1, 3, h, w) in -1..1, 32-bit, on the device; h and w are multiples of 64.
            words: Of every window.
            walk: How to walk.
            boxes: Windows, in latent pixels; they cover the latent.
            generator: Of torch; `None` for new noise each time.
            color_fix: wavelet, adain or none; `None` leaves the last step out and returns the latent.
            on_step: Called after every step.
            check: Called with the control latent, before the walk.

        Returns:
            (1, 3, h, w), about -1..1, or the latent.

        Raises:
            BackendFailed: a network gave NaN.
        """
        stage = self.first_stage(image)
        check_finite(stage.centre, "the encoder")
        if check is not None:
            check(stage.control)
        size = (stage.control.shape[-1], stage.control.shape[-2])
        windows = blended(boxes, size, centred=not walk.faithful)

        def denoise(part: Tensor, number: int, sigma: Tensor, scale: float) -> Tensor:
            box = boxes[number]
            control = stage.control[..., box.y1 : box.y2, box.x1 : box.x2]
            return self.denoised(part, sigma, control, words[number], scale)

        def draw() -> Tensor:
            return cast("Tensor", randn_tensor(stage.control.shape, generator, image.device, image.dtype))

        first = start(draw(), sigmas_of(self.scheduler, walk), stage.centre if walk.begin else None)
        latent = restore(self.scheduler, first, stage.centre, denoise, windows, walk, draw=draw, on_step=on_step)
        if color_fix is None:
            return latent
        return align_colour(self.decode(latent), stage.picture, color_fix)

    def __call__(
        self,
        image: Any,
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] = "",
        *,
        num_inference_steps: int = 50,
        guidance_scale: float = 4.0,
        guidance_scale_start: float | None = None,
        control_scale: float = 1.0,
        control_scale_start: float | None = None,
        strength: float = 1.0,
        walk: Walk | None = None,
        generator: Any = None,
        prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        tile: int = TILE,
        stride: int = STRIDE,
        color_fix: str = "wavelet",
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Restore one picture.

        Args:
            image: PIL picture, or array (h, w, 3) or tensor (1, 3, h, w) in 0..1, at the size that is wanted;
                both sides are cut to multiples of 64.
            prompt: One, or one per window.
            negative_prompt: Likewise.
            num_inference_steps: Of the whole walk.
            guidance_scale: Where there is no noise any more; 1 with no other start reads only the prompt.
            guidance_scale_start: Where there is most noise; linear between them. `None` is the same at both ends.
            control_scale, control_scale_start: Likewise of the control.
            strength: Share of the walk that is walked, above 0 to 1; below 1 it starts at the first stage's latent.
            walk: Everything else, such as churn, pull and the sampler; the arguments above go over its own.
            generator: Of torch, on any device; without one the noise is a new one each time.
            prompt_embeds, pooled_prompt_embeds, negative_prompt_embeds, negative_pooled_prompt_embeds: What
                `encode_prompt` gave, or as long; they go over the texts, for every window.
            tile, stride: Of the windows, in latent pixels.
            color_fix: wavelet, adain or none, to the first-stage picture.
            output_type: pil, np, pt, or latent.
            return_dict: Whether to return an `ImagePipelineOutput`, or its fields.
            callback_on_step_end: (pipeline, step, noise level, {"latents": ...}) → a dictionary that may replace them.
            callback_on_step_end_tensor_inputs: Names that it is given; there is only "latents".

        Raises:
            OptionInvalid: embeddings of one side only or of two lengths, prompts that do not match the windows, a walk
                of no steps.
            BackendFailed: the model gave NaN.
        """
        import torch

        device = self._execution_device
        if callback_on_step_end is not None and (
            unknown := [name for name in callback_on_step_end_tensor_inputs if name not in self._callback_tensor_inputs]
        ):
            raise OptionInvalid("a callback is given latents alone", ", ".join(unknown), "leave the others out")
        with torch.no_grad():
            pixels = self.image_processor.preprocess(image).to(device, torch.float32)
            height, width = (side // 64 * 64 for side in pixels.shape[-2:])
            if len(pixels) != 1 or not height or not width:
                raise OptionInvalid("one picture of at least 64 x 64 is needed", tuple(pixels.shape), "enlarge it")
            scale = self.image_processor.config.vae_scale_factor
            boxes = sliding_boxes((width // scale, height // scale), tile, stride)
            plan = _walk(
                walk or Walk(),
                num_inference_steps,
                guidance_scale,
                guidance_scale_start,
                control_scale,
                control_scale_start,
                strength,
            )
            given = (prompt_embeds, pooled_prompt_embeds, negative_prompt_embeds, negative_pooled_prompt_embeds)
            is_guided = plan.guidance is not None
            words = self._words(len(boxes), prompt, negative_prompt, given, device, is_guided=is_guided)
            with self.progress_bar(total=plan.steps - plan.begin) as bar:

                def on_step(number: int, sigma: Tensor, latent: Tensor) -> Tensor:
                    bar.update()
                    if callback_on_step_end is None:
                        return latent
                    names = dict.fromkeys(callback_on_step_end_tensor_inputs, latent)
                    return cast("Tensor", callback_on_step_end(self, number, sigma, names).pop("latents", latent))

                images = self.run(
                    pixels[..., :height, :width],
                    words,
                    plan,
                    boxes,
                    generator=generator,
                    color_fix=None if output_type == "latent" else color_fix,
                    on_step=on_step,
                )
            if output_type != "latent":
                images = self.image_processor.postprocess(images, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _words(
        self,
        windows: int,
        prompt: str | Sequence[str],
        negative: str | Sequence[str],
        given: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
        device: Any,
        *,
        is_guided: bool,
    ) -> list[Words]:
        """Of every window; equal texts are encoded once."""
        import torch

        pairs = list(zip(_each(prompt, windows), _each(negative, windows), strict=True))
        found: dict[tuple[str, str], Words] = {}
        for pair in dict.fromkeys(pairs):
            sides = list(given)
            for wanted in (0, 2):
                if (sides[wanted] is None) != (sides[wanted + 1] is None):
                    raise OptionInvalid("embeddings and pooled embeddings belong together", None, "give both")
            if sides[0] is None or (sides[2] is None and is_guided):
                own = self.encode_prompt(*pair, device=device)
                sides = [mine if value is None else value for value, mine in zip(sides, own, strict=True)]
            text, pooled, unwanted, unwanted_pooled = (None if item is None else item.to(device) for item in sides)
            if not is_guided:
                found[pair] = self.words(cast("Tensor", text), cast("Tensor", pooled))
                continue
            if cast("Tensor", text).shape != cast("Tensor", unwanted).shape:
                raise OptionInvalid(
                    "the embeddings of both sides must be of one length",
                    f"{tuple(cast('Tensor', text).shape)} and {tuple(cast('Tensor', unwanted).shape)}",
                    "encode both with encode_prompt",
                )
            found[pair] = self.words(
                torch.cat([cast("Tensor", unwanted), cast("Tensor", text)]),
                torch.cat([cast("Tensor", unwanted_pooled), cast("Tensor", pooled)]),
            )
        return [found[pair] for pair in pairs]


def _each(text: str | Sequence[str], windows: int) -> list[str]:
    """A prompt for every window."""
    if isinstance(text, str):
        return [text] * windows
    if len(text) != windows:
        raise OptionInvalid(f"there are {windows} windows", f"{len(text)} prompts", "give one, or one for each")
    return list(text)


def _walk(
    walk: Walk,
    steps: int,
    guidance: float,
    guidance_start: float | None,
    control: float,
    control_start: float | None,
    strength: float,
) -> Walk:
    """`walk` with the pipeline's own arguments."""
    if steps < 1 or not 0 < strength <= 1:
        raise OptionInvalid("steps must be at least 1 and strength above 0 to 1", (steps, strength), "50 and 1")
    walked = max(1, int(steps * strength + 1e-6))
    ramp = Ramp(guidance if guidance_start is None else guidance_start, guidance)
    return replace(
        walk,
        steps=steps,
        begin=steps - walked,
        guidance=None if ramp == Ramp(1.0, 1.0) else ramp,
        control=Ramp(control if control_start is None else control_start, control),
    )
