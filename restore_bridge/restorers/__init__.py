"""Restorers by name. Built-in ones load on first use; others come from the entry-point group `restore_bridge.restorers`."""  # noqa: E501

from __future__ import annotations

from restore_bridge.restorers.base import Capabilities, Restored, Restorer, RestoreSettings
from zoomiqa.plugins import Registry

REGISTRY: Registry[Restorer] = Registry(
    "restorer",
    "restore_bridge.restorers",
    {
        "identity": "restore_bridge.restorers.identity:IdentityRestorer",
        "classical": "restore_bridge.restorers.classical:ClassicalRestorer",
        "realesrgan": "restore_bridge.restorers.realesrgan:RealESRGANRestorer",
    },
)


def load_restorer(name: str) -> Restorer:
    """Make the restorer called `name`.

    Raises:
        BackendUnknown: no restorer of that name; the message names the near ones.
    """
    return REGISTRY.load(name)


def restorer_names() -> tuple[str, ...]:
    """Built-in restorers first, then those of other packages."""
    return REGISTRY.names()


__all__ = ["REGISTRY", "Capabilities", "RestoreSettings", "Restored", "Restorer", "load_restorer", "restorer_names"]
