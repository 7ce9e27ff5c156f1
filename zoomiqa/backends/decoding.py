"""Continuous batching over one transformers model: rows come and go while the others are written on.

`model.generate` answers a batch as one: every row waits for the longest. Here a row that has ended leaves at once and
the next prompt takes its slot; transformers' own continuous batching takes no pictures. The model's forward pass, its
chat template and its tokenizer are the library's; this room holds the keys and values of the rows (`SlotLayer`), the
draw of each next token (`draw_tokens`) and the loop (`Decoder`). It must not know requests, pictures or prompts.

Layout: all rows share the columns of one buffer. A row's prompt is right-aligned to the column where it joins, so that
every row's next token falls into the same column; what lies before a row's start is masked.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GenerationMixin
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Sampling

_FIRST_CAPACITY = 256
"""Columns beyond the prompts for which room is made at first."""

_PAST = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
)
"""What a model's forward pass calls its keys and values; transformers 5.24 renamed them."""


@dataclass(slots=True)
class Window:
    """The columns in use, shared by all layers."""

    start: int = 0
    end: int = 0


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # torch and transformers are not typed for us
    """Keys and values of one layer for a fixed number of rows, in a buffer of columns.

    Shapes: (slots, heads, columns, head dimension). `update` writes the next column and hands out the window so far,
    as views: nothing is copied per token, as appending to a `DynamicLayer` would.
    """

    is_sliding = False

    def __init__(self, window: Window, slots: int) -> None:
        super().__init__()
        self._window, self._slots = window, slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Buffers like the given keys and values (rows, heads, columns, head dimension), with room for more columns."""
        columns = self._window.end + _FIRST_CAPACITY
        self.keys, self.values = (
            states.new_zeros((self._slots, states.shape[1], columns, states.shape[3]))
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start, end = self._window.start, self._window.end
        after = end + key_states.shape[2]
        keys, values = self._buffers()
        keys[:, :, end:after] = key_states
        values[:, :, end:after] = value_states
        return keys[:, :, start:after], values[:, :, start:after]

    def put(self, slot: int, keys: Tensor, values: Tensor) -> None:
        """Set the last columns of one row; `keys` and `values` have the shape (heads, columns, head dimension)."""
        end = self._window.end
        for buffer, new in zip(self._buffers(), (keys, values), strict=True):
            buffer[slot, :, end - new.shape[1] : end] = new

    def move(self, start: int, end: int, to: int, columns: int) -> None:
        """Bring the columns `start..end` to `to` in a buffer of at least `columns` columns."""
        for name in ("keys", "values"):
            old = cast("Tensor", getattr(self, name))
            new = old
            if columns > old.shape[2]:
                new = old.new_zeros((*old.shape[:2], columns, old.shape[3]))
            new[:, :, to : to + end - start] = old[:, :, start:end].clone() if new is old else old[:, :, start:end]
            setattr(self, name, new)

    @property
    def columns(self) -> int:
        return int(self._buffers()[0].shape[2])

    def _buffers(self) -> tuple[Tensor, Tensor]:
        return cast("Tensor", self.keys), cast("Tensor", self.values)

    def get_seq_length(self) -> int:
        return self._window.end - self._window.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1


def draw_tokens(logits: Tensor, rows: Sequence[Sampling], chances: Tensor) -> Tensor:
    """The next token of each row: temperature, then top-k, then top-p, then the inverse of the cumulated chances.

    Args:
        logits: (rows, vocabulary) float32; minus infinity for tokens that must not be drawn.
        rows: How each row draws; temperature 0 takes the most likely token.
        chances: (rows,) uniform numbers of 0..1, one per row, so that a row's draw depends on its own seed alone.

    Returns:
        (rows,) token ids.
    """
    if all(row.temperature == 0 for row in rows):
        return logits.argmax(-1)
    vocabulary = logits.shape[-1]
    widest = max(min(row.top_k or vocabulary, vocabulary) if row.temperature else 1 for row in rows)
    values, tokens = logits.topk(widest, dim=-1)
    device = logits.device

    def column(numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, device=device, dtype=torch.float32)[:, None]

    # A greedy row keeps its first token alone; its temperature is then of no account.
    temperature = column([row.temperature or 1.0 for row in rows])
    kept = column([1 if row.temperature == 0 else row.top_k or vocabulary for row in rows])
    share = column([row.top_p for row in rows])
    rank = torch.arange(widest, device=device)[None]
    odds = torch.softmax((values / temperature).masked_fill(rank >= kept, -torch.inf), dim=-1)
    before = odds.cumsum(-1) - odds
    odds = odds.masked_fill((before >= share) & (rank > 0), 0.0)
    sums = odds.cumsum(-1)
    chosen = (sums <= chances[:, None] * sums[:, -1:]).sum(-1, keepdim=True)
    last = (odds > 0).sum(-1, keepdim=True) - 1
    return tokens.gather(-1, torch.minimum(chosen, last))[:, 0]


@dataclass(slots=True, eq=False)
class Row:
    """One text under way."""

    ticket: int
    inputs: Mapping[str, Tensor]
    """What the model's processor made of the prompt; each with a first dimension of 1, or of the prompt's pictures."""

    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    """What has been written, without the token that ended it."""

    finish_reason: str | None = None
    """"stop" or "length" once it has ended."""

    _start: int = 0
    """Column of its first token."""

    _chances: list[float] = field(default_factory=list)

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt, its pictures included."""
        return int(self.inputs["input_ids"].shape[1])


