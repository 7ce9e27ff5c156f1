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
