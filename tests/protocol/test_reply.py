"""Reading replies: the format, its repairs, and each note."""

import json

import pytest

from zoomiqa.errors import ReplyUnusable
from zoomiqa.limits import Limits
from zoomiqa.protocol import parse_reply

RATIONALE = (
    "Image Quality Summary: Clear. Good.\nDirections for Improvement: The face is crisp.\n"
    "Issues to Avoid: Noise in the sky.\nDecision & Rationale: Sure."
)
ANSWER = '{"bbox_2d": [0, 0, 0, 0], "rating": 3.50, "tool": "final"}'


def reply(answer=ANSWER, rationale=RATIONALE):
    return f"<think>{rationale}</think><answer>{answer}</answer>"


def codes(parsed):
    return [note.code for note in parsed.notes]


def test_a_reply_in_the_format_is_strict_and_has_no_note():
    parsed = parse_reply(reply())
    assert parsed.is_strict
    assert parsed.notes == ()
    assert (parsed.rating, parsed.box_model, parsed.tool) == (3.5, [0, 0, 0, 0], "final")
    assert parsed.sections.directions == "The face is crisp."
    assert parsed.sections.issues == "Noise in the sky."


@pytest.mark.parametrize(
    "heading",
    [
        "Issues to Avoid:",
        "3) Issues to Avoid:",
        "3. Issues to Avoid:",
        "**Issues to Avoid:**",
        "**Issues to Avoid**:",
        "## Issues to Avoid\n",
        "Issues to Avoid (negative-only, grounded):",
        "3) Issues to Avoid (negative-only):",
        "ISSUES TO AVOID :",
        "  **3) Issues to Avoid (grounded):** ",
        "- Issues to Avoid:",
    ],
)
def test_headings_in_all_their_forms(heading):
    text = (
        f"Image Quality Summary: Fair.\nDirections for Improvement: Bright.\n{heading} Noise.\n"
        "Decision & Rationale: Ok."
    )
    sections = parse_reply(reply(rationale=text)).sections
    assert sections.issues == "Noise."
    assert sections.directions == "Bright."


def test_headings_without_line_breaks_between_them():
    text = (
        "Image Quality Summary: Fair. Directions for Improvement: Bright. Issues to Avoid: Noise."
        " Decision and Rationale: Done."
    )
    sections = parse_reply(reply(rationale=text)).sections
    assert sections.to_dict() == {
        "summary": "Fair.",
        "directions": "Bright.",
        "issues": "Noise.",
        "decision": "Done.",
    }


def test_a_heading_named_inside_a_sentence_is_no_heading():
    text = RATIONALE.replace("Sure.", "As the issues to avoid are mild and the decision & rationale is short, sure.")
    parsed = parse_reply(reply(rationale=text))
    assert parsed.sections.issues == "Noise in the sky."
    assert parsed.sections.decision.endswith("short, sure.")


def test_later_round_headings():
    text = (
        "Crop Inspection Summary: Seen.\nDirections for Improvement: Crisp.\nIssues to Avoid: Grain.\n"
        "Final Decision & Rationale: Lowered."
    )
    assert parse_reply(reply(rationale=text)).sections.to_dict() == {
        "summary": "Seen.",
        "directions": "Crisp.",
        "issues": "Grain.",
        "decision": "Lowered.",
    }


