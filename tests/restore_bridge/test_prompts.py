"""Budgets: the worthiest whole phrases, the user's always, and a report of the rest."""

from __future__ import annotations

import pytest

from restore_bridge.guidance import split_text
from restore_bridge.prompts import BUDGETS, EncoderBudget, compose, estimate_tokens, find_budget
from zoomiqa.errors import OptionInvalid
from zoomiqa.limits import Limits
from zoomiqa.vocabulary import TERMS, Flaw

LONG = " ".join(
    f"The {thing} would possess crisp, defined edges and natural texture."
    for thing in (
        "roof",
        "tree",
        "car",
        "window",
        "river",
        "bridge",
        "tower",
        "cloud",
        "stone",
        "fence",
        "lamp",
        "door",
    )
)


@pytest.mark.parametrize("name", [name for name, budget in BUDGETS.items() if budget.tokens])
def test_budget_holds_and_cuts_are_whole_and_reported(name):
    guidance = split_text(LONG, "Severe noise. Slight blur.")
    prompts = compose(guidance, name)
    assert prompts.positive_tokens <= BUDGETS[name].tokens
    assert prompts.negative_tokens <= BUDGETS[name].tokens
    given = {phrase.text for phrase in guidance.positive}
    cut = {cut.text for cut in prompts.cut}
    assert all((text in prompts.positive) != (text in cut) for text in given)


def test_users_words_stay_even_over_budget():
    words = "a very long wish about this photograph " * 10
    prompts = compose(split_text(LONG, None, prompt=words), EncoderBudget("tiny", 12))
    assert prompts.positive.startswith("a very long wish")
    assert [note.code for note in prompts.notes] == ["prompt-over-budget"]


def test_quality_tail_comes_last_and_is_cut_first():
    roomy, tight = (compose(split_text("Crisp edges.", "Noise."), EncoderBudget("e", size)) for size in (75, 4))
    assert roomy.positive.endswith("true colour")
    assert tight.positive == "crisp edges"


def test_worth_orders_phrases():
    prompts = compose(split_text(None, "Slight noise. Severe blur."), "none", quality=False)
    assert prompts.negative == "severe blur, slight noise"


def test_tokenizer_is_used_when_given():
    prompts = compose(
        split_text("Crisp edges. Natural colours.", None), EncoderBudget("e", 2), count=lambda text: len(text.split())
    )
    assert prompts.positive == "crisp edges"
    assert prompts.report["counted_by"] == "tokenizer"


def test_character_limit():
    prompts = compose(split_text(LONG, None), "none", limits=Limits(prompt_characters=100))
    assert len(prompts.positive) <= 100
    assert prompts.cut


def test_regional_phrases_stand_apart():
    prompts = compose(split_text(None, "Severe noise in the upper left. Slight blur."), "clip", quality=False)
    assert prompts.negative == "slight blur"
    assert [(part.box_fraction, part.negative) for part in prompts.regional] == [
        ((0.0, 0.0, 0.4, 0.4), "severe noise in the upper left")
    ]


def test_one_prompt_holds_what_was_said_of_parts():
    guidance = split_text(
        "Reduce the noise at the top.", "Severe noise in the upper left. Slight blur. Haze at the top."
    )
    prompts = compose(guidance, "clip", regions="folded", quality=False)
    assert prompts.positive == TERMS[Flaw.NOISE].wanted
    assert prompts.negative == "severe noise, haze, slight blur"
    assert prompts.regional == compose(guidance, "clip", quality=False).regional


def test_parts_compete_for_the_one_budget_by_worth_before_the_tail():
    guidance = split_text(None, "Severe motion blur in the upper left. Moderate noise. Slight haze at the top.")
    prompts = compose(guidance, EncoderBudget("tiny", 6), regions="folded")
    assert prompts.negative == "severe motion blur"
    assert [cut.text for cut in prompts.cut if cut.side == "negative"][:2] == ["moderate noise", "slight haze"]


def test_a_second_look_reaches_the_one_prompt():
    guidance = split_text(None, "Severe motion blur. Heavy noise.", (0.2, 0.2, 0.6, 0.6))
    assert compose(guidance, "clip", regions="folded", quality=False).negative == "severe motion blur, heavy noise"


@pytest.mark.parametrize(
    ("issues", "sent"),
    [
        ("It is not sharp.", "blur"),
        ("No sharp detail anywhere.", "blur"),
        ("The picture lacks contrast.", "low contrast"),
        ("Too little contrast.", "low contrast"),
        ("Poor composition.", "poor composition"),
    ],
)
def test_a_known_lack_is_sent_by_its_name(issues, sent):
    assert compose(split_text(None, issues), "clip", quality=False).negative == sent


def test_a_lack_of_nothing_known_is_left_out_and_reported():
    guidance = split_text(None, "No watermark. Noise.")
    prompts = compose(guidance, "clip", quality=False)
    assert (prompts.negative, [(cut.text, cut.reason) for cut in prompts.cut]) == (
        "noise",
        [("no watermark", "negation")],
    )
    assert "no watermark" in compose(guidance, "t5-300", quality=False).negative
    assert compose(split_text(None, None, negative="no watermark"), "clip", quality=False).negative == "no watermark"


@pytest.mark.parametrize("positions", [120, 256, 300, 512])
def test_a_budget_of_t5_leaves_room_for_the_end_mark(positions):
    assert find_budget(f"t5-{positions}").tokens == positions - 1


def test_clip_gets_no_negation():
    guidance = split_text(None, "A general lack of sharpness pervades the entire composition.")
    assert compose(guidance, "clip", quality=False).negative == TERMS[Flaw.BLUR].phrase
    assert compose(guidance, "t5-120", quality=False).negative == "general lack of sharpness"


def test_unknown_budget():
    with pytest.raises(OptionInvalid, match="choose one of"):
        find_budget("clipp")


def test_estimate_counts_every_word():
    assert estimate_tokens("sharp focus, 8k") >= 4
    assert estimate_tokens("") == 0
