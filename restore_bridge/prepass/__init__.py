"""The pass before a restorer: takes out the worst damage so that a generative restorer does not redraw it as content."""  # noqa: E501

from __future__ import annotations

from typing import Any, Protocol

from zoomiqa.imaging.picture import Picture
from zoomiqa.plugins import Registry


class Prepass(Protocol):
    """Cleans a picture without guidance; the size stays.

    A note that `clean` adds to the picture's own goes to the record. A pre-pass may also have a method
    `describe() -> dict`: JSON values for the record that say what it works with, such as its model and device.
    """

    @property
    def name(self) -> str: ...

    def clean(self, picture: Picture) -> Picture: ...


REGISTRY: Registry[Prepass] = Registry(
    "pre-pass",
    "restore_bridge.prepasses",
    {
        "none": "restore_bridge.prepass.none:NoPrepass",
        "classical": "restore_bridge.prepass.classical:ClassicalPrepass",
        "swinir": "restore_bridge.prepass.swinir:SwinIRPrepass",
    },
)


def load_prepass(name: str, /, **options: Any) -> Prepass:
    """Make the pre-pass called `name` with its options, e.g. `load_prepass("swinir", weights="model.safetensors")`.

    Raises:
        BackendUnknown: there is none.
        OptionInvalid: it has no such option; the message names those it has.
    """
    return REGISTRY.load(name, **options)


def describe_prepass(prepass: Prepass) -> dict[str, Any]:
    """What a record says of a pre-pass: its name, and what it tells of itself."""
    describe = getattr(prepass, "describe", None)
    return {"name": prepass.name, **(describe() if describe else {})}


def prepass_names() -> tuple[str, ...]:  # noqa: D103
    return REGISTRY.names()


__all__ = ["REGISTRY", "Prepass", "describe_prepass", "load_prepass", "prepass_names"]
