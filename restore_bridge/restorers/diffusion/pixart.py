"""`pixart`: PixArt-Sigma, started from the picture's own latent. One T5 encoder reads 300 tokens of prose.

There is no ControlNet: what holds the structure is how little is redrawn, so the presets redraw less than SDXL's.
Source: Chen et al., "PixArt-Σ" (ECCV 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from restore_bridge.restorers.diffusion.base import LatentRestorer, Licence, Loaded, redrawing
from restore_bridge.restorers.diffusion.encoding import (
    Sent,
    T5Embedding,
    encode_t5,
    fit_phrases,
)
from restore_bridge.restorers.diffusion.loading import Source, from_pretrained
from restore_bridge.restorers.diffusion.memory import Component, Footprint
from restore_bridge.restorers.diffusion.sampling import Ramp, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from restore_bridge.restorers.diffusion.latent_tiling import WindowText
    from restore_bridge.restorers.diffusion.sampling import Step
    from zoomiqa.types import Box

POSITIONS = 300
"""T5 tokens that PixArt-Sigma was trained with, the end mark among them."""

FOOTPRINT = Footprint(
    (
        Component("T5 v1.1 XXL", 4762.3, "text"),
        Component("transformer", 610.9, "denoiser"),
        Component("VAE", 83.7, "decoder"),
    ),
    window_bytes=11_000,
    decoder_bytes=4_000,
)
LICENCE = Licence("CreativeML Open RAIL++-M (PixArt-Sigma)")


class PixArtRestorer(LatentRestorer):
    """PixArt-Sigma from picture to picture."""

    capabilities = redrawing(
        "pixart",
        "PixArt-Sigma from picture to picture; reads 300 tokens, redraws little",
        encoder="t5-300",
        licence=LICENCE,
        footprint=FOOTPRINT,
    )
    footprint = FOOTPRINT
    licence = LICENCE
    default_weights = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
    parts = ("vae", "text_encoder", "tokenizer", "transformer", "scheduler")
    tokenizers: ClassVar = {"tokenizer": "T5Tokenizer"}
    presets: ClassVar = {
        "quality": Sampling(steps=30, denoise=0.4, guidance=Ramp(4.5, 4.5), control=Ramp(0.0, 0.0)),
        "fidelity": Sampling(steps=30, denoise=0.25, guidance=Ramp(2.0, 3.5), control=Ramp(0.0, 0.0)),
    }
    quality_suffix = "a real photograph with fine true-to-life detail, clean edges and balanced light"
    negative_suffix = "a drawing or rendered image, plastic skin, smeared texture, halos at edges, compression blocks"

    def load_pipeline(self, source: Source, dtype: str) -> Any:
        from diffusers import PixArtSigmaPipeline

        return from_pretrained(PixArtSigmaPipeline, source, dtype=dtype, variant=self.options.variant, vae_dtype="fp32")

    def denoisers(self, pipe: Any) -> tuple[Any, ...]:
        return (pipe.transformer,)

    def encode_text(self, loaded: Loaded, text: WindowText) -> tuple[T5Embedding, Sent, Sent]:
        pipe, count = loaded.pipe, self.count(loaded.pipe)
        positive, negative = (
            # PixArt was trained on lower-cased captions.
            fit_phrases([phrase.lower() for phrase in phrases], count, POSITIONS - 1)
            for phrases in self.with_suffixes(text.positive, text.negative)
        )
        embedding = encode_t5(
            positive, negative, pipe.tokenizer, pipe.text_encoder, tokens=POSITIONS, device=loaded.device
        )
        return embedding, positive, negative

    def predict(
        self,
        loaded: Loaded,
        part: Tensor,
        box: Box,  # noqa: ARG002
        text: T5Embedding,
        scene: Any,  # noqa: ARG002
        step: Step,
    ) -> Tensor:
        import torch

        output = loaded.pipe.transformer(
            torch.cat([part, part]),
            encoder_hidden_states=text.hidden.to(part.dtype),
            encoder_attention_mask=text.mask,
            timestep=step.timestep.expand(2),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        # The second half of the channels, where there is one, is a learned variance that samplers leave aside.
        return output[:, : part.shape[1]]
