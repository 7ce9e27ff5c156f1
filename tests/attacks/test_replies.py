"""A reply is untrusted text: it may be built to be slow, to break the parser, or to lie about its numbers."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoomiqa.limits import Limits
from zoomiqa.protocol import parse_reply
from zoomiqa.protocol.reply import ParsedReply

WIDE = Limits(reply_characters=10**9)

ADVERSARIAL = {
    "opened answers": lambda n: "<answer>{" * (n // 9),
    "closed answers": lambda n: "</answer>" * (n // 9),
    "answer of braces": lambda n: "<answer>" + "{" * n,
    "braces both ways": lambda n: "<answer>" + "{}" * (n // 2) + "x</answer>",
    "headings": lambda n: "<think>" + "Issues to Avoid: " * (n // 17) + "</think>",
    "numbered stars": lambda n: "<think>" + "** 1) ** " * (n // 9),
    "spaces": lambda n: "<think>" + " " * n + "</think><answer>" + " " * n + "</answer>",
    "rating then spaces": lambda n: "<answer>rating" + " " * n,
    "ratings": lambda n: "<answer>" + "rating: " * (n // 8),
    "boxes": lambda n: "<answer>" + "bbox_2d: [" * (n // 10),
    "box of commas": lambda n: "<answer>box [" + "," * n + "]</answer>",
    "parentheses": lambda n: "Issues to Avoid (" * (n // 17),
    "digits": lambda n: "<answer>" + "9" * n + "</answer>",
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_one_megabyte_takes_linear_time(name):
    """C8 27: 1 MB below 0.2 s, and twice the length less than three times the time."""
    build = ADVERSARIAL[name]

    def cost(characters):
        text = build(characters)
        times = []
        for _ in range(3):
            start = time.process_time()
            parse_reply(text, limits=WIDE)
            times.append(time.process_time() - start)
        return min(times)

    single, double = cost(1_000_000), cost(2_000_000)
    assert single < 0.2
    assert double < 3 * single + 0.01


@pytest.mark.parametrize(
    "answer",
    [
        "[" * 100_000,
        '{"rating": ' + "9" * 5_000 + "}",
        '{"rating": 3.0, "bbox_2d": ' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"rating": 1e999999}',
        '{"rating": -Infinity, "bbox_2d": [NaN, 0, 0, 0], "tool": "crop"}',
        '{"a":' * 50_000,
        '{"rating": "' + "1" * 4_000 + '"}',
    ],
    ids=["deep list", "5,000 digits", "deep box", "overflow", "not finite", "deep object", "long text"],
)
def test_hostile_json_gives_no_number_and_no_exception(answer):
    """C8 28."""
    parsed = parse_reply(f"<think>x</think><answer>{answer}</answer>", limits=WIDE)
    assert parsed.rating is None or 1 <= parsed.rating <= 5


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [
                "<think>",
                "</think>",
                "<answer>",
                "</answer>",
                "{",
                "}",
                "[",
                "]",
                '"rating"',
                ":",
                "3.5",
                "NaN",
                ",",
                '"bbox_2d"',
                '"tool"',
                '"crop"',
                "Issues to Avoid:",
                "**",
                "1)",
                "\n",
                " ",
                "\x00",
                "İ",
                "\ud800",
                "1e400",
            ]
        ),
        max_size=60,
    ).map("".join)
    | st.text(max_size=300)
)
def test_the_parser_never_raises(text):
    parsed = parse_reply(text)
    assert isinstance(parsed, ParsedReply)
    assert parsed.rating is None or 1 <= parsed.rating <= 5
    assert parsed.is_strict == (not parsed.notes)
