"""What a restorer is: one method, and its capabilities as data. It must not know any restorer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from zoomiqa.errors import ImageTooLarge, OptionInvalid
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Note

if TYPE_CHECKING:
    from restore_bridge.guidance import Guidance
    from restore_bridge.prompts import Prompts, TokenCounter
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

    seeded: bool = True
    """Whether another seed gives another picture worth looking at; where not, no second one is tried."""

    generative: bool = False
    """Whether it invents detail; such results are marked as AI-edited."""

    encoder: str = "none"
    """Name of the text budget in `restore_bridge.prompts.BUDGETS`."""

    tile_px: int = 512
    overlap_px: int = 32
    """Side of a tile that suits it, and what neighbours share, where it works in tiles."""

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
            "seeded": self.seeded,
            "generative": self.generative,
            "encoder": self.encoder,
            "tile_px": self.tile_px,
            "overlap_px": self.overlap_px,
        }


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """How to restore. Every value ends in the record."""

    strength: float = 1.0
    """0..1; scales whatever the restorer does, 0 leaves the picture as it is."""

    scale: int = 1
    """Factor of width and height."""

    seed: int = 0
    tile_px: int | None = None
    overlap_px: int | None = None
    """Side of a tile, and what neighbours share, where the restorer works in tiles; `None` is what suits it."""

    limits: Limits = field(default=LOCAL)

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise OptionInvalid("strength must lie in 0..1", self.strength, "choose a value between 0 and 1")
        if self.scale < 1:
            raise OptionInvalid("scale must be at least 1", self.scale, "choose 1, 2 or 4")
        if self.tile_px is not None and self.tile_px < 1:
            raise OptionInvalid("a tile must be at least 1 pixel wide", self.tile_px, "512 suits most restorers")
        if self.overlap_px is not None and not 0 <= self.overlap_px < (self.tile_px or self.overlap_px + 1):
            raise OptionInvalid(
                "overlap must be at least 0 and less than the tile", self.overlap_px, "choose a smaller one"
            )

    def tiles(self, capabilities: Capabilities) -> tuple[int, int]:
        """(side, overlap) of the tiles that a restorer with these capabilities works in."""
        tile = capabilities.tile_px if self.tile_px is None else self.tile_px
        overlap = capabilities.overlap_px if self.overlap_px is None else self.overlap_px
        return tile, min(overlap, tile - 1)

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


class Plan(Protocol):
    """What a restorer would do with a picture."""

    def to_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class PlansWork(Protocol):
    """A restorer that can say beforehand what a picture would take."""

    def plan(self, size: tuple[int, int], settings: RestoreSettings) -> Plan:
        """Sizes, tiles, steps and memory for a picture of `size` (width, height); nothing is loaded."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A restorer whose text encoder counts for itself what it can read."""

    def token_counter(self) -> TokenCounter | None:
        """Tokens of a text, without marks, as its tokenizer has them; `None` where that cannot be had.

        May fetch the tokenizer, but no network.
        """
        ...


@runtime_checkable
class ChecksItself(Protocol):
    """A restorer that can say beforehand that no picture could be restored with it."""

    def check_ready(self) -> None:
        """Refuse missing consent, or weights that are named and are not there; nothing is fetched or loaded.

        Raises:
            OptionInvalid: terms that were not accepted.
            WeightsError: the weights.
        """
        ...


def check_factor(capabilities: Capabilities, scale: int) -> None:
    """Refuse a scale that the restorer lacks.

    Raises:
        OptionInvalid: it does.
    """
    if scale not in capabilities.scales:
        raise OptionInvalid(
            f"restorer {capabilities.name!r} has no scale {scale}",
            scale,
            f"choose one of {', '.join(map(str, capabilities.scales))}",
        )


def check_scale(capabilities: Capabilities, settings: RestoreSettings, size: tuple[int, int]) -> None:
    """Refuse a scale that the restorer lacks or a result beyond the limits, before anything is loaded.

    Raises:
        OptionInvalid: the scale.
        ImageTooLarge: the size.
    """
    check_factor(capabilities, settings.scale)
    pixels = size[0] * size[1] * settings.scale**2
    if pixels > settings.limits.result_pixels:
        raise ImageTooLarge(
            f"{size[0]} x {size[1]} enlarged {settings.scale} times is {pixels / 1e6:.1f} Mpx, above the limit of"
            f" {settings.limits.result_pixels / 1e6:.1f} Mpx",
            None,
            "use a smaller scale or raise the limit",
        )
