"""The trained model as an engine: continuous batching over the very weights that are being trained.

It is the `transformers` backend of inference, so that prompts, pictures, special tokens that are never drawn, and the
draw of each token are the same there and here; added is only that it takes a live model and reports the drawn tokens.
It must not know conversations, rewards or trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from zoomiqa.backends.base import Session
from zoomiqa.backends.decoding import Decoder, Row, draw_rows
from zoomiqa.backends.transformers import TransformersBackend
from zoomiqa.types import Reply, Request

from ..models import ModelSettings  # noqa: TID252
from .rollout import SampledReply


class PolicyBackend(TransformersBackend):
    """Answers with a model that is already in memory.

    Args:
        settings: Which processor goes with it.
        device: Where the model is.
        slots: Replies under way at once; `None` chooses by the device.
    """

    def __init__(self, settings: ModelSettings, device: str, slots: int | None = None) -> None:
        super().__init__(
            settings.model,
            revision=settings.revision,
            device=device,
            attention=settings.attention,
            max_pixels=settings.max_pixels,
            batch_size=slots,
        )
        self._drawn: dict[int, tuple[Row, list[int]]] = {}

    def use(self, model: Any) -> None:
        """Answer with this model from now on; `None` lets go of the last one."""
        self._model = model

    def open_session(self, batch_size: int | None = None) -> Session:
        self._drawn.clear()
        return _Reporting(super().open_session(batch_size), self._drawn)

    def prepare(self, ticket: int, request: Request) -> Row:
        row = super().prepare(ticket, request)
        self._drawn[ticket] = (row, [])
        return row

    def decoder(self, slots: int) -> Decoder:
        decoder = super().decoder(slots)

        def recorded(rows: Sequence[Row], logits: Tensor) -> list[int]:
            tokens = self.choose(rows, logits)
            for row, token in zip(rows, tokens, strict=True):
                self._drawn[row.ticket][1].append(token)
            return tokens

        decoder.draw = recorded
        return decoder

    def choose(self, rows: Sequence[Row], logits: Tensor) -> list[int]:
        """The next token of each row, from its logits; tokens that must never be drawn have minus infinity."""
        return draw_rows(rows, logits)


class _Reporting:
    """A session whose replies say what was drawn."""

    def __init__(self, session: Session, drawn: dict[int, tuple[Row, list[int]]]) -> None:
        self._session, self._drawn = session, drawn

    @property
    def room(self) -> int:
        return self._session.room

    def submit(self, ticket: int, request: Request) -> None:
        self._session.submit(ticket, request)

    def collect(self) -> list[tuple[int, Reply]]:
        return [(ticket, self._with_tokens(ticket, reply)) for ticket, reply in self._session.collect()]

    def close(self) -> None:
        self._session.close()
        self._drawn.clear()

    def _with_tokens(self, ticket: int, reply: Reply) -> Reply:
        row, tokens = self._drawn.pop(ticket, (None, []))
        if row is None or reply.finish_reason == "error":
            return reply
        return SampledReply(**_fields(reply), prompt=row.inputs, tokens=tuple(tokens))


def _fields(reply: Reply) -> dict[str, Any]:
    return {name: getattr(reply, name) for name in reply.__dataclass_fields__}
