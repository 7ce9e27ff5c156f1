"""Words to embeddings within what an encoder reads, and a record of what was sent and cut. It must not know pictures.

Two kinds of encoder:

- CLIP reads 77 positions, two of them marks. Longer prompts are cut into chunks of at most 75 tokens, at phrase borders
  where possible; each is encoded with its own marks and the results are joined along the tokens. Both sides of the
  guidance get the same number of chunks (the shorter one is filled with the empty prompt's), as the denoiser needs
  embeddings of one length; pooled embeddings come from the first chunk. No weighting syntax is read: words from a model
  are only words.
- T5 reads a fixed number of tokens with an attention mask; phrases that do not fit are left out whole, the last first.

Tokens are counted with the pipeline's own tokenizers, loaded with it or alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SEPARATOR = ", "
CLIP_POSITIONS = 77
CLIP_USABLE = CLIP_POSITIONS - 2
MOST_CHUNKS = 8
"""Chunks of one prompt at most; 600 tokens are more than two thousand characters of English prose."""

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Sent:
    """One side of the guidance as it reached the encoder."""

    chunks: tuple[str, ...]
    """The text, in the pieces that were encoded together; one piece for T5."""

    tokens: tuple[int, ...]
    """Of each chunk, without marks."""

    cut: tuple[str, ...] = ()
    """Phrases that did not fit."""

    @property
    def text(self) -> str:
        return SEPARATOR.join(self.chunks)

    def to_dict(self) -> dict[str, Any]:
        return {"chunks": list(self.chunks), "tokens": list(self.tokens), "cut": list(self.cut)}


@dataclass(frozen=True, slots=True)
class ClipEmbedding:
    """Both sides, negative first, ready for one batch of two."""

    hidden: Tensor
    """(2, 77·chunks, width)."""

    pooled: Tensor | None
    """(2, width), of the first chunk; `None` where no encoder pools."""


@dataclass(frozen=True, slots=True)
class T5Embedding:
    """Both sides, negative first."""

    hidden: Tensor
    """(2, tokens, width)."""

    mask: Tensor
    """(2, tokens), 1 where there is text."""


def phrases_of(text: str) -> list[str]:
    """The phrases of a prompt, as `restore_bridge.prompts` joins them."""
    return [phrase for part in text.split(SEPARATOR) if (phrase := part.strip(" ,"))]


def with_suffix(phrases: Sequence[str], suffix: str) -> list[str]:
    """`phrases`, then those of `suffix` that are not among them."""
    known = {phrase.casefold() for phrase in phrases}
    return [*phrases, *(phrase for phrase in phrases_of(suffix) if phrase.casefold() not in known)]


def counter(*tokenizers: Any) -> Count:
    """Counts the tokens of a text without marks; the most of several tokenizers."""

    def count(text: str) -> int:
        return max(len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids) for tokenizer in tokenizers)

    return count


def chunk_phrases(phrases: Sequence[str], count: Count, most: int = MOST_CHUNKS) -> Sent:
    """Fill chunks of `CLIP_USABLE` tokens with whole phrases; a phrase longer than a chunk is cut between words.

    An empty list gives one empty chunk. Chunks beyond `most` are cut and reported.
    """
    chunks: list[str] = []
    current = ""
    for piece in (part for phrase in phrases for part in _pieces(phrase, count)):
        longer = f"{current}{SEPARATOR}{piece}" if current else piece
        if current and count(longer) > CLIP_USABLE:
            chunks.append(current)
            longer = piece
        current = longer
    chunks.append(current)
    kept = tuple(chunks[:most])
    return Sent(kept, tuple(map(count, kept)), tuple(chunks[most:]))


def fit_phrases(phrases: Sequence[str], count: Count, tokens: int) -> Sent:
    """As many whole phrases as `tokens` hold. The first one always goes in, shortened word by word if it must be."""
    chosen: list[str] = []
    cut: list[str] = []
    for phrase in phrases:
        if count(SEPARATOR.join([*chosen, phrase])) <= tokens:
            chosen.append(phrase)
        elif chosen:
            cut.append(phrase)
        else:
            first, *rest = _pieces(phrase, count, tokens)
            chosen.append(first)
            cut += rest
    text = SEPARATOR.join(chosen)
    return Sent((text,), (count(text),), tuple(cut))


def _pieces(text: str, count: Count, tokens: int = CLIP_USABLE) -> list[str]:
    """`text` in pieces of at most `tokens`: whole, else between words, else inside a word."""
    if count(text) <= tokens:
        return [text]
    words, joint = (text.split(), " ") if " " in text else (list(text), "")
    pieces: list[str] = []
    start = 0
    while start < len(words):
        # The longest run that fits, by bisection: tokens grow with the words, give or take a merge at the border.
        low, high = start + 1, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count(joint.join(words[start:middle])) <= tokens else (low, middle - 1)
        run = joint.join(words[start:low])
        pieces += [run] if low > start + 1 or len(run) == 1 or count(run) <= tokens else _pieces(run, count, tokens)
        start = low
    return pieces


def equal_length(positive: Sent, negative: Sent) -> tuple[list[str], list[str]]:
    """The chunks of both sides, the shorter one filled up with empty ones."""
    pairs = list(zip_longest(positive.chunks, negative.chunks, fillvalue=""))
    return [chunk for chunk, _ in pairs], [chunk for _, chunk in pairs]


def encode_clip(
    positive: Sent, negative: Sent, encoders: Sequence[tuple[Any, Any]], *, layer: int, device: Any
) -> ClipEmbedding:
    """Embed both sides with one or several CLIP encoders, whose widths are joined.

    Args:
        positive: Chunks of the wanted side.
        negative: Chunks of the unwanted side.
        encoders: (tokenizer, text encoder) pairs; the last one gives the pooled embedding, projected where it can.
        layer: Index of the hidden state that the denoiser was trained on: -2 for SDXL; -1 takes the normed last one.
        device: Where the encoders run.
    """
    import torch

    sides = []
    for chunks in reversed(equal_length(positive, negative)):
        parts, pooled = [], None
        for tokenizer, encoder in encoders:
            ids = torch.tensor([_ids(tokenizer, chunk) for chunk in chunks], device=device)
            output = encoder(ids, output_hidden_states=layer != -1)
            hidden = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
            parts.append(hidden.reshape(1, -1, hidden.shape[-1]))
            vector = getattr(output, "text_embeds", None)
            vector = getattr(output, "pooler_output", None) if vector is None else vector
            pooled = pooled if vector is None else vector[:1]
        sides.append((torch.cat(parts, dim=-1), pooled))
    pooled_sides = [pooled for _, pooled in sides if pooled is not None]
    return ClipEmbedding(torch.cat([hidden for hidden, _ in sides]), torch.cat(pooled_sides) if pooled_sides else None)


def _ids(tokenizer: Any, chunk: str) -> list[int]:
    """`CLIP_POSITIONS` token numbers: start, the words, end, filling."""
    words = tokenizer(chunk, add_special_tokens=False, verbose=False).input_ids
    ids = [tokenizer.bos_token_id, *words[:CLIP_USABLE], tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (CLIP_POSITIONS - len(ids))


def encode_t5(
    positive: Sent, negative: Sent, tokenizer: Any, encoder: Any, *, tokens: int, device: Any, masked: bool = True
) -> T5Embedding:
    """Embed both sides with T5, each filled to `tokens` positions (the end mark among them).

    Args:
        positive: The wanted side.
        negative: The unwanted side.
        tokenizer: Of the pipeline.
        encoder: Of the pipeline.
        tokens: Positions that the model was trained with.
        device: Where the encoder runs.
        masked: Whether the filling is hidden from the words; a matter of how the model was trained.
    """
    batch = tokenizer(
        [negative.text, positive.text],
        padding="max_length",
        max_length=tokens,
        truncation=True,
        return_tensors="pt",
    ).to(device)
    hidden = encoder(batch.input_ids, attention_mask=batch.attention_mask if masked else None)[0]
    return T5Embedding(hidden, batch.attention_mask)
