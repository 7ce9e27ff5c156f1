"""The box of a flaw in a map: the rectangle that holds most affected cells and least others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from zoomiqa.assessors.compact.diagnosis import SEARCHES, overlap
from zoomiqa.assessors.compact.places import Search, best_rectangle, find_place, is_unsharp_by_fault

NOISE = Search(4.0, True, 0.6, 1.5, 0.0)


def slow_best(scores):
    rows, columns = scores.shape
    return max(
        float(scores[top:bottom, left:right].sum())
        for top in range(rows)
        for bottom in range(top + 1, rows + 1)
        for left in range(columns)
        for right in range(left + 1, columns + 1)
    )


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(-2, 2)))
def test_no_rectangle_has_a_larger_sum(scores):
    (top, bottom, left, right), total = best_rectangle(scores)
    assert total == pytest.approx(scores[top:bottom, left:right].sum(), abs=1e-9)
    assert total == pytest.approx(slow_best(scores), abs=1e-9)


def noisy(inside=20.0, outside=0.5, box=(2, 5, 3, 7), shape=(8, 12)):
    cells = np.full(shape, outside, np.float32)
    cells[box[0] : box[1], box[2] : box[3]] = inside
    return cells


def test_the_place_is_the_affected_rectangle():
    place = find_place(noisy(), NOISE)
    assert place.box_fraction == pytest.approx((3 / 12, 2 / 8, 7 / 12, 5 / 8))
    assert (place.value, place.count, place.fill, place.outside, place.sides) == (20.0, 12, 1.0, 0.0, 0)
    assert place.around == 0.5
    assert place.share == pytest.approx(12 / 96)
    assert find_place(noisy(inside=3.0), NOISE) is None


def test_cells_that_the_flaw_only_touches_are_left_out():
    cells = noisy()
    cells[1, 3:7] = 6.0  # beyond the limit, far below the value inside
    assert find_place(cells, NOISE).box_fraction[1] == pytest.approx(2 / 8)


def test_a_hole_and_unknown_cells_do_not_split_a_place():
    cells = noisy()
    cells[3, 4] = 0.5
    cells[3, 5] = np.nan
    assert find_place(cells, NOISE).box_fraction == pytest.approx((3 / 12, 2 / 8, 7 / 12, 5 / 8))


def test_boxes_grow_but_not_beyond_the_map():
    grown = find_place(noisy(box=(0, 3, 0, 4)), Search(4.0, True, 0.6, 1.5, 0.5))
    assert grown.box_fraction == pytest.approx((0, 0, 4.5 / 12, 3.5 / 8))
    assert grown.sides == 2
    assert not grown.is_across


def test_nothing_known_is_no_place():
    assert find_place(np.full((4, 4), np.nan, np.float32), NOISE) is None


def sharpness(box, shape=(9, 14)):
    cells = np.full(shape, 0.95, np.float32)
    cells[box[0] : box[1], box[2] : box[3]] = 0.2
    return cells


def test_an_unsharp_patch_is_a_flaw_and_a_background_a_choice():
    edges = np.full((9, 14), 1.5, np.float32)
    patch = find_place(sharpness((2, 6, 4, 10)), SEARCHES["blur"])
    assert is_unsharp_by_fault(patch, edges)
    assert overlap(patch.box_fraction, (4 / 14, 2 / 9, 10 / 14, 6 / 9)) > 0.7
    for background in ((0, 4, 0, 14), (0, 9, 0, 6), (0, 9, 9, 14), (0, 2, 0, 14)):
        assert not is_unsharp_by_fault(find_place(sharpness(background), SEARCHES["blur"]), edges)
    speck = find_place(sharpness((4, 5, 5, 6)), SEARCHES["blur"])
    assert not is_unsharp_by_fault(speck, None)


def test_an_unsharp_place_that_fades_into_the_rest_is_a_background():
    edges = np.full((9, 14), 1.5, np.float32)
    sudden = np.full((9, 14), 0.95, np.float32)
    sudden[3:6, 4:8] = 0.3
    fading = sudden.copy()
    fading[2:7, 3:9] = np.minimum(fading[2:7, 3:9], 0.5)
    places = [find_place(cells, SEARCHES["blur"]) for cells in (sudden, fading)]
    assert [place.step for place in places] == pytest.approx([np.log(0.95 / 0.3), np.log(0.5 / 0.3)], abs=1e-5)
    assert [is_unsharp_by_fault(place, edges) for place in places] == [True, False]


def test_a_place_that_fills_the_map_has_no_step():
    place = find_place(np.full((4, 6), 0.2, np.float32), SEARCHES["blur"])
    assert (place.step, place.unknown, place.around) == (0.0, 0.0, 0.0)


def test_cells_with_nothing_to_measure_are_counted():
    cells = sharpness((2, 6, 4, 10))
    cells[3:5, 5:8] = np.nan
    assert find_place(cells, SEARCHES["blur"]).unknown == pytest.approx(6 / 24)
