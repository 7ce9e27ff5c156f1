"""Do the assessment's words help? The same pictures and seeds, restored with and without them. It must not know files.

Four arms, two factors: the words of the assessment (*Directions for Improvement*, *Issues to Avoid*) and a generic
text that suits any picture (the restorer's own quality suffixes, or the general tail of `restore_bridge.prompts` where
it has none). The generic text alone is known to move the usual metrics (HoliSDiP, issue 1), so a gain over no text at
all says little of the assessment; the gain over the generic text does.

What a restorer always says for itself, such as an editing model's opening instruction, stays in every arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_bridge.bridge import RestoreBridge
from restore_bridge.comparison import compare
from restore_bridge.guidance import Guidance, split_guidance
from restore_bridge.prompts import Prompts
from restore_bridge.restorers import REGISTRY, Restorer
from restore_bridge.selection import Candidate, asked_places, choose, rounded_standing
from restore_bridge.settings import BridgeSettings, Trial, plan_trials
from zoomiqa.assessors import Assessor
from zoomiqa.errors import OptionInvalid, ZoomIQAError
from zoomiqa.imaging import Picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Assessment, Note

SCHEMA_VERSION = "1.0"
"""Of the record of one restoration."""

RESAMPLES = 10_000
"""Bootstrap resamples of the photographs."""

_SUFFIXES = ("quality_suffix", "negative_suffix")
"""Options by which a restorer's own generic text is switched off."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to word the prompts."""

    name: str
    has_words: bool
    """Whether the assessment's words are given."""

    has_generic: bool
    """Whether the generic text is given."""


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("none", has_words=False, has_generic=False),
        Arm("generic", has_words=False, has_generic=True),
        Arm("iqa", has_words=True, has_generic=False),
        Arm("both", has_words=True, has_generic=True),
    )
}

