"""`flux-upscaler`: FLUX.1-dev with Jasper's upscaling ControlNet. Its weights are not free for commercial use.

T5 reads 512 tokens of prose, CLIP gives one pooled vector of the first 75. FLUX.1-dev has a guidance of its own,
learned in training (`distilled_guidance`); the negative prompt takes part through true classifier-free guidance beside
it (`guidance`), which doubles the cost. The ControlNet sees the picture as a latent and hears the positive side only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from restore_bridge.restorers.diffusion.base import Licence, Loaded, WorkPlan, redrawing, torch_type
from restore_bridge.restorers.diffusion.controlled import ControlledRestorer
from restore_bridge.restorers.diffusion.encoding import (
    Sent,
    chunk_phrases,
    counter,
    encode_clip,
    encode_t5,
    fit_phrases,
)
from restore_bridge.restorers.diffusion.memory import Component, Footprint
from restore_bridge.restorers.diffusion.options import ControlOptions
from restore_bridge.restorers.diffusion.sampling import Ramp, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from restore_bridge.restorers.diffusion.latent_tiling import WindowText
    from restore_bridge.restorers.diffusion.sampling import Step
    from zoomiqa.types import Box

POSITIONS = 512
"""T5 tokens, the end mark among them."""

FOOTPRINT = Footprint(
    (
        Component("CLIP ViT-L", 123.1, "text"),
        Component("T5 v1.1 XXL", 4762.3, "text"),
        Component("transformer", 11901.4, "denoiser"),
        Component("ControlNet", 1790.0, "denoiser"),
        Component("VAE", 83.8, "decoder"),
    ),
    window_bytes=60_000,
    decoder_bytes=4_000,
)
LICENCE = Licence("FLUX.1-dev Non-Commercial (model and ControlNet)", needs_consent=True)


@dataclass(frozen=True, slots=True)
class FluxOptions(ControlOptions):
    """With FLUX's own guidance."""

    distilled_guidance: float = 3.5
    """1..30; larger is nearer to the words and more contrasty."""

    def __post_init__(self) -> None:
        ControlOptions.__post_init__(self)  # no plain `super()`: slots make the decorator build the class anew
        self._within("distilled_guidance", 1, 30)


@dataclass(frozen=True, slots=True)
class FluxText:
    """Both sides, negative first."""

    hidden: Tensor
    """(2, 512, width) of T5."""

    pooled: Tensor
    """(2, width) of CLIP."""


class FluxUpscalerRestorer(ControlledRestorer):
    """FLUX.1-dev, held to the picture by an upscaling ControlNet."""

    capabilities = redrawing(
        "flux-upscaler",
        "FLUX.1-dev with Jasper's upscaling ControlNet; non-commercial weights, asks for consent",
        encoder="t5-512",
        licence=LICENCE,
        footprint=FOOTPRINT,
    )
    options_type = FluxOptions
    footprint = FOOTPRINT
    licence = LICENCE
    default_weights = "black-forest-labs/FLUX.1-dev"
    default_controlnet = "jasperai/Flux.1-dev-Controlnet-Upscaler"
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "scheduler")
    tokenizers: ClassVar = {"tokenizer_2": "T5TokenizerFast"}
    presets: ClassVar = {
        "quality": Sampling(steps=28, denoise=0.6, guidance=Ramp(2.0, 2.0), control=Ramp(0.6, 0.6)),
        "fidelity": Sampling(steps=28, denoise=0.4, guidance=Ramp(1.5, 1.5), control=Ramp(0.8, 0.8)),
    }
    quality_suffix = "a real photograph with fine true-to-life detail, clean edges and balanced light"
    negative_suffix = "a drawing or rendered image, plastic skin, smeared texture, halos at edges, compression blocks"

    def controlnet_class(self) -> Any:
        from diffusers import FluxControlNetModel

        return FluxControlNetModel

    def pipeline_class(self) -> Any:
        from diffusers import FluxControlNetPipeline

        return FluxControlNetPipeline

    def denoisers(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.transformer, pipe.controlnet)

    def encode_text(self, loaded: Loaded, text: WindowText) -> tuple[FluxText, Sent, Sent]:
        pipe, count = loaded.pipe, self.count(loaded.pipe)
        wanted, unwanted = self.with_suffixes(text.positive, text.negative)
        positive, negative = (fit_phrases(phrases, count, POSITIONS - 1) for phrases in (wanted, unwanted))
        # FLUX was trained without a mask over the words: the filling is part of what it reads.
        t5 = encode_t5(
            positive,
            negative,
            pipe.tokenizer_2,
            pipe.text_encoder_2,
            tokens=POSITIONS,
            device=loaded.device,
            masked=False,
        )
        openings = [chunk_phrases(phrases, counter(pipe.tokenizer), most=1) for phrases in (wanted, unwanted)]
        encoders = ((pipe.tokenizer, pipe.text_encoder),)
        clip = encode_clip(openings[0], openings[1], encoders, layer=-1, device=loaded.device)
        return FluxText(t5.hidden, cast("Tensor", clip.pooled)), positive, negative

    def prepare(self, loaded: Loaded, image: Tensor, plan: WorkPlan, generator: Any) -> Tensor:  # noqa: ARG002
        """The picture's latent (1, c, h, w), for the ControlNet."""
        return self.encode_picture(loaded.pipe, image).to(torch_type(loaded))

    def predict(self, loaded: Loaded, part: Tensor, box: Box, text: FluxText, scene: Tensor, step: Step) -> Tensor:
        import torch

        pipe, (height, width) = loaded.pipe, part.shape[-2:]
        tokens = pack(part)
        places = {
            "txt_ids": torch.zeros(text.hidden.shape[1], 3, device=part.device, dtype=part.dtype),
            "img_ids": token_places(height // 2, width // 2).to(part.device, part.dtype),
        }
        moment = step.timestep.expand(1).to(part.dtype) / 1000
        own = torch.tensor([cast("FluxOptions", self.options).distilled_guidance], device=part.device)
        blocks, single_blocks = pipe.controlnet(
            hidden_states=tokens,
            controlnet_cond=pack(scene[..., box.y1 : box.y2, box.x1 : box.x2]),
            conditioning_scale=step.control,
            timestep=moment,
            guidance=own if pipe.controlnet.config.guidance_embeds else None,
            pooled_projections=text.pooled[1:],
            encoder_hidden_states=text.hidden[1:],
            return_dict=False,
            **places,
        )
        output = pipe.transformer(
            hidden_states=torch.cat([tokens, tokens]),
            timestep=moment.expand(2),
            guidance=own.expand(2) if pipe.transformer.config.guidance_embeds else None,
            pooled_projections=text.pooled,
            encoder_hidden_states=text.hidden,
            controlnet_block_samples=_twice(blocks),
            controlnet_single_block_samples=_twice(single_blocks),
            return_dict=False,
            **places,
        )[0]
        return unpack(output, height, width)


def pack(latent: Tensor) -> Tensor:
    """(n, c, h, w) → (n, h/2·w/2, 4c): squares of two by two latent pixels become tokens."""
    count, channels, height, width = latent.shape
    squares = latent.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(count, height // 2 * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, for a latent of (height, width)."""
    count, _, channels = tokens.shape
    squares = tokens.reshape(count, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(count, channels // 4, height, width)


def token_places(rows: int, columns: int) -> Tensor:
    """(rows·columns, 3): nought, row and column of each token."""
    import torch

    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3)


def _twice(samples: Any) -> Any:
    """What the ControlNet said of the positive side, for both sides."""
    import torch

    return None if samples is None else [torch.cat([sample, sample]) for sample in samples]
