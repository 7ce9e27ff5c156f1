"""What Refine-IQA's thinking reward needs to know: is the true rating more likely after the thinking?

For a sample's last reply, two texts end where the first decimal of the rating stands, with the true rating written up
to there: the reply itself, and the same answer after an empty `<think>`. The probability of the true digit next is read
in both from the model; here the texts are made into rows with that one token to be scored.

Choices: the digits are put in the place of the sampled ones, as in the released script; the thinking of an earlier look
stays in the context of a later one in both texts; a reply without a rating in its answer has no such probability. The
probability is that of the policy as it samples (at its temperature). It must not know models or rewards.
"""

from __future__ import annotations

import re
from typing import Any

from zoomiqa.rewards import first_decimal

from .rollout import SampledReply
from .rows import Row

_RATING = re.compile(r'"rating"\s*:\s*"?(?=[0-9.])')


def probes(look: SampledReply, rating: float, tokenizer: Any) -> tuple[Row, Row] | None:
    """The row with the reply's own thinking and the one without; `None` where the reply states no rating.

    Args:
        look: The last reply of a sample.
        rating: The true one, 1..5.
        tokenizer: Of transformers.
    """
    opened = look.text.rfind("<answer>")
    found = _RATING.search(look.text, opened) if opened >= 0 else None
    if found is None:
        return None
    digit = first_decimal(rating)
    answer = look.text[opened : found.end()] + f"{rating:.2f}"[:2]
    own = _row(look, look.text[:opened] + answer, digit, tokenizer)
    empty = _row(look, "<think></think>" + answer, digit, tokenizer)
    return None if own is None or empty is None else (own, empty)


def _row(look: SampledReply, text: str, digit: str, tokenizer: Any) -> Row | None:
    """The prompt, `text` and the digit, which alone is scored; `None` where the digit is no token of its own there."""
    before = tokenizer.encode(text, add_special_tokens=False)
    after = tokenizer.encode(text + digit, add_special_tokens=False)
    if len(after) != len(before) + 1 or after[:-1] != before:
        return None
    end = int(look.prompt["input_ids"].shape[1]) + len(after)
    return Row(look.prompt, tuple(after), ((end - 1, end),))
