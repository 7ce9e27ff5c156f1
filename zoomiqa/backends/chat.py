"""From a request to what a local vision-language model is given: chat messages and pixels.

It must not know how a model answers. Special tokens in the text are made harmless: a question or an earlier reply that
spells out an end of turn or the place of a picture would otherwise change the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from zoomiqa.errors import BackendFailed
from zoomiqa.imaging.picture import Picture, PixelArray, render
from zoomiqa.types import ImagePart, Request, TextPart


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation in the form that chat templates take."""

    messages: list[dict[str, Any]]
    """`role` and `content`, a list of `{"type": "text", "text": ...}` and `{"type": "image"}`."""

    images: list[PixelArray]
    """H×W×3 uint8 RGB, one per `{"type": "image"}`, in order."""


def chat_of(
    request: Request, special_tokens: Collection[str] = (), max_pixels: int | None = None, multiple: int = 1
) -> Chat:
    """The conversation of a request.

    Args:
        request: Its picture must be decoded.
        special_tokens: What the model's tokenizer reads as more than text.
        max_pixels: Larger pictures are shrunk to so many, keeping their shape; `None` leaves that to the model.
        multiple: Of which the sides of a shrunk picture are, so that the model's processor need not resize it again.

    Raises:
        BackendFailed: the subject is no decoded picture.
    """
    picture = request.picture
    if not isinstance(picture, Picture):
        raise BackendFailed("only decoded pictures reach a model", type(picture).__name__, "open it first")
    tokens = tuple(sorted(special_tokens))
    images: list[PixelArray] = []
    messages = []
    for message in request.messages:
        content: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                content.append({"type": "text", "text": neutralise(part.text, tokens)})
            else:
                content.append({"type": "image"})
                images.append(_pixels(picture, part, max_pixels, multiple))
        messages.append({"role": message.role, "content": content})
    return Chat(messages, images)


def neutralise(text: str, special_tokens: tuple[str, ...]) -> str:
    """The text with a space after the first character of every special token in it, which makes it plain text."""
    if not special_tokens:
        return text
    return _pattern(special_tokens).sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


@lru_cache(maxsize=8)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True) if len(token) > 1))


def _pixels(picture: Picture, part: ImagePart, max_pixels: int | None, multiple: int) -> PixelArray:
    width, height = part.size or ((part.box.width, part.box.height) if part.box else picture.size)
    if max_pixels is not None and width * height > max_pixels:
        factor = (max_pixels / (width * height)) ** 0.5
        sides = (max(multiple, int(side * factor) // multiple * multiple) for side in (width, height))
        return render(picture, ImagePart(box=part.box, size=(next(sides), next(sides))))
    return render(picture, part)
