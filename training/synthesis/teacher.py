"""The measured teacher: replies to a sample whose truth is known, in the exact format of the protocol.

What is wrong, where and how strongly comes from the truth; the rating from measurement; the words from phrases that the
seed picks. It must not know files or how a sample was made.

**Rating.** The compact assessor's regressors (fitted on human scores) rate the clean photo and the photo distorted
everywhere, at viewing size (first look) and with a crop (second look). A local distortion takes the share
sqrt(affected area) of that fall: people judge by the worst part more than by the mean (percentile pooling, Moorthy and
Bovik, IEEE JSTSP 3(2), 2009; the root is a choice of this project). A distortion never raises a rating; near its
floor, at the strongest severities, the regressor does not order them. Where one look is enough, it states the second
look's rating, which is the better measured one.

**When to zoom.** Where the whole picture leaves a doubt: a local flaw that lives in single pixels, or a mild one; a
mild flaw of single pixels over the whole frame; and `CLEAN_DOUBTS` of the clean samples, whose doubt is refuted. The
crop's box is the truth's, or the place with the most detail where the flaw (or nothing) is everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from threadpoolctl import ThreadpoolController

from zoomiqa.assessors.compact.diagnosis import diagnose, severity_of
from zoomiqa.assessors.compact.features import choose_region, crop_copy, extract_features, viewing_copy
from zoomiqa.assessors.compact.rating import RatingModel
from zoomiqa.assessors.compact.wording import verdict
from zoomiqa.imaging import PixelArray
from zoomiqa.imaging.signals import NATIVE_SCALE, measure
from zoomiqa.protocol import plan_crop
from zoomiqa.types import RATING_MAX, RATING_MIN, BoxFraction, Finding
from zoomiqa.vocabulary import REGIONS, TERMS, Flaw, Severity, name_region, where

from . import phrases
from .phrases import choose, fill
from .samples import Sample, Truth

STRENGTHS = (0.15, 0.27, 0.40, 0.70, 1.00)
"""Strength of the severities 1 to 5 on the scale of `zoomiqa.assessors.compact.diagnosis`, which is made so that 3 is
moderate and 4 severe."""

PIXEL_FLAWS = frozenset(
    {
        Flaw.BLUR, Flaw.MOTION_BLUR, Flaw.NOISE, Flaw.BLOCKING, Flaw.RINGING, Flaw.BANDING, Flaw.LOW_RESOLUTION,
        Flaw.OVERSHARPENING,
    }
)  # fmt: skip
"""Flaws that a reduced copy hides."""

COLOR_FLAWS = frozenset({Flaw.COLOR_CAST, Flaw.DULL_COLOR, Flaw.OVERSATURATION})

PLAIN_FROM = {("local", True): 6, ("local", False): 4, ("global", True): 4, ("global", False): 2}
"""Severity from which (scope, flaw of single pixels) needs no closer look; 6 is never."""

NAMED_FROM = 3
"""Severity from which a first look names the flaw alone, without the one it is taken for."""

CLEAN_DOUBTS = 0.6
"""Share of clean samples in which a closer look is asked for and finds nothing."""

SAME = 0.05
"""Ratings closer than this count as kept."""

MAX_OWN = 2
"""Flaws of the photo itself that are stated beside the distortion."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Replies of one or two looks."""

    replies: tuple[str, ...]
    ratings: tuple[float, ...]
    case: str
    """"final", or what the closer look did to the rating: "lowered", "kept" or "raised"."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What both looks of one trajectory share."""

    truth: Truth
    place: str
    """Where the flaw (or the doubt) is, in words that follow a noun."""

    region: str
    """Name of the place looked at closely."""

    own: Sequence[Finding]
    """Measured flaws of the photo that the distortion left standing."""

    suspect: Flaw | None
    """What is suspected in a clean picture."""

    other: Flaw | None
    """What the flaw could be taken for."""