class Decoder:
    """Writes rows token by token.

    Args:
        model: A transformers model that answers chats about pictures.
        slots: Rows under way at once.
        end_tokens: Token ids that end a text.
        suppressed: Token ids that are never drawn.
        has_ended: Whether what was written so far ends the text (stop strings); called after each token.
    """

    def __init__(
        self,
        model: Any,
        slots: int,
        *,
        end_tokens: frozenset[int],
        suppressed: Sequence[int] = (),
        has_ended: Callable[[Row], bool] = lambda _: False,
    ) -> None:
        self._model, self._end_tokens, self._has_ended = model, end_tokens, has_ended
        self._device = model.device
        self._suppressed = torch.tensor(sorted(suppressed), dtype=torch.long, device=self._device)
        self.draw: Callable[[Sequence[Row], Tensor], list[int]] = draw_rows
        """Chooses each row's next token from its logits (rows, vocabulary)."""

        self._window = Window()
        self._rows: list[Row | None] = [None] * slots
        self._cache: Cache | None = None
        self._positions: Tensor | None = None
        """Position of each slot's next token (…, slots); models with pictures count in several dimensions."""

    @property
    def free(self) -> int:
        """Slots without a row."""
        return self._rows.count(None)

    @property
    def rows(self) -> list[Row]:
        """Rows under way."""
        return [row for row in self._rows if row is not None]

    def admit(self, rows: Sequence[Row]) -> list[Row]:
        """Read the prompts of new rows, at most `free` of them, and write their first tokens.

        Returns:
            Those that have ended with it.

        Raises:
            OptionInvalid: the model keeps more than keys and values of its past, which cannot share slots.
        """
        with torch.inference_mode():
            logits, layers, positions = self._prefill(rows)
            longest = max(row.prompt_length for row in rows)
            self._make_room(longest, layers)
            slots = [slot for slot, row in enumerate(self._rows) if row is None][: len(rows)]
            for number, (slot, row) in enumerate(zip(slots, rows, strict=True)):
                for mine, new in zip(self._layers, layers, strict=True):
                    length = row.prompt_length
                    mine.put(slot, new.keys[number, :, -length:], new.values[number, :, -length:])
                row._start = self._window.end - row.prompt_length
                if self._positions is None:
                    self._positions = positions.new_zeros((*positions.shape[:-2], len(self._rows)))
                # The prompt ends in text, whose positions go on by one in every dimension.
                self._positions[..., slot] = positions[..., min(number, positions.shape[-2] - 1), -1] + 1
                generator = torch.Generator().manual_seed(row.sampling.seed)
                row._chances = torch.rand(row.sampling.max_new_tokens, generator=generator).tolist()
                self._rows[slot] = row
            self._close_up()
            return self._write(rows, logits)

    def step(self) -> list[Row]:
        """Write one more token of every row; returns those that have ended with it."""
        with torch.inference_mode():
            rows = self.rows
            self._close_up()
            if self._window.end == self._layers[0].columns:
                self._grow()
            start, end = self._window.start, self._window.end
            # An empty slot sees its own column, so that no row is without any.
            starts = torch.tensor([end if row is None else row._start for row in self._rows], device=self._device)
            columns = torch.arange(start, end + 1, device=self._device)
            last = torch.tensor([0 if row is None else row.tokens[-1] for row in self._rows], device=self._device)
            positions = cast("Tensor", self._positions)
            output = self._model(
                input_ids=last[:, None],
                attention_mask=(columns >= starts[:, None]).long(),
                position_ids=positions[..., None],
                use_cache=True,
                logits_to_keep=1,
                **{_PAST: self._cache},
            )
            positions += 1
            self._window.end += 1
            taken = [slot for slot, row in enumerate(self._rows) if row is not None]
            return self._write(rows, output.logits[taken, -1])

    def drop(self, rows: Sequence[Row]) -> None:
        """Give up rows; their slots are free again."""
        self._rows = [None if row in rows else row for row in self._rows]

    @property
    def _layers(self) -> list[SlotLayer]:
        return cast("list[SlotLayer]", cast("Cache", self._cache).layers)

    def _prefill(self, rows: Sequence[Row]) -> tuple[Tensor, list[DynamicLayer], Tensor]:
        """Logits after each prompt, the keys and values of each layer, and the positions (…, rows or 1, columns)."""
        inputs = {name: tensor.to(self._device) for name, tensor in join_inputs([row.inputs for row in rows]).items()}
        ids = inputs["input_ids"]
        # Positions of pictures differ between models; the model's own rule is asked, as `generate` does.
        positions = self._model._prepare_position_ids_for_generation(ids, dict(inputs))
        cache = DynamicCache(config=self._model.config)
        inputs |= {"position_ids": positions, _PAST: cache}
        output = self._model(**inputs, use_cache=True, logits_to_keep=1)
        if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
            raise OptionInvalid(
                "this model keeps more than keys and values of its past",
                type(self._model).__name__,
                "serve it with vLLM or SGLang and pass --base-url",
            )
        return output.logits[:, -1], cache.layers, positions

    def _make_room(self, longest: int, layers: Sequence[DynamicLayer]) -> None:
        """Bring the window's end to `longest` columns at least, so that a prompt of that length fits before it."""
        if self._cache is None:
            self._window.end = longest
            slots = [SlotLayer(self._window, len(self._rows)) for _ in layers]
            for slot, layer in zip(slots, layers, strict=True):
                slot.lazy_initialization(layer.keys, layer.values)
            self._cache = Cache(layers=slots)
        elif not self.rows:
            # Nothing to keep: begin anew at the left.
            self._window.start, self._window.end = 0, longest
            self._reserve(longest + _FIRST_CAPACITY)
        elif longest > self._window.end:
            self._shift(longest - self._window.end)

    def _close_up(self) -> None:
        """Let the window begin where the earliest row does."""
        self._window.start = min(row._start for row in self.rows)

    def _reserve(self, columns: int) -> None:
        for layer in self._layers:
            layer.move(0, 0, 0, columns)

    def _shift(self, by: int) -> None:
        """Move every row `by` columns to the right."""
        start, end = self._window.start, self._window.end
        for layer in self._layers:
            layer.move(start, end, start + by, max(layer.columns, end + by + _FIRST_CAPACITY))
        self._renumber(by)

    def _grow(self) -> None:
        """Make room for more columns: take back what lies before every row; enlarge the buffer if that is little."""
        start, end = self._window.start, self._window.end
        kept = end - start
        columns = end if start > end // 4 else end + max(_FIRST_CAPACITY, kept // 2)
        for layer in self._layers:
            layer.move(start, end, 0, columns)
        self._renumber(-start)

    def _renumber(self, by: int) -> None:
        self._window.start += by
        self._window.end += by
        for row in self.rows:
            row._start += by

    def _write(self, rows: Sequence[Row], logits: Tensor) -> list[Row]:
        """Draw the next token of each row; returns the rows that have ended, whose slots are free now."""
        logits = logits.float()
        if self._suppressed.numel():
            logits = logits.index_fill(-1, self._suppressed, -torch.inf)
        ended = []
        for row, token in zip(rows, self.draw(rows, logits), strict=True):
            if token in self._end_tokens:
                row.finish_reason = "stop"
            else:
                row.tokens.append(token)
                if self._has_ended(row):
                    row.finish_reason = "stop"
                elif len(row.tokens) >= row.sampling.max_new_tokens:
                    row.finish_reason = "length"
            if row.finish_reason:
                ended.append(row)
        self.drop(ended)
        return ended


def draw_rows(rows: Sequence[Row], logits: Tensor) -> list[int]:
    """The next token of each row, by its own settings and its own seed."""
    chances = torch.tensor([row._chances[len(row.tokens)] for row in rows], device=logits.device)
    tokens: list[int] = draw_tokens(logits, [row.sampling for row in rows], chances).tolist()
    return tokens


def join_inputs(prompts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One batch of several prompts: what has the prompt's length is padded on the left, pictures are put in a row.

    Raises:
        ValueError: their pictures have shapes that do not go together.
    """
    if len(prompts) == 1:
        return dict(prompts[0])
    lengths = [prompt["input_ids"].shape[1] for prompt in prompts]
    longest = max(lengths)
    joined = {}
    for name in prompts[0]:
        parts = [prompt[name] for prompt in prompts]
        if all(part.ndim == 2 and part.shape == (1, length) for part, length in zip(parts, lengths, strict=True)):
            parts = [torch.nn.functional.pad(part, (longest - part.shape[1], 0)) for part in parts]
        elif len({part.shape[1:] for part in parts}) > 1:
            raise ValueError(f"{name}: shapes {[tuple(part.shape) for part in parts]}")
        joined[name] = torch.cat(parts)
    return joined
