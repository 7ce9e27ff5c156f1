"""Sampled conversations as training rows: token ids, pictures, and which tokens the model wrote.

A row is one context with everything the model wrote in it. A later look with a rewritten context (the released
protocol) is a row of its own, as its context does not continue the first one's. Where it does (an appended context),
both looks share one row: the later prompt begins with the very tokens of the earlier prompt and reply. Whether it does
is seen from the tokens, not from a setting; where the chat template writes the earlier reply with other tokens than
were drawn, there are two rows, which is exact too.

Rows are padded on the right; positions are those of the *predicted* token, so a tensor of T = length - 1 columns holds
at column t what belongs to token t + 1. Valid (1) are tokens that the model wrote, in `<think>` and `<answer>` alike;
prompts, crops, pictures and padding are 0. It must not know rewards, losses or trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..objectives.tokens import Pieces, numeric_mask  # noqa: TID252
from .rollout import SampledReply

IGNORED = -100
"""Label of a token that is not scored."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One context of one trajectory."""

    prompt: Mapping[str, Tensor]
    """The processor's output for everything before the last reply."""

    tokens: tuple[int, ...]
    """The last reply."""

    written: tuple[Span, ...]
    """Half-open spans of the row's tokens that the model wrote, the last reply's included."""

    log_probs: tuple[float, ...] | None = None
    """Of the written tokens, in order, as another engine drew them."""

    @property
    def length(self) -> int:
        """Tokens, the pictures' included."""
        return int(self.prompt["input_ids"].shape[1]) + len(self.tokens)

    def ids(self) -> Tensor:
        """(length,) token ids."""
        prompt = self.prompt["input_ids"][0]
        return torch.cat([prompt, torch.tensor(self.tokens, dtype=prompt.dtype)])


def rows_of(looks: Sequence[SampledReply]) -> list[Row]:
    """The training rows of one trajectory, one per context, in order."""
    rows: list[Row] = []
    for look in looks:
        start = int(look.prompt["input_ids"].shape[1])
        span = (start, start + len(look.tokens))
        earlier = rows[-1] if rows else None
        if earlier is not None and _begins_with(look.prompt["input_ids"][0], earlier.ids()):
            rows.pop()
            drawn = None if earlier.log_probs is None or look.log_probs is None else earlier.log_probs + look.log_probs
            rows.append(Row(look.prompt, look.tokens, (*earlier.written, span), drawn))
        else:
            rows.append(Row(look.prompt, look.tokens, (span,), look.log_probs))
    return rows


def silent(row: Row) -> Row:
    """The same context with nothing to learn from: for a process that would otherwise have no row, and no forward."""
    return Row(row.prompt, row.tokens, (), None)


@dataclass(slots=True, eq=False)
class MicroBatch:
    """The rows of a few trajectories, as tensors; T = longest row - 1."""

    inputs: dict[str, Tensor]
    """The model's inputs: `input_ids` and `attention_mask` (rows, T + 1), pictures, types of tokens."""

    labels: Tensor
    """(rows, T + 1) the written tokens, -100 elsewhere."""

    valid: Tensor
    """(rows, T) bool: the predicted token is one the model wrote."""

    numeric: Tensor
    """(rows, T) bool: and a number of an answer."""

    advantages: Tensor
    """(rows,) float32."""

    tokens_of_trajectory: Tensor
    """(rows,) valid tokens of all rows of the trajectory."""

    places: tuple[int, ...]
    """For each row, its trajectory's place in this process's share of the rollout."""

    weights: Tensor | None = None
    """(rows, T) importance weights of tokens that another engine drew."""

    old: Tensor | None = None
    """(rows, T) log-probabilities under the policy that drew them; `None` until known."""

    old_scores: Tensor | None = None
    """(numeric tokens, V) its scores of the numeric sub-vocabulary, where the exact KL is asked for."""

    reference: Tensor | None = None
    """(rows, T) log-probabilities under the reference model."""

    drawn: Tensor | None = None
    """(rows, T) log-probabilities as another engine drew them, 0 where nothing was written."""

    def to(self, device: Any) -> MicroBatch:
        """The same on another device."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}
        moved["inputs"] = {name: value.to(device) for name, value in self.inputs.items()}
        return MicroBatch(**moved)


def make_batch(trajectories: Sequence[tuple[int, float, Sequence[Row]]], pieces: Pieces, *, padding: int) -> MicroBatch:
    """The tensors of a micro-batch.

    Args:
        trajectories: Place, advantage and rows of each; at least one row in all.
        pieces: Text of single tokens, for the numeric mask.
        padding: Id of the padding token.
    """
    rows = [row for _, _, own in trajectories for row in own]
    longest = max(row.length for row in rows)
    inputs = {name: _joined(name, rows, longest, padding) for name in rows[0].prompt}
    ids = inputs["input_ids"]
    written = torch.zeros(ids.shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        for start, end in row.written:
            written[number, start:end] = True
    valid = written[:, 1:]
    counts = [sum(end - start for row in own for start, end in row.written) for _, _, own in trajectories for _ in own]
    drawn = None
    if all(row.log_probs is not None or not row.written for row in rows):
        drawn = torch.zeros(valid.shape)
        drawn[valid] = torch.tensor([value for row in rows for value in row.log_probs or ()])
    return MicroBatch(
        inputs=inputs,
        labels=torch.where(written, ids, IGNORED),
        valid=valid,
        numeric=numeric_mask(ids[:, 1:], valid, pieces),
        advantages=torch.tensor([advantage for _, advantage, own in trajectories for _ in own], dtype=torch.float32),
        tokens_of_trajectory=torch.tensor(counts),
        places=tuple(place for place, _, own in trajectories for _ in own),
        drawn=drawn,
    )


def _joined(name: str, rows: Sequence[Row], longest: int, padding: int) -> Tensor:
    """One model input of all rows: what has the prompt's length gets reply and padding, pictures are put in a row."""
    parts = []
    for row in rows:
        value = row.prompt[name]
        if value.ndim != 2 or value.shape != row.prompt["input_ids"].shape:
            parts.append(value)
            continue
        if name == "input_ids":
            value, filling = row.ids()[None], padding
        else:  # masks: the reply is attended to (1), and is text (type 0); padding is neither
            reply = torch.full((1, len(row.tokens)), int(name == "attention_mask"), dtype=value.dtype)
            value, filling = torch.cat([value, reply], dim=1), 0
        parts.append(torch.nn.functional.pad(value, (0, longest - value.shape[1]), value=filling))
    return torch.cat(parts)


def _begins_with(tokens: Tensor, start: Tensor) -> bool:
    return len(tokens) > len(start) and bool((tokens[: len(start)] == start).all())