class MeasuredTeacher:
    """Writes trajectories. One instance loads the regressors once."""

    @cached_property
    def _model(self) -> RatingModel:
        return RatingModel.load()

    @cached_property
    def _linear_algebra(self) -> ThreadpoolController:
        return ThreadpoolController()

    def write(self, sample: Sample, rng: np.random.Generator) -> Trajectory:
        """The replies to one sample; `rng` picks the words and which clean samples are doubted."""
        with self._linear_algebra.limit(limits=1, user_api="blas"):  # small products: threads only wait for each other
            return self._write(sample, rng)

    def _write(self, sample: Sample, rng: np.random.Generator) -> Trajectory:
        truth = sample.truth
        size = (sample.pixels.shape[1], sample.pixels.shape[0])
        view = viewing_copy(sample.clean)
        box = truth.box_fraction if truth.scope == "local" and truth.box_fraction else choose_region(view).box_fraction
        first, second = self._rate(sample, plan_crop(list(box), size).box.to_fraction(size))
        zooms = bool(rng.random() < CLEAN_DOUBTS) if truth.flaw is None else not _is_plain(truth)
        look = self._look(sample, box, rng, zooms=zooms)
        if not zooms:
            reply = _reply(_first(look, second, None, rng), (0, 0, 0, 0), second, "final")
            return Trajectory((reply,), (second,), "final")
        # What the closer look finds decides which way the rating may go.
        second = max(first, second) if truth.flaw is None else min(first, second)
        move = "kept" if abs(second - first) < SAME else ("raised" if second > first else "lowered")
        texts = (_first(look, first, look.region, rng), _second(look, first, second, move, rng))
        shown = tuple(round(edge, 3) for edge in box)
        return Trajectory(
            (_reply(texts[0], shown, first, "crop"), _reply(texts[1], (0, 0, 0, 0), second, "final")),
            (first, second),
            move,
        )

    def _rate(self, sample: Sample, crop: BoxFraction) -> tuple[float, float]:
        """Ratings of the first look and of the one with the crop, rounded as they are written."""
        clean = self._both(sample.clean, crop)
        if sample.truth.flaw is None:
            return _rounded(clean[0]), _rounded(clean[1])
        worst = self._both(sample.everywhere, crop)
        share = math.sqrt(sample.truth.area_share)
        first, second = (before + share * min(0.0, after - before) for before, after in zip(clean, worst, strict=True))
        return _rounded(first), _rounded(second)

    def _both(self, pixels: PixelArray, crop: BoxFraction) -> tuple[float, float]:
        whole = extract_features(viewing_copy(pixels))
        close = extract_features(crop_copy(pixels, crop))
        return self._model.first(whole).value, self._model.second(whole, close, crop).value

    def _look(self, sample: Sample, box: BoxFraction, rng: np.random.Generator, *, zooms: bool) -> _Look:
        truth = sample.truth
        suspect = other = None
        if truth.flaw is None:
            if zooms:
                suspect = list(phrases.CLEAN_EVIDENCE)[int(rng.integers(len(phrases.CLEAN_EVIDENCE)))]
        elif truth.severity is not None and zooms and truth.severity < NAMED_FROM:
            confused = phrases.CONFUSED[truth.flaw]
            other = confused[int(rng.integers(len(confused)))]
        flaw_box = box if suspect else truth.box_fraction
        place = where(name_region(flaw_box)) if flaw_box else where("whole frame")
        own = _own_flaws(sample)
        return _Look(truth, place, name_region(box), own, suspect, other)


def _is_plain(truth: Truth) -> bool:
    if truth.flaw is None or truth.severity is None:
        return True
    return truth.severity >= PLAIN_FROM[truth.scope, truth.flaw in PIXEL_FLAWS]


