"""How sure a local model is of the numbers it wrote. It must not know what is decided by it.

One forward pass over prompt and reply gives the distribution from which each token came.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoomiqa.types import Request

from ..objectives.tokens import numeric_in_answer, token_pieces  # noqa: TID252 - in a wheel it is zoomiqa.training


def number_entropy(backend: Any, tokenizer: Any, request: Request, text: str) -> float:
    """Mean entropy (nats) of the numeric tokens of the answer in `text`, of all tokens where there is none.

    What is numeric is what `objectives.tokens` says; a reply without tags is all answer.

    Args:
        backend: A `TransformersBackend`; its model and its way to prepare a request are used.
        tokenizer: That of its model.
        request: What was asked.
        text: The reply, as the model wrote it.
    """
    model = backend.load()
    row = backend.prepare(0, request)
    reply = tokenizer.encode(text, add_special_tokens=False)
    length = row.prompt_length
    inputs = {name: _extended(name, value, length, reply).to(model.device) for name, value in row.inputs.items()}
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False).logits[0, length - 1 : -1].float()
    chances = torch.log_softmax(logits, dim=-1)
    entropies = -(chances.exp() * chances).sum(-1)
    piece = token_pieces(tokenizer)
    is_number = numeric_in_answer([*([] if "<answer>" in text else ["<answer>"]), *map(piece, reply)])[-len(reply) :]
    chosen = entropies[torch.tensor(is_number, device=entropies.device)] if any(is_number) else entropies
    return float(chosen.mean())


def _extended(name: str, value: Tensor, length: int, reply: list[int]) -> Tensor:
    """A model input of the prompt with the reply's tokens behind it; what belongs to pictures stays as it is."""
    if value.dim() != 2 or value.shape != (1, length):
        return value
    if name == "input_ids":
        return torch.cat([value, torch.tensor([reply], dtype=value.dtype)], dim=1)
    # Masks: the reply is attended to (1), and is text (type 0).
    filling = 1 if name == "attention_mask" else 0
    return torch.cat([value, torch.full((1, len(reply)), filling, dtype=value.dtype)], dim=1)
