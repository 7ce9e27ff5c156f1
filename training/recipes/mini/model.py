"""A small vision-language model of the real Qwen2.5-VL classes, and a tokenizer learned from the replication's texts.

The tokenizer is byte-level BPE that merges across words (whole phrases become tokens, so replies are short) but never
across digits: each digit of a number is a token, as in Qwen's. It must not know data sets or trainers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""Those of Qwen2.5-VL that a chat about pictures needs."""

CHAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
"""Turns as Qwen2.5-VL frames them, without its system prompt."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the model is."""

    side: int
    """Pictures are shrunk to about so many pixels per side; a multiple of 28."""

    hidden: int
    layers: int
    vision_hidden: int
    vision_layers: int
    vocabulary: int = 640
    heads: int = 4

    @property
    def max_pixels(self) -> int:
        return self.side * self.side


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A tokenizer for such texts."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # Numbers' characters stand alone, and so does each clause.
            pre_tokenizers.Split(Regex(r"[0-9.\[\]]|[^0-9.\[\],\n]+|,|\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106 - no secret
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=[SPECIAL_TOKENS[1], *SPECIAL_TOKENS[3:]],
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: Any, shape: Shape) -> Any:
    """The configuration of a model of that shape."""
    from transformers import Qwen2_5_VLConfig

    token = tokenizer.convert_tokens_to_ids
    half_head = shape.hidden // shape.heads // 2
    section = 3 * half_head // 8
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.hidden,
            "intermediate_size": 3 * shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [half_head - 2 * section, section, section],
            },
            "bos_token_id": token("<|im_start|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": 3 * shape.vision_hidden,
            "num_heads": shape.heads,
            "out_hidden_size": shape.hidden,
            "window_size": 112,
            "fullatt_block_indexes": list(range(shape.vision_layers)),
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        vision_token_id=token("<|vision_pad|>"),
        tie_word_embeddings=False,
    )


def build_model(folder: Path, texts: Iterable[str], shape: Shape, seed: int) -> int:
    """Write an untrained model with its processor to `folder`; returns its number of weights."""
    import torch
    from transformers import (
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    from ...models import quiet_loading  # noqa: TID252 - in a wheel it is zoomiqa.training

    tokenizer = build_tokenizer(texts, shape.vocabulary)
    config = build_config(tokenizer, shape)
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=shape.max_pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_loading():
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())
