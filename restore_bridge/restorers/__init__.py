"""Restorers by name. Built-in ones load on first use; others come from the entry-point group `restore_bridge.restorers`."""  # noqa: E501

from __future__ import annotations

from typing import Any

from restore_bridge.restorers.base import Capabilities, Restored, Restorer, RestoreSettings
from zoomiqa.plugins import Registry

DEFAULT_RESTORER = "compact"
"""Embedded, like every default: it needs no download and no GPU."""

REGISTRY: Registry[Restorer] = Registry(
    "restorer",
    "restore_bridge.restorers",
    {
        "identity": "restore_bridge.restorers.identity:IdentityRestorer",
        "classical": "restore_bridge.restorers.classical:ClassicalRestorer",
        "compact": "restore_bridge.restorers.compact:CompactRestorer",
        "realesrgan": "restore_bridge.restorers.realesrgan:RealESRGANRestorer",
        "sdxl-tile": "restore_bridge.restorers.diffusion.sdxl_tile:SDXLTileRestorer",
        "sdxl-union": "restore_bridge.restorers.diffusion.sdxl_union:SDXLUnionRestorer",
        "pixart": "restore_bridge.restorers.diffusion.pixart:PixArtRestorer",
        "sd-upscale": "restore_bridge.restorers.diffusion.sd_upscale:SDUpscaleRestorer",
        "qwen-edit": "restore_bridge.restorers.diffusion.qwen_edit:QwenEditRestorer",
        "flux-upscaler": "restore_bridge.restorers.diffusion.flux_upscaler:FluxUpscalerRestorer",
        "supir": "restore_bridge.restorers.diffusion.supir.restorer:SUPIRRestorer",
        "dreamclear": "restore_bridge.restorers.diffusion.dreamclear.restorer:DreamClearRestorer",
    },
)


def load_restorer(name: str, /, **options: Any) -> Restorer:
    """Make the restorer called `name` with its own options, which `REGISTRY.options(name)` lists.

    Example:
        >>> restorer = load_restorer("sdxl-tile", preset="fidelity", steps=20)

    Raises:
        BackendUnknown: no restorer of that name; the message names the near ones.
        OptionInvalid: the restorer has no such option, or the value is outside its range.
    """
    return REGISTRY.load(name, **options)


def restorer_names() -> tuple[str, ...]:
    """Built-in restorers first, then those of other packages."""
    return REGISTRY.names()


__all__ = [
    "DEFAULT_RESTORER",
    "REGISTRY",
    "Capabilities",
    "RestoreSettings",
    "Restored",
    "Restorer",
    "load_restorer",
    "restorer_names",
]
