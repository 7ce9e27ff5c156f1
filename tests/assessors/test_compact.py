"""The embedded assessor: looks twice, says what it measured and nothing else, keeps its promises on odd pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from zoomiqa import assess, create_assessor, picture_from_array
from zoomiqa.assessors.compact import wording
from zoomiqa.imaging.distortions import distort
from zoomiqa.imaging.signals import SIGNALS
from zoomiqa.types import Finding
from zoomiqa.vocabulary import REGIONS, TERMS, Flaw, Severity, find_flaws, name_region

PHOTO = np.ascontiguousarray(data.astronaut())


def test_it_looks_twice_and_zooms_within_bounds():
    assessment = assess(PHOTO)
    first, second = assessment.rounds
    assert (first.tool, second.tool) == ("crop", "final")
    assert first.box == second.shown_box
    assert 0.25 <= first.box.area / (512 * 512) <= 0.75
    assert assessment.rating == second.rating
    assert assessment.spread == second.spread > 0
    assert first.notes == second.notes == (), "its replies keep the format to the letter"


def test_a_small_picture_holds_nothing_more_to_see():
    assessment = assess(PHOTO[:200, :280])
    assert [look.tool for look in assessment.rounds] == ["final"]


def test_it_says_what_it_is():
    info = create_assessor().info
    assert info.name == "compact"
    assert "no language model" in info.description


@pytest.mark.parametrize("operation", ["gaussian_blur", "gaussian_noise", "jpeg", "low_light"])
def test_every_stated_flaw_has_a_finding_with_signal_and_place(operation):
    assessment = assess(distort(PHOTO, operation, 4, seed=2).pixels)
    for look in assessment.rounds:
        stated = [flaw for flaw, _ in find_flaws(look.sections.issues or "")]
        known = {finding.flaw: finding for finding in look.findings}
        assert set(stated) <= set(known)
        for finding in look.findings:
            assert finding.signal in SIGNALS
            assert finding.region in REGIONS
            assert 0 < finding.strength <= 1
    assert stated, "a strong flaw is stated"


@pytest.mark.parametrize("operation", ["gaussian_blur", "gaussian_noise", "low_light"])
def test_the_rating_falls_with_the_flaw(operation):
    ratings = [assess(PHOTO).rating] + [
        assess(distort(PHOTO, operation, level, seed=2).pixels).rating for level in (2, 4)
    ]
    assert ratings[0] > ratings[1] > ratings[2]


def test_the_same_picture_gives_the_same_record():
    assert assess(PHOTO).to_dict() == assess(PHOTO.copy()).to_dict()


@settings(max_examples=15)
@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.integers(0, 2**32 - 1))
def test_odd_sizes_and_contents_are_rated(size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    assessment = assess(pixels)
    assert 1 <= assessment.rating <= 5
    assert assessment.error is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (40, 2000)])
def test_extreme_shapes(shape):
    """C8 6."""
    assert assess(np.full((*shape, 3), 120, np.uint8)).rating is not None


def test_many_pictures_through_one_assessor_keep_their_own_findings():
    noisy = picture_from_array(distort(PHOTO, "gaussian_noise", 4, seed=1).pixels)
    clean = picture_from_array(PHOTO)
    together = list(create_assessor().assess([noisy, clean, noisy]))
    assert together[0].to_dict() == together[2].to_dict()
    assert together[1].to_dict() == next(create_assessor().assess([clean])).to_dict()


@pytest.mark.parametrize("flaw", Flaw)
@pytest.mark.parametrize("region", ["whole frame", "lower right"])
def test_words_name_exactly_the_flaw_they_are_made_from(flaw, region):
    finding = Finding(flaw, Severity.SEVERE, 0.9, "x", 1.0, 0.5, REGIONS[region], region)
    assert [found for found, _ in find_flaws(wording.issue(finding))] == [flaw]
    assert find_flaws(wording.direction(finding)) == [], "directions hold wanted properties only"
    assert wording.where(region) in wording.issue(finding)


def test_every_flaw_has_terms_and_every_region_a_place():
    assert set(TERMS) == set(Flaw)
    for region in REGIONS:
        assert wording.where(region)


@pytest.mark.parametrize(
    ("rating", "word"), [(5, "excellent"), (4.24, "good"), (3.0, "fair"), (2.0, "poor"), (1.0, "bad")]
)
def test_verdicts(rating, word):
    assert wording.verdict(rating) == word


@pytest.mark.parametrize(
    ("box", "name"),
    [
        ((0, 0, 1, 1), "whole frame"),
        ((0.25, 0.25, 0.75, 0.75), "centre"),
        ((0, 0, 0.67, 0.67), "upper left"),
        ((0.33, 0.33, 1, 1), "lower right"),
        ((0.165, 0, 0.83, 0.67), "top"),
        ((0, 0.3, 0.3, 0.7), "left side"),
    ],
)
def test_regions_by_name(box, name):
    assert name_region(box) == name
