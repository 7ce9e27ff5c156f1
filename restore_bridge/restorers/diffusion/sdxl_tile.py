"""`sdxl-tile`: SDXL with xinsir's tile ControlNet. The default text-guided restorer: free weights, any base of the family."""  # noqa: E501

from __future__ import annotations

from restore_bridge.restorers.diffusion.base import Licence, redrawing
from restore_bridge.restorers.diffusion.memory import Component, Footprint
from restore_bridge.restorers.diffusion.sdxl import BASE_LICENCE, COMPONENTS, SDXLControlRestorer

FOOTPRINT = Footprint(
    (*COMPONENTS, Component("ControlNet", 1251.0, "denoiser")), window_bytes=20_000, decoder_bytes=4_000
)
LICENCE = Licence(f"{BASE_LICENCE}, Apache-2.0 (ControlNet)")


class SDXLTileRestorer(SDXLControlRestorer):
    """SDXL, held to the picture by a ControlNet that was trained on tiles."""

    capabilities = redrawing(
        "sdxl-tile",
        "SDXL with a tile ControlNet; redraws under both prompts and invents detail",
        encoder="clip-2",
        licence=LICENCE,
        footprint=FOOTPRINT,
    )
    footprint = FOOTPRINT
    licence = LICENCE
    default_controlnet = "xinsir/controlnet-tile-sdxl-1.0"
