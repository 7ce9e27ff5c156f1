"""What a text on flaws reports, denies, and only warns of."""

import time

import pytest

from zoomiqa.statements import asserted, is_denied, praises, sentences, stated_flaws, without_label
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
        ("Noise: none. Blur: severe. Banding: N/A.", (Flaw.BLUR,)),
        ("Noise and blur are absent.", ()),
        ("Noise is not a problem here.", ()),
        ("Noise is well controlled.", ()),
        ("Banding is not visible.", ()),
        ("There is no motion blur and no noise, only slight haze.", (Flaw.HAZE,)),
        ("Free of noise but blurry in the corners.", (Flaw.BLUR,)),
        ("The picture is free from noise, blur and banding.", ()),
        ("No blur or noise is noticeable.", ()),
        ("no noise, some blur, heavy banding", (Flaw.BLUR, Flaw.BANDING)),
        ("Blur is severe and noise is absent.", (Flaw.BLUR,)),
        ("Without noise reduction, the picture looks grainy.", (Flaw.NOISE,)),
        ("The image has good sharpness and low noise.", ()),
        ("Noise levels are low. Noise is very low.", ()),
        ("Noise (severe). Blur (none).", (Flaw.NOISE,)),
        ("Low light noise.", (Flaw.UNDEREXPOSURE, Flaw.NOISE)),
        ("It is not sharp.", (Flaw.BLUR,)),
        ("It isn't very sharp and it lacks contrast.", (Flaw.BLUR, Flaw.LOW_CONTRAST)),
        ("No sharp detail anywhere.", (Flaw.BLUR,)),
        ("No detail survives in the blown highlights.", (Flaw.OVEREXPOSURE,)),
        ("A noise-free image.", ()),
        ("### Issues\n* blur\n* noise", (Flaw.BLUR, Flaw.NOISE)),
        ("**Noise:**\nNone.\n\n**Blur**\nSevere in the corners.", (Flaw.BLUR,)),
        ("| Flaw | Severity |\n|---|---|\n| Noise | severe |\n| Blur | none |", (Flaw.NOISE,)),
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
    assert [text[start:end] for start, end in sentences(text)] == ["Blur is visible.", "Noise;", "banding!"]


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("1. **Reduce noise**\n2. Improve contrast", ["**Reduce noise**", "Improve contrast"]),
        ("a. banding\n(b) blur\n- [ ] haze", ["banding", "blur", "haze"]),
        ("(1) blur (2) noise", ["blur", "(2) noise"]),
        ("Issue 1: blur. Issue 2: noise.", ["blur.", "noise."]),
        ("### Issues\n---\nThe main problems:\n* blur", ["blur"]),
        ("| Flaw | Severity |\n|:--|--:|\n| Noise | severe |", ["Noise | severe"]),
        ("### Noise\nVisible in the sky.", ["### Noise\nVisible in the sky."]),
        ("- **Noise**\n- **Blur** in the sky", ["**Noise**", "**Blur** in the sky"]),
        ("1. 2. 3. a !", []),
    ],
)
def test_list_marks_headings_and_rules_are_no_clauses(text, clauses):
    assert [text[start:end] for start, end in sentences(text)] == clauses


@pytest.mark.parametrize(
    ("clause", "said"),
    [
        ("Noise: severe in the sky", "severe noise in the sky"),
        ("**Noise**: none.", "noise is none."),
        ("Compression: none", ""),
        ("Noise: visible grain", "visible grain"),
        ("Noise: the sky looks rough", "noise in the sky"),
        ("Exposure: the sky is dark", "the sky is dark"),
        ("In the upper left: heavy noise.", "heavy noise in the upper left"),
        ("Yellow cast | Moderate | upper left", "moderate yellow cast, upper left"),
        ("Noise | 7/10", "noise"),
        ("There is a problem: severe noise", "There is a problem: severe noise"),
    ],
)
def test_labels_become_part_of_the_sentence(clause, said):
    assert without_label(clause) == said


@pytest.mark.parametrize(
    ("clause", "is_praise"),
    [
        ("The white balance is accurate.", True),
        ("Everything is sharp, clean and well exposed", True),
        ("The compression is not an issue.", True),
        ("The white balance is not accurate.", False),
        ("The sky is fine but noisy.", False),
        ("The horizon is tilted.", False),
    ],
)
def test_praise_is_no_flaw(clause, is_praise):
    assert praises(clause) is is_praise


def test_what_holds_beside_a_denial():
    assert asserted("no noise, but distracting clutter in the background") == ["distracting clutter in the background"]
    assert asserted("severe blur and grain") == ["severe blur and grain"]
    assert asserted("the picture has no noise, some blur and haze, no banding") == ["some blur and haze"]


@pytest.mark.parametrize("text", [" " * 30_000, f"a{' ' * 30_000}b", f"reduce{' ' * 30_000}:", f"|{' ' * 30_000}|x"])
def test_gaps_are_read_in_linear_time(text):
    start = time.process_time()
    assert stated_flaws(text) == ()
    assert time.process_time() - start < 2


def test_a_long_text_is_read_in_time():
    text = "no " * 50_000 + "noise. " + "Strong blur. " * 5_000
    assert stated_flaws(text) == (Flaw.BLUR,)
