"""What SUPIR and DreamClear share as restorers: released files, and colours held to a picture of their own making.

Both clean the picture first and carry that first stage's colours over to the result. Where the words ask for another
brightness or colour, that would undo it, so that it is left out there. It must not know either model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from restore_bridge.restorers.diffusion.colour import METHODS
from restore_bridge.restorers.diffusion.options import Options
from restore_bridge.selection import asked_places
from zoomiqa.types import Note

if TYPE_CHECKING:
    from restore_bridge.guidance import Guidance

ORIGINAL = "wavelet"
"""How both originals hold colours, whatever the words ask for."""

NOT_HELD = Note(
    "first-stage-color-free",
    "Colour was not held to the restorer's first stage, as a change of tone was asked for (option first_stage_color).",
)


@dataclass(frozen=True, slots=True)
class FirstStageOptions(Options):
    """With what both take. `weights` also takes a released file."""

    allow_pickle: bool = False
    """Whether files may be pickles (.ckpt, .pth), which torch's restricted reader then reads."""

    first_stage_color: str = "auto"
    """How colours are held to the first stage: wavelet (the original's), adain, none, or auto: wavelet, but none where
    a change of tone is asked for."""

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # no plain `super()`: slots make the decorator build the class anew
        self._flags("allow_pickle")
        self._one_of("first_stage_color", ("auto", *METHODS))

    def colour_for(self, guidance: Guidance) -> str:
        """One of `METHODS`, for what `guidance` asks for."""
        if self.first_stage_color != "auto":
            return self.first_stage_color
        return "none" if asked_places(guidance) else ORIGINAL

    def colour_notes(self, guidance: Guidance) -> tuple[Note, ...]:
        """A note where `colour_for` leaves the original's way."""
        return (NOT_HELD,) if self.first_stage_color == "auto" and self.colour_for(guidance) == "none" else ()
