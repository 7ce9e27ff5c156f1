"""`sdxl-union`: SDXL with the tile mode of the many-purpose ControlNet "union", in its ProMax form.

The plain form of that ControlNet has six modes and none for tiles; its weights are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from restore_bridge.restorers.diffusion.base import Licence, Loaded, redrawing
from restore_bridge.restorers.diffusion.loading import Source
from restore_bridge.restorers.diffusion.memory import Component, Footprint
from restore_bridge.restorers.diffusion.sdxl import BASE_LICENCE, COMPONENTS, SDXLControlRestorer
from zoomiqa.errors import WeightsUnsuitable

if TYPE_CHECKING:
    from torch import Tensor

TILE_MODE = 6
"""Number of the tile mode among ProMax's eight."""

FOOTPRINT = Footprint(
    (*COMPONENTS, Component("ControlNet", 1257.9, "denoiser")), window_bytes=20_000, decoder_bytes=4_000
)
LICENCE = Licence(f"{BASE_LICENCE}, Apache-2.0 (ControlNet)")


class SDXLUnionRestorer(SDXLControlRestorer):
    """SDXL, held to the picture by the union ControlNet's tile mode."""

    capabilities = redrawing(
        "sdxl-union",
        "SDXL with the union ControlNet (ProMax) in tile mode; redraws under both prompts",
        encoder="clip-2",
        licence=LICENCE,
        footprint=FOOTPRINT,
    )
    footprint = FOOTPRINT
    licence = LICENCE
    default_controlnet = "brad-twinkl/controlnet-union-sdxl-1.0-promax"

    def controlnet_class(self) -> Any:
        from diffusers import ControlNetUnionModel

        return ControlNetUnionModel

    def pipeline_class(self) -> Any:
        from diffusers import StableDiffusionXLControlNetUnionImg2ImgPipeline

        return StableDiffusionXLControlNetUnionImg2ImgPipeline

    def load_pipeline(self, source: Source, dtype: str) -> Any:
        pipe = super().load_pipeline(source, dtype)
        modes = pipe.controlnet.config.num_control_type
        if modes <= TILE_MODE:
            raise WeightsUnsuitable(
                f"this union ControlNet has {modes} modes and none for tiles",
                self.sources().get("controlnet", source.text),
                f"use its ProMax form, such as {self.default_controlnet}",
            )
        return pipe

    def control_inputs(self, loaded: Loaded, control: Tensor) -> dict[str, Any]:
        import torch

        kinds = torch.zeros(2, loaded.pipe.controlnet.config.num_control_type, device=control.device)
        kinds[:, TILE_MODE] = 1
        return {
            "controlnet_cond": [control],
            "control_type": kinds.to(control.dtype),
            "control_type_idx": [TILE_MODE],
        }
