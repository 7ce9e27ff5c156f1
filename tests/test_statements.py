"""What a text on flaws reports, denies, and only warns of."""

import pytest

from zoomiqa.statements import is_denied, sentences, stated_flaws
from zoomiqa.vocabulary import Flaw


@pytest.mark.parametrize(
    ("text", "flaws"),
    [
        ("Severe noise in the shadows; slight blur on the edges.", (Flaw.NOISE, Flaw.BLUR)),
        ("There is no visible noise.", ()),
        ("The frame is free of blur, but strong noise is visible.", (Flaw.NOISE,)),
        ("There is no noise but heavy motion blur.", (Flaw.MOTION_BLUR,)),
        ("Not only noise but also blur.", (Flaw.NOISE, Flaw.BLUR)),
        ("No flaws apart from slight noise.", (Flaw.NOISE,)),
        ("None.", ()),
        ("Nothing wrong, no blur anywhere.", ()),
        ("Avoid adding halos.", ()),
        ("Additionally, avoid introducing banding. Avoid the blur.", (Flaw.BLUR,)),
        ("Issues to Avoid: low contrast. Low contrast again.", (Flaw.LOW_CONTRAST,)),
        ("", ()),
    ],
)
def test_stated_flaws(text, flaws):
    assert stated_flaws(text) == flaws


def test_denial_is_of_every_flaw():
    assert is_denied("no noise and no blur")
    assert not is_denied("no noise but blur")
    assert not is_denied("a fine photo"), "what is not mentioned is not denied"


def test_clauses_keep_their_place():
    text = "1. Blur is visible. Noise; banding!"
    assert [text[start:end] for start, end in sentences(text)] == ["1.", "Blur is visible.", "Noise;", "banding!"]


def test_a_long_text_is_read_in_time():
    text = "no " * 50_000 + "noise. " + "Strong blur. " * 5_000
    assert stated_flaws(text) == (Flaw.BLUR,)
