"""SUPIR's denoiser: SDXL's U-Net, unchanged, with a connector wherever a control feature enters its decoder.

Paper: SUPIR (Yu et al., CVPR 2024), section 3.1 and figure 3(b) (the original's class is LightGLVUNet). The encoder
half runs as SDXL's does. After the middle, the last control feature modulates the state; then each decoder block gets
`ZeroSFT(control, skip, state)` in place of the plain concatenation of state and skip, and before each enlargement the
state attends to the same control feature (`ZeroCrossAttn`). Over SDXL base: 12 connectors with 54.8 million parameters
beside SDXL's 2567.5 million.

It is diffusers' `UNet2DConditionModel` with `connectors` beside it, in the released order, so the base's weights keep
their names and SDXL's LoRAs and attention processors fit. Different from the original: only the names. Against
`UNet2DConditionModel.forward`: no classes, adapters, masks, or picture prompts; the numbers that SDXL adds to the time
come ready (`added`), as the control copy needs the same.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 - a pipeline's loader looks for it in this module
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from restore_bridge.restorers.diffusion.supir.architecture import Architecture
from restore_bridge.restorers.diffusion.supir.connectors import build

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class SUPIRUNet(UNet2DConditionModel):  # type: ignore[misc]
    """SDXL's denoiser under SUPIR's control. Takes the keywords of `UNet2DConditionModel`."""

    # diffusers reads the keywords of a configuration from the signature.
    @functools.wraps(UNet2DConditionModel.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        architecture = Architecture.from_unet(self.config)
        self.connectors = nn.ModuleList(build(item, architecture.groups) for item in architecture.connectors)

    @classmethod
    def for_architecture(cls, architecture: Architecture) -> SUPIRUNet:
        """With random weights."""
        return cast("SUPIRUNet", cls(**architecture.unet_config()))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        text: Tensor,
        added: Tensor,
        control: Sequence[Tensor],
        control_scale: float = 1.0,
    ) -> Tensor:
        """The noise in a latent.

        Args:
            sample: Noisy latent as SDXL wants it (b, 4, h, w); h and w are multiples of 2 to the levels less one.
            timestep: (b,), 0..999.
            text: (b, tokens, width).
            added: Pooled text and embedded numbers (b, width).
            control: What `SUPIRControl` gave.
            control_scale: 1 is its full effect, 0 none.

        Returns:
            (b, 4, h, w), in the number format of the weights.

        Raises:
            ValueError: the number of control features does not fit.
        """
        kind = self.dtype
        sample, text, added = (value.to(kind) for value in (sample, text, added))
        time = self.time_embedding(self.time_proj(timestep).to(kind)) + self.add_embedding(added)
        state = self.conv_in(sample)
        skips = [state]
        for block in self.down_blocks:
            if getattr(block, "has_cross_attention", False):
                state, given = block(state, temb=time, encoder_hidden_states=text)
            else:
                state, given = block(state, temb=time)
            skips += given
        if len(control) != len(skips) + 1:
            raise ValueError(f"{len(skips) + 1} control features are needed, {len(control)} were given")
        features = [feature.to(kind) for feature in control]
        connectors = list(self.connectors)
        state = self.mid_block(state, time, encoder_hidden_states=text)
        state = connectors.pop()(features.pop(), state, scale=control_scale)
        for block in self.up_blocks:
            attentions = block.attentions if getattr(block, "has_cross_attention", False) else None
            for number, resnet in enumerate(block.resnets):
                feature = features.pop()
                state = resnet(connectors.pop()(feature, skips.pop(), state, control_scale), time)
                if attentions is not None:
                    state = attentions[number](state, encoder_hidden_states=text, return_dict=False)[0]
            for upsampler in block.upsamplers or ():
                if attentions is not None:
                    state = connectors.pop()(feature, state, control_scale)
                state = upsampler(state)
        return self.conv_out(self.conv_act(self.conv_norm_out(state)))
