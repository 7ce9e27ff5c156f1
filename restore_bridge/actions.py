"""From guidance to a plan of work: which operation, where, how strongly, and on whose word. It must not touch pixels."""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from restore_bridge.guidance import Guidance, Phrase
from zoomiqa.types import BoxFraction
from zoomiqa.vocabulary import Flaw, Severity


class Operation(StrEnum):
    """What the embedded restorer can do, in the order in which it does it: last damage first."""

    DEBLOCK = "deblock"
    DERING = "dering"
    DENOISE = "denoise"
    DEBLUR = "deblur"
    DEBLUR_MOTION = "deblur_motion"
    SHARPEN = "sharpen"
    SOFTEN = "soften"
    LIFT = "lift"
    TAME = "tame"
    BALANCE = "balance"
    DEHAZE = "dehaze"
    STRETCH = "stretch"
    ENRICH = "enrich"
    CALM = "calm"
    DEBAND = "deband"


REPAIRS: dict[Flaw, Operation] = {
    Flaw.BLUR: Operation.DEBLUR,
    Flaw.MOTION_BLUR: Operation.DEBLUR_MOTION,
    Flaw.NOISE: Operation.DENOISE,
    Flaw.BLOCKING: Operation.DEBLOCK,
    Flaw.RINGING: Operation.DERING,
    Flaw.BANDING: Operation.DEBAND,
    Flaw.UNDEREXPOSURE: Operation.LIFT,
    Flaw.OVEREXPOSURE: Operation.TAME,
    Flaw.LOW_CONTRAST: Operation.STRETCH,
    Flaw.HAZE: Operation.DEHAZE,
    Flaw.COLOR_CAST: Operation.BALANCE,
    Flaw.DULL_COLOR: Operation.ENRICH,
    Flaw.OVERSATURATION: Operation.CALM,
    Flaw.LOW_RESOLUTION: Operation.SHARPEN,
    Flaw.OVERSHARPENING: Operation.SOFTEN,
}

STRENGTHS: dict[Severity | None, float] = {
    Severity.SLIGHT: 0.4,
    Severity.MODERATE: 0.7,
    Severity.SEVERE: 1.0,
    None: 0.7,
}
"""How much of an operation's range each word opens; a flaw without a word counts as moderate."""


@dataclass(frozen=True, slots=True)
class Action:
    """One step of the plan."""

    operation: Operation
    strength: float
    """0..1; bounds the amount, which is measured on the picture."""

    box_fraction: BoxFraction | None
    """Where; `None` is the whole picture."""

    detail: str
    """A hue or a direction, or nothing."""

    phrase: Phrase
    """The guidance that asked for it."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "operation": str(self.operation),
            "strength": self.strength,
            "box_fraction": list(self.box_fraction) if self.box_fraction else None,
            "detail": self.detail,
            "because": self.phrase.text,
            "origin": self.phrase.origin,
        }


def plan_actions(guidance: Guidance) -> tuple[Action, ...]:
    """The steps that `guidance` asks for, in working order.

    Defaults ask for nothing. One operation runs once per place, at the strongest word; a regional one that repeats an
    operation of the whole picture runs only where its word is stronger.
    """
    wanted: dict[tuple[Operation, BoxFraction | None], Action] = {}
    for phrase in guidance.phrases:
        if phrase.origin == "default":
            continue
        for flaw in phrase.flaws:
            action = Action(REPAIRS[flaw], STRENGTHS[phrase.severity], phrase.box_fraction, phrase.detail, phrase)
            key = (action.operation, action.box_fraction)
            if key not in wanted or wanted[key].strength < action.strength:
                wanted[key] = action
    whole = {operation: action.strength for (operation, box), action in wanted.items() if box is None}
    kept = [
        action
        for (operation, box), action in wanted.items()
        if box is None or action.strength > whole.get(operation, 0.0)
    ]
    order = list(Operation)
    return tuple(sorted(kept, key=lambda action: (order.index(action.operation), action.box_fraction is not None)))
