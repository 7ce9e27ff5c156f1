"""The zoom: what is asked, in which order, and what comes out."""

import json
from dataclasses import dataclass

import pytest

from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import ConversationSettings, converse, default_prompts
from zoomiqa.types import ImagePart, Reply, Sampling, TextPart


@dataclass(frozen=True)
class Sheet:
    """A picture of which only the size is known."""

    size: tuple[int, int] = (400, 300)


def reply(rating=3.0, tool="final", box=(0, 0, 0, 0)):
    return (
        "<think>Image Quality Summary: S.\nDirections for Improvement: D.\nIssues to Avoid: I.\n"
        "Decision & Rationale: R.</think>"
        f"<answer>{json.dumps({'bbox_2d': list(box), 'rating': rating, 'tool': tool})}</answer>"
    )


def drive(replies, settings=None, picture=None):
    """All requests made, and the assessment."""
    talk = converse(picture or Sheet(), settings)
    requests, request = [], next(talk)
    for text in replies:
        requests.append(request)
        try:
            request = talk.send(text if isinstance(text, Reply) else Reply(text))
        except StopIteration as stop:
            return requests, stop.value
    raise AssertionError("the conversation wanted another reply")


CROP = reply(3.0, "crop", (0.1, 0.1, 0.7, 0.7))


def test_one_look():
    requests, assessment = drive([reply(4.2)])
    message = requests[0].messages[0]
    assert [type(part) for part in message.parts] == [TextPart, ImagePart], "prompt text, then the picture"
    assert assessment.rating == 4.2
    assert assessment.score == 80.0
    assert len(assessment.rounds) == 1


def test_the_rewritten_second_round():
    """the released protocol: bare question; whole first reply; prompt, original, crop."""
    settings = ConversationSettings(question="How good?")
    requests, assessment = drive([CROP, reply(2.5)], settings)
    asked, answered, now = requests[1].messages
    assert (asked.role, asked.text) == ("user", "How good?")
    assert (answered.role, answered.text) == ("assistant", CROP)
    prompt, label, original, crop_label, crop = now.parts
    assert prompt.text == default_prompts().later_text("How good?", more_looks=False)
    assert (label.text, crop_label.text) == ("Original image: ", "Cropped Image: ")
    assert original == ImagePart()
    assert crop.box.to_list() == [40, 30, 280, 210]
    assert crop.size == (400, 300)
    assert assessment.rating == 2.5
    assert [look.rating for look in assessment.rounds] == [3.0, 2.5]
    assert assessment.rounds[0].box == assessment.rounds[1].shown_box == crop.box == assessment.box


def test_the_appended_second_round():
    settings = ConversationSettings(context="appended")
    requests, _ = drive([CROP, reply()], settings)
    first, answered, now = requests[1].messages
    assert first == requests[0].messages[0]
    assert answered.text == CROP
    assert [part.text if isinstance(part, TextPart) else part for part in now.parts][1:2] == ["Cropped Image: "]
    assert len([part for part in now.parts if isinstance(part, ImagePart)]) == 1


@pytest.mark.parametrize("context", ["rewritten", "appended"])
def test_n_rounds(context):
    settings = ConversationSettings(rounds=4, context=context)
    second = reply(2.8, "crop", (0.3, 0.3, 0.95, 0.95))
    requests, assessment = drive([CROP, second, reply(2.0)], settings)
    assert [request.round_index for request in requests] == [0, 1, 2]
    assert assessment.rating == 2.0
    assert [look.shown_box.to_list() if look.shown_box else None for look in assessment.rounds] == [
        None,
        [40, 30, 280, 210],
        [120, 90, 380, 285],
    ]
    prompts = default_prompts()
    for request in requests[1:]:
        assert prompts.later_open.split("\n")[0] in request.messages[-1].text
    expected_turns = 5
    assert len(requests[2].messages) == expected_turns
    if context == "appended":
        boxes = [part.box for message in requests[2].messages for part in message.parts if isinstance(part, ImagePart)]
        assert [box.to_list() if box else None for box in boxes] == [None, [40, 30, 280, 210], [120, 90, 380, 285]]


def test_the_last_round_stops_asking_and_says_so():
    _, assessment = drive([CROP, reply(2.4, "crop", (0.2, 0.2, 0.9, 0.9))])
    assert assessment.rating == 2.4
    assert [note.code for note in assessment.notes] == ["rounds-exhausted"]


def test_one_round_only_takes_the_first_rating():
    _, assessment = drive([CROP], ConversationSettings(rounds=1))
    assert assessment.rating == 3.0
    assert assessment.notes == ()


@pytest.mark.parametrize(
    ("tool", "box", "crops"),
    [
        ("crop", (0.1, 0.1, 0.9, 0.9), True),
        ("zoom", (0.1, 0.1, 0.9, 0.9), True),
        ("final", (0.1, 0.1, 0.9, 0.9), False),
        ("Final", (0.1, 0.1, 0.9, 0.9), False),
        ("crop", (0, 0, 0, 0), False),
        ("crop", (0.1, 0.2), True),
    ],
)
def test_what_asks_for_a_crop(tool, box, crops):
    replies = [reply(3.0, tool, box), reply()]
    requests, _ = drive(replies[: 1 + crops])
    assert len(requests) == 1 + crops


def test_a_first_reply_that_cannot_route_is_scored_as_it_stands():
    _, assessment = drive(["<think>x</think><answer>{'rating': 2.9}</answer>"])
    assert assessment.rating == 2.9
    assert assessment.error is None


def test_a_first_reply_without_a_rating_is_a_failure():
    _, assessment = drive(["I cannot see any picture."])
    assert assessment.rating is None
    assert assessment.score is None
    assert assessment.error["code"] == "ZIQ-201"


def test_a_failed_second_round_is_a_failure_and_never_a_number():
    _, assessment = drive([CROP, "<answer>no idea</answer>"])
    assert assessment.rating is None
    assert assessment.error["code"] == "ZIQ-201"
    assert assessment.rounds[0].rating == 3.0, "what was seen before is kept"


def test_a_backend_error_is_kept_with_its_code():
    error = {"code": "ZIQ-401", "type": "BackendFailed", "message": "no"}
    _, assessment = drive([CROP, Reply("", finish_reason="error", error=error)])
    assert assessment.error == error
    assert len(assessment.rounds) == 1


def test_strict_settings_refuse_a_repair():
    _, assessment = drive(["<think>x</think><answer>4.1</answer>"], ConversationSettings(strict=True))
    assert assessment.error["code"] == "ZIQ-201"
    assert assessment.rating is None


def test_a_missing_section_is_taken_from_the_look_before():
    second = (
        reply(2.0)
        .replace("Directions for Improvement: D.\n", "")
        .replace("Issues to Avoid: I.", "Issues to Avoid: New.")
    )
    _, assessment = drive([CROP, second])
    assert assessment.positive == "D."
    assert assessment.negative == "New."


def test_requests_carry_the_picture_and_the_sampling():
    sampling, picture = Sampling(temperature=0.0, seed=7), Sheet()
    requests, _ = drive([reply()], ConversationSettings(sampling=sampling), picture)
    assert requests[0].sampling is sampling
    assert requests[0].picture is picture


def test_a_reply_cut_at_the_token_limit_is_noted():
    _, assessment = drive([Reply(reply(), finish_reason="length")])
    assert "reply-length" in [note.code for note in assessment.rounds[0].notes]


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"rounds": 9}, {"context": "other"}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(OptionInvalid):
        ConversationSettings(**settings)
