"""Boxes between pixels and fractions, and what an assessment says of itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Box, score_from_rating


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
