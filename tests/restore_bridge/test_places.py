"""Places as people write them, and what only looks like one."""

from __future__ import annotations

import pytest

from restore_bridge.places import at_each_place, find_places, without_places
from zoomiqa.vocabulary import REGIONS, where


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("noise in the lower left, upper right, and center", [("lower left", "upper right", "centre")]),
        ("blown highlights on the left and on the right", [("left side", "right side")]),
        ("blur at the top left and noise at the bottom right", [("upper left",), ("lower right",)]),
        ("noise in the lower-left and lower-right corners", [("lower left", "lower right")]),
        ("the left and right edges are soft", [("left side", "right side")]),
        ("The top of the image is blurry", [("top",)]),
        ("The left side of the photo is underexposed", [("left side",)]),
        ("noise in the bottom right-hand corner", [("lower right",)]),
        ("noise in the upper third of the frame", [("top",)]),
        ("in the centre, left untouched", [("centre",)]),
        ("detail at the top stays crisp", [("top",)]),
        ("noise in the middle tones", []),
        ("blur in the right eye", []),
        ("the left and right eye are soft", []),
        ("a ring on the left hand", []),
        ("noise on the left side of the car", []),
        ("noise on the car's left side", []),
        ("his left side is blurred", []),
        ("the right exposure", []),
        ("top quality", []),
    ],
)
def test_places_of_a_text(text, names):
    assert [mention.names for mention in find_places(text)] == names


def test_each_place_stands_alone_in_its_own_text():
    assert at_each_place("noise in the lower left, upper right, and center") == [
        ("noise in the lower left", "lower left"),
        ("noise in the upper right", "upper right"),
        ("noise in the centre", "centre"),
    ]
    assert at_each_place("noise in the very top, it seems") == [("noise in the very top, it seems", "top")]
    assert at_each_place("noise in the sky") == []


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("severe noise in the upper left", "severe noise"),
        ("noise in the lower left, upper right, and center", "noise"),
        ("noise at the top and blur at the bottom", "noise and blur"),
        ("noise in the sky", "noise in the sky"),
        ("brighter image on the right side of the frame", "brighter image"),
    ],
)
def test_text_without_its_places(text, rest):
    assert without_places(text) == rest


def test_every_region_is_read_back_from_its_words():
    for name in REGIONS:
        expected = [] if name == "whole frame" else [(name,)]
        assert [mention.names for mention in find_places(f"noise {where(name)}")] == expected
