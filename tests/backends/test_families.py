"""Continuous batching writes what `generate` writes for other families too: other positions, masks and inputs."""

import random

import pytest
import torch
import transformers as hf

from zoomiqa.backends.decoding import Decoder, Row
from zoomiqa.types import Sampling

PICTURE = 299
"""Id of the token that stands for a picture."""

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP |= {"image_size": 32, "patch_size": 8}
LENGTH = 12


def prompt(number, places):
    """Random words of a length of its own, with a picture inside."""
    words = random.Random(number)
    ids = [words.randrange(1, 250) for _ in range(5 + 3 * number)] + [PICTURE] * places + [7, 8, 9]
    tokens = torch.tensor([ids])
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def noise(number, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(number))


def llava():
    vision = {"model_type": "clip_vision_model", "projection_dim": 32, **CLIP}
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_index=PICTURE,
        image_seq_length=16,
    )
    model = hf.LlavaForConditionalGeneration(config)
    return model, lambda number: {**prompt(number, 16), "pixel_values": noise(number, 1, 3, 32, 32)}


def gemma3():
    """Layers that see the last eight tokens only, beside layers that see all."""
    layers = ["sliding_attention", "full_attention"]
    text = {**TEXT, "head_dim": 8, "sliding_window": 8, "layer_types": layers}
    config = hf.Gemma3Config(text_config=text, vision_config=CLIP, mm_tokens_per_image=4, image_token_index=PICTURE)

    def inputs(number):
        words = prompt(number, 4)
        kinds = (words["input_ids"] == PICTURE).long()
        return {**words, "token_type_ids": kinds, "pixel_values": noise(number, 1, 3, 32, 32)}

    return hf.Gemma3ForConditionalGeneration(config), inputs


def qwen3_vl():
    """Positions in three dimensions, and features of a picture that enter several layers."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 8, "spatial_merge_size": 2, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    config = hf.Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 16, "rope_parameters": rope},
        vision_config=vision,
        image_token_id=PICTURE,
        video_token_id=298,
        vision_start_token_id=297,
        vision_end_token_id=296,
    )

    def inputs(number):
        height, width = 4, 4 + 2 * number
        words = prompt(number, height * width // 4)
        kinds = (words["input_ids"] == PICTURE).int()
        grid = torch.tensor([[1, height, width]])
        patches = noise(number, height * width, 3 * 2 * 8 * 8)
        return {**words, "mm_token_type_ids": kinds, "image_grid_thw": grid, "pixel_values": patches}

    return hf.Qwen3VLForConditionalGeneration(config), inputs


def idefics3():
    config = hf.Idefics3Config(
        text_config={"model_type": "llama", **TEXT}, vision_config=CLIP, image_token_id=PICTURE, scale_factor=2
    )

    def inputs(number):
        mask = torch.ones(1, 1, 32, 32, dtype=torch.long)
        return {**prompt(number, 4), "pixel_values": noise(number, 1, 1, 3, 32, 32), "pixel_attention_mask": mask}

    return hf.Idefics3ForConditionalGeneration(config), inputs


@pytest.mark.parametrize("family", [llava, gemma3, qwen3_vl, idefics3])
def test_rows_that_come_and_go_are_what_generate_writes_alone(family):
    torch.manual_seed(0)
    model, inputs_of = family()
    for weights in model.eval().parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.2)
    prompts = [inputs_of(number) for number in range(5)]
    alone = []
    for inputs in prompts:
        whole = model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=None, pad_token_id=0)
        alone.append(whole[0, inputs["input_ids"].shape[1] :].tolist())
    assert len({tuple(tokens) for tokens in alone}) > 1, "the pictures and words make a difference"

    decoder = Decoder(model, 3, end_tokens=frozenset())
    waiting = [
        Row(ticket, inputs, Sampling(temperature=0, max_new_tokens=LENGTH)) for ticket, inputs in enumerate(prompts)
    ]
    written = {}
    while waiting or decoder.rows:
        ended = []
        if waiting and decoder.free:
            several = min(2, decoder.free)
            ended += decoder.admit(waiting[:several])
            waiting = waiting[several:]
        if decoder.rows:
            ended += decoder.step()
        written |= {row.ticket: row.tokens for row in ended}
    assert [written[ticket] for ticket in range(5)] == alone
