"""What a restorer is: one method, and its capabilities as data. It must not know any restorer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from zoomiqa.errors import ImageTooLarge, OptionInvalid
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Note

if TYPE_CHECKING:
    from restore_bridge.guidance import Guidance
    from restore_bridge.prompts import Prompts
    from zoomiqa.imaging.picture import Picture


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a restorer can do and costs, for lists and automatic choices."""

    name: str
    description: str
    text_guided: bool
    """Whether words change the result."""

    tiled: bool
    """Whether memory stays bounded on large pictures."""

    scales: tuple[int, ...] = (1,)
    licence: str = ""
    """Of the method and, where there are any, its weights."""

    memory: str = ""
    """What it needs, in words."""

    extra: str | None = None
    """The optional part to install, as in `pip install "zoomiqa[EXTRA]"`; `None` when none is needed."""

    deterministic: bool = True
    """Whether one seed gives the same bytes on one machine."""

    generative: bool = False
    """Whether it invents detail; such results are marked as AI-edited."""

    encoder: str = "none"
    """Name of the text budget in `restore_bridge.prompts.BUDGETS`."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "text_guided": self.text_guided,
            "tiled": self.tiled,
            "scales": list(self.scales),
            "licence": self.licence,
            "memory": self.memory,
            "extra": self.extra,
            "deterministic": self.deterministic,
            "generative": self.generative,
            "encoder": self.encoder,
        }


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """How to restore. Every value ends in the record."""

    strength: float = 1.0
    """0..1; scales whatever the restorer does, 0 leaves the picture as it is."""

    scale: int = 1
    """Factor of width and height."""

    seed: int = 0
    tile_px: int = 512
    """Side of a tile, where the restorer works in tiles."""

    overlap_px: int = 32
    limits: Limits = field(default=LOCAL)

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise OptionInvalid("strength must lie in 0..1", self.strength, "choose a value between 0 and 1")
        if self.scale < 1:
            raise OptionInvalid("scale must be at least 1", self.scale, "choose 1, 2 or 4")
        if not 0 <= self.overlap_px < self.tile_px:
            raise OptionInvalid(
                "overlap must be at least 0 and less than the tile", self.overlap_px, "choose a smaller one"
            )

    def to_dict(self) -> dict[str, Any]:
        return {
            "strength": self.strength,
            "scale": self.scale,
            "seed": self.seed,
            "tile_px": self.tile_px,
            "overlap_px": self.overlap_px,
        }


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored picture, and what was done."""

    picture: Picture
    notes: tuple[Note, ...] = ()
    steps: tuple[dict[str, Any], ...] = ()
    """One entry per operation, with the measured amount and the phrase that asked for it."""


DEFAULT_SETTINGS = RestoreSettings()


class Restorer(Protocol):
    """Redraws a picture. `restore` never changes its input and never opens files."""

    @property
    def capabilities(self) -> Capabilities: ...

    def restore(
        self,
        picture: Picture,
        guidance: Guidance,
        *,
        prompts: Prompts | None = None,
        settings: RestoreSettings = DEFAULT_SETTINGS,
    ) -> Restored:
        """Redraw `picture` as `guidance` asks.

        Args:
            prompts: The same guidance as text within the restorer's budget; `None` for restorers without an encoder.
        """
        ...


def check_scale(capabilities: Capabilities, settings: RestoreSettings, size: tuple[int, int]) -> None:
    """Refuse a scale that the restorer lacks or a result beyond the limits, before anything is loaded.

    Raises:
        OptionInvalid: the scale.
        ImageTooLarge: the size.
    """
    if settings.scale not in capabilities.scales:
        raise OptionInvalid(
            f"restorer {capabilities.name!r} has no scale {settings.scale}",
            settings.scale,
            f"choose one of {', '.join(map(str, capabilities.scales))}",
        )
    pixels = size[0] * size[1] * settings.scale**2
    if pixels > settings.limits.result_pixels:
        raise ImageTooLarge(
            f"{size[0]} x {size[1]} enlarged {settings.scale} times is {pixels / 1e6:.1f} Mpx, above the limit of"
            f" {settings.limits.result_pixels / 1e6:.1f} Mpx",
            None,
            "use a smaller scale or raise the limit",
        )
