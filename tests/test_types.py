"""Boxes between pixels and fractions, and what an assessment says of itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Assessment, Box, Finding, ImageInfo, Round, Sections, failed, score_from_rating
from zoomiqa.vocabulary import Flaw, Severity


@given(st.integers(1, 5000), st.integers(1, 5000), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_the_pixel_box_covers_the_fractions(width, height, edges):
    x1, x2 = sorted(edges[:2])
    y1, y2 = sorted(edges[2:])
    box = Box.from_fraction((x1, y1, x2, y2), (width, height))
    assert 0 <= box.x1 < box.x2 <= width
    assert 0 <= box.y1 < box.y2 <= height
    assert box.x1 <= x1 * width + 1e-6
    assert box.x2 >= x2 * width - 1e-6
    assert box.y2 >= y2 * height - 1e-6


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_there_and_back_is_the_same_box(width, height, data):
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(x1, y1, data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height)))
    assert Box.from_fraction(box.to_fraction((width, height)), (width, height)) == box


@pytest.mark.parametrize("corners", [(5, 0, 5, 3), (-1, 0, 3, 3), (4, 0, 2, 3)])
def test_a_box_without_area_is_refused(corners):
    with pytest.raises(OptionInvalid):
        Box(*corners)


@pytest.mark.parametrize(("rating", "score"), [(1.0, 0.0), (5.0, 100.0), (3.25, 56.25), (None, None)])
def test_scores(rating, score):
    assert score_from_rating(rating) == score


def test_an_assessment_is_read_back_from_its_record():
    finding = Finding(Flaw.NOISE, Severity.SEVERE, 0.5, "noise_sigma", 7.25, 3.0, (0.0, 0.0, 0.5, 0.5), "upper left")
    first = Round(0, "", Sections(directions="Crisp leaves.", issues="Severe noise."), 2.5, None, findings=(finding,))
    second = Round(1, "", Sections(summary="Grain."), 2.25, None, shown_box=Box(1, 2, 30, 40))
    image = ImageInfo("a.png", "0" * 64, 64, 48, "PNG")
    assessment = Assessment((first, second), 2.25, image=image)
    assert Assessment.from_dict(assessment.to_dict()) == assessment
    error = failed({"code": "ZIQ-101", "type": "ImageUnreadable", "message": "no picture"}, image=image)
    assert Assessment.from_dict(error.to_dict()) == error
