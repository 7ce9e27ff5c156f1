"""The pipeline in one sentence: assess, split the words into guidance, restore, assess again, keep the better picture.

It must not know how a rating, a prompt or a restored pixel comes about; it only holds the order of things and the rule
by which a picture is kept.

The rule. A candidate is accepted only if all of this holds, and of the accepted ones the best-standing is kept:

1. it opens and is rated by the same assessor as the input;
2. its standing (see `standing`) is above the input's by at least `min_gain`;
3. its consistency with the input (see `restore_bridge.scoring`) is at least `min_consistency`, so that invented detail
   is not rewarded.

Otherwise the input is kept, and the record says why. No-reference ratings reward over-sharpening (evaluation practice
since Blau and Michaeli 2018), hence the third part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from restore_bridge.actions import Action, plan_actions
from restore_bridge.color import COLOR_FIXES, fix_color
from restore_bridge.guidance import Guidance, split_guidance
from restore_bridge.prepass import load_prepass
from restore_bridge.prompts import Prompts, compose
from restore_bridge.restorers import Restored, Restorer, RestoreSettings, load_restorer
from restore_bridge.restorers.base import check_scale
from restore_bridge.scoring import consistency
from zoomiqa.assessors import Assessor, create_assessor
from zoomiqa.errors import BackendFailed, OptionInvalid, ZoomIQAError
from zoomiqa.imaging import Picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Assessment, Note

SCHEMA_VERSION = "1.0"

STRENGTHS = (1.0, 0.6, 0.35, 0.8)
"""Strengths that successive candidates take; a generative restorer also changes its seed with each."""

FLAW_WEIGHT = 2.0
"""Rating points by which one stated flaw of full strength lowers a picture's standing.

Chosen on odd-numbered Kodak and BSDS photographs with `benchmarks/restoration.py`: ratings alone kept no deblocked
picture at all, although each was closer to the untouched one; at 0.5 points 5 % were kept, at 1.5 62 %, at 2 90 %. What
is kept of blur, noise, darkness and casts does not depend on it."""


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """What decides a restoration. Part of a run's fingerprint."""

    restorer: str = "classical"
    prepass: str = "none"
    candidates: int = 2
    """Restorations tried, 1..16."""

    seed: int = 42
    strength: float = 1.0
    """Multiplies what the guidance asks for, 0..1."""

    scale: int = 1
    """Enlargement, 1..4."""

    color_fix: str = "none"
    """How colour is held to the picture after the pre-pass: none, adain or wavelet."""

    prompt: str | None = None
    """The user's own positive words; they come first and are never dropped."""

    negative: str | None = None
    min_gain: float = 0.0
    """Standing by which a candidate must exceed the input, in rating points."""

    min_consistency: float = 0.8
    """Least agreement with the input, 0..1."""

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= 16:
            raise OptionInvalid("candidates must lie in 1..16", self.candidates, "two is the default")
        if not 0 < self.strength <= 1:
            raise OptionInvalid("strength must lie above 0, at most 1", self.strength, "1 is what the guidance asks")
        if not 1 <= self.scale <= 4:
            raise OptionInvalid("scale must lie in 1..4", self.scale, "1 keeps the size")
        if self.color_fix not in COLOR_FIXES:
            raise OptionInvalid(f"color_fix must be one of {', '.join(COLOR_FIXES)}", self.color_fix, "choose one")

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One restoration that was tried."""

    index: int
    seed: int
    strength: float
    assessment: Assessment | None
    consistency: float | None
    accepted: bool
    reason: str
    picture: Picture | None = None
    steps: tuple[Mapping[str, Any], ...] = ()
    """What the restorer did, one entry per operation, with the phrase that asked for it."""

    notes: tuple[Note, ...] = ()
    error: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "seed": self.seed,
            "strength": self.strength,
            "rating": self.assessment.rating if self.assessment else None,
            "spread": self.assessment.spread if self.assessment else None,
            "standing": _standing(self.assessment),
            "consistency": self.consistency,
            "accepted": self.accepted,
            "reason": self.reason,
            "steps": [dict(step) for step in self.steps],
            "notes": [note.to_dict() for note in self.notes],
            "error": dict(self.error) if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, without doing it."""

    restorer: str
    prepass: str
    source_size: tuple[int, int]
    result_size: tuple[int, int]
    candidates: int
    guidance: Guidance
    prompts: Prompts
    actions: tuple[Action, ...]
    """What the guidance asks for; a restorer measures how much of it is needed."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "restorer": self.restorer,
            "prepass": self.prepass,
            "source_size": list(self.source_size),
            "result_size": list(self.result_size),
            "candidates": self.candidates,
            "guidance": self.guidance.to_dict(),
            "prompts": self.prompts.to_dict(),
            "actions": [action.to_dict() for action in self.actions],
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

    guidance: Guidance | None
    prompts: Prompts | None
    candidates: tuple[Candidate, ...]
    settings: BridgeSettings
    chosen: int | None = None
    """Index of the kept candidate."""

    notes: tuple[Note, ...] = ()
    error: Mapping[str, str] | None = None

    @property
    def best(self) -> Candidate | None:
        """The kept candidate, or the best-standing one tried."""
        rated = [item for item in self.candidates if item.assessment and item.assessment.rating is not None]
        if not rated:
            return None
        return max(rated, key=lambda item: (item.accepted, standing(item.assessment)))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The record's JSON form, without pictures."""
        return {
            "schema_version": SCHEMA_VERSION,
            "image": self.before.image.to_dict() if self.before.image else None,
            "kept": self.kept,
            "chosen": self.chosen,
            "reason": self.reason,
            "standing": {"before": _standing(self.before), "after": _standing(self.after)},
            "before": self.before.to_dict(),
            "after": self.after.to_dict() if self.after else None,
            "guidance": self.guidance.to_dict() if self.guidance else None,
            "prompts": self.prompts.to_dict() if self.prompts else None,
            "candidates": [item.to_dict() for item in self.candidates],
            "settings": self.settings.to_dict(),
            "notes": [note.to_dict() for note in self.notes],
            "error": dict(self.error) if self.error else None,
        }


