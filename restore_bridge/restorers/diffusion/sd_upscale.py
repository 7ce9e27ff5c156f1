"""`sd-upscale`: Stable Diffusion's ×4 upscaler. It sees the picture at a quarter of the size worked at, beside the latent.

A latent pixel is 4 pixels wide, the same as a pixel of the small picture, so a window of one is a window of the other.
The small picture gets a little noise (`noise_level`), which tells the model how far to mistrust it. At scale 4 the small
picture is the input itself; at smaller scales it is the input made smaller, and the start of the denoising is what
carries the rest. Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (CVPR 2022).
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from restore_bridge.restorers.diffusion.base import LatentRestorer, Licence, Loaded, WorkPlan, redrawing, torch_type
from restore_bridge.restorers.diffusion.encoding import (
    ClipEmbedding,
    Sent,
    chunk_phrases,
    encode_clip,
)
from restore_bridge.restorers.diffusion.loading import Source, from_pretrained
from restore_bridge.restorers.diffusion.memory import Component, Footprint
from restore_bridge.restorers.diffusion.options import Options
from restore_bridge.restorers.diffusion.sampling import Ramp, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from restore_bridge.restorers.diffusion.latent_tiling import WindowText
    from restore_bridge.restorers.diffusion.sampling import Step
    from zoomiqa.types import Box

FACTOR = 4
MOST_NOISE = 350
"""Highest noise level that the model was trained with."""

FOOTPRINT = Footprint(
    (
        Component("OpenCLIP ViT-H", 340.4, "text"),
        Component("U-Net", 473.4, "denoiser"),
        Component("VAE", 55.3, "decoder"),
    ),
    window_bytes=12_000,
    decoder_bytes=4_000,
)
LICENCE = Licence("CreativeML Open RAIL++-M (Stable Diffusion x4 upscaler)")


@dataclass(frozen=True, slots=True)
class UpscaleOptions(Options):
    """With the noise that the small picture gets."""

    noise_level: int = 20
    """0..350; more lets the model invent more."""

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # no plain `super()`: slots make the decorator build the class anew
        self._within("noise_level", 0, MOST_NOISE, is_whole=True)


@dataclass(frozen=True, slots=True)
class Small:
    """The picture at a quarter of the size, noised: (1, 3, h, w) in about -1..1, and how much noise it got."""

    image: Tensor
    level: Tensor


class SDUpscaleRestorer(LatentRestorer):
    """Stable Diffusion ×4 upscaling under both prompts."""

    capabilities = redrawing(
        "sd-upscale",
        "Stable Diffusion x4 upscaler under both prompts; suits enlargement",
        encoder="clip-2",
        licence=LICENCE,
        footprint=FOOTPRINT,
        tile_px=512,
    )
    options_type = UpscaleOptions
    footprint = FOOTPRINT
    licence = LICENCE
    default_weights = "stabilityai/stable-diffusion-x4-upscaler"
    parts = ("vae", "text_encoder", "tokenizer", "unet", "low_res_scheduler", "scheduler")
    tokenizers: ClassVar = {"tokenizer": "CLIPTokenizer"}
    presets: ClassVar = {
        "quality": Sampling(steps=40, denoise=0.8, guidance=Ramp(3.0, 6.0), control=Ramp(0.0, 0.0)),
        "fidelity": Sampling(steps=40, denoise=0.5, guidance=Ramp(1.5, 4.0), control=Ramp(0.0, 0.0)),
    }
    quality_suffix = "a real photograph, fine true-to-life detail, clean edges"
    negative_suffix = "drawing, smeared texture, halo at edges, compression blocks"
    min_side = 512
    latent_px = FACTOR

    def load_pipeline(self, source: Source, dtype: str) -> Any:
        from diffusers import StableDiffusionUpscalePipeline

        return from_pretrained(
            StableDiffusionUpscalePipeline, source, dtype=dtype, variant=self.options.variant, vae_dtype="fp32"
        )

    def denoisers(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.unet,)

    def encode_text(self, loaded: Loaded, text: WindowText) -> tuple[ClipEmbedding, Sent, Sent]:
        pipe, count = loaded.pipe, self.count(loaded.pipe)
        wanted, unwanted = self.with_suffixes(text.positive, text.negative)
        positive, negative = chunk_phrases(wanted, count), chunk_phrases(unwanted, count)
        encoders = ((pipe.tokenizer, pipe.text_encoder),)
        return encode_clip(positive, negative, encoders, layer=-1, device=loaded.device), positive, negative

    def prepare(self, loaded: Loaded, image: Tensor, plan: WorkPlan, generator: Any) -> Small:  # noqa: ARG002
        import torch

        small = torch.nn.functional.avg_pool2d(image, FACTOR)
        level = torch.tensor([cast("UpscaleOptions", self.options).noise_level], device=loaded.device)
        noise = torch.randn(small.shape, generator=generator).to(loaded.device)
        noised = loaded.pipe.low_res_scheduler.add_noise(small, noise, level)
        return Small(noised.to(torch_type(loaded)), level.expand(2))

    def predict(self, loaded: Loaded, part: Tensor, box: Box, text: ClipEmbedding, scene: Small, step: Step) -> Tensor:
        import torch

        seen = torch.cat([part, scene.image[..., box.y1 : box.y2, box.x1 : box.x2]], dim=1)
        return loaded.pipe.unet(
            torch.cat([seen, seen]),
            step.timestep,
            encoder_hidden_states=text.hidden.to(part.dtype),
            class_labels=scene.level,
            return_dict=False,
        )[0]
