"""A tiny Qwen2.5-VL with random weights: real classes, tokenizer and processor built here, saved and loaded again."""

from pathlib import Path

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

CHAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{%- if part.type == 'image' or part.type == 'image_url' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""

MAX_PIXELS = 28 * 28 * 16

HEADS = 4


def build_tokenizer():
    """Byte-level BPE over a few words, with Qwen's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = ["Image Quality Summary", "Directions for Improvement", "Issues to Avoid", "Decision & Rationale"] * 4
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(words, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS[1:2] + SPECIAL_TOKENS[3:],
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer, *, hidden_size=64, layers=2):
    """The configuration of the tiny model: two layers of text and two of vision."""
    from transformers import Qwen2_5_VLConfig

    token = tokenizer.convert_tokens_to_ids
    half_head = hidden_size // HEADS // 2
    section = 3 * half_head // 8
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 12,  # padded, as the released models are
            "hidden_size": hidden_size,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [half_head - 2 * section, section, section],
            },
            "bos_token_id": token("<|im_start|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": hidden_size,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        vision_token_id=token("<|vision_pad|>"),
        tie_word_embeddings=False,
    )


def build_tiny_vlm(folder: Path, *, seed: int = 0, **shape: int) -> Path:
    """Save a tiny Qwen2.5-VL (random weights by `seed`) with its processor to `folder`, and return that."""
    import torch
    from transformers import (
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = build_tokenizer()
    config = build_config(tokenizer, **shape)
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    # Wide random logits: with the default initialisation every token would be as likely as any other.
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=MAX_PIXELS),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def forced_backend(folder: Path, script, **options):
    """A `TransformersBackend` whose every forward pass is real, but which writes what `script` says of each request.

    Args:
        folder: A saved tiny model.
        script: From a request to the text of its reply.
    """
    from zoomiqa.backends.transformers import TransformersBackend

    class ForcedBackend(TransformersBackend):
        def __init__(self) -> None:
            super().__init__(folder, **options)
            self.planned = {}

        def prepare(self, ticket, request):
            row = super().prepare(ticket, request)
            tokens = self._tokenizer.encode(script(request), add_special_tokens=False)
            self.planned[row] = [*tokens, self._tokenizer.eos_token_id]
            return row

        def decoder(self, slots):
            decoder = super().decoder(slots)
            decoder.draw = lambda rows, _: [self.planned[row][len(row.tokens)] for row in rows]
            return decoder

    return ForcedBackend()
