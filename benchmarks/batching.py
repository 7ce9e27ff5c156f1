"""Continuous rounds against a barrier per batch, on the same tiny model, prompts and texts.

    python benchmarks/batching.py [--images 64] [--batch-size 8]

The peer is the plain way to evaluate: take a batch, `model.generate` its first looks, `model.generate` the second
looks of those that asked for one, next batch. Every row of a call waits for the longest, and every picture for the
slowest of its batch. Both sides run real forward passes of a Qwen2.5-VL with random weights and write the same scripted
texts, whose lengths are drawn once (log-normal, median 160 tokens; half of the pictures ask for a second look).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.tiny_vlm import build_tiny_vlm, forced_backend
from zoomiqa import (
    ConversationalAssessor,
    ConversationSettings,
    Picture,
    ScriptedBackend,
    converse,
    picture_from_array,
)
from zoomiqa.types import Assessment, Reply, Request


def scripted_texts(images: int, seed: int = 7) -> dict[tuple[str, int], str]:
    """The reply of each look of each picture."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    texts = {}
    for image in range(images):
        looks = draw.choice([1, 2])
        for look in range(looks):
            words = int(min(900, max(20, draw.lognormvariate(np.log(160), 0.6))))
            final = look + 1 == looks
            answer = {"bbox_2d": [0, 0, 0, 0] if final else [0.1, 0.1, 0.8, 0.8], "rating": 3.0}
            answer["tool"] = "final" if final else "crop"
            texts[str(image), look] = f"<think>{'~' * words}</think><answer>{json.dumps(answer)}</answer>"
    return texts


def name_of(request: Request) -> str:
    picture = request.picture
    return str(picture.info.path) if isinstance(picture, Picture) else ""


def run_with_barrier(backend: Any, pictures: list[Picture], batch_size: int, script: Any) -> list[Assessment]:
    """Batch after batch, look after look, each with the library's own `generate`."""
    results = []
    for first in range(0, len(pictures), batch_size):
        talks = [converse(picture, ConversationSettings()) for picture in pictures[first : first + batch_size]]
        requests = {index: next(talk) for index, talk in enumerate(talks)}
        done: dict[int, Assessment] = {}
        while requests:
            texts = generate(backend, list(requests.values()), script)
            following = {}
            for index, text in zip(list(requests), texts, strict=True):
                try:
                    following[index] = talks[index].send(Reply(text))
                except StopIteration as stop:
                    done[index] = stop.value
            requests = following
        results += [done[index] for index in range(len(talks))]
    return results


def generate(backend: Any, requests: list[Request], script: Any) -> list[str]:
    """One call of `model.generate` for all, forced to write the scripted texts."""
    import torch
    from transformers import LogitsProcessorList

    from zoomiqa.backends.decoding import join_inputs

    tokenizer, model = backend._tokenizer, backend.load()
    rows = [backend.prepare(number, request) for number, request in enumerate(requests)]
    inputs = join_inputs([row.inputs for row in rows])
    width = inputs["input_ids"].shape[1]
    ends = tokenizer.eos_token_id
    plans = [[*tokenizer.encode(script(request), add_special_tokens=False), ends] for request in requests]

    def force(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = ids.shape[1] - width
        wanted = torch.tensor([plan[step] if step < len(plan) else ends for plan in plans])
        return torch.full_like(scores, -torch.inf).scatter_(1, wanted[:, None], 0.0)

    longest = max(map(len, plans))
    written = model.generate(
        **inputs, do_sample=False, max_new_tokens=longest, logits_processor=LogitsProcessorList([force])
    )
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written[:, width:]]


def texts_of(results: list[Assessment]) -> list[list[str]]:
    return [[look.text for look in result.rounds] for result in results]


def driver_overhead(images: int = 2000) -> float:
    """Milliseconds per picture and look that the conversation and its driver take, with a backend that is instant."""
    crop, final = (
        f'<think>Issues to Avoid: S.</think><answer>{{"bbox_2d": {box}, "rating": 3.1, "tool": "{tool}"}}</answer>'
        for box, tool in (("[0.1, 0.1, 0.8, 0.8]", "crop"), ("[0, 0, 0, 0]", "final"))
    )
    backend = ScriptedBackend(lambda request: Reply(final if request.round_index else crop), batch_size=64)
    pictures = [picture_from_array(np.full((768, 1024, 3), index % 256, np.uint8)) for index in range(16)]
    names = [replace(picture, info=replace(picture.info, sha256="0" * 64)) for picture in pictures]
    start = time.perf_counter()
    looks = sum(
        len(result.rounds)
        for result in ConversationalAssessor(backend).assess(names[index % 16] for index in range(images))
    )
    return (time.perf_counter() - start) / looks * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # for both sides; a model this small loses by more

    texts = scripted_texts(arguments.images)
    sizes = random.Random(1)  # noqa: S311
    pixels = np.random.default_rng(0)
    pictures = [
        picture_from_array(
            pixels.integers(0, 256, (sizes.randint(60, 160), sizes.randint(60, 160), 3), np.uint8), name=str(index)
        )
        for index in range(arguments.images)
    ]

    def script(request: Request) -> str:
        return texts[name_of(request), request.round_index]

    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny_vlm(Path(folder) / "model", hidden_size=128, layers=4)
        backend = forced_backend(model, script, batch_size=arguments.batch_size)
        passes = [0]
        backend.load().register_forward_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))
        ours, peers = [], []
        for _ in range(arguments.repeats):
            start, before = time.perf_counter(), passes[0]
            plain = run_with_barrier(backend, pictures, arguments.batch_size, script)
            peers.append(time.perf_counter() - start)
            peer_passes = passes[0] - before
            start, before = time.perf_counter(), passes[0]
            continuous = list(ConversationalAssessor(backend).assess(pictures))
            ours.append(time.perf_counter() - start)
            our_passes = passes[0] - before
            if texts_of(plain) != texts_of(continuous):
                raise SystemExit("the two sides wrote different texts")
    tokens = sum(look.tokens_out or 0 for result in continuous for look in result.rounds)
    looks = sum(len(result.rounds) for result in continuous)
    ours_s, peer_s = statistics.median(ours), statistics.median(peers)
    print(f"driver with an instant backend: {driver_overhead():.3f} ms per picture and look")
    print(f"{arguments.images} pictures, {looks} looks, {tokens} tokens, batch size {arguments.batch_size}")
    print(f"barrier per batch  {peer_s:7.2f} s  {peer_passes:6d} forward passes")
    print(f"continuous rounds  {ours_s:7.2f} s  {our_passes:6d} forward passes")
    pairs = sorted(mine / other for mine, other in zip(ours, peers, strict=True))
    print(f"ratio {ours_s / peer_s:.2f} (of each pair: {', '.join(f'{pair:.2f}' for pair in pairs)})")


if __name__ == "__main__":
    main()