COMPARED = (
    ("generic", "none"),
    ("iqa", "none"),
    ("both", "none"),
    ("iqa", "generic"),
    ("both", "generic"),
    ("both", "iqa"),
)
"""Pairs of arms whose difference is given, the first less the second."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over photographs, with a 95 % percentile interval of the bootstrap over them."""

    mean: float
    low: float | None
    """`None` with fewer than two photographs."""

    high: float | None
    photos: int
    pairs: int
    """Restorations (photograph and seed) that it is taken of."""

    def to_dict(self) -> dict[str, Any]:
        ends = (None if end is None else round(end, 5) for end in (self.low, self.high))
        return {
            "mean": round(self.mean, 5),
            "low": next(ends),
            "high": next(ends),
            "photos": self.photos,
            "pairs": self.pairs,
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """A picture with what all its restorations share."""

    picture: Picture
    source: Picture
    """After the pre-pass."""

    before: Assessment
    guidance: Guidance
    reference: Picture | None = None
    """The pristine picture, where there is one."""

    notes: tuple[Note, ...] = ()
    """On the subject; they go into every record of it."""


class Ablation:
    """Restores pictures in all arms.

    Args:
        assessor: Who judges and words, or its name.
        settings: Restorer, pre-pass, seeds, strengths, scale, colour fix and limits of the rule. `loop` is not used.
        metrics: Names of further metrics; the basic ones without it.
        limits: Resource limits.

    Raises:
        OptionInvalid: the restorer takes no text.
        ZoomIQAError: a part that cannot be loaded.
    """

    def __init__(
        self,
        assessor: Assessor | str | None,
        settings: BridgeSettings,
        *,
        metrics: Sequence[str] | None = None,
        limits: Limits = LOCAL,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.has_own_suffixes = set(_SUFFIXES) <= set(REGISTRY.options(settings.restorer))
        self.bridge = RestoreBridge(assessor, settings, limits=limits)
        capabilities = self.bridge.restorer.capabilities
        if not capabilities.text_guided:
            raise OptionInvalid(
                "this restorer takes no text, so that words cannot matter to it",
                capabilities.name,
                "choose one that `restore-bridge plugins --json` calls text_guided",
            )
        self.trials, self.notes = plan_trials(settings, capabilities)
        self._without: RestoreBridge | None = None

    @property
    def order(self) -> tuple[tuple[Arm, ...], ...]:
        """Arms in groups; the arms of a group share a restorer in memory."""
        if not self.has_own_suffixes:
            return (tuple(ARMS.values()),)
        return tuple(tuple(arm for arm in ARMS.values() if arm.has_generic == generic) for generic in (False, True))

    def subject(
        self, picture: Picture, before: Assessment, reference: Picture | None = None, notes: tuple[Note, ...] = ()
    ) -> Subject:
        """What all restorations of `picture` share.

        Raises:
            ZoomIQAError: the pre-pass failed.
        """
        guidance = split_guidance(before, prompt=self.settings.prompt, negative=self.settings.negative)
        return Subject(picture, self.bridge.prepass.clean(picture), before, guidance, reference, notes)

    def prompts(self, arm: Arm, guidance: Guidance) -> Prompts:
        """The text that `arm` gives the restorer; where it has suffixes of its own, it adds them itself."""
        words = guidance if arm.has_words else Guidance()
        tail = arm.has_generic and not self.has_own_suffixes
        return self.bridge.compose(words, quality=tail)

    def restore(self, arm: Arm, trial: Trial, subject: Subject) -> tuple[Picture, dict[str, Any]]:
        """Restore one picture in one arm.

        Returns:
            The result (the input itself, where nothing was changed or it failed), and the record without its file.
        """
        bridge = self._bridge_of(arm)
        guidance = subject.guidance if arm.has_words else Guidance()
        prompts = self.prompts(arm, subject.guidance)
        asked = asked_places(subject.guidance)
        candidate = bridge.attempt(subject.picture, subject.source, subject.before, guidance, prompts, trial, asked)
        (judged,), _ = choose(
            subject.before,
            [candidate],
            min_gain=self.settings.min_gain,
            min_consistency=self.settings.min_consistency,
            max_change=self.settings.max_change,
        )
        judged = replace(judged, notes=(*subject.notes, *judged.notes))
        result = judged.picture or subject.picture
        scores: list[dict[str, Any]] = []
        error = judged.error
        if judged.assessment is not None:
            try:
                pair = (subject.before, judged.assessment)
                rows = compare(
                    subject.picture, result, reference=subject.reference, assessments=pair, metrics=self.metrics
                )
                scores = [row.to_dict() for row in rows]
                error = judged.assessment.error
            except ZoomIQAError as failure:
                error = failure.to_dict()
        return result, _record(arm, prompts, subject.before, judged, scores, error)

    def _bridge_of(self, arm: Arm) -> RestoreBridge:
        """The bridge whose restorer adds its own generic text, or does not; only one of them holds weights."""
        if arm.has_generic or not self.has_own_suffixes:
            _unload(self._without.restorer if self._without else None)
            return self.bridge
        _unload(self.bridge.restorer)
        if self._without is None:
            options = {**self.settings.restorer_options, **dict.fromkeys(_SUFFIXES, "")}
            self._without = RestoreBridge(
                self.bridge.assessor,
                replace(self.settings, restorer_options=options),
                prepass=self.bridge.prepass,
                limits=self.bridge.limits,
            )
        return self._without


def failure_record(arm: Arm, trial: Trial, error: Mapping[str, str]) -> dict[str, Any]:
    """The record of a restoration that could not even be tried."""
    failed = Candidate(0, trial.seed, trial.strength, reason=error["message"])
    return _record(arm, None, None, failed, [], error)


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one record that are averaged, by name; those that it lacks are left out."""
    if record["error"]:
        return {}
    found = {
        "rating_change": record["change"]["rating"],
        "standing_change": record["change"]["standing"],
        "consistency": record["consistency"],
    }
    found |= {row["metric"]: row["after"] for row in record["scores"] if row["metric"] not in ("rating", "consistency")}
    return {name: float(value) for name, value in found.items() if value is not None}


def summarise(records: Iterable[Mapping[str, Any]], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Means of every arm and differences between arms, with 95 % intervals.

    Paired by photograph, seed and strength: a figure counts only where every arm has it, so that all arms are compared
    on the same restorations. The restorations of a photograph are averaged first and photographs are resampled, as
    seeds of one photograph are no independent evidence; a difference is taken within each before it is averaged. With
    fewer than about twenty photographs such intervals are too narrow.

    Args:
        records: Of all arms.
        resamples: Of the bootstrap.
        seed: The same seed gives the same intervals.

    Returns:
        `{"arms": {arm: {figure: estimate}}, "differences": {"a - b": {figure: estimate}}, "better": {figure: "higher"
        or "lower"}, "records": {arm: {"done", "failed", "accepted"}}}`, JSON values.
    """
    rows = list(records)
    found: dict[str, dict[tuple[Any, ...], dict[str, float]]] = {name: {} for name in ARMS}
    counts = {name: {"done": 0, "failed": 0, "accepted": 0} for name in ARMS}
    for row in rows:
        name = row["arm"]
        counts[name]["failed" if row["error"] else "done"] += 1
        counts[name]["accepted"] += bool(row["accepted"])
        unit = (row["image"]["path"], row["image"]["sha256"], row["seed"], row["strength"])
        found[name][unit] = figures(row)
    names = dict.fromkeys(name for arm in found.values() for values in arm.values() for name in values)
    better = {item["metric"]: item["direction"] for row in rows for item in row["scores"]}
    summary: dict[str, Any] = {
        "arms": {name: {} for name in ARMS},
        "differences": {},
        "better": {},
        "records": counts,
    }
    for figure in names:
        units = [unit for unit in found["none"] if all(figure in found[arm].get(unit, {}) for arm in ARMS)]
        if not units:
            continue
        summary["better"][figure] = better.get(figure, "higher")
        values = {arm: _photo_means(units, [found[arm][unit][figure] for unit in units]) for arm in ARMS}
        for arm in ARMS:
            summary["arms"][arm][figure] = _estimate(values[arm], len(units), resamples, seed).to_dict()
        for first, second in COMPARED:
            difference = _estimate(values[first] - values[second], len(units), resamples, seed)
            summary["differences"].setdefault(f"{first} - {second}", {})[figure] = difference.to_dict()
    return summary


def _photo_means(units: Sequence[tuple[Any, ...]], values: Sequence[float]) -> NDArray[np.float64]:
    """(photos,) means over the restorations of each photograph, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for unit, value in zip(units, values, strict=True):
        groups.setdefault(unit[:2], []).append(value)
    return np.array([np.mean(group) for group in groups.values()])


def _estimate(values: NDArray[np.float64], pairs: int, resamples: int, seed: int) -> Estimate:
    mean = float(values.mean())
    if values.size < 2:
        return Estimate(mean, None, None, int(values.size), pairs)
    generator = np.random.default_rng(seed)
    rows = max(1, 1_000_000 // values.size)  # bounds the memory of one draw
    drawn = [
        values[generator.integers(0, values.size, (min(rows, resamples - start), values.size))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return Estimate(mean, float(low), float(high), int(values.size), pairs)


def _record(
    arm: Arm,
    prompts: Prompts | None,
    before: Assessment | None,
    candidate: Candidate,
    scores: list[dict[str, Any]],
    error: Mapping[str, str] | None,
) -> dict[str, Any]:
    sides = {"before": before, "after": candidate.assessment}
    rated = {
        name: {"rating": side.rating if side else None, "standing": rounded_standing(side)}
        for name, side in sides.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "arm": arm.name,
        "seed": candidate.seed,
        "strength": candidate.strength,
        "prompts": prompts.to_dict() if prompts else None,
        **rated,
        "change": {name: _less(rated["after"][name], rated["before"][name]) for name in ("rating", "standing")},
        "consistency": candidate.consistency,
        "unasked_change": candidate.change,
        "accepted": candidate.accepted,
        "reason": candidate.reason,
        "scores": scores,
        "steps": [dict(step) for step in candidate.steps],
        "notes": [note.to_dict() for note in candidate.notes],
        "error": dict(error) if error else None,
    }


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else round(after - before, 4)


def _unload(restorer: Restorer | None) -> None:
    """Give back the memory of a restorer that can."""
    unload = getattr(restorer, "unload", None)
    if unload is not None:
        unload()