MALFORMED = {
    # name: (reply, rating, box, tool, a note that must be there)
    "rating as text": (reply(ANSWER.replace("3.50", '"3.50"')), 3.5, [0, 0, 0, 0], "final", "rating-as-text"),
    "lines instead of JSON": (
        reply("\nBBox 2D: [0.1, 0.2, 0.8, 0.9]\nRating: 2.25\nTool: Crop\n"),
        2.25,
        [0.1, 0.2, 0.8, 0.9],
        "crop",
        "json-repaired",
    ),
    "single quotes": (
        reply("{'bbox_2d': [0,0,0,0], 'rating': 4.1, 'tool': 'final'}"),
        4.1,
        [0, 0, 0, 0],
        "final",
        "json-repaired",
    ),
    "trailing comma": (
        reply('{"bbox_2d": [0,0,0,0], "rating": 4.1, "tool": "final",}'),
        4.1,
        [0, 0, 0, 0],
        "final",
        "json-repaired",
    ),
    "code fence": (reply(f"```json\n{ANSWER}\n```"), 3.5, [0, 0, 0, 0], "final", "json-surrounded"),
    "missing brace": (reply(ANSWER.rstrip("}")), 3.5, [0, 0, 0, 0], "final", "json-repaired"),
    "bare number": (reply("4.60"), 4.6, None, None, "answer-bare-number"),
    "number of five": (reply(" 3.2/5 "), 3.2, None, None, "answer-bare-number"),
    "unclosed answer": (reply().removesuffix("</answer>"), 3.5, [0, 0, 0, 0], "final", "answer-unclosed"),
    "no answer tag": (f"<think>{RATIONALE}</think>{ANSWER}", 3.5, [0, 0, 0, 0], "final", "answer-tag-missing"),
    "no think tag": (f"{RATIONALE}<answer>{ANSWER}</answer>", 3.5, [0, 0, 0, 0], "final", "think-tag-missing"),
    "escaped closing tag": (reply().replace("</think>", "\\</think>"), 3.5, [0, 0, 0, 0], "final", None),
    "think closed by an opening tag": (
        reply().replace("</think>", "<think>"),
        3.5,
        [0, 0, 0, 0],
        "final",
        "think-tag-missing",
    ),
    "rating out of range": (reply(ANSWER.replace("3.50", "7.2")), 5.0, [0, 0, 0, 0], "final", "rating-clipped"),
    "negative rating": (reply(ANSWER.replace("3.50", "-3")), 1.0, [0, 0, 0, 0], "final", "rating-clipped"),
    "rating is true": (reply(ANSWER.replace("3.50", "true")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "rating is null": (reply(ANSWER.replace("3.50", "null")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "NaN": (reply(ANSWER.replace("3.50", "NaN")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "infinity": (reply(ANSWER.replace("3.50", "Infinity")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "infinite by exponent": (reply(ANSWER.replace("3.50", "1e999")), None, [0, 0, 0, 0], "final", "json-repaired"),
    "repeated key": (
        reply('{"rating": 1.0, "rating": 4.0, "bbox_2d": [0,0,0,0], "tool": "final"}'),
        1.0,
        [0, 0, 0, 0],
        "final",
        "json-repaired",
    ),
    "box of text": (reply(ANSWER.replace("[0, 0, 0, 0]", '"none"')), 3.5, "none", "final", "box-unusable"),
    "no box": (reply('{"rating": 3.0, "tool": "final"}'), 3.0, None, "final", "box-missing"),
    "no tool": (reply('{"rating": 3.0, "bbox_2d": [0,0,0,0]}'), 3.0, [0, 0, 0, 0], None, "tool-missing"),
    "another tool": (reply(ANSWER.replace("final", "Zoom")), 3.5, [0, 0, 0, 0], "zoom", "tool-unknown"),
    "two answers: the last counts": (
        reply(ANSWER.replace("3.50", "1.00")) + f"<answer>{ANSWER}</answer>",
        3.5,
        [0, 0, 0, 0],
        "final",
        None,
    ),
    "key in other letters": (
        reply(ANSWER.replace("rating", "Rating").replace("tool", "Tool")),
        3.5,
        [0, 0, 0, 0],
        "final",
        "json-repaired",
    ),
    "rating in words": (reply(ANSWER.replace("3.50", '"3.5 out of 5"')), 3.5, [0, 0, 0, 0], "final", "json-repaired"),
    "object in an object": (
        reply('{"answer": {"bbox_2d": [0.1, 0.1, 0.5, 0.5], "rating": 3.5, "tool": "crop"}}'),
        3.5,
        [0.1, 0.1, 0.5, 0.5],
        "crop",
        "json-repaired",
    ),
    "a sentence on ratings before the rating": (
        reply('{"reason": "A rating 2 was too low.", "Rating": 3.5, "bbox_2d": [0,0,0,0], "tool": "final"}'),
        3.5,
        [0, 0, 0, 0],
        "final",
        "json-repaired",
    ),
    "a sentence on ratings and none": (
        reply('{"reason": "A rating 2 was too low.", "rating": null, "bbox_2d": [0,0,0,0], "tool": "final"}'),
        None,
        [0, 0, 0, 0],
        "final",
        "rating-missing",
    ),
    "decimal comma": (reply(ANSWER.replace("3.50", "3,5")), 3.5, [0, 0, 0, 0], "final", "rating-comma"),
    "decimal comma as text": (reply(ANSWER.replace("3.50", '"3,5"')), 3.5, [0, 0, 0, 0], "final", "rating-comma"),
    "thousands": (reply(ANSWER.replace("3.50", "3,500")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "list of numbers": (reply(ANSWER.replace("3.50", "3,5,1")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "range": (reply(ANSWER.replace("3.50", '"3-4"')), None, [0, 0, 0, 0], "final", "rating-missing"),
    "one or the other": (reply(ANSWER.replace("3.50", "12 or 13")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "another scale": (reply(ANSWER.replace("3.50", "7/10")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "another scale in words": (
        reply(ANSWER.replace("3.50", '"4 out of 10"')),
        None,
        [0, 0, 0, 0],
        "final",
        "rating-missing",
    ),
    "our scale": (reply(ANSWER.replace("3.50", '"3.5 / 5.0"')), 3.5, [0, 0, 0, 0], "final", "json-repaired"),
    "version number": (reply(ANSWER.replace("3.50", "3.5.2")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "endless digits": (
        reply(ANSWER.replace("3.50", '"' + "1" * 60 + '"')),
        None,
        [0, 0, 0, 0],
        "final",
        "rating-missing",
    ),
    "endless exponent": (reply(ANSWER.replace("3.50", "1e99999")), None, [0, 0, 0, 0], "final", "rating-missing"),
    "list instead of object": (reply("[3.5]"), None, None, None, "rating-missing"),
    "empty answer": (reply(""), None, None, None, "rating-missing"),
    "empty reply": ("", None, None, None, "rating-missing"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_replies(name):
    """C8 26 and 30: each repair is defined and noted."""
    text, rating, box, tool, note = MALFORMED[name]
    parsed = parse_reply(text)
    assert (parsed.rating, parsed.box_model, parsed.tool) == (rating, box, tool)
    if note:
        assert note in codes(parsed)
        assert not parsed.is_strict


@pytest.mark.parametrize("name", [name for name, row in MALFORMED.items() if row[4]])
def test_strict_mode_refuses_what_would_be_repaired(name):
    with pytest.raises(ReplyUnusable) as caught:
        parse_reply(MALFORMED[name][0], strict=True)
    assert MALFORMED[name][4] in str(caught.value)


def test_attributes_are_kept_where_the_rating_is_read_by_name():
    parsed = parse_reply(reply(ANSWER.replace('"rating": 3.50', '"Rating": 3.50, "attributes": {"noise": 2}')),
                         attributes=["noise"])  # fmt: skip
    assert (parsed.rating, parsed.attributes) == (3.5, {"noise": 2.0})


def test_missing_sections_are_named():
    parsed = parse_reply(reply(rationale="Image Quality Summary: Fair.\nIssues to Avoid: Noise."))
    assert [note.message for note in parsed.notes] == ["The reasoning lacks: directions, decision."]
    assert parsed.sections.directions is None


def test_a_reasoning_without_headings_becomes_the_summary():
    parsed = parse_reply(reply(rationale="It is fine."))
    assert parsed.sections.summary == "It is fine."
    assert codes(parsed) == ["sections-missing"]


def test_a_long_reply_is_cut_with_a_note():
    parsed = parse_reply(reply() + "x" * 500, limits=Limits(reply_characters=400))
    assert "reply-cut" in codes(parsed)
    assert parsed.rating == 3.5


def test_unicode_case_folding_does_not_shift_positions():
    # "İ".lower() is two characters long; positions taken in the lowered text would be off by one per letter.
    parsed = parse_reply(reply(rationale=RATIONALE.replace("Clear", "İ" * 50)))
    assert parsed.rating == 3.5
    assert parsed.sections.decision == "Sure."


def test_json_numbers_survive_exactly():
    box = [0.123456789, 0.2, 0.8, 0.95]
    parsed = parse_reply(reply(json.dumps({"bbox_2d": box, "rating": 2.71, "tool": "crop"})))
    assert parsed.box_model == box
    assert parsed.rating == 2.71
