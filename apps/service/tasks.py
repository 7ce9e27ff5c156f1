"""What a job asks for, checked before it is taken in. It must not know how it is done.

A task is a kind and its options, with a JSON form that is what the store keeps. Unknown options are errors that name
the nearest known one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from restore_bridge.prompts import BUDGETS, find_budget
from restore_bridge.settings import BridgeSettings
from zoomiqa.errors import OptionInvalid

from .settings import ServiceSettings

LONGEST_WORDS = 4_000
"""Characters of a text that a request may bring."""

MOST_CANDIDATES, MOST_ROUNDS = 6, 3
"""Of a request; the command line allows more."""

ENCODERS = tuple(BUDGETS)
FORMATS = ("png", "jpg", "webp", "tif")
PREPASSES = ("none", "classical")
"""Those that need no weights of their own."""


@dataclass(frozen=True, slots=True)
class AssessTask:
    """Assess one picture."""

    kind: ClassVar[str] = "assess"
    pictures: ClassVar[int] = 1
    assessor: str
    question: str | None = None
    """The user's own question to the assessor."""


@dataclass(frozen=True, slots=True)
class PromptsTask:
    """Assess one picture and give the prompts for another restorer's encoder."""

    kind: ClassVar[str] = "prompts"
    pictures: ClassVar[int] = 1
    assessor: str
    question: str | None = None
    encoder: str = "clip"


@dataclass(frozen=True, slots=True)
class RestoreTask:
    """Assess, restore, assess again, keep the better picture."""

    kind: ClassVar[str] = "restore"
    pictures: ClassVar[int] = 1
    assessor: str
    restorer: str
    question: str | None = None
    positive: str | None = None
    """Phrases that take the place of the assessment's, one a line (see `apps.service.editing`); `None` keeps those."""

    negative: str | None = None
    strength: float = 1.0
    seed: int = 42
    candidates: int = 2
    loop: int = 1
    scale: int = 1
    color_fix: str = "auto"
    prepass: str = "none"
    format: str = "png"

    def bridge_settings(self, options: Mapping[str, Any]) -> BridgeSettings:
        """The same for the bridge; `options` are those that the service gives the restorer.

        Raises:
            OptionInvalid: a value outside its range.
        """
        return BridgeSettings(
            restorer=self.restorer,
            restorer_options=options,
            prepass=self.prepass,
            candidates=self.candidates,
            seed=self.seed,
            strength=self.strength,
            loop=self.loop,
            scale=self.scale,
            color_fix=self.color_fix,
        )


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """Compare two states of one picture."""

    kind: ClassVar[str] = "score"
    pictures: ClassVar[int] = 2
    assessor: str


Task = AssessTask | PromptsTask | RestoreTask | ScoreTask
KINDS: Mapping[str, type[Task]] = {kind.kind: kind for kind in (AssessTask, PromptsTask, RestoreTask, ScoreTask)}


def make_task(kind: str, options: Mapping[str, Any], settings: ServiceSettings) -> Task:
    """A checked task.

    Args:
        kind: One of `KINDS`.
        options: Its fields; `None` leaves a default. Texts of numbers are taken as numbers, as forms send them.
        settings: What the service offers.

    Raises:
        OptionInvalid: an unknown kind or option, or a value outside its range.
    """
    if kind not in KINDS:
        raise OptionInvalid("there is no such kind of job", kind, f"choose one of {', '.join(KINDS)}")
    known = {field.name: str(field.type) for field in fields(KINDS[kind])}
    given = {name: value for name, value in options.items() if value is not None and value != ""}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise OptionInvalid(f"{kind} has no option of that name", name, advice)
    given = {name: _cast(name, known[name], value) for name, value in given.items()}
    for side in ("positive", "negative"):  # here an empty text says something: nothing of this side
        if side in known and options.get(side) == "":
            given[side] = ""
    given.setdefault("assessor", settings.default_assessor)
    if "restorer" in known:
        given.setdefault("restorer", settings.default_restorer)
    task = KINDS[kind](**given)
    _check(task, settings)
    return task


def task_from_json(kind: str, options: Mapping[str, Any]) -> Task:
    """A task as the store kept it; it was checked when it was taken in."""
    return KINDS[kind](**options)


def task_to_json(task: Task) -> dict[str, Any]:
    """The options of a task."""
    return {field.name: getattr(task, field.name) for field in fields(task)}


def _cast(name: str, kind: str, value: object) -> object:
    """`value` as the field's type: only plain texts and numbers come from a request."""
    wanted = float if kind == "float" else int if kind == "int" else str
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise OptionInvalid(f"{name} must be a plain value", type(value).__name__, "give a text or a number")
    if wanted is str:
        if not isinstance(value, str):
            raise OptionInvalid(f"{name} must be a text", type(value).__name__, "put it in quotation marks")
        if len(value) > LONGEST_WORDS:
            raise OptionInvalid(f"{name} has more than {LONGEST_WORDS} characters", len(value), "shorten it")
        return value
    try:
        number = wanted(value)
    except (ValueError, OverflowError):
        raise OptionInvalid(f"{name} must be a number", str(value)[:40], "give digits") from None
    if wanted is int and float(value) != number:
        raise OptionInvalid(f"{name} must be a whole number", value, "leave out the fraction")
    return number


def _check(task: Task, settings: ServiceSettings) -> None:
    if task.assessor not in settings.assessors:
        known = ", ".join(settings.assessors)
        raise OptionInvalid("this service has no such assessor", task.assessor, f"it has {known}")
    if isinstance(task, PromptsTask):
        find_budget(task.encoder)
    if not isinstance(task, RestoreTask):
        return
    offer = settings.restorer(task.restorer)
    if task.scale not in offer.scales:
        raise OptionInvalid(
            f"restorer {task.restorer!r} has no scale {task.scale}", task.scale, f"it has {offer.scales}"
        )
    for name, value, most in (("candidates", task.candidates, MOST_CANDIDATES), ("loop", task.loop, MOST_ROUNDS)):
        if not 1 <= value <= most:
            raise OptionInvalid(f"{name} must lie in 1..{most} here", value, "choose a smaller number")
    choices: dict[str, tuple[str, tuple[str, ...]]] = {
        "prepass": (task.prepass, PREPASSES),
        "format": (task.format, FORMATS),
    }
    for name, (chosen, possible) in choices.items():
        if chosen not in possible:
            raise OptionInvalid(f"{name} must be one of {', '.join(possible)}", chosen, "choose one")
    task.bridge_settings({})
