"""Crop geometry: the published cases, the bounds, and what a hostile box does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoomiqa.protocol.geometry import MIN_SIDE_PX, is_zero, plan_crop

sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
coordinates = st.one_of(
    st.floats(0, 1), st.integers(-5000, 9000), st.floats(-1e6, 1e6, allow_nan=False), st.sampled_from([0, 1, 0.5])
)


@pytest.mark.parametrize(
    ("box_model", "size", "expected"),
    [
        ([0, 0, 100, 100], (100, 100), [6, 6, 93, 93]),
        ([40, 40, 50, 50], (100, 100), [20, 20, 70, 70]),
        ([-10, 90, 200, 90], (100, 100), [0, 72, 100, 100]),
        ([1, 0.5, 1, 0.5], (100, 80), [72, 18, 100, 62]),
        ([0, 0, 0, 0], (100, 80), [25, 20, 75, 60]),
        ([0.2, 0.4], (100, 80), [25, 20, 75, 60]),
    ],
)
def test_published_cases(box_model, size, expected):
    """C8 23: the released protocol's published boxes."""
    assert plan_crop(box_model, size).box.to_list() == expected


@pytest.mark.parametrize(
    ("box_model", "size", "expected"),
    [
        # Recorded from the released arithmetic, where rounding depends on the order of operations.
        ([0.35934672497766296, 0.027962507215271715, 0.9911345336284342, 0.42528075221634], (34, 44), [5, 0, 34, 28]),
        ([0.5, 0.5, 1, 0.2], (31, 42), [2, 1, 31, 29]),
        ([11, 15, 29, 28], (31, 20), [2, 0, 31, 20]),
        ([41, 36, 15, 4], (37, 4), [8, 0, 37, 4]),
    ],
)
def test_rounding_follows_the_released_order(box_model, size, expected):
    assert plan_crop(box_model, size).box.to_list() == expected


@pytest.mark.parametrize(
    "box_model",
    [
        None,
        "0,0,1,1",
        [1, 2, 3],
        [0.1, 0.1, 0.5, float("nan")],
        [0, 0, float("inf"), 1],
        [True, 0, 1, 1],
        ["0", "0", "1", "1"],
        [10**400, 0, 1, 1],
        {"x": 1},
        [[0, 0, 1, 1]] * 4,
    ],
)
def test_unusable_boxes_show_the_centre_with_a_note(box_model):
    """C8 25: NaN, infinity, booleans, text and huge numbers are no coordinates."""
    plan = plan_crop(box_model, (400, 200))
    assert plan.box.to_list() == [100, 50, 300, 150]
    assert plan.size == (200, 100), "the fallback is cropped and not resized"
    assert [note.code for note in plan.notes] == ["crop-box-unusable"]


def test_reversed_and_outside_boxes_are_noted():
    plan = plan_crop([300, 250, -50, 20], (400, 300))
    assert "crop-box-clamped" in [note.code for note in plan.notes]
    straight = plan_crop([-50, 20, 300, 250], (400, 300))
    assert plan.box == straight.box


@given(size=sizes, box_model=st.lists(coordinates, min_size=4, max_size=4))
def test_a_crop_lies_inside_and_keeps_its_bounds(size, box_model):
    """C8 24: inside the picture, at least 28 px where the picture allows, shown inside the original size."""
    width, height = size
    plan = plan_crop(box_model, size)
    box = plan.box
    assert 0 <= box.x1 < box.x2 <= width
    assert 0 <= box.y1 < box.y2 <= height
    if not is_zero(box_model):
        assert box.width >= min(MIN_SIDE_PX, width) - 1
        assert box.height >= min(MIN_SIDE_PX, height) - 1
        assert plan.size[0] == width or plan.size[1] == height, "shown as large as fits"
    assert 1 <= plan.size[0] <= width
    assert 1 <= plan.size[1] <= height


@given(size=st.tuples(st.integers(200, 3000), st.integers(200, 3000)), data=st.data())
def test_inner_boxes_within_bounds_are_kept(size, data):
    """A box whose area is allowed is shown as asked, to within a pixel of truncation."""
    side = data.draw(st.floats(0.55, 0.8))
    left = data.draw(st.floats(0.01, 0.99 - side))
    top = data.draw(st.floats(0.01, 0.99 - side))
    box = plan_crop([left, top, left + side, top + side], size).box
    back = box.to_fraction(size)
    for wanted, got, length in zip((left, top, left + side, top + side), back, size * 2, strict=True):
        assert math.isclose(wanted, got, abs_tol=1.01 / length)
