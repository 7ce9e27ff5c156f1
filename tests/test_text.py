"""Making untrusted text safe to show."""

import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoomiqa.text import plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x08b\x00c\x9bd", "abcd"),
        ("left\u202eright\u2066x", "leftrightx"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("naïve “quotes” – 画像", "naïve “quotes” – 画像"),
    ],
)
def test_escapes_and_controls_go(text, expected):
    """C8 49 and 52."""
    assert plain(text) == expected


def test_no_invisible_format_character_is_left():
    """Every character of category Cf and the whole block of tags, which can hide words from a person."""
    formats = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    assert "\u061c" in formats
    assert plain("a".join(formats)) == "a" * (len(formats) - 1)
    assert plain("x" + "".join(map(chr, range(0xE0000, 0xE0080))) + "y") == "xy"


def test_time_grows_with_length_only():
    start = time.perf_counter()
    assert plain("\x1b]" * 200_000 + "\u061c" * 200_000) == ""
    assert time.perf_counter() - start < 5


@given(st.text(st.sampled_from("\x1b[]0;m\x07\\P^_ a\x9b\u202e\u061c\U000e0041\r\n")))
def test_nothing_dangerous_is_left_and_twice_is_once(text):
    once = plain(text)
    assert "\x1b" not in once
    assert plain(once) == once
