"""Which picture is kept: what is known of each candidate, and the one rule that chooses. It must not restore or assess.

The rule stands in `choose`. Nothing else in this project decides between pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from restore_bridge.guidance import Guidance
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import Picture
from zoomiqa.types import Assessment, BoxFraction, Note
from zoomiqa.vocabulary import Flaw

FLAW_WEIGHT = 2.0
"""Rating points by which one stated flaw of full strength lowers a picture's standing.

Chosen on odd-numbered Kodak and BSDS photographs with `benchmarks/restoration.py`: ratings alone kept no deblocked
picture at all, although each was closer to the untouched one; at 0.5 points 5 % were kept, at 1.5 62 %, at 2 90 %. What
is kept of blur, noise, darkness and casts does not depend on it."""

LATER_GAIN = 0.05
"""Least gain in standing, in rating points, for which a later round of the loop replaces the picture it set out from.
Less is within what a rating moves by when nothing visible changes, and each pass costs a little of the original;
chosen, not fitted."""

MIN_CONSISTENCY = 0.8
MAX_CHANGE = 40.0
"""Levels of 255, see `restore_bridge.scoring.unasked_change`.

Measured on 8 photographs and nine distortions that are not of tone, severities 3 and 5: what `classical` repaired and
the assessor found better changed by 29 at most (severe blur), the untouched photograph against the spoiled one by 24 at
most but for severe blur and sharpening (up to 66). Other content pasted over 2, 5 and 10 % of 28 photographs exceeds it
in 64, 89 and 96 % of them; `MIN_CONSISTENCY` alone stops none of those."""

TONE_FLAWS = frozenset(
    {
        Flaw.UNDEREXPOSURE,
        Flaw.OVEREXPOSURE,
        Flaw.LOW_CONTRAST,
        Flaw.HAZE,
        Flaw.COLOR_CAST,
        Flaw.DULL_COLOR,
        Flaw.OVERSATURATION,
    }
)
"""Flaws whose repair changes brightness or colour over areas; the repair of all others leaves local means alone."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One restoration that was tried."""

    index: int
    """Counted over all rounds."""

    seed: int
    strength: float
    assessment: Assessment | None = None
    consistency: float | None = None
    """Agreement with the input, 0..1."""

    change: float | None = None
    """Levels of 255 by which it left the input unasked; `None` also where a change of tone was asked everywhere."""

    accepted: bool = False
    reason: str = ""
    picture: Picture | None = None
    """`None` where none was made or nothing was changed, and once a later round has gone on from another one."""

    round_index: int = 0
    steps: tuple[Mapping[str, Any], ...] = ()
    """What the restorer did, one entry per operation, with the phrase that asked for it."""

    notes: tuple[Note, ...] = ()
    error: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "round": self.round_index,
            "seed": self.seed,
            "strength": self.strength,
            "rating": self.assessment.rating if self.assessment else None,
            "spread": self.assessment.spread if self.assessment else None,
            "standing": rounded_standing(self.assessment),
            "consistency": self.consistency,
            "change": self.change,
            "accepted": self.accepted,
            "reason": self.reason,
            "steps": [dict(step) for step in self.steps],
            "notes": [note.to_dict() for note in self.notes],
            "error": dict(self.error) if self.error else None,
        }


