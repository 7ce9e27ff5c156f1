"""SUPIR's degradation-robust encoder: SDXL's VAE encoder, trained further so that damaged pictures give clean latents.

Paper: SUPIR (Yu et al., CVPR 2024), section 3.1, "Degradation-robust encoder": fine-tuned so that decoding its latent
with the untouched decoder gives the clean picture. Takes (b, 3, h, w) in -1..1 and gives the most likely latent
(b, 4, h/8, w/8), in the VAE's own scale (the denoiser's is 0.13025 times it); 34.2 million parameters.

It is diffusers' `AutoencoderKL` without the decoder, so large pictures are encoded in tiles the same way. Different
from the original: it keeps its own copy of the one layer that it shares with the VAE there (`quant_conv`, 72 numbers),
as the two may be on different devices.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 - a pipeline's loader looks for it in this module

if TYPE_CHECKING:
    from torch import Tensor


class RobustEncoder(AutoencoderKL):  # type: ignore[misc]
    """The encoder. Takes the keywords of `AutoencoderKL`."""

    # diffusers reads the keywords of a configuration from the signature.
    @functools.wraps(AutoencoderKL.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        del self.decoder
        self.post_quant_conv = None

    @classmethod
    def like(cls, vae: AutoencoderKL) -> RobustEncoder:
        """With the weights of a VAE, from which SUPIR's training started."""
        found = cast("RobustEncoder", cls.from_config(vae.config))
        own = found.state_dict()
        found.load_state_dict({name: value for name, value in vae.state_dict().items() if name in own})
        return found

    def forward(self, image: Tensor) -> Tensor:
        """(b, 3, h, w) in -1..1 → (b, 4, h/8, w/8)."""
        return self.encode(image.to(self.dtype)).latent_dist.mode()
