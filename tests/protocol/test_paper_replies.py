"""The replies printed in the paper: figures 12 and 13, and table 6, whose answers are not JSON."""

import re

import pytest

from tests.shared import need
from zoomiqa.protocol import parse_reply

pytestmark = pytest.mark.shared

EXPECTED = {
    # rating: (sections present, tool, is the answer JSON, a word of the issues)
    2.25: (4, "final", False, "noise"),
    1.75: (4, "final", False, "softness"),
    4.18: (4, "final", True, "sharpness"),
    2.29: (4, "final", True, "motion blur"),
    4.60: (1, None, False, None),
    3.92: (1, None, True, None),
    1.00: (1, None, False, None),
    1.80: (1, None, True, None),
}


@pytest.fixture(scope="module")
def replies():
    text = need("paper/zoom-iqa-paper.txt").read_text("utf-8")
    text = re.sub(r"</?p>", "\n", text[text.index("Table 6. Example") :])
    pieces = text.split("</answer>")[:-1]
    return [piece[piece.index("<think>") :] + "</answer>" for piece in pieces if "<answer>" in piece]


def test_every_printed_reply_is_read(replies):
    parsed = {}
    for reply in replies:
        start = reply.rfind("<think> ") if reply.count("<think>") > 1 else 0
        result = parse_reply(reply[max(start, 0) :])
        parsed[result.rating] = result
    assert set(parsed) == set(EXPECTED)
    for rating, (sections, tool, is_json, word) in EXPECTED.items():
        result = parsed[rating]
        assert sum(text is not None for text in result.sections.to_dict().values()) == sections, rating
        assert result.tool == tool
        codes = {note.code for note in result.notes}
        assert is_json == codes.isdisjoint({"json-repaired", "answer-bare-number"})
        if word:
            assert word in result.sections.issues
        if tool == "final":
            assert list(result.box_model) == [0, 0, 0, 0]


def test_the_replies_of_the_method_itself_are_strict(replies):
    ours = [reply for reply in replies if '"tool": "final"' in reply]
    assert len(ours) == 2
    for reply in ours:
        assert parse_reply(reply[reply.rindex("<think>") :], strict=True).is_strict
