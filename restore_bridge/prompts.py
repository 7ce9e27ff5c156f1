"""From guidance to text that an encoder can take. It must not know how text is encoded or what a restorer does.

Phrases go in by worth, the user's first; a quality tail comes last, after every phrase has had its chance. What does
not fit is left out whole, never half, and is reported. The user's own words are never left out: where they alone are
over the budget, the prompt goes beyond it and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from restore_bridge.guidance import Guidance, Phrase
from restore_bridge.places import without_places
from restore_bridge.textclean import sanitise
from zoomiqa.errors import OptionInvalid
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import BoxFraction, Note
from zoomiqa.vocabulary import TERMS

TokenCounter = Callable[[str], int]
Regions = Literal["separate", "folded"]

QUALITY_POSITIVE = ("high-resolution photograph", "natural texture", "true colour")
QUALITY_NEGATIVE = ("low quality", "deformed detail", "painting")
"""Tails, cut first."""

_SEPARATOR = ", "
_WORDS = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")


@dataclass(frozen=True, slots=True)
class EncoderBudget:
    """How much text an encoder reads."""

    name: str
    tokens: int | None
    """Usable tokens, without start and end marks; `None` means no bound but the character limit."""

    reads_negation: bool = False
    """Whether "lack of sharpness" is read as blur. CLIP sees the word "sharpness" and pushes away from it."""

    has_negative: bool = True
    """Whether it takes a negative prompt at all."""


BUDGETS: dict[str, EncoderBudget] = {
    budget.name: budget
    for budget in (
        EncoderBudget("clip", 75),
        EncoderBudget("clip-2", 150),
        EncoderBudget("clip-unlimited", None),
        EncoderBudget("t5-120", 119, reads_negation=True),
        EncoderBudget("t5-256", 255, reads_negation=True),
        EncoderBudget("t5-300", 299, reads_negation=True),
        EncoderBudget("t5-512", 511, reads_negation=True),
        EncoderBudget("none", None, reads_negation=True),
    )
}
"""CLIP reads 77 positions with two marks, in one or two chunks, or chunk by chunk without end; PixArt-alpha and DreamClear
120 T5 tokens, PixArt-Sigma and Sana 300, SD3 256, FLUX 512, each with an end mark. "none" is for restorers that read guidance, not a prompt."""  # noqa: E501


@dataclass(frozen=True, slots=True)
class Cut:
    """A phrase that did not go in."""

    text: str
    side: Literal["positive", "negative"]
    reason: str
    tokens: int


@dataclass(frozen=True, slots=True)
class RegionalPrompt:
    """The prompt of one part of the picture."""

    box_fraction: BoxFraction
    positive: str
    negative: str


@dataclass(frozen=True, slots=True)
class Prompts:
    """Ready text, and how it came about."""

    positive: str
    negative: str
    regional: tuple[RegionalPrompt, ...] = ()
    cut: tuple[Cut, ...] = ()
    positive_tokens: int = 0
    negative_tokens: int = 0
    budget: EncoderBudget = BUDGETS["none"]
    counted_by: str = "estimate"
    """"estimate" or "tokenizer"."""

    notes: tuple[Note, ...] = ()

    @property
    def report(self) -> dict[str, Any]:
        """What a log needs to say of this prompt."""
        return {
            "encoder": self.budget.name,
            "budget_tokens": self.budget.tokens,
            "counted_by": self.counted_by,
            "positive_tokens": self.positive_tokens,
            "negative_tokens": self.negative_tokens,
            "cut": [
                {"text": cut.text, "side": cut.side, "reason": cut.reason, "tokens": cut.tokens} for cut in self.cut
            ],
            "notes": [note.to_dict() for note in self.notes],
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "positive": self.positive,
            "negative": self.negative,
            "regional": [
                {"box_fraction": list(part.box_fraction), "positive": part.positive, "negative": part.negative}
                for part in self.regional
            ],
            "report": self.report,
        }


def estimate_tokens(text: str) -> int:
    """A cautious count without a tokenizer: one token per four letters of a word (at least one), digit and sign.

    English prompts take about 1.3 CLIP or T5 tokens a word; this counts about 1.5 to 1.9, so that a prompt that passes
    here passes with the tokenizer.
    """
    return sum(1 if len(piece) <= 4 else 1 + (len(piece) - 1) // 5 for piece in _WORDS.findall(text))


def find_budget(name: str) -> EncoderBudget:
    """The budget called `name`.

    Raises:
        OptionInvalid: there is none.
    """
    if name not in BUDGETS:
        raise OptionInvalid("there is no text budget of that name", name, f"choose one of {', '.join(BUDGETS)}")
    return BUDGETS[name]


def compose(
    guidance: Guidance,
    encoder: EncoderBudget | str = "clip",
    *,
    count: TokenCounter | None = None,
    quality: bool = True,
    regions: Regions = "separate",
    limits: Limits = LOCAL,
) -> Prompts:
    """Fill an encoder's budget with the worthiest phrases.

    Regional phrases go into the prompt of their box, after the user's words; boxes keep their own budget. Where there
    is room for one prompt only, `regions="folded"` lets them compete for it by worth, without the words for their
    place, which nothing there can point to.

    Args:
        count: Tokens of a text without start and end marks; `None` uses `estimate_tokens`.
        quality: Whether a general quality tail may fill what is left.
        regions: "separate" keeps regional phrases out of `positive` and `negative`; "folded" puts them in as well.
        limits: `prompt_characters` bounds each prompt as well.
    """
    budget = find_budget(encoder) if isinstance(encoder, str) else encoder
    counter = count or estimate_tokens
    cut: list[Cut] = []
    notes: list[Note] = []

    def fill(phrases: list[Phrase], side: Literal["positive", "negative"], tail: tuple[str, ...]) -> tuple[str, int]:
        chosen: list[str] = []
        for phrase in [*phrases, *(Phrase(words, side, "default") for words in tail)]:
            text = phrase.text
            if side == "negative" and not budget.reads_negation and phrase.origin != "user":
                text = _affirmed(phrase, notes)
                if text == phrase.text and _NEGATION.search(text):
                    cut.append(Cut(text, side, "negation", counter(text)))
                    continue
            if not text or text.casefold() in (kept.casefold() for kept in chosen):
                continue
            longer = _SEPARATOR.join([*chosen, text])
            tokens = counter(longer)
            if budget.tokens is not None and tokens > budget.tokens:
                reason = f"over the {budget.tokens} tokens of {budget.name}"
            elif len(longer) > limits.prompt_characters:
                reason = f"over the limit of {limits.prompt_characters} characters"
            else:
                chosen.append(text)
                continue
            if phrase.origin == "user":
                chosen.append(text)
                notes.append(Note("prompt-over-budget", f"the user's own words are {reason}; the encoder may cut them"))
            else:
                cut.append(Cut(text, side, reason, counter(text)))
        joined = _SEPARATOR.join(chosen)
        return joined, counter(joined) if joined else 0

    def side_of(phrases: tuple[Phrase, ...], box: BoxFraction | None) -> list[Phrase]:
        return [phrase for phrase in phrases if phrase.origin == "user" or phrase.box_fraction == box]

    def main_of(phrases: tuple[Phrase, ...]) -> list[Phrase]:
        return side_of(phrases, None) if regions == "separate" else [_folded(phrase) for phrase in phrases]

    tails = (QUALITY_POSITIVE, QUALITY_NEGATIVE) if quality else ((), ())
    positive, positive_tokens = fill(main_of(guidance.positive), "positive", tails[0])
    negative, negative_tokens = "", 0
    if budget.has_negative:
        negative, negative_tokens = fill(main_of(guidance.negative), "negative", tails[1])
    regional = []
    for box in dict.fromkeys(phrase.box_fraction for phrase in guidance.regional if phrase.origin != "user"):
        if box is not None:
            local_negative = fill(side_of(guidance.negative, box), "negative", ())[0] if budget.has_negative else ""
            regional.append(
                RegionalPrompt(box, fill(side_of(guidance.positive, box), "positive", ())[0], local_negative)
            )
    return Prompts(
        positive,
        negative,
        tuple(regional),
        tuple(dict.fromkeys(cut)),
        positive_tokens,
        negative_tokens,
        budget,
        "tokenizer" if count else "estimate",
        tuple(dict.fromkeys(notes)),
    )


_NEGATION = re.compile(
    r"\b(?:lack(?:s|ing)?|loss|absence|want|without|no|not|never|neither|nor|hardly|barely|\w+n't)\b", re.IGNORECASE
)
_LACK = re.compile(rf"{_NEGATION.pattern}|\b(?:insufficient|little|poor)\b", re.IGNORECASE)


def _affirmed(phrase: Phrase, notes: list[Note]) -> str:
    """A negative phrase that speaks of something missing, by the flaw's own name where it has one."""
    if phrase.flaw is None or not _LACK.search(phrase.text):
        return phrase.text
    text = sanitise(TERMS[phrase.flaw].phrase)
    notes.append(
        Note("prompt-affirmed", f"“{phrase.text}” is sent as “{text}”, because the encoder does not read negation")
    )
    return text


def _folded(phrase: Phrase) -> Phrase:
    """A regional phrase as it stands among those of the whole picture."""
    if phrase.box_fraction is None or phrase.origin == "user":
        return phrase
    return replace(phrase, text=sanitise(without_places(phrase.text)) or phrase.text)
