"""Which tokens of a reply are the numbers of its answer: the candidates of KL-Coverage (Zoom-IQA Sec. 3.2).

The answer is found in the text that the tokens make together, since tags and braces share tokens with their
neighbours (Qwen writes `<answer>{"` as `><`, `answer`, `>{"`). Rules, with what the paper leaves open:

- The answer is what stands between the last complete pair of tags, as the reply parser has it; an answer that was never
  closed reaches to the end.
- A number is a JSON number with its sign and point, in the rating and in the box alike ("all numerical tokens"). Digits
  that belong to a word are none (`bbox_2d`, `2D`).
- A token is numeric if all it holds is part of one number; spaces around it do not matter.

It must not know probabilities. Any tokenizer of transformers will do; with byte-level ones a character that is split
over several tokens shows as replacement marks, which disturbs no tag and no number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

Pieces = Callable[[int], str]
"""From a token id to its text."""

_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![A-Za-z0-9_])")
_VOCABULARY = re.compile(r"\s?(?:[0-9]+|[.,-])")


def token_pieces(tokenizer: Any) -> Pieces:
    """The text of single tokens, remembered.

    Args:
        tokenizer: Of transformers. Ids beyond its vocabulary (padded models) are empty.
    """
    known: dict[int, str] = {}
    size = len(tokenizer)

    def piece(token: int) -> str:
        if token not in known:
            known[token] = tokenizer.decode([token], skip_special_tokens=False) if 0 <= token < size else ""
        return known[token]

    return piece


def numeric_in_answer(pieces: Sequence[str]) -> list[bool]:
    """For each piece of one reply, whether it is a numeric token of the answer."""
    text = "".join(pieces)
    start, end = _answer_span(text)
    numbers = [match.span() for match in _NUMBER.finditer(text, start, end)]
    found, position, index = [], 0, 0
    for piece in pieces:
        first = position + len(piece) - len(piece.lstrip())
        last = position + len(piece.rstrip())
        position += len(piece)
        while index < len(numbers) and numbers[index][1] < last:
            index += 1
        found.append(first < last and index < len(numbers) and numbers[index][0] <= first)
    return found


def _answer_span(text: str) -> tuple[int, int]:
    """Where the answer's content begins and ends; an empty span where there is none."""
    close = text.rfind("</answer>")
    opened = text.rfind("<answer>", 0, close if close >= 0 else None)
    if opened < 0:
        return 0, 0
    return opened + len("<answer>"), close if close >= 0 else len(text)


def numeric_mask(tokens: Tensor, valid: Tensor, piece: Pieces) -> Tensor:
    """The candidates of KL-Coverage in a batch of replies.

    Args:
        tokens: (rows, T) token ids.
        valid: (rows, T) 1 for generated tokens. Each unbroken run of them is one reply, so that rows of one look and
            rows with several (an appended context) are read alike.
        piece: From `token_pieces`.

    Returns:
        (rows, T) bool on the device of `tokens`.
    """
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, (ids, flags) in enumerate(zip(tokens.tolist(), valid.bool().tolist(), strict=True)):
        for start, end in _runs(flags):
            found = numeric_in_answer([piece(token) for token in ids[start:end]])
            mask[row, start:end] = torch.tensor(found)
    return mask.to(tokens.device)


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Half-open spans of consecutive set flags."""
    spans, start = [], 0
    for flag, run in groupby(flags):
        end = start + len(list(run))
        if flag:
            spans.append((start, end))
        start = end
    return spans


def numeric_vocabulary(tokenizer: Any) -> Tensor:
    """Ids of the tokens that can continue a number: digits, point, comma and minus, alone or after one space.

    (V,) in rising order; what `coverage.exact_penalty` compares distributions over. Qwen2.5's tokenizer has 16.
    """
    piece = token_pieces(tokenizer)
    return torch.tensor([token for token in range(len(tokenizer)) if _VOCABULARY.fullmatch(piece(token))])