def _own_flaws(sample: Sample) -> list[Finding]:
    """Flaws of tones and colours that are measured in the photo before and after the distortion, strongest first."""

    def found(pixels: PixelArray) -> dict[Flaw, Finding]:
        view = viewing_copy(pixels)
        # A scale under that of a native picture: what lives in single pixels is not asked for.
        scale = min(max(view.shape[:2]) / max(pixels.shape[:2]), 0.9 * NATIVE_SCALE)
        findings = diagnose(measure(view, scale=scale))
        return {item.flaw: item for item in findings if item.flaw not in PIXEL_FLAWS}

    before = found(sample.clean)
    if not before or sample.truth.flaw is None:
        return list(before.values())[:MAX_OWN]
    after = found(sample.pixels)
    return [after[flaw] for flaw in before if flaw in after and flaw != sample.truth.flaw][:MAX_OWN]


def _rounded(rating: float) -> float:
    return round(min(max(rating, RATING_MIN), RATING_MAX), 2)


def _named(flaw: Flaw, detail: str = "", severity: Severity | None = None) -> str:
    return " ".join(f"{severity or ''} {detail} {TERMS[flaw].phrase}".split())


def _detail(truth: Truth) -> str:
    """The hue of a cast; a motion's angle as the name of its direction."""
    if truth.flaw is Flaw.MOTION_BLUR and truth.detail:
        angle = float(truth.detail.rstrip("°"))
        return ("horizontal", "rising diagonal", "vertical", "falling diagonal")[round(angle / 45) % 4]
    return truth.detail


def _known(look: _Look) -> str:
    """The flaw with its strength, as it is known."""
    truth = look.truth
    if truth.flaw is None or truth.severity is None:
        raise ValueError("a clean sample has no known flaw")
    return _named(truth.flaw, _detail(truth), severity_of(STRENGTHS[truth.severity - 1]))


def _suspected(look: _Look) -> str:
    """The flaw as the first look has it before a closer one."""
    if look.suspect is not None:
        return _named(look.suspect, severity=Severity.SLIGHT)
    if look.truth.flaw is None:
        raise ValueError("nothing is suspected")
    name = _named(look.truth.flaw, _detail(look.truth))
    return f"{name} or {TERMS[look.other].phrase}" if look.other else name


def _first(look: _Look, rating: float, zoom: str | None, rng: np.random.Generator) -> str:
    """The rationale of the first look; `zoom` names the region asked for."""
    truth, is_open = look.truth, zoom is not None
    seen = [fill(choose(phrases.FINE[kind], rng)) for kind in _fine_kinds(look)[:2]]
    issues = []
    if is_open:
        table = phrases.DOUBTFUL if look.suspect or look.other else phrases.STRENGTH_OPEN
        seen.append(fill(choose(table, rng), flaw=_suspected(look), place=look.place))
        issues.append(fill(choose(phrases.POSSIBLE, rng), flaw=_suspected(look), place=look.place))
    elif truth.flaw is not None:
        seen.append(fill(choose(phrases.CERTAIN, rng), flaw=_known(look), place=look.place))
        issues.append(fill(choose(phrases.PRESENT, rng), flaw=_known(look), place=look.place))
    own_seen, own_issues = _own(look, rng)
    seen = [*seen, *own_seen][:3]
    seen.append(fill(choose(phrases.VERDICT, rng), verdict=verdict(rating)))
    issues = [*issues, *own_issues] or [choose(phrases.NOTHING_WRONG, rng)]
    shown = f"{rating:.2f}"
    if zoom is not None:
        reasons: tuple[str, ...] = phrases.DOUBT_REASONS
        if (truth.flaw or look.suspect) in PIXEL_FLAWS:
            reasons += phrases.DOUBT_REASONS_OF_PIXELS
        if truth.scope != "global":
            reasons += phrases.DOUBT_REASONS_OF_A_PLACE
        reason = fill(choose(reasons, rng), place=look.place)
        decision = fill(choose(phrases.CROP, rng), rating=shown, reason=reason, region=zoom)
    else:
        reason = fill(choose(phrases.PLAIN_REASONS[truth.scope], rng), place=look.place)
        decision = fill(choose(phrases.FINAL, rng), rating=shown, reason=reason)
    return _rationale(
        ("Image Quality Summary", " ".join(seen)),
        ("Directions for Improvement", _directions(look, rng)),
        ("Issues to Avoid", " ".join(issues)),
        ("Decision & Rationale", decision),
    )


