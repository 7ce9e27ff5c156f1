"""Stable Diffusion XL with a ControlNet that sees the picture: what its members share. It must not know which one.

Two CLIP encoders give the words (75 tokens a chunk, any number of chunks); SDXL's size conditions are held at 1024, as
SUPIR does, for every window. The VAE works in 32-bit numbers, as it overflows in fp16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from restore_bridge.restorers.diffusion.base import Loaded, WorkPlan, torch_type
from restore_bridge.restorers.diffusion.controlled import ControlledRestorer
from restore_bridge.restorers.diffusion.encoding import (
    ClipEmbedding,
    Sent,
    chunk_phrases,
    counter,
    encode_clip,
)
from restore_bridge.restorers.diffusion.memory import Component
from restore_bridge.restorers.diffusion.sampling import Ramp, Sampling
from zoomiqa.errors import WeightsUnsuitable

if TYPE_CHECKING:
    from torch import Tensor

    from restore_bridge.restorers.diffusion.latent_tiling import WindowText
    from restore_bridge.restorers.diffusion.loading import Source
    from restore_bridge.restorers.diffusion.sampling import Step
    from zoomiqa.types import Box

BASE = "stabilityai/stable-diffusion-xl-base-1.0"
BASE_LICENCE = "CreativeML Open RAIL++-M (SDXL)"
SIDE = 1024
"""Pixels that SDXL was trained at."""

COMPONENTS = (
    Component("CLIP ViT-L", 123.1, "text"),
    Component("OpenCLIP ViT-bigG", 694.7, "text"),
    Component("U-Net", 2567.5, "denoiser"),
    Component("VAE", 83.7, "decoder"),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a window's prediction needs of the picture."""

    control: Tensor
    """(1, 3, h, w) in 0..1."""

    time_ids: Tensor
    """(2, 6): original size, crop, target size."""


def encode_words(
    pipe: Any, wanted: Sequence[str], unwanted: Sequence[str], device: Any
) -> tuple[ClipEmbedding, Sent, Sent]:
    """Phrases of both sides by both encoders of a pipeline: the embedding, and what was sent of each side."""
    count = counter(pipe.tokenizer, pipe.tokenizer_2)
    positive, negative = chunk_phrases(wanted, count), chunk_phrases(unwanted, count)
    encoders = ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
    return encode_clip(positive, negative, encoders, layer=-2, device=device), positive, negative


class SDXLControlRestorer(ControlledRestorer):
    """SDXL under a ControlNet."""

    default_weights = BASE
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler")
    tokenizers: ClassVar = {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer"}
    presets: ClassVar = {
        "quality": Sampling(steps=40, denoise=0.55, guidance=Ramp(3.0, 6.0), control=Ramp(0.9, 0.9)),
        "fidelity": Sampling(steps=40, denoise=0.35, guidance=Ramp(1.5, 4.0), control=Ramp(1.0, 1.0)),
    }
    quality_suffix = (
        "a real photograph, fine true-to-life detail, clean edges, natural skin and fabric texture, balanced light"
    )
    negative_suffix = (
        "drawing, rendered image, plastic skin, smeared texture, invented pattern, halo at edges, over-sharpened,"
        " compression blocks, banding, watermark"
    )

    def controlnet_class(self) -> Any:
        from diffusers import ControlNetModel

        return ControlNetModel

    def pipeline_class(self) -> Any:
        from diffusers import StableDiffusionXLControlNetImg2ImgPipeline

        return StableDiffusionXLControlNetImg2ImgPipeline

    def load_pipeline(self, source: Source, dtype: str) -> Any:
        pipe = super().load_pipeline(source, dtype)
        widths = [network.config.cross_attention_dim for network in (pipe.unet, pipe.controlnet)]
        if widths[0] != widths[1]:
            raise WeightsUnsuitable(
                f"the ControlNet reads words {widths[1]} wide, the model {widths[0]}: they are of different families",
                self.sources().get("controlnet", source.text),
                f"use a ControlNet for SDXL, such as {self.default_controlnet}",
            )
        return pipe

    def denoisers(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.unet, pipe.controlnet)

    def encode_text(self, loaded: Loaded, text: WindowText) -> tuple[ClipEmbedding, Sent, Sent]:
        wanted, unwanted = self.with_suffixes(text.positive, text.negative)
        return encode_words(loaded.pipe, wanted, unwanted, loaded.device)

    def prepare(self, loaded: Loaded, image: Tensor, plan: WorkPlan, generator: Any) -> Scene:  # noqa: ARG002
        import torch

        kind = torch_type(loaded)
        ids = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * 2, device=loaded.device, dtype=kind)
        return Scene(((image + 1) / 2).to(kind), ids)

    def predict(self, loaded: Loaded, part: Tensor, box: Box, text: ClipEmbedding, scene: Scene, step: Step) -> Tensor:
        import torch

        pair = torch.cat([part, part])
        edge = self.latent_px
        control = scene.control[..., box.y1 * edge : box.y2 * edge, box.x1 * edge : box.x2 * edge]
        conditions = {"text_embeds": text.pooled, "time_ids": scene.time_ids}
        down, middle = loaded.pipe.controlnet(
            pair,
            step.timestep,
            encoder_hidden_states=text.hidden,
            conditioning_scale=step.control,
            added_cond_kwargs=conditions,
            return_dict=False,
            **self.control_inputs(loaded, torch.cat([control, control])),
        )
        return loaded.pipe.unet(
            pair,
            step.timestep,
            encoder_hidden_states=text.hidden,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            added_cond_kwargs=conditions,
            return_dict=False,
        )[0]

    def control_inputs(self, loaded: Loaded, control: Tensor) -> dict[str, Any]:  # noqa: ARG002
        """How this ControlNet takes the picture (2, 3, h, w)."""
        return {"controlnet_cond": control}
