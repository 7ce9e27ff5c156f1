"""Pictures per second and peak memory of a model of real shape with random weights, by batch size.

    python benchmarks/throughput.py --shape 7b --batch-sizes 1,4,16,64 --images 128     # a CUDA GPU
    python benchmarks/throughput.py --shape tiny --batch-sizes 1,4 --images 16          # any machine

Every picture is 1024x768 and is looked at twice; each look writes 300 tokens (forced: random weights would not end by
themselves). The shapes are Qwen2.5-VL's published configurations. The time holds everything: rendering, the model's
processor, prompts, pictures, decoding and parsing. Where the time goes is printed with `--profile`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.tiny_vlm import build_tiny_vlm, forced_backend
from zoomiqa import ConversationalAssessor, picture_from_array
from zoomiqa.types import Request

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "7b": {
        "text": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
        | {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "mrope": [16, 24, 24]},
        "vision": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
        | {"out_hidden_size": 3584, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
    },
    "3b": {
        "text": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36}
        | {"num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "mrope": [16, 24, 24]},
        "vision": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
        | {"out_hidden_size": 2048, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
    },
    "tiny": {},
}
"""Qwen2.5-VL's configurations (config.json of the released 7B and 3B models)."""


def model_of(shape: str, folder: Path, device: str, dtype: torch.dtype) -> Any:
    """A model of that shape with random weights, made on the device."""
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    config = AutoConfig.from_pretrained(folder)
    text, vision = dict(SHAPES[shape].get("text", {})), SHAPES[shape].get("vision", {})
    if text:
        config.text_config.rope_parameters = {
            "rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": text.pop("mrope"),
        }  # fmt: skip
        text["layer_types"] = ["full_attention"] * text["num_hidden_layers"]
        text["max_position_embeddings"] = 128_000
    for part, values in ((config.text_config, text), (config.vision_config, vision)):
        for name, value in values.items():
            setattr(part, name, value)
    config.tie_word_embeddings = shape == "3b"  # as released
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return Qwen2_5_VLForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def script_of(tokens: int) -> Any:
    """A reply of so many tokens: the filler is one byte, and so one token, a character."""

    def script(request: Request) -> str:
        final = request.round_index > 0
        answer = {"bbox_2d": [0, 0, 0, 0] if final else [0.2, 0.2, 0.7, 0.7], "rating": 3.0}
        answer["tool"] = "final" if final else "crop"
        ending = f"</think><answer>{json.dumps(answer)}</answer>"
        return f"<think>{'~' * max(1, tokens - len(ending) - 7)}{ending}"

    return script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--batch-sizes", default="1,4,16")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--profile", action="store_true", help="share of time in reading prompts and in writing")
    arguments = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pixels = np.random.default_rng(0)
    pictures = [picture_from_array(pixels.integers(0, 256, (768, 1024, 3), np.uint8)) for _ in range(8)]
    with tempfile.TemporaryDirectory() as name:
        folder = build_tiny_vlm(Path(name) / "model")
        processor = json.loads((folder / "processor_config.json").read_text())
        processor["image_processor"]["size"]["longest_edge"] = 12_845_056  # the released models' limit
        (folder / "processor_config.json").write_text(json.dumps(processor))
        model = model_of(arguments.shape, folder, device, dtype)
        weights = sum(parameter.numel() for parameter in model.parameters()) / 1e9
        parts = watch(model) if arguments.profile else None
        print(f"{arguments.shape}: {weights:.2f} billion weights, {device}, {dtype}")
        print("batch  pictures/s  tokens/s  peak GiB  prompt tokens (first, second look)")
        for size in map(int, arguments.batch_sizes.split(",")):
            options = {"batch_size": size, "attention": arguments.attention}
            backend = forced_backend(folder, script_of(arguments.tokens), **options)
            backend._model = model
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            list(ConversationalAssessor(backend).assess(pictures[:1]))  # first calls are slow
            if parts is not None:
                parts.clear()
            count = max(size, arguments.images)
            start = time.perf_counter()
            results = list(ConversationalAssessor(backend).assess(pictures[index % 8] for index in range(count)))
            seconds = time.perf_counter() - start
            looks = [look for result in results for look in result.rounds]
            if any(result.error for result in results) or len(looks) != 2 * count:
                raise SystemExit(f"a picture failed: {next(result.error for result in results if result.error)}")
            written = sum(look.tokens_out or 0 for look in looks)
            peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
            print(f"{size:5d}  {count / seconds:10.2f}  {written / seconds:8.0f}  {peak:8.1f}  "
                  f"{looks[0].tokens_in}, {looks[1].tokens_in}")  # fmt: skip
            if parts is not None:
                total = sum(parts.values())
                print("       " + ", ".join(f"{what} {share / seconds:.0%}" for what, share in parts.items())
                      + f", all else {1 - total / seconds:.0%}")  # fmt: skip


def watch(model: Any) -> Counter[str]:
    """Seconds in the model's forward passes, prompts apart from single tokens; waits for the device at each."""
    parts: Counter[str] = Counter()
    began = [0.0]

    def sync() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def before(*_: Any) -> None:
        sync()
        began[0] = time.perf_counter()

    def after(_module: Any, _args: Any, kwargs: Any, _output: Any) -> None:
        sync()
        what = "writing" if kwargs["input_ids"].shape[1] == 1 else "reading prompts"
        parts[what] += time.perf_counter() - began[0]

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.register_forward_hook(after, with_kwargs=True)
    return parts


if __name__ == "__main__":
    main()