def _second(look: _Look, first: float, final: float, move: str, rng: np.random.Generator) -> str:
    """The rationale of the look at the region."""
    place = look.place if look.truth.scope == "local" else where(look.region)
    issues = []
    if look.truth.flaw is not None:
        evidence = choose(phrases.EVIDENCE[look.truth.flaw], rng)
        found = [fill(choose(phrases.CONFIRMED, rng), place=place, flaw=_known(look), evidence=evidence)]
        if look.other is not None:
            found.append(fill(choose(phrases.NOT_THE_OTHER, rng), other=TERMS[look.other].phrase))
        issues.append(fill(choose(phrases.PRESENT, rng), flaw=_known(look), place=place))
    elif look.suspect is not None:
        evidence = choose(phrases.CLEAN_EVIDENCE[look.suspect], rng)
        words = {"flaw": TERMS[look.suspect].phrase, "evidence": evidence, "place": place}
        found = [fill(choose(phrases.REFUTED, rng), **words)]
    else:
        raise ValueError("a closer look needs a flaw or a suspicion")
    own_seen, own_issues = _own(look, rng)
    found = [*found, *own_seen][:2]
    found.append(fill(choose(phrases.VERDICT, rng), verdict=verdict(final)))
    issues = [*issues, *own_issues] or [choose(phrases.NOTHING_WRONG, rng)]
    decision = fill(choose(phrases.MOVES[move], rng), first=f"{first:.2f}", final=f"{final:.2f}", region=look.region)
    return _rationale(
        ("Crop Inspection Summary", " ".join(found)),
        ("Directions for Improvement", _directions(look, rng)),
        ("Issues to Avoid", " ".join(issues)),
        ("Final Decision & Rationale", decision),
    )


def _own(look: _Look, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Sentences on the photo's own flaws, for the summary and for the issues."""
    seen, issues = [], []
    for item in look.own:
        words = {"flaw": _named(item.flaw, item.detail, item.severity), "place": where(item.region)}
        seen.append(fill(choose(phrases.BESIDES, rng), **words))
        issues.append(fill(choose(phrases.PRESENT, rng), **words))
    return seen, issues


def _fine_kinds(look: _Look) -> list[str]:
    """What the picture does well, as far as the truth and the measured flaws say; not what is in doubt."""
    flaws = {look.truth.flaw, look.suspect, look.other, *(item.flaw for item in look.own)} - {None}
    kinds = {"detail": PIXEL_FLAWS, "color": COLOR_FLAWS, "tone": frozenset(Flaw) - PIXEL_FLAWS - COLOR_FLAWS}
    return [kind for kind, members in kinds.items() if not flaws & members]


def _directions(look: _Look, rng: np.random.Generator) -> str:
    """The wanted picture: the flaws' places in their best state, and what stays as it is."""
    wanted = []
    flaw = look.truth.flaw or look.suspect
    if flaw is not None:
        wanted.append(fill(choose(phrases.WANTED, rng), wanted=TERMS[flaw].wanted, place=look.place))
    wanted += [
        fill(choose(phrases.WANTED, rng), wanted=TERMS[item.flaw].wanted, place=where(item.region)) for item in look.own
    ]
    names = [name for name in REGIONS if name != "whole frame" and where(name) != look.place]
    for name in rng.choice(names, size=max(1, 2 - len(wanted)), replace=False):
        wanted.append(fill(choose(phrases.KEPT, rng), elsewhere=where(str(name))))
    return " ".join(dict.fromkeys(wanted))


def _rationale(*sections: tuple[str, str]) -> str:
    return "\n".join(f"{heading}: {text}" for heading, text in sections)


def _reply(rationale: str, box: Sequence[float], rating: float, tool: str) -> str:
    edges = ", ".join(f"{edge:g}" for edge in box)
    answer = f'{{"bbox_2d": [{edges}], "rating": {rating:.2f}, "tool": "{tool}"}}'
    return f"<think>\n{rationale}\n</think>\n<answer>{answer}</answer>"
