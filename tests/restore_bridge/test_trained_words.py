"""The words that the packaged networks were trained on, and those of the embedded assessor, ask for what they did then.

The plan of a text is part of what a network has learned. A change here asks for networks trained anew.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from restore_bridge.actions import STRENGTHS, Operation, plan_actions
from restore_bridge.guidance import split_text
from training.compact.restorer.cases import KINDS, WORDS, statement
from zoomiqa.assessors.compact import wording
from zoomiqa.types import BoxFraction, Finding
from zoomiqa.vocabulary import REGIONS, Flaw, Severity

TRAINED = {
    "light": Operation.LIFT,
    "blur": Operation.DEBLUR,
    "motion": Operation.DEBLUR_MOTION,
    "noise": Operation.DENOISE,
    "blocking": Operation.DEBLOCK,
}
MEASURED = {
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
DETAILS = {
    Flaw.COLOR_CAST: ("red", "green", "blue", "yellow", "cyan", "magenta"),
    Flaw.MOTION_BLUR: ("", "horizontal", "vertical", "diagonal"),
}


def steps(directions: str | None, issues: str) -> set[tuple[Operation, float, BoxFraction | None, str]]:
    planned = plan_actions(split_text(directions, issues))
    return {(action.operation, action.strength, action.box_fraction, action.detail) for action in planned}


def box_of(place: str | None) -> BoxFraction | None:
    return None if place in (None, "whole frame") else REGIONS[place]


def strength_of(word: str | None) -> float:
    return STRENGTHS[Severity(word) if word else None]


SPOKEN = [
    (kind.family, name, word, place)
    for kind in KINDS
    for name in kind.names
    for word in (None, *WORDS)
    for place in (None, *REGIONS)
]


@pytest.mark.parametrize("place", [None, *REGIONS])
def test_statements_of_the_restorers_training(place):
    for family, name, word, _ in [each for each in SPOKEN if each[3] == place]:
        expected = {(TRAINED[family], strength_of(word), box_of(place), "")}
        if name == "noise and grain":  # two statements, the first of the whole picture
            expected = steps(None, f"{statement('noise', word)}. {statement('grain', None, place)}")
        assert steps(None, statement(name, word, place)) == expected


def test_several_statements_add_up():
    spoken = np.random.default_rng(0).permutation(len(SPOKEN))
    for first, second in itertools.pairwise(spoken):
        (family, *one), (other, *two) = SPOKEN[first], SPOKEN[second]
        if TRAINED[family] is not TRAINED[other]:
            alone = steps(None, statement(*one)), steps(None, statement(*two))
            assert steps(None, f"{statement(*one)}. {statement(*two)}") == alone[0] | alone[1]


@pytest.mark.parametrize("flaw", list(Flaw))
def test_statements_of_the_embedded_assessor(flaw):
    for severity, place, detail in itertools.product(Severity, REGIONS, DETAILS.get(flaw, ("",))):
        found = Finding(flaw, severity, 0.5, "signal", 1.0, 0.5, REGIONS[place], place, detail)
        expected = {(MEASURED[flaw], strength_of(severity), box_of(place), detail)}
        assert steps(wording.direction(found), wording.issue(found)) == expected


def test_a_picture_without_findings_asks_for_nothing():
    for place in REGIONS:
        assert steps(wording._directions((), place), wording._issues(())) == set()
