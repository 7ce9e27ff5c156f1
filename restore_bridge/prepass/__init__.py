"""The pass before a restorer: takes out the worst damage so that a generative restorer does not redraw it as content."""  # noqa: E501

from __future__ import annotations

from typing import Protocol

from zoomiqa.imaging.picture import Picture
from zoomiqa.plugins import Registry


class Prepass(Protocol):
    """Cleans a picture without guidance; the size stays."""

    @property
    def name(self) -> str: ...

    def clean(self, picture: Picture) -> Picture: ...


REGISTRY: Registry[Prepass] = Registry(
    "pre-pass",
    "restore_bridge.prepasses",
    {
        "none": "restore_bridge.prepass.none:NoPrepass",
        "classical": "restore_bridge.prepass.classical:ClassicalPrepass",
    },
)


def load_prepass(name: str) -> Prepass:
    """Make the pre-pass called `name`.

    Raises:
        BackendUnknown: there is none.
    """
    return REGISTRY.load(name)


def prepass_names() -> tuple[str, ...]:  # noqa: D103
    return REGISTRY.names()


__all__ = ["REGISTRY", "Prepass", "load_prepass", "prepass_names"]