def choose(
    start: Assessment,
    tried: Sequence[Candidate],
    *,
    min_gain: float = 0.0,
    min_consistency: float = MIN_CONSISTENCY,
    max_change: float = MAX_CHANGE,
) -> tuple[tuple[Candidate, ...], Candidate | None]:
    """The rule by which a picture is kept.

    A candidate is accepted only if all of this holds:

    1. it was made, and rated by the assessor that rated the picture it set out from;
    2. its standing (see `standing`) is above that picture's by more than `min_gain`, in later rounds of the loop by
       more than `LATER_GAIN` at least;
    3. its structure agrees with the input: `consistency` is at least `min_consistency`;
    4. it left the input's local means alone where the guidance asked for no change of tone: `change` is at most
       `max_change`.

    Of the accepted ones the best-standing is chosen, the first of equals. Where none is accepted, the picture that they
    set out from stays. 3 and 4 are taken against the input, also in later rounds, so that small inventions do not add
    up: no-reference ratings reward over-sharpening and invented detail (Blau and Michaeli 2018).

    Args:
        start: Assessment of the picture that the candidates set out from; it has a rating.
        tried: In order.

    Returns:
        The candidates with verdict and reason, and the chosen one.
    """
    judged = []
    for candidate in tried:
        least_gain = max(min_gain, LATER_GAIN) if candidate.round_index else min_gain
        accepted, reason = _verdict(start, candidate, least_gain, min_consistency, max_change)
        judged.append(replace(candidate, accepted=accepted, reason=reason))
    accepted_ones = [candidate for candidate in judged if candidate.accepted]
    return tuple(judged), max(accepted_ones, key=_standing_of, default=None)


def _verdict(
    start: Assessment, candidate: Candidate, min_gain: float, min_consistency: float, max_change: float
) -> tuple[bool, str]:
    """Whether a candidate is accepted, in words. One that was not made keeps the reason that it came with."""
    if candidate.picture is None or candidate.assessment is None or candidate.consistency is None:
        return False, candidate.reason
    if candidate.assessment.rating is None:
        return False, "it could not be rated"
    gain = _standing_of(candidate) - standing(start)
    figures = describe(start, candidate)
    if candidate.consistency < min_consistency:
        return False, f"it strays too far from the input ({figures}; at least {min_consistency:g})"
    if candidate.change is not None and candidate.change > max_change:
        return False, (
            f"it changes what the guidance did not ask to change ({figures}; changed by {candidate.change:.1f} of 255"
            f" levels, at most {max_change:g})"
        )
    if gain <= min_gain:
        least = f"; more than {min_gain:+g} is asked" if min_gain else ""
        return False, f"the assessor does not find it better ({figures}{least})"
    return True, f"the assessor finds it better ({figures})"


def describe(start: Assessment, candidate: Candidate) -> str:
    """The figures of a rated candidate against a rated picture, in words."""
    assert candidate.assessment is not None  # noqa: S101 - for the type checker; only rated ones come here
    gain = _standing_of(candidate) - standing(start)
    return (
        f"rating {start.rating:.2f} to {candidate.assessment.rating:.2f}, standing {gain:+.2f},"
        f" consistency {candidate.consistency:.3f}"
    )


def nearest(candidates: Sequence[Candidate]) -> Candidate | None:
    """The best-standing candidate that was rated, accepted or not; the first of equals."""
    rated = [item for item in candidates if item.assessment is not None and item.assessment.rating is not None]
    return max(rated, key=_standing_of, default=None)


def standing(assessment: Assessment) -> float:
    """The pipeline's own measure of a rated picture, in rating points; higher is better.

    The rating, less `FLAW_WEIGHT` for each stated flaw in proportion to its measured strength. An assessor without
    measured findings is judged by its rating alone.
    """
    if assessment.rating is None:
        raise OptionInvalid("a picture without a rating has no standing", None, "look at its error first")
    return assessment.rating - FLAW_WEIGHT * sum(finding.strength for finding in assessment.findings)


def rounded_standing(assessment: Assessment | None) -> float | None:
    """The standing for a record; `None` where there is no rating."""
    return None if assessment is None or assessment.rating is None else round(standing(assessment), 4)


def asked_places(guidance: Guidance) -> tuple[BoxFraction, ...]:
    """Where `guidance` asks for a change of brightness or colour. Default phrases ask for nothing."""
    return tuple(
        dict.fromkeys(
            phrase.box_fraction or (0.0, 0.0, 1.0, 1.0)
            for phrase in guidance.phrases
            if phrase.origin != "default" and TONE_FLAWS.intersection(phrase.flaws)
        )
    )


def _standing_of(candidate: Candidate) -> float:
    assert candidate.assessment is not None  # noqa: S101 - for the type checker; only rated ones come here
    return standing(candidate.assessment)
