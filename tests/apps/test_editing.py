"""Phrases as lines and back."""

import numpy as np
import pytest

from apps.service.editing import edited_guidance, lines_of
from apps.service.settings import ServiceSettings
from apps.service.tasks import RestoreTask
from apps.service.work import Bench
from restore_bridge.guidance import split_guidance, split_text
from tests.restore_bridge.test_bridge import Brighten, judge, reply
from zoomiqa import assess
from zoomiqa.imaging import encode_picture
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


def test_edited_lines_hold_in_the_first_round_and_later_ones_have_their_own(tmp_path):
    bench = Bench(ServiceSettings(folder=tmp_path))
    replies = [reply(2.0), reply(3.0, "Severe blur across the whole frame."), reply(2.5)]
    bench._assessors["compact"], bench._restorers["classical"] = judge(*replies), Brighten()
    file = tmp_path / "photo.png"
    file.write_bytes(encode_picture(np.full((80, 100, 3), 90, np.uint8), ".png"))
    task = RestoreTask(assessor="compact", restorer="classical", candidates=1, loop=2, negative="slight banding")
    result = bench.do(task, [file], ("photo.png",), tmp_path / "out", lambda event: None)
    asked = [[item["text"] for item in one["guidance"]["negative"]] for one in result["record"]["rounds"]]
    assert asked == [["slight banding"], ["severe blur across the whole frame"]]