def standing(assessment: Assessment) -> float:
    """The pipeline's own measure of a rated picture, in rating points; higher is better.

    The rating, less `FLAW_WEIGHT` for each stated flaw in proportion to its measured strength. An assessor without
    measured findings is judged by its rating alone.
    """
    if assessment.rating is None:
        raise OptionInvalid("a picture without a rating has no standing", None, "look at its error first")
    return assessment.rating - FLAW_WEIGHT * sum(finding.strength for finding in assessment.findings)


def _standing(assessment: Assessment | None) -> float | None:
    """The standing for a record; `None` where there is no rating."""
    return None if assessment is None or assessment.rating is None else round(standing(assessment), 4)


class RestoreBridge:
    """Restores pictures under the guidance of their assessment.

    Args:
        assessor: Who judges, or its name; the embedded default without it.
        settings: What to do.
        restorer: A restorer to use instead of the one that `settings` names.
        limits: Caps on results and prompts.

    Example:
        >>> from restore_bridge import RestoreBridge
        >>> from zoomiqa import open_picture
        >>> result = RestoreBridge().run(open_picture("photo.jpg"))  # doctest: +SKIP
    """

    def __init__(
        self,
        assessor: Assessor | str | None = None,
        settings: BridgeSettings | None = None,
        *,
        restorer: Restorer | None = None,
        limits: Limits = LOCAL,
    ) -> None:
        self.settings = settings or BridgeSettings()
        self.assessor = create_assessor(assessor) if assessor is None or isinstance(assessor, str) else assessor
        self.restorer = restorer or load_restorer(self.settings.restorer)
        self.prepass = load_prepass(self.settings.prepass)
        self.limits = limits

    def plan(self, picture: Picture, before: Assessment | None = None) -> Plan:
        """What `run` would do with this picture; nothing is restored."""
        settings = self.settings
        self._check(picture)
        before = before or self._assess(picture)
        guidance = split_guidance(before, prompt=settings.prompt, negative=settings.negative)
        return Plan(
            restorer=self.restorer.capabilities.name,
            prepass=settings.prepass,
            source_size=picture.size,
            result_size=(picture.width * settings.scale, picture.height * settings.scale),
            candidates=settings.candidates,
            prompts=self._compose(guidance),
            guidance=guidance,
            actions=plan_actions(guidance),
        )

    def run(self, picture: Picture, before: Assessment | None = None) -> BridgeResult:
        """Restore one picture.

        Args:
            picture: The input; it is never changed.
            before: Its assessment, if there is one already.

        Returns:
            The result. Failures of the assessor or of single candidates are values in it, not exceptions.

        Raises:
            ImageTooLarge: the result would exceed `limits.result_pixels`.
            OptionInvalid: the restorer has no such scale.
        """
        self._check(picture)
        before = before or self._assess(picture)
        if before.rating is None:
            return self._untouched(picture, before, "the input could not be assessed", error=before.error)
        guidance = split_guidance(before, prompt=self.settings.prompt, negative=self.settings.negative)
        prompts = self._compose(guidance)
        source = self.prepass.clean(picture)
        candidates = []
        for index in range(self.settings.candidates):
            candidate = self._try(index, picture, source, before, guidance, prompts)
            candidates.append(candidate)
            if candidate.reason == _UNCHANGED:
                break  # nothing was asked for; another strength of nothing is nothing
        result = BridgeResult(
            picture=picture,
            kept="original",
            reason=candidates[0].reason,
            before=before,
            after=None,
            guidance=guidance,
            prompts=prompts,
            candidates=tuple(candidates),
            settings=self.settings,
            notes=guidance.notes,
        )
        if all(item.error for item in candidates):
            return replace(result, error=candidates[0].error)
        best = result.best
        if best is None or best.picture is None:
            return result
        if not best.accepted:
            reason = best.reason if len(candidates) == 1 else f"no candidate is better: {best.reason}"
            return replace(result, reason=reason, after=best.assessment)
        return replace(
            result,
            picture=best.picture,
            kept="restored",
            reason=best.reason,
            after=best.assessment,
            chosen=best.index,
        )

    def _try(
        self, index: int, picture: Picture, source: Picture, before: Assessment, guidance: Guidance, prompts: Prompts
    ) -> Candidate:
        """One restoration, assessed and judged; a failure is a candidate with an error."""
        settings = RestoreSettings(
            seed=self.settings.seed + (index if self.restorer.capabilities.generative else index // len(STRENGTHS)),
            strength=self.settings.strength * STRENGTHS[index % len(STRENGTHS)],
            scale=self.settings.scale,
            limits=self.limits,
        )
        candidate = Candidate(index, settings.seed, settings.strength, None, None, accepted=False, reason="")
        try:
            outcome = self._restore(source, guidance, prompts, settings)
            restored = picture.with_pixels(fix_color(outcome.picture.pixels, source.pixels, self.settings.color_fix))
            candidate = replace(candidate, steps=outcome.steps, notes=outcome.notes)
            if restored.size == picture.size and (restored.pixels == picture.pixels).all():
                return replace(candidate, assessment=before, consistency=1.0, reason=_UNCHANGED)
            after = self._assess(restored)
            agreement = consistency(restored.pixels, picture.pixels)
        except Exception as error:
            # A restorer may come from anyone: whatever it raises must not stop a folder.
            known = (
                error
                if isinstance(error, ZoomIQAError)
                else BackendFailed(
                    f"restorer {self.restorer.capabilities.name!r} raised {type(error).__name__}", error, "report it"
                )
            )
            return replace(candidate, reason=f"it failed: {known}", error=known.to_dict())
        accepted, reason = self._judge(before, after, agreement)
        return replace(
            candidate,
            assessment=after,
            consistency=round(agreement, 4),
            accepted=accepted,
            reason=reason,
            picture=restored,
        )

    def _restore(self, source: Picture, guidance: Guidance, prompts: Prompts, settings: RestoreSettings) -> Restored:
        """Restore; when memory runs out, once more with tiles of half the side, and say so."""
        try:
            return self.restorer.restore(source, guidance, prompts=prompts, settings=settings)
        except MemoryError:
            half = replace(settings, tile_px=settings.tile_px // 2, overlap_px=settings.overlap_px // 2)
            outcome = self.restorer.restore(source, guidance, prompts=prompts, settings=half)
            note = Note("tiles-halved", f"Memory ran out; the picture was restored in tiles of {half.tile_px} pixels.")
            return replace(outcome, notes=(*outcome.notes, note))

    def _judge(self, before: Assessment, after: Assessment, agreement: float) -> tuple[bool, str]:
        """Whether a candidate is accepted, in words."""
        if after.rating is None or before.rating is None:
            return False, "it could not be rated"
        gain = standing(after) - standing(before)
        figures = f"rating {before.rating:.2f} to {after.rating:.2f}, standing {gain:+.2f}, consistency {agreement:.3f}"
        if agreement < self.settings.min_consistency:
            return False, f"it strays too far from the input ({figures}; at least {self.settings.min_consistency:g})"
        if gain <= self.settings.min_gain:
            return False, f"the assessor does not find it better ({figures})"
        return True, f"the assessor finds it better ({figures})"

    def _check(self, picture: Picture) -> None:
        """Refuse what the restorer cannot do before anything is looked at."""
        settings = RestoreSettings(scale=self.settings.scale, limits=self.limits)
        check_scale(self.restorer.capabilities, settings, picture.size)

    def _assess(self, picture: Picture) -> Assessment:
        return next(iter(self.assessor.assess([picture])))

    def _compose(self, guidance: Guidance) -> Prompts:
        return compose(guidance, self.restorer.capabilities.encoder, limits=self.limits)

    def _untouched(
        self, picture: Picture, before: Assessment, reason: str, error: Mapping[str, str] | None
    ) -> BridgeResult:
        return BridgeResult(
            picture=picture,
            kept="original",
            reason=reason,
            before=before,
            after=None,
            guidance=None,
            prompts=None,
            candidates=(),
            settings=self.settings,
            error=error,
        )


_UNCHANGED = "there was nothing to change: the guidance asks for nothing that was also measured"
