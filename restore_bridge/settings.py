"""What decides a restoration, and the candidates that follow from it. It must not know how one is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import isfinite
from typing import TYPE_CHECKING, Any

from restore_bridge.color import COLOR_FIX_CHOICES
from restore_bridge.restorers import DEFAULT_RESTORER
from restore_bridge.selection import MAX_CHANGE, MIN_CONSISTENCY
from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Note

if TYPE_CHECKING:
    from restore_bridge.restorers import Capabilities

STRENGTHS = (1.0, 0.6, 0.35, 0.8)
"""Strengths that successive candidates take where none are given; a restorer that draws also changes its seed."""

MOST_CANDIDATES, MOST_ROUNDS = 16, 8

_PLACE_OPTIONS = frozenset({"device", "offload"})
"""Options of restorers that say where the work is done, not what comes out: a resumed run may change them."""


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """What decides a restoration. Part of a run's fingerprint."""

    restorer: str = DEFAULT_RESTORER
    restorer_options: Mapping[str, Any] = field(default_factory=dict)
    """The restorer's own options, as `load_restorer` takes them."""

    prepass: str = "none"
    prepass_weights: str | None = None
    """File or hub id of the pre-pass's model, for a pre-pass that has one."""

    allow_pickle: bool = False
    """Whether weights may be a pickle; see `restore_bridge.weights`."""

    candidates: int = 2
    """Restorations tried in a round, 1..16, where no seeds are given; with `strengths`, the number of seeds."""

    seed: int = 42
    """The first seed."""

    seeds: tuple[int, ...] | None = None
    """Seeds to try, each with every strength; `None` counts up from `seed`."""

    strength: float = 1.0
    """Multiplies what the guidance asks for, and every strength tried, above 0 to 1."""

    strengths: tuple[float, ...] | None = None
    """Strengths to try, each with every seed, above 0 to 1."""

    loop: int = 1
    """Rounds of restoring and assessing again at most, 1..8; the loop ends earlier when nothing is better."""

    scale: int = 1
    """Enlargement, 1..4."""

    color_fix: str = "auto"
    """How colour is held to the picture after the pre-pass: none, adain, wavelet, or auto. That is wavelet for one that
    invents detail, as long as no change of tone is asked for; it would be undone."""

    keep_loaded: bool = False
    """Keep the assessor's model and the restorer's in memory together. Otherwise, where both are models of this
    machine, each gives way to the other."""

    prompt: str | None = None
    """The user's own positive words; they come first and are never dropped."""

    negative: str | None = None
    min_gain: float = 0.0
    """Standing by which a candidate must exceed the picture that it set out from, in rating points."""

    min_consistency: float = MIN_CONSISTENCY
    """Least agreement with the input, 0..1."""

    max_change: float = MAX_CHANGE
    """Most that a candidate may leave the input where no change of tone was asked for, in levels of 255."""

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= MOST_CANDIDATES:
            raise OptionInvalid(f"candidates must lie in 1..{MOST_CANDIDATES}", self.candidates, "two is the default")
        for name, values in (("seeds", self.seeds), ("strengths", self.strengths)):
            if values is not None and not 0 < len(set(values)) == len(values):
                raise OptionInvalid(
                    f"{name} must be one or more different numbers", values, "leave none, or name each once"
                )
        if any(not 0 <= seed < 2**32 for seed in (self.seed, *(self.seeds or ()))):
            raise OptionInvalid("a seed must lie in 0..4294967295", self.seeds or self.seed, "42 is the default")
        if any(not 0 < strength <= 1 for strength in self.strengths or ()):
            raise OptionInvalid("strengths must lie above 0, at most 1", self.strengths, "1 is what the guidance asks")
        count = len(self.seeds or range(self.candidates)) * len(self.strengths or (1,))
        if count > MOST_CANDIDATES:
            raise OptionInvalid(f"seeds times strengths must be at most {MOST_CANDIDATES}", count, "leave some out")
        if not 1 <= self.loop <= MOST_ROUNDS:
            raise OptionInvalid(f"loop must lie in 1..{MOST_ROUNDS}", self.loop, "one round is the default")
        if not isfinite(self.min_gain):
            raise OptionInvalid("min_gain must be a number", self.min_gain, "0 is the default")
        if not 0 <= self.min_consistency <= 1:
            raise OptionInvalid(
                "min_consistency must lie in 0..1", self.min_consistency, f"{MIN_CONSISTENCY:g} is usual"
            )
        if not 0 <= self.max_change <= 255:
            raise OptionInvalid("max_change must lie in 0..255", self.max_change, f"{MAX_CHANGE:g} is the default")
        if not 0 < self.strength <= 1:
            raise OptionInvalid("strength must lie above 0, at most 1", self.strength, "1 is what the guidance asks")
        if not 1 <= self.scale <= 4:
            raise OptionInvalid("scale must lie in 1..4", self.scale, "1 keeps the size")
        if self.color_fix not in COLOR_FIX_CHOICES:
            known = ", ".join(COLOR_FIX_CHOICES)
            raise OptionInvalid(f"color_fix must be one of {known}", self.color_fix, "choose one")

    def to_dict(self) -> dict[str, Any]:
        names = (name for name in self.__dataclass_fields__ if name != "keep_loaded")
        settings = {name: getattr(self, name) for name in names}
        options = {name: value for name, value in self.restorer_options.items() if name not in _PLACE_OPTIONS}
        for name in ("seeds", "strengths"):
            settings[name] = None if settings[name] is None else list(settings[name])
        return {**settings, "restorer_options": options}


@dataclass(frozen=True, slots=True)
class Trial:
    """What one candidate of a round is made with."""

    seed: int
    strength: float

    def to_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "strength": self.strength}


def plan_trials(settings: BridgeSettings, capabilities: Capabilities) -> tuple[tuple[Trial, ...], tuple[Note, ...]]:
    """What the candidates of every round are made with, in order, and what was left out as useless.

    Given seeds or strengths: every seed with every strength. Given neither: `candidates` of them, with `STRENGTHS` in
    turn and a seed each. A restorer whose seed makes no difference gets one seed, and no strength twice.
    """
    seeds = settings.seeds or tuple(settings.seed + number for number in range(settings.candidates))
    if settings.seeds or settings.strengths:
        wanted = [Trial(seed, strength) for seed, strength in product(seeds, settings.strengths or (1.0,))]
    else:
        wanted = [Trial(seed, STRENGTHS[number % len(STRENGTHS)]) for number, seed in enumerate(seeds)]
    if not capabilities.seeded:
        wanted = [replace(trial, seed=seeds[0]) for trial in wanted]
    trials = tuple(dict.fromkeys(replace(trial, strength=trial.strength * settings.strength) for trial in wanted))
    if len(trials) == len(wanted):
        return trials, ()
    note = Note(
        "seeds-left-out",
        f"restorer {capabilities.name!r} gives the same picture whatever the seed; {len(trials)} of {len(wanted)}"
        " candidates are tried, one for each strength",
    )
    return trials, (note,)
