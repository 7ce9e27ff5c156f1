"""What the split makes of sentences: tables, the paper's printed replies, and what no phrase may ever hold."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore_bridge.actions import Operation, plan_actions
from restore_bridge.guidance import split_guidance, split_text
from restore_bridge.textclean import FORBIDDEN, sanitise
from zoomiqa.types import Assessment, Box, Finding, ImageInfo, Round, Sections
from zoomiqa.vocabulary import TERMS, Flaw, Severity

SHARED = Path(os.environ.get("ZOOMIQA_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))

NEGATIVE = [
    ("There is heavy noise in the shadows.", ["heavy noise in the shadows"]),
    ("Avoid harsh glare on the glass.", ["harsh glare on the glass"]),
    ("The image suffers from banding.", ["banding"]),
    ("The sky suffers from banding.", ["banding in the sky"]),
    ("Colours are dull.", ["dull colours"]),
    ("The image is very dark and lacks detail.", ["very dark image"]),
    ("Slight blur and severe noise.", ["severe noise", "slight blur"]),
    ("Noise, blur, and banding.", ["noise", "blur", "banding"]),
    ("A strong yellow cast covers the whole frame.", ["strong yellow cast"]),
    (
        "Minor artifacts from compression; digital artifacts compromise the edges of the roof.",
        ["digital artifacts", "minor artifacts from compression"],
    ),
    ("Motion blur obscures the fine detail across the leaves.", ["motion blur across the leaves"]),
    ("There is no visible noise.", []),
    ("The photo is free of blur.", []),
]

POSITIVE = [
    ("The leaves would possess crisp edges.", ["leaves with crisp edges"]),
    ("Reduce the noise in the sky.", [f"{TERMS[Flaw.NOISE].wanted} in the sky"]),
    ("Remove the blur.", [TERMS[Flaw.BLUR].wanted]),
    ("The image should be brighter.", ["brighter image"]),
    (
        "Achieving sharp focus would render the veins highly detailed.",
        ["sharp focus rendering the veins highly detailed"],
    ),
    ("The fork would be detailed without harsh glare.", ["detailed fork"]),
    ("Use a faster shutter speed.", []),
]


@pytest.mark.parametrize(("sentence", "phrases"), NEGATIVE)
def test_negative_sentences_become_noun_phrases(sentence, phrases):
    found = [phrase.text for phrase in split_text("sharp", sentence).negative if phrase.origin == "model"]
    assert sorted(found) == sorted(phrases)


@pytest.mark.parametrize(("sentence", "phrases"), POSITIVE)
def test_positive_sentences_become_wanted_states(sentence, phrases):
    assert [phrase.text for phrase in split_text(sentence, "noise").positive if phrase.origin == "model"] == phrases


@pytest.mark.parametrize(
    ("words", "severity"),
    [
        ("slight noise", Severity.SLIGHT),
        ("minor noise", Severity.SLIGHT),
        ("noticeable noise", Severity.MODERATE),
        ("visible noise", Severity.MODERATE),
        ("heavy noise", Severity.SEVERE),
        ("pervasive noise", Severity.SEVERE),
        ("noise", None),
    ],
)
def test_severity_words(words, severity):
    assert split_text(None, words).negative[0].severity is severity


@pytest.mark.parametrize(
    ("words", "region"),
    [
        ("noise in the upper left", "upper left"),
        ("noise in the bottom right corner", "lower right"),
        ("noise on the left side", "left side"),
        ("noise in the sky at the top", "top"),
        ("noise in the foreground", "whole frame"),
        ("noise on the left side of the car", "whole frame"),
        ("noise in the centre of the image", "centre"),
        ("noise in the middle tones", "whole frame"),
        ("blur in the right eye", "whole frame"),
        ("The top of the image is blurry.", "top"),
        ("The left side of the photo is underexposed.", "left side"),
    ],
)
def test_places(words, region):
    assert split_text(None, words).negative[0].region == region


@pytest.mark.parametrize(
    ("issues", "found"),
    [
        (
            "Noise in the lower left, upper right, and center.",
            {(Flaw.NOISE, "lower left"), (Flaw.NOISE, "upper right"), (Flaw.NOISE, "centre")},
        ),
        (
            "Blown highlights on the left and on the right.",
            {(Flaw.OVEREXPOSURE, "left side"), (Flaw.OVEREXPOSURE, "right side")},
        ),
        (
            "Motion blur in the background at the top left and noise at the bottom right.",
            {(Flaw.MOTION_BLUR, "upper left"), (Flaw.NOISE, "lower right")},
        ),
        ("Blur and noise in the upper left.", {(Flaw.BLUR, "upper left"), (Flaw.NOISE, "upper left")}),
        ("Noise in the upper left and blur.", {(Flaw.NOISE, "upper left"), (Flaw.BLUR, "whole frame")}),
        (
            "The lower left corner is too dark and noisy.",
            {(Flaw.UNDEREXPOSURE, "lower left"), (Flaw.NOISE, "lower left")},
        ),
        ("Overexposed sky at the top, and blur on the left.", {(Flaw.OVEREXPOSURE, "top"), (Flaw.BLUR, "left side")}),
        ("Blur, noise and haze at the top.", {(Flaw.BLUR, "top"), (Flaw.NOISE, "top"), (Flaw.HAZE, "top")}),
    ],
)
def test_each_flaw_has_its_own_places(issues, found):
    assert {(phrase.flaw, phrase.region) for phrase in split_text(None, issues).negative} == found


def test_one_wording_in_two_boxes_is_two_phrases():
    looks = [
        Round(0, "", Sections(issues="Slight blur."), 3.0, "crop"),
        Round(1, "", Sections(issues="Severe noise. Slight blur."), 3.0, "crop", shown_box=Box(0, 0, 50, 50)),
        Round(2, "", Sections(issues="Severe noise."), 3.0, "final", shown_box=Box(50, 50, 100, 100)),
    ]
    found = split_guidance(Assessment(tuple(looks), 3.0, image=ImageInfo(None, None, 100, 100))).negative
    assert {(phrase.text, phrase.box_fraction) for phrase in found} == {
        ("slight blur", None),
        ("severe noise", (0.0, 0.0, 0.5, 0.5)),
        ("severe noise", (0.5, 0.5, 1.0, 1.0)),
    }


@pytest.mark.parametrize(
    ("directions", "operations"),
    [
        ("Increase contrast and reduce noise", "denoise stretch"),
        ("To improve the image, reduce the noise and increase the contrast.", "denoise stretch"),
        ("Sharper focus, less noise, better contrast and brighter shadows.", "denoise deblur lift stretch"),
        ("Sharp, noise-free, evenly lit portrait with natural skin tones.", "denoise"),
        ("Reduce noise without introducing blur.", "denoise"),
        ("Remove compression artifacts without over-sharpening the edges.", "deblock"),
        ("Reduce the noise while preserving the natural film grain and soft background blur.", "denoise"),
        ("Reduce the noise in the upper left and sharpen the eyes; keep the soft background blur.", "denoise deblur"),
        ("Sharpen the subject, but avoid halos and oversharpening.", "deblur"),
        ("The photo should not be so dark.", "lift"),
        ("It shouldn't look noisy.", "denoise"),
        ("Keep the noise low.", "denoise"),
        ("Highlights should stay as they are, not darker.", ""),
        ("Use noise reduction in the shadows.", "denoise"),
        ("Decrease the exposure and boost the overall contrast.", "tame stretch"),
        ("I would recommend sharpening the image and denoising it.", "denoise deblur"),
        ("It could be improved by increasing the sharpness and by reducing the noise.", "denoise deblur"),
        ("Reduce noise: the sky is rough.", "denoise"),
        ("The image should be darker on the left side and brighter on the right side.", "lift tame"),
        ("The image would be sharp, detailed and free of noise.", "denoise"),
        ("Do not add blur. Avoid halos.", ""),
    ],
)
def test_each_wish_of_a_direction_is_read(directions, operations):
    plan = plan_actions(split_text(directions, None))
    assert " ".join(str(action.operation) for action in plan) == operations


@pytest.mark.parametrize(
    ("directions", "phrases"),
    [
        (
            "Sharp, noise-free, evenly lit portrait with natural skin tones.",
            [TERMS[Flaw.NOISE].wanted, "sharp", "evenly lit portrait with natural skin tones"],
        ),
        (
            "Reduce the noise while preserving the natural film grain and soft background blur.",
            [TERMS[Flaw.NOISE].wanted, "natural film grain and soft background blur"],
        ),
        ("Denoise the sky. Apply dehazing.", [f"{TERMS[Flaw.NOISE].wanted} in the sky", TERMS[Flaw.HAZE].wanted]),
        ("Colours should be improved, with richer greens.", ["improved colours", "richer greens"]),
        ("The photo should not be so dark.", [TERMS[Flaw.UNDEREXPOSURE].wanted]),
        (
            "The image should be free of JPEG artifacts, with natural skin tones.",
            [TERMS[Flaw.BLOCKING].wanted, "image with natural skin tones"],
        ),
        (
            "The ideal image would be noise-free, crisp and well-lit.",
            [TERMS[Flaw.NOISE].wanted, "crisp and well-lit image"],
        ),
        ("Make the image sharper.", ["sharper"]),
        (
            "Ensure that the eyes are sharp, the skin is free from noise, and the sky is clear.",
            [TERMS[Flaw.NOISE].wanted, "sharp eyes", "clear sky"],
        ),
        ("Crisp, well-defined edges on the buildings.", ["crisp, well-defined edges on the buildings"]),
    ],
)
def test_each_wish_of_a_direction_is_a_phrase(directions, phrases):
    assert [phrase.text for phrase in split_text(directions, "noise").positive] == phrases


@pytest.mark.parametrize(
    ("prompt", "flaws"),
    [
        ("remove the blur but keep the noise", (Flaw.BLUR,)),
        ("portrait, film grain, soft focus", ()),
        ("Sharper eyes. Less noise.", (Flaw.BLUR, Flaw.NOISE)),
    ],
)
def test_own_words_ask_wish_by_wish(prompt, flaws):
    assert split_text(None, None, prompt=prompt).positive[0].flaws == flaws


def test_not_severe_is_slight():
    assert split_text(None, "Blur is not severe.").negative[0].severity is Severity.SLIGHT


@pytest.mark.parametrize("nothing", ["None", "N/A", "No improvements needed.", "No issues to avoid.", "1. None."])
def test_a_section_that_says_nothing_gets_the_defaults(nothing):
    guidance = split_text(nothing, nothing)
    assert {phrase.origin for phrase in guidance.phrases} == {"default"}


def test_what_is_not_read_is_noted():
    clause = "Noise in the sky and " + "the very long clause about trees " * 22 + "and blur"
    for guidance in (split_text(None, clause), split_text(None, "Noise.", prompt="portrait, " * 500)):
        assert "guidance-text-cut" in [note.code for note in guidance.notes]


def test_source_span_points_at_the_words():
    issues = "1) There is heavy noise. The sky shows banding."
    for phrase in split_text(None, issues).negative:
        assert phrase.span is not None
        assert issues[slice(*phrase.span)] == phrase.source


def test_later_round_belongs_to_its_box_unless_it_says_whole_frame():
    rounds = (
        Round(0, "", Sections(issues="Slight blur."), 3.0, "crop", box=Box(50, 0, 100, 50)),
        Round(
            1,
            "",
            Sections(issues="Severe noise. Banding across the entire image. Blocking in the upper left."),
            3.0,
            "final",
            shown_box=Box(50, 0, 100, 50),
        ),
    )
    guidance = split_guidance(Assessment(rounds, 3.0, image=ImageInfo(None, None, 100, 100)))
    boxes = {phrase.flaw: phrase.box_fraction for phrase in guidance.negative}
    assert boxes[Flaw.BLUR] is None
    assert boxes[Flaw.BANDING] is None
    assert boxes[Flaw.NOISE] == (0.5, 0.0, 1.0, 0.5)
    assert boxes[Flaw.BLOCKING] == pytest.approx((0.5, 0.0, 0.7, 0.2))


def test_missing_sections_give_marked_defaults_that_ask_for_no_repair():
    guidance = split_text(None, None)
    assert {phrase.origin for phrase in guidance.phrases} == {"default"}
    assert {note.code for note in guidance.notes} == {"guidance-default-positive", "guidance-default-negative"}
    assert plan_actions(guidance) == ()


def test_users_words_come_first():
    guidance = split_text("Sharp edges.", "Severe noise.", prompt="a red bicycle", negative="watermark")
    assert guidance.positive[0].text == "a red bicycle"
    assert guidance.negative[0].text == "watermark"


def test_repetitions_are_dropped_whatever_their_case():
    assert len(split_text(None, "Severe noise. SEVERE NOISE. severe noise!").negative) == 1


def test_warning_is_in_the_prompt_but_asks_for_no_repair():
    guidance = split_text(None, "Avoid introducing halos.")
    assert guidance.negative[0].text == "halos"
    assert plan_actions(guidance) == ()


def test_actions_follow_words_and_places():
    actions = plan_actions(split_text(None, "Slight blur. Severe noise in the upper left. A moderate blue cast."))
    summary = {action.operation: (action.strength, action.box_fraction, action.detail) for action in actions}
    assert summary[Operation.DEBLUR] == (0.4, None, "")
    assert summary[Operation.DENOISE] == (1.0, (0.0, 0.0, 0.4, 0.4), "")
    assert summary[Operation.BALANCE] == (0.7, None, "blue")


@pytest.mark.parametrize(
    "attack",
    [
        "<lora:x:9> noise",
        "((noise:99))",
        "[noise]",
        "noise\u202e\u2066hidden",
        "\x1b[31mnoise\x1b[0m",
        "**noise**",
        "(noise)1.9",
        "noise++",
        "<script>noise</script>",
        "noise\x00\x07",
    ],
)
def test_attacks_leave_plain_words(attack):
    text = split_text(None, attack).negative[0].text
    assert "noise" in text
    assert not set(text) & set(FORBIDDEN)
    assert text.isprintable()
    assert "lora" not in text


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120))
def test_sanitiser_is_idempotent_and_clean(text):
    once = sanitise(text)
    assert sanitise(once) == once
    assert not set(once) & set(FORBIDDEN)
    assert once.isprintable()


_PIECES = [
    "noise",
    "the image",
    "is",
    "(",
    ")",
    ":",
    "1.4",
    "<lora:a:1>",
    "would",
    "blur",
    ",",
    ".",
    "in the",
    "upper left",
    "\n- ",
    "**",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=25))
def test_phrases_never_hold_forbidden_characters(pieces):
    text = " ".join(pieces)
    for phrase in split_text(text, text, prompt=text, negative=text).phrases:
        assert not set(phrase.text) & set(FORBIDDEN)


def test_long_text_is_read_in_linear_time():
    split_text("would be, and the " * 1700, "there is no noise which is, " * 1100)


def _printed_replies() -> list[tuple[str, str]]:
    text = (SHARED / "paper" / "zoom-iqa-paper.txt").read_text(encoding="utf-8")
    text = re.sub(r"</?p>", "\n", text)
    pattern = r"Directions for Improvement:\s*([A-Z][^\n]+)\s+(?:3\) )?Issues to Avoid:\s*([A-Z][^\n]+)"
    return re.findall(pattern, text)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "paper").is_dir(), reason=f"no paper text under {SHARED}")
def test_replies_printed_in_the_paper():
    replies = _printed_replies()
    assert len(replies) >= 4
    frames = re.compile(
        r"\b(?:there is|would|should|the image|exhibits|compromises?|obscures?|pervades|causes)\b", re.IGNORECASE
    )
    found = set()
    for directions, issues in replies:
        guidance = split_text(directions, issues)
        assert {phrase.origin for phrase in guidance.phrases} == {"model"}
        for phrase in guidance.phrases:
            assert not frames.search(phrase.text), phrase.text
            assert len(phrase.text.split()) <= 26, phrase.text
        found |= {phrase.text for phrase in guidance.negative}
    assert {
        "extreme motion blur across all the green plant leaves",
        "general softness",
        "general lack of sharpness",
    } <= found


def test_an_assessor_that_measures_is_taken_at_its_last_word():
    blur = Finding(Flaw.BLUR, Severity.MODERATE, 0.5, "resolution", 0.3, 0.66)
    rounds = (
        Round(
            0, "", Sections(issues="Moderate blur is visible across the whole frame."), 3.0, "crop", findings=(blur,)
        ),
        Round(
            1, "", Sections(issues="No flaw is measurable in any region."), 3.4, "final", shown_box=Box(0, 0, 60, 60)
        ),
    )
    guidance = split_guidance(Assessment(rounds, 3.4, image=ImageInfo(None, None, 100, 100)))
    assert plan_actions(guidance) == (), "what the closer look refuted is not repaired"


@pytest.mark.parametrize(
    ("issues", "flaws"),
    [
        ("No flaw is measurable in any region.", []),
        ("None.", []),
        ("There are no significant issues.", []),
        ("No detail survives in the blown highlights.", [Flaw.OVEREXPOSURE]),
        ("No significant issues are visible except noise in the sky.", [Flaw.NOISE]),
    ],
)
def test_a_statement_that_nothing_is_wrong_is_no_flaw(issues, flaws):
    stated = [phrase.flaw for phrase in split_text(None, issues).negative if phrase.origin == "model"]
    assert stated == flaws


def test_a_measured_flaw_keeps_its_measured_box():
    box = (0.33, 0.24, 0.52, 0.92)
    blocking = Finding(Flaw.BLOCKING, Severity.SEVERE, 0.8, "blocking", 0.9, 0.15, box, "centre")
    look = Round(
        1,
        "",
        Sections(issues="Severe compression blocking is visible in the centre."),
        3.0,
        "final",
        shown_box=Box(30, 20, 100, 90),
        findings=(blocking,),
    )
    phrase = split_guidance(Assessment((look,), 3.0, image=ImageInfo(None, None, 100, 100))).negative[0]
    assert phrase.box_fraction == box
    assert (
        plan_actions(split_guidance(Assessment((look,), 3.0, image=ImageInfo(None, None, 100, 100))))[0].box_fraction
        == box
    )


def test_a_wish_has_the_measured_box_of_the_flaw_that_it_turns():
    box = (0.33, 0.24, 0.52, 0.92)
    noise = Finding(Flaw.NOISE, Severity.SEVERE, 0.8, "noise", 0.9, 0.15, box, "centre")
    sections = Sections(
        directions=f"The picture would show {TERMS[Flaw.NOISE].wanted} in the centre.",
        issues="Severe noise is visible in the centre.",
    )
    look = Round(0, "", sections, 3.0, "final", findings=(noise,))
    guidance = split_guidance(Assessment((look,), 3.0, image=ImageInfo(None, None, 100, 100)))
    assert {phrase.box_fraction for phrase in guidance.phrases} == {box}


def test_many_mentions_take_linear_time():
    import time

    start = time.process_time()
    split_text("Good.", "Noise.", prompt="noise and " * 20_000)
    assert time.process_time() - start < 2
