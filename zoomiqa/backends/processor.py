"""A vision-language model's processor: its chat template, its tokenizer, its way with pictures.

It must not know how the model is run, and reads no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoomiqa.backends.chat import Chat, chat_of
from zoomiqa.errors import ExtraMissing, OptionInvalid
from zoomiqa.types import Request


@dataclass(frozen=True, slots=True)
class ChatProcessor:
    """The processor of a model that holds chats about pictures."""

    processor: Any
    """What transformers' `AutoProcessor` gives."""

    max_pixels: int | None
    """Pixels to which larger pictures are shrunk before the processor sees them; `None` leaves them to it."""

    longest_context: int | None
    """Tokens of a prompt and its reply together, at most; `None` where the model does not say."""

    @property
    def side_multiple(self) -> int:
        """What it rounds the sides of a picture to: a token's patches, where it counts them so (Qwen-VL), else 1."""
        sides = (getattr(self.processor.image_processor, name, None) for name in ("patch_size", "merge_size"))
        patch, merge = sides
        return patch * merge if isinstance(patch, int) and isinstance(merge, int) else 1

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Text and id of every token that is more than text: ends of turns, places of pictures."""
        return {
            str(token): int(token_id)
            for token_id, token in self.tokenizer.added_tokens_decoder.items()
            if token.special
        }

    def chat_of(self, request: Request) -> Chat:
        """The request as messages and pictures; its text holds no special token, its pictures no more than the cap.

        Raises:
            BackendFailed: the subject is no decoded picture.
        """
        return chat_of(request, self.special_tokens, self.max_pixels, self.side_multiple)

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """The chat as the text that the model was trained on, up to where its reply begins."""
        text: str = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text


def load_processor(model: str, revision: str | None = None, max_pixels: int | None = None) -> ChatProcessor:
    """Read a model's processor.

    Args:
        model: Hub id (`owner/name`) or folder.
        revision: Branch, tag or commit on the hub.
        max_pixels: What the model sees of a picture, at most; `None` is its own limit.

    Raises:
        ExtraMissing: transformers is not installed.
        OptionInvalid: there is no such model, or it holds no chats about pictures.
    """
    try:
        from transformers import AutoConfig, AutoProcessor
    except ImportError as error:
        raise ExtraMissing(
            "vision-language models need transformers", error.name, 'run: pip install "zoomiqa[vlm]"'
        ) from error
    try:
        # First of all, as this fails sooner than a processor where there is no such model, or no network.
        config = AutoConfig.from_pretrained(model, revision=revision)
        processor = AutoProcessor.from_pretrained(model, revision=revision)
    except (OSError, ValueError, ImportError) as error:
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OptionInvalid(
            "the model cannot be found, or is none", model, f"check its name and the network: {why}"
        ) from error
    pictures, tokenizer = (getattr(processor, part, None) for part in ("image_processor", "tokenizer"))
    template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if pictures is None or tokenizer is None or not template:
        raise OptionInvalid("the model does not hold chats about pictures", model, "name a vision-language chat model")
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return ChatProcessor(processor, max_pixels, longest)
