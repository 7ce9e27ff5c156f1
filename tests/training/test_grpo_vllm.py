"""vLLM as the engine of rollouts, over a stand-in engine that reads prompts with the model's real processor."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.fake_vllm import FakeVLLM
from tests.training.grpo_tools import PROMPTS, reply
from training.grpo.items import Item
from training.grpo.rollout import Draw, sample_all, talks_of
from training.grpo.rows import make_batch, rows_of
from training.models import ModelSettings
from training.objectives.tokens import token_pieces
from zoomiqa.backends.processor import load_processor
from zoomiqa.imaging import picture_from_array
from zoomiqa.protocol import ConversationSettings
from zoomiqa.rewards import Truth


class Engine:
    """Answers what a script says, in tokens, with a log-probability for each."""

    def __init__(self, processor, script, garble=False):
        self.processor, self.script, self.garble = processor, script, garble
        self.added, self.under_way, self.aborted = [], {}, []

    def add_request(self, name, prompt, sampling, *, tokenization_kwargs):
        assert tokenization_kwargs == {"add_special_tokens": False}
        self.added.append((prompt, sampling))
        self.under_way[name] = prompt

    def step(self):
        name, prompt = next(iter(self.under_way.items()))
        del self.under_way[name]
        images = [prompt["multi_modal_data"]["image"]]
        read = self.processor.processor(text=[prompt["prompt"]], images=images)["input_ids"][0]
        text = self.script("Closer" in prompt["prompt"])
        tokens = [*self.processor.tokenizer.encode(text), self.processor.tokenizer.eos_token_id]
        steps = [{token: SimpleNamespace(logprob=-0.5 - place / 100)} for place, token in enumerate(tokens)]
        written = SimpleNamespace(text=text, token_ids=tokens, finish_reason="stop", logprobs=steps)
        ids = [*list(read), 7] if self.garble else list(read)
        return [SimpleNamespace(request_id=name, prompt_token_ids=ids, outputs=[written], finished=True)]

    def abort_request(self, names):
        self.aborted += names


class Generation:
    """What is used of TRL's `VLLMGeneration`."""

    enable_sleep_mode = True

    def __init__(self, engine):
        self.told = []
        self._llm_weights_sleeping = True
        self.llm = SimpleNamespace(
            llm_engine=engine,
            wake_up=lambda tags: self.told.append(("wake", *tags)),
            sleep=lambda level: self.told.append(("sleep", level)),
        )

    def sync_weights(self):
        self.told.append(("sync",))


def roll_out(monkeypatch, model, *, garble=False):
    from training.grpo.vllm_policy import ColocatedEngine

    FakeVLLM.install(monkeypatch, None)
    processor = load_processor(str(model))
    engine = Engine(processor, lambda later: reply(3.21, crop=not later, later=later), garble)
    generation = Generation(engine)
    loaded = SimpleNamespace(settings=ModelSettings(str(model)), ends=(processor.tokenizer.eos_token_id,))
    picture = picture_from_array(np.full((56, 84, 3), 90, np.uint8))
    draws = [Draw(Item("p", None, "p.png", Truth(rating=3.0), "set"), 0, number) for number in range(3)]
    owner = ColocatedEngine(generation, loaded, "cpu", 2)
    with owner.session() as session:
        talks = talks_of(draws, [picture] * 3, ConversationSettings(), PROMPTS, seed=1, rollout=0)
        return sample_all(session, talks), engine, generation, processor


def test_both_looks_come_with_tokens_and_the_engines_log_probabilities(monkeypatch, tiny_vlm):
    samples, _, generation, processor = roll_out(monkeypatch, tiny_vlm)
    assert [len(sample.looks) for sample in samples] == [2, 2, 2]
    assert generation.told == [("sync",), ("wake", "kv_cache"), ("sleep", 2)]
    assert generation._llm_weights_sleeping
    look = samples[0].looks[1]
    assert look.tokens[-1] == processor.tokenizer.eos_token_id
    assert len(look.log_probs) == len(look.tokens) == look.tokens_out
    assert int(look.prompt["image_grid_thw"].shape[0]) == 2
    batch = make_batch([(0, 1.0, rows_of(samples[0].looks))], token_pieces(processor.tokenizer), padding=0)
    torch.testing.assert_close(batch.drawn[0][batch.valid[0]], torch.tensor(samples[0].looks[0].log_probs))
    assert not batch.drawn[~batch.valid].any()


def test_every_request_has_its_seed_and_no_picture_token_can_be_drawn(monkeypatch, tiny_vlm):
    _, engine, _, processor = roll_out(monkeypatch, tiny_vlm)
    assert len({sampling.seed for _, sampling in engine.added}) == len(engine.added) == 6
    never = engine.added[0][1].logit_bias
    assert processor.special_tokens["<|image_pad|>"] in never
    assert processor.tokenizer.eos_token_id not in never
    assert engine.added[0][1].logprobs == 0


def test_a_prompt_that_vllm_reads_otherwise_is_no_sample(monkeypatch, tiny_vlm):
    from zoomiqa.errors import BackendFailed

    with pytest.raises(BackendFailed, match="other tokens"):
        roll_out(monkeypatch, tiny_vlm, garble=True)
