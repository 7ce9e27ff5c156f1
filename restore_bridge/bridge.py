"""The pipeline in one sentence: assess, split the words into guidance, restore, assess again, keep the better picture.

It must not know how a rating, a prompt or a restored pixel comes about; it only holds the order of things. The rule by
which a picture is kept is `restore_bridge.selection.choose`; the input is always a candidate.

In each round every candidate sets out from the best picture so far, under guidance from that picture's assessment. The
next round goes on from the best of them. The loop ends when a round brings nothing better, and the best picture so far
stands: what a round made worse is rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from restore_bridge.actions import plan_actions
from restore_bridge.color import fix_color
from restore_bridge.guidance import Guidance, split_guidance
from restore_bridge.prepass import Prepass, describe_prepass, load_prepass
from restore_bridge.prompts import Prompts, compose
from restore_bridge.provenance import mark
from restore_bridge.restorers import Restored, Restorer, RestoreSettings, load_restorer
from restore_bridge.restorers.base import ChecksItself, CountsTokens, PlansWork, check_factor, check_scale
from restore_bridge.results import BridgeResult, LoopRound, Plan
from restore_bridge.scoring import consistency, unasked_change
from restore_bridge.selection import Candidate, asked_places, choose, describe, nearest
from restore_bridge.settings import BridgeSettings, Trial, plan_trials
from restore_bridge.tiling import halving_on_memory_error
from zoomiqa.assessors import Assessor, create_assessor
from zoomiqa.errors import BackendFailed, ZoomIQAError
from zoomiqa.imaging import Picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Assessment, BoxFraction, Note

_UNCHANGED = "there was nothing to change: the guidance asks for nothing that was also measured"


class RestoreBridge:
    """Restores pictures under the guidance of their assessment.

    Args:
        assessor: Who judges, or its name; the embedded default without it.
        settings: What to do.
        restorer: A restorer to use instead of the one that `settings` names.
        prepass: A pre-pass to use likewise.
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
        prepass: Prepass | None = None,
        limits: Limits = LOCAL,
    ) -> None:
        self.settings = settings or BridgeSettings()
        self.assessor = create_assessor(assessor) if assessor is None or isinstance(assessor, str) else assessor
        self.restorer = restorer or load_restorer(self.settings.restorer, **self.settings.restorer_options)
        self.prepass = prepass or self._load_prepass()
        self.limits = limits

    def check_ready(self) -> None:
        """Refuse what no picture could be restored with, before one is opened.

        Raises:
            OptionInvalid, WeightsError: the restorer has no such scale, or is not ready (see `ChecksItself`).
        """
        check_factor(self.restorer.capabilities, self.settings.scale)
        if isinstance(self.restorer, ChecksItself):
            self.restorer.check_ready()

    def plan(self, picture: Picture, before: Assessment | None = None, *, guidance: Guidance | None = None) -> Plan:
        """What `run` would do with these, its own arguments; nothing is restored.

        No tokenizer is loaded either: the length of the prompts is estimated.
        """
        settings = self.settings
        self._check(picture)
        if guidance is None:
            guidance = self._split(before or self._assess(picture))
        trials, notes = plan_trials(settings, self.restorer.capabilities)
        return Plan(
            restorer=self.restorer.capabilities.name,
            prepass=self.prepass.name,
            source_size=picture.size,
            result_size=(picture.width * settings.scale, picture.height * settings.scale),
            candidates=trials,
            loop=settings.loop,
            prompts=compose(guidance, self.restorer.capabilities.encoder, limits=self.limits),
            guidance=guidance,
            actions=plan_actions(guidance),
            work=self._plan_work(picture),
            notes=notes,
        )

    def run(
        self, picture: Picture, before: Assessment | None = None, *, guidance: Guidance | None = None
    ) -> BridgeResult:
        """Restore one picture.

        Args:
            picture: The input; it is never changed.
            before: Its assessment, if there is one already.
            guidance: What the first round asks for, in the place of what `before` says (a person's edited phrases, for
                example); `settings.prompt` and `settings.negative` are not put in. Later rounds ask for what the
                assessments of their own pictures say.

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
        self._give_way(to_restorer=True)
        try:
            source, prepass = self.prepass.clean(picture), describe_prepass(self.prepass)
        except Exception as error:
            known = _as_known(error, f"pre-pass {self.prepass.name!r}")
            return self._untouched(picture, before, f"the pre-pass failed: {known}", error=known.to_dict())
        trials, notes = plan_trials(self.settings, self.restorer.capabilities)
        scene = _Scene(picture, source, before, self._split(before) if guidance is None else guidance, trials)
        rounds: list[LoopRound] = []
        best: Candidate | None = None
        while len(rounds) < self.settings.loop:
            done, better = self._round(scene, rounds, best)
            rounds.append(done)
            if better is None:
                break
            best = better
            if len(rounds) < self.settings.loop:
                rounds[-1] = _without_pictures(done)
        first = rounds[0]
        result = BridgeResult(
            picture=picture,
            kept="original",
            reason=first.reason,
            before=before,
            after=None,
            rounds=tuple(rounds),
            settings=self.settings,
            prepass=prepass,
            notes=(*first.guidance.notes, *source.notes[len(picture.notes) :], *notes),
        )
        if best is not None and best.picture is not None:
            reason = f"the assessor finds it better ({describe(before, best)})"
            return replace(
                result,
                picture=mark(best.picture, self.restorer.capabilities),
                kept="restored",
                reason=reason + (f", after {best.round_index + 1} rounds" if best.round_index else ""),
                after=best.assessment,
                chosen=best.index,
            )
        if all(item.error for item in first.candidates):
            return replace(result, error=first.candidates[0].error)
        closest = nearest([item for item in first.candidates if item.picture is not None])
        return replace(result, after=closest.assessment if closest else None)

    def attempt(
        self,
        picture: Picture,
        source: Picture,
        before: Assessment,
        guidance: Guidance,
        prompts: Prompts,
        trial: Trial,
        asked: tuple[BoxFraction, ...] = (),
    ) -> Candidate:
        """One restoration of `picture` with given words, assessed but not judged (see `selection.choose`).

        Args:
            picture: The input.
            source: The input after the pre-pass.
            before: The input's assessment.
            guidance: What the restorer is asked for.
            prompts: The same as text.
            trial: Seed and strength.
            asked: Places where a change of tone is asked for.

        Returns:
            The candidate; a failure is one with an error.
        """
        scene = _Scene(picture, source, before, guidance, (trial,))
        start = _Start(picture, source, self.settings.scale)
        candidate = Candidate(0, trial.seed, trial.strength)
        candidate = self._redraw(candidate, scene, start, before, guidance, prompts, asked)
        return self._rate(candidate, scene, asked)

    def compose(self, guidance: Guidance, *, quality: bool = True) -> Prompts:
        """`guidance` as the restorer's encoder takes it, counted by the restorer itself where it can.

        Args:
            guidance: What is asked for.
            quality: Whether a general quality tail may fill what is left.
        """
        count = self.restorer.token_counter() if isinstance(self.restorer, CountsTokens) else None
        encoder = self.restorer.capabilities.encoder
        return compose(guidance, encoder, count=count, quality=quality, limits=self.limits)

    def _round(
        self, scene: _Scene, earlier: list[LoopRound], best: Candidate | None
    ) -> tuple[LoopRound, Candidate | None]:
        """One round from the best picture so far; also gives the candidate that is better, if there is one."""
        if best is None or best.assessment is None or best.picture is None:
            assessment, guidance = scene.before, scene.guidance
            start = _Start(scene.picture, scene.source, self.settings.scale)
        else:
            assessment, guidance = best.assessment, self._split(best.assessment)
            start = _Start(best.picture, best.picture, 1)
        prompts = self.compose(guidance)
        asked = tuple(place for one in [*(one.guidance for one in earlier), guidance] for place in asked_places(one))
        drawn: list[Candidate] = []
        self._give_way(to_restorer=True)
        for trial in scene.trials:
            number = sum(len(one.candidates) for one in earlier) + len(drawn)
            candidate = Candidate(number, trial.seed, trial.strength, round_index=len(earlier))
            drawn.append(self._redraw(candidate, scene, start, assessment, guidance, prompts, asked))
            if drawn[-1].reason == _UNCHANGED:
                break  # nothing was asked for; another strength of nothing is nothing
        # All of them are drawn before any is rated, so that two models that share a device change places once.
        self._give_way(to_restorer=False)
        tried = [self._rate(candidate, scene, asked) for candidate in drawn]
        settings = self.settings
        judged, better = choose(
            assessment,
            tried,
            min_gain=settings.min_gain,
            min_consistency=settings.min_consistency,
            max_change=settings.max_change,
        )
        closest = better or nearest([item for item in judged if item.picture is not None])
        reason = closest.reason if closest else judged[0].reason
        if better is None and closest is not None and len(judged) > 1:
            reason = f"no candidate is better: {reason}"
        chosen = better.index if better else None
        done = LoopRound(len(earlier), best.index if best else None, guidance, prompts, judged, chosen, reason)
        return done, better

    def _redraw(
        self,
        candidate: Candidate,
        scene: _Scene,
        start: _Start,
        assessment: Assessment,
        guidance: Guidance,
        prompts: Prompts,
        asked: tuple[BoxFraction, ...],
    ) -> Candidate:
        """One restoration, not rated yet; a failure is a candidate with an error."""
        picture = scene.picture
        settings = RestoreSettings(
            seed=candidate.seed, strength=candidate.strength, scale=start.scale, limits=self.limits
        )
        try:
            check_scale(self.restorer.capabilities, settings, start.source.size)
            outcome = self._restore(start.source, guidance, prompts, settings)
            fix, notes = self._choose_color_fix(asked)
            fixed = fix_color(outcome.picture.pixels, scene.source.pixels, fix)
            restored = picture.with_pixels(fixed)
            if restored.alpha is None:  # another size: only the restorer could bring it along
                restored = replace(restored, alpha=outcome.picture.alpha)
        except Exception as error:
            return self._failed(candidate, error)
        candidate = replace(candidate, steps=outcome.steps, notes=outcome.notes)
        if restored.size == start.picture.size and (restored.pixels == start.picture.pixels).all():
            return replace(candidate, assessment=assessment, consistency=1.0, change=0.0, reason=_UNCHANGED)
        return replace(candidate, notes=(*candidate.notes, *notes), picture=restored)

    def _rate(self, candidate: Candidate, scene: _Scene, asked: tuple[BoxFraction, ...]) -> Candidate:
        """The candidate with its assessment and how far it left the input; as it is where there is nothing to rate."""
        restored, picture = candidate.picture, scene.picture
        if restored is None:
            return candidate
        try:
            after = self._assess(restored)
            agreement = consistency(restored.pixels, picture.pixels)
            change = unasked_change(restored.pixels, picture.pixels, asked)
        except Exception as error:
            return self._failed(replace(candidate, picture=None), error)
        return replace(
            candidate,
            assessment=after,
            consistency=round(agreement, 4),
            change=None if change is None else round(change, 2),
        )

    def _failed(self, candidate: Candidate, error: Exception) -> Candidate:
        known = _as_known(error, f"restorer {self.restorer.capabilities.name!r}")
        return replace(candidate, reason=f"it failed: {known}", error=known.to_dict())

    def _choose_color_fix(self, asked: tuple[BoxFraction, ...]) -> tuple[str, tuple[Note, ...]]:
        """How colour is held, with a note where that was chosen here."""
        if self.settings.color_fix != "auto":
            return self.settings.color_fix, ()
        if not self.restorer.capabilities.generative or asked:
            return "none", ()
        held = "Colour was held to the picture (wavelet), as no change of tone was asked for."
        return "wavelet", (Note("color-held", held),)

    def _give_way(self, *, to_restorer: bool) -> None:
        """Unload whoever does not work now, where assessor and restorer are both models in this machine's memory."""
        if self.settings.keep_loaded or not getattr(self.assessor, "can_unload", False):
            return
        for idle in (self.assessor,) if to_restorer else (self.prepass, self.restorer):
            if callable(unload := getattr(idle, "unload", None)):
                unload()

    def _restore(self, source: Picture, guidance: Guidance, prompts: Prompts, settings: RestoreSettings) -> Restored:
        """Restore; when memory runs out, once more with tiles of half the side, and say so."""

        def work(tile: int, overlap: int) -> Restored:
            sized = replace(settings, tile_px=tile, overlap_px=overlap)
            return self.restorer.restore(source, guidance, prompts=prompts, settings=sized)

        outcome, notes = halving_on_memory_error(work, *settings.tiles(self.restorer.capabilities))
        return replace(outcome, notes=(*outcome.notes, *notes))

    def _load_prepass(self) -> Prepass:
        settings = self.settings
        options: dict[str, Any] = {}
        if settings.prepass_weights is not None:
            options = {"weights": settings.prepass_weights, "allow_pickle": settings.allow_pickle}
        return load_prepass(settings.prepass, **options)

    def _plan_work(self, picture: Picture) -> Mapping[str, Any] | None:
        """The restorer's own plan, where it makes one."""
        if not isinstance(self.restorer, PlansWork):
            return None
        settings = RestoreSettings(strength=self.settings.strength, scale=self.settings.scale, limits=self.limits)
        return self.restorer.plan(picture.size, settings).to_dict()

    def _check(self, picture: Picture) -> None:
        """Refuse what the restorer cannot do before anything is looked at."""
        settings = RestoreSettings(scale=self.settings.scale, limits=self.limits)
        check_scale(self.restorer.capabilities, settings, picture.size)

    def _assess(self, picture: Picture) -> Assessment:
        return next(iter(self.assessor.assess([picture])))

    def _split(self, assessment: Assessment) -> Guidance:
        return split_guidance(assessment, prompt=self.settings.prompt, negative=self.settings.negative)

    def _untouched(
        self, picture: Picture, before: Assessment, reason: str, error: Mapping[str, str] | None
    ) -> BridgeResult:
        return BridgeResult(
            picture=picture,
            kept="original",
            reason=reason,
            before=before,
            after=None,
            rounds=(),
            settings=self.settings,
            error=error,
        )


@dataclass(frozen=True, slots=True)
class _Scene:
    """What stays the same in all rounds."""

    picture: Picture
    source: Picture
    """The picture after the pre-pass; colour is held to it."""

    before: Assessment
    guidance: Guidance
    """Of the first round."""

    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class _Start:
    """What a round sets out from."""

    picture: Picture
    source: Picture
    """What the restorer gets: in the first round, the picture after the pre-pass."""

    scale: int
    """Enlargement; after the first round the size is reached."""


def _without_pictures(done: LoopRound) -> LoopRound:
    """A round that another one goes on from, without the pictures that nobody asks for any more."""
    kept = (item if item.index == done.chosen else replace(item, picture=None) for item in done.candidates)
    return replace(done, candidates=tuple(kept))


def _as_known(error: Exception, part: str) -> ZoomIQAError:
    """Any exception as one of this project: a part may come from anyone, and what it raises must not stop a folder."""
    if isinstance(error, ZoomIQAError):
        return error
    return BackendFailed(f"{part} raised {type(error).__name__}", error, "report it")
