"""Ten thousand damaged replies through whole conversations: an assessment each, no exception, no wild number."""

import random
import time

import numpy as np
import pytest

from zoomiqa import ConversationalAssessor, ConversationSettings, ScriptedBackend, picture_from_array
from zoomiqa.limits import Limits
from zoomiqa.protocol import parse_reply
from zoomiqa.types import Assessment, Request

JUNK = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "{",
    "}",
    "[",
    "]",
    '"',
    ",",
    ":",
    "\\",
    "\x00",
    "\x1b[2J",
    "\u202e",
]
JUNK += [
    "NaN",
    "-1e999",
    "9" * 400,
    "rating",
    "bbox_2d",
    "tool",
    "crop",
    "null",
    "\ud800",
    "“",
    "Issues to Avoid:",
    "\n" * 50,
]


def reply(rating: float, tool: str, box: str) -> str:
    return (
        "<think>1) Image Quality Summary: A street at dusk, sharp in front and soft behind.\n"
        "**Directions for Improvement**: Crisp lettering on the sign, clean shadows under the cars.\n"
        "Issues to Avoid (negative-only, grounded): noise in the sky, motion blur on the bus.\n"
        "4) Decision & Rationale: The bus must be seen closely.</think>"
        f'<answer>{{"bbox_2d": {box}, "rating": {rating}, "tool": "{tool}"}}</answer>'
    )


REPLIES = [
    reply(3.15, "crop", "[0.12, 0.2, 0.61, 0.83]"),
    reply(2.4, "crop", "[10, 20, 100, 80]"),
    reply(4.6, "final", "[0, 0, 0, 0]"),
    "<think>Crop Inspection Summary: It is blurred.</think><answer>BBox 2D: [0.1, 0.1, 0.4, 0.5] Rating: 2.25",
]


def mutate(text: str, draw: random.Random) -> str:
    """One to six edits: cut, double, swap, replace, insert junk, change a digit."""
    for _ in range(draw.randint(1, 6)):
        if not text:
            return draw.choice(JUNK)
        at, to = sorted(draw.choices(range(len(text) + 1), k=2))
        match draw.randrange(6):
            case 0:
                text = text[:at] + text[to:]
            case 1:
                text = text[:to] + text[at:to][:2000] + text[to:]
            case 2:
                text = text[to:] + text[:at]
            case 3:
                text = text[:at] + draw.choice(JUNK) + text[min(len(text), at + draw.randint(0, 5)) :]
            case 4:
                text = text[:at] + draw.choice(JUNK) + text[at:]
            case 5:
                text = "".join(str(draw.randrange(10)) if c.isdigit() and draw.random() < 0.5 else c for c in text)
    return text


@pytest.mark.parametrize("context", ["rewritten", "appended"])
@pytest.mark.parametrize("seed", range(5))
def test_damaged_replies_end_in_an_assessment(seed, context):
    draw = random.Random(1000 + seed)
    picture = picture_from_array(np.zeros((90, 140, 3), np.uint8))

    def answer(request: Request) -> str:
        return mutate(draw.choice(REPLIES), draw)

    settings = ConversationSettings(rounds=draw.choice([2, 3]), context=context)
    assessor = ConversationalAssessor(ScriptedBackend(answer, batch_size=8), settings)
    results = list(assessor.assess(picture for _ in range(1000)))
    assert len(results) == 1000
    for result in results:
        assert isinstance(result, Assessment)
        assert (result.rating is None) == (result.error is not None)
        assert result.rating is None or 1 <= result.rating <= 5
        if result.error:
            assert result.error["code"] == "ZIQ-201"
        for look in result.rounds:
            if look.box:
                assert look.box.x2 <= 140
                assert look.box.y2 <= 90
    rated = sum(result.rating is not None for result in results)
    assert 100 < rated < 1000, "the mutations neither spare nor spoil everything"


def test_reading_takes_time_in_proportion_to_the_length():
    draw = random.Random(5)
    grown = "".join(mutate(draw.choice(REPLIES), draw) for _ in range(200))
    wide = Limits(reply_characters=10**9)

    def cost(text):
        start = time.process_time()
        for _ in range(5):
            parse_reply(text, limits=wide)
        return time.process_time() - start

    half, whole = (min(cost(grown[:length]) for _ in range(5)) for length in (len(grown) // 2, len(grown)))
    assert whole < 4 * half + 0.02
