"""Phrases as lines and back."""

import numpy as np
import pytest

from apps.service.editing import edited_guidance, lines_of
from restore_bridge.guidance import split_guidance, split_text
from zoomiqa import assess
from zoomiqa.imaging.distortions import distort

GUIDANCE = split_text("Sharper edges. Brighter shadows.", "Severe noise in the upper left. Slight blur. Colour cast.")


def test_untouched_lines_give_the_same_guidance():
    positive, negative = lines_of(GUIDANCE.positive), lines_of(GUIDANCE.negative)
    assert edited_guidance(GUIDANCE, positive, negative) is GUIDANCE
    assert edited_guidance(GUIDANCE, None, None) is GUIDANCE
    assert "[upper left]" in negative


def test_untouched_lines_of_a_measured_assessment():
    from skimage import data

    for name in ("gaussian_noise", "jpeg", "low_light"):
        pixels = distort(np.ascontiguousarray(data.astronaut()[:300, :300]), name, 4, seed=1).pixels
        guidance = split_guidance(assess(pixels))
        assert edited_guidance(guidance, lines_of(guidance.positive), lines_of(guidance.negative)) is guidance


def test_a_line_taken_away_is_not_asked_for():
    kept = [line for line in lines_of(GUIDANCE.negative).splitlines() if "noise" not in line]
    edited = edited_guidance(GUIDANCE, None, "\n".join(kept))
    assert edited.positive == GUIDANCE.positive
    assert [phrase.text for phrase in edited.negative] == kept
    assert all(phrase.origin == "model" for phrase in edited.negative)
    assert edited.notes[-1].code == "guidance-edited"


def test_a_line_of_ones_own_with_a_place():
    (phrase,) = edited_guidance(GUIDANCE, None, "moderate banding [Lower Right]").negative
    assert (phrase.origin, phrase.region, phrase.box_fraction) == ("user", "lower right", (0.6, 0.6, 1.0, 1.0))
    assert [str(flaw) for flaw in phrase.flaws] == ["banding"]
    assert str(phrase.severity) == "moderate"


@pytest.mark.parametrize("line", ["<lora:x:9> noise", "((noise:99))", "\u202enoise\x07 {embed}", "noise [nowhere]"])
def test_syntax_of_encoders_does_not_come_through(line):
    """C8 52, 53."""
    (phrase,) = edited_guidance(GUIDANCE, None, line).negative
    assert phrase.text.split()[0] == "noise"
    assert not set(phrase.text) & set("<>():[]{}\u202e\x07")


def test_no_more_lines_than_anyone_reads():
    edited = edited_guidance(GUIDANCE, "\n".join(f"wish number {number}" for number in range(1000)), None)
    assert len(edited.positive) <= 60
