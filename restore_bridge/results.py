"""What a restoration would be, and what it was: the plan, the rounds and the result, with their JSON form.

It must not know how any of it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restore_bridge.selection import Candidate, rounded_standing

if TYPE_CHECKING:
    from restore_bridge.actions import Action
    from restore_bridge.guidance import Guidance
    from restore_bridge.prompts import Prompts
    from restore_bridge.settings import BridgeSettings, Trial
    from zoomiqa.imaging import Picture
    from zoomiqa.types import Assessment, Note

SCHEMA_VERSION = "2.0"
"""Of the record of a run. 2.0: guidance and prompts stand in `rounds`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, without doing it."""

    restorer: str
    prepass: str
    source_size: tuple[int, int]
    result_size: tuple[int, int]
    candidates: tuple[Trial, ...]
    """Of each round."""

    loop: int
    """Rounds at most."""

    guidance: Guidance
    """Of the first round."""

    prompts: Prompts
    actions: tuple[Action, ...]
    """What the guidance asks for; a restorer measures how much of it is needed."""

    work: Mapping[str, Any] | None = None
    """What the restorer says of its sizes, tiles, steps and memory, where it plans them."""

    notes: tuple[Note, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "restorer": self.restorer,
            "prepass": self.prepass,
            "source_size": list(self.source_size),
            "result_size": list(self.result_size),
            "candidates": [trial.to_dict() for trial in self.candidates],
            "loop": self.loop,
            "guidance": self.guidance.to_dict(),
            "prompts": self.prompts.to_dict(),
            "actions": [action.to_dict() for action in self.actions],
            "work": dict(self.work) if self.work else None,
            "notes": [note.to_dict() for note in self.notes],
        }


@dataclass(frozen=True, slots=True)
class LoopRound:
    """One round: guidance from an assessment, candidates made under it, and the best of them."""

    index: int
    start: int | None
    """The candidate that it set out from; `None` is the input."""

    guidance: Guidance
    prompts: Prompts
    candidates: tuple[Candidate, ...]
    chosen: int | None
    """Index of the candidate that became the best picture so far; `None` where the one that it set out from stayed."""

    reason: str
    """How it ended, in words."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "start": self.start,
            "guidance": self.guidance.to_dict(),
            "prompts": self.prompts.to_dict(),
            "candidates": [item.index for item in self.candidates],
            "chosen": self.chosen,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class BridgeResult:
    """The outcome for one picture. With `error` set nothing was restored and the original stands."""

    picture: Picture
    """The picture that was kept."""

    kept: str
    """"restored" or "original"."""

    reason: str
    before: Assessment
    after: Assessment | None
    """Assessment of the kept candidate, or of the best one tried."""

    rounds: tuple[LoopRound, ...]
    settings: BridgeSettings
    chosen: int | None = None
    """Index of the kept candidate."""

    prepass: Mapping[str, Any] | None = None
    """What ran before the restorer: its name, and the model, file and device where it has them."""

    notes: tuple[Note, ...] = ()
    error: Mapping[str, str] | None = None

    @property
    def guidance(self) -> Guidance | None:
        """What the input's assessment asked for."""
        return self.rounds[0].guidance if self.rounds else None

    @property
    def prompts(self) -> Prompts | None:
        """The same as text."""
        return self.rounds[0].prompts if self.rounds else None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Of all rounds, in order."""
        return tuple(item for one in self.rounds for item in one.candidates)

    def to_dict(self) -> dict[str, Any]:
        """The record's JSON form, without pictures."""
        return {
            "schema_version": SCHEMA_VERSION,
            "image": self.before.image.to_dict() if self.before.image else None,
            "kept": self.kept,
            "chosen": self.chosen,
            "reason": self.reason,
            "standing": {"before": rounded_standing(self.before), "after": rounded_standing(self.after)},
            "before": self.before.to_dict(),
            "after": self.after.to_dict() if self.after else None,
            "prepass": dict(self.prepass) if self.prepass else None,
            "rounds": [one.to_dict() for one in self.rounds],
            "candidates": [item.to_dict() for item in self.candidates],
            "settings": self.settings.to_dict(),
            "notes": [note.to_dict() for note in self.notes],
            "error": dict(self.error) if self.error else None,
        }
