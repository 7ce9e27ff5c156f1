"""From a row to tokens, labels and pixels, and from rows to a batch.

A row is tokenised in pieces, as it came about: what the model was shown, then what it wrote, then perhaps more of both.
The pieces shown are rendered and processed exactly as inference does it (`zoomiqa.backends`). Labels are the tokens of
the trained replies with the token that ends each turn; everything else is ignored. It must not know trainers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zoomiqa.backends.chat import Chat
from zoomiqa.backends.processor import ChatProcessor
from zoomiqa.errors import BackendFailed, OptionInvalid
from zoomiqa.imaging import picture_from_array
from zoomiqa.types import ImagePart, Message, Request, Sized, TextPart

from ..pictures import Pictures, row_messages  # noqa: TID252 - in a wheel it is zoomiqa.training
from .rows import Row, targets_of

IGNORED = -100
"""Label of a token that is not trained (PyTorch's convention)."""

_BLANK = picture_from_array(np.zeros((1, 1, 3), np.uint8))
"""Stands for a picture where only the words count."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a row's text."""

    text: str
    is_target: bool
    images: int = 0
    """Pictures in it; a target has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A row as the model takes it."""

    input_ids: torch.Tensor
    """(T,) int64."""

    labels: torch.Tensor
    """(T,) int64, `IGNORED` where nothing is trained."""

    per_token: Mapping[str, torch.Tensor]
    """What else the processor says of every token, (T,)."""

    visual: Mapping[str, torch.Tensor]
    """Pixels and their layout, concatenated along the first axis."""


def pieces_of(chat: Chat, targets: Sequence[int], processor: ChatProcessor) -> list[Piece]:
    """The row's text, cut before and after each trained reply (whose piece includes the token that ends the turn).

    Raises:
        OptionInvalid: the chat template does not keep earlier turns as they were, or ends no turn with a token.
    """
    pieces: list[Piece] = []
    consumed, shown = "", 0
    for position in targets:
        before = processor.prompt(chat.messages[:position])
        reply = "".join(part["text"] for part in chat.messages[position]["content"])
        end = _end_of_turn(chat.messages[: position + 1], before + reply, processor)
        if not before.startswith(consumed):
            raise OptionInvalid(
                "the model's chat template changes earlier turns", None, "train it with the rewritten context"
            )
        images = sum(part["type"] == "image" for message in chat.messages[:position] for part in message["content"])
        pieces += [Piece(before[len(consumed) :], False, images - shown), Piece(reply + end, True)]
        consumed, shown = before + reply + end, images
    return pieces


def _end_of_turn(messages: list[dict[str, Any]], text: str, processor: ChatProcessor) -> str:
    whole: str = processor.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    end: str = processor.tokenizer.eos_token
    if not whole.startswith(text + end):
        raise OptionInvalid(
            "the model's chat template does not end a reply with the tokenizer's end token", end, "use another model"
        )
    return end


class RowEncoder:
    """Encodes rows.

    Args:
        processor: The model's.
        pictures: Where the rows' pictures are.
        context: Which replies of a row are trained.
    """

    def __init__(self, processor: ChatProcessor, pictures: Pictures, context: str = "rewritten") -> None:
        self.processor, self.pictures, self.context = processor, pictures, context

    def encode(self, row: Row) -> Encoded:
        """Tokens, labels and pixels of a row.

        Raises:
            ImageError: its picture cannot be used.
            RecordCorrupt: the row is not as `curation.build` writes it.
            BackendFailed: the processor refuses it.
        """
        chat = self._chat(row)
        pieces = pieces_of(chat, targets_of(row, self.context), self.processor)
        ids: list[torch.Tensor] = []
        labels: list[torch.Tensor] = []
        rest: list[dict[str, torch.Tensor]] = []
        shown = 0
        for piece in pieces:
            if piece.is_target:
                written = torch.tensor(self._tokens(piece.text), dtype=torch.long)
                ids.append(written)
                labels.append(written)
                rest.append({})
                continue
            pictures = chat.images[shown : shown + piece.images]
            shown += piece.images
            inputs = self._process(piece.text, pictures, first=not ids)
            tokens = inputs.pop("input_ids")[0]
            inputs.pop("attention_mask", None)
            ids.append(tokens)
            labels.append(torch.full_like(tokens, IGNORED))
            rest.append(inputs)
        return _joined(ids, labels, rest)

    def length(self, row: Row) -> int:
        """Number of tokens of a row, as `encode` would make them; no crop is cut for it.

        Raises:
            ImageError, RecordCorrupt, BackendFailed: as `encode`.
        """
        count = getattr(self.processor.processor, "_get_num_multimodal_tokens", None)
        if count is None or self.processor.max_pixels is not None:  # then the size shown is the processor's secret
            return int(self.encode(row).input_ids.numel())
        picture, messages = self._conversation(row)
        sizes, bare = [], []
        for message in messages:
            shown = [part for part in message.parts if isinstance(part, ImagePart)]
            sizes += [part.size or ((part.box.width, part.box.height) if part.box else picture.size) for part in shown]
            parts = tuple(ImagePart() if isinstance(part, ImagePart) else part for part in message.parts)
            bare.append(Message(message.role, parts))
        chat = self.processor.chat_of(Request(_BLANK, tuple(bare)))
        pieces = pieces_of(chat, targets_of(row, self.context), self.processor)
        numbers = count(image_sizes=[(height, width) for width, height in sizes])["num_image_tokens"]
        text = sum(len(self._tokens(piece.text)) for piece in pieces)
        return text + sum(int(number) - 1 for number in numbers)

    def _chat(self, row: Row) -> Chat:
        picture, messages = self._conversation(row)
        return self.processor.chat_of(Request(picture, messages))

    def _conversation(self, row: Row) -> tuple[Sized, tuple[Message, ...]]:
        """The picture of a row and all its messages."""
        request = self.pictures.request(row)
        target = row_messages(row)[0][-1]
        # One part, so that the template has nothing to join.
        return request.picture, (*request.messages, Message(target.role, (TextPart(target.text),)))

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self.processor.tokenizer.encode(text, add_special_tokens=False)
        return tokens

    def _process(self, text: str, images: Sequence[Any], *, first: bool) -> dict[str, torch.Tensor]:
        from PIL import Image

        pictures = [[Image.fromarray(image) for image in images]] if images else None
        # What begins a text stands at the row's beginning only.
        others = {} if first else {"add_special_tokens": False}
        try:
            return dict(self.processor.processor(text=[text], images=pictures, return_tensors="pt", **others))
        except (ValueError, TypeError) as error:
            raise BackendFailed("the model's processor refused the row", error, "see what it says") from error


def _joined(ids: list[torch.Tensor], labels: list[torch.Tensor], rest: list[dict[str, torch.Tensor]]) -> Encoded:
    names = dict.fromkeys(name for inputs in rest for name in inputs)
    per_token: dict[str, torch.Tensor] = {}
    visual: dict[str, torch.Tensor] = {}
    for name in names:
        # One entry per token (and one row of them, as one text was processed), or something of the pictures.
        is_per_token = all(
            inputs[name].shape == (1, tokens.numel())
            for tokens, inputs in zip(ids, rest, strict=True)
            if name in inputs
        )
        if is_per_token:
            per_token[name] = torch.cat(
                [
                    inputs[name][0] if name in inputs else torch.zeros_like(tokens)
                    for tokens, inputs in zip(ids, rest, strict=True)
                ]
            )
        else:
            visual[name] = torch.cat([inputs[name] for inputs in rest if name in inputs])
    return Encoded(torch.cat(ids), torch.cat(labels), per_token, visual)


def batch_of(rows: Iterable[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Rows as one batch, padded on the right.

    Returns:
        `input_ids`, `attention_mask`, `labels` and what the processor says of every token, each (B, T); pixels and
        their layout, concatenated in the order of the rows.
    """
    rows = list(rows)
    fills = {"input_ids": pad, "labels": IGNORED}
    columns: dict[str, list[torch.Tensor]] = {
        "input_ids": [row.input_ids for row in rows],
        "attention_mask": [torch.ones_like(row.input_ids) for row in rows],
        "labels": [row.labels for row in rows],
        **{name: [row.per_token[name] for row in rows] for name in rows[0].per_token},
    }
    batch = {
        name: torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fills.get(name, 0))
        for name, values in columns.items()
    }
    return batch | {name: torch.cat([row.visual[name] for row in rows]) for name in rows[0].visual}
