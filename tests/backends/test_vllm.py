"""The vLLM backend, in two parts: its own logic over a fake engine, and what it calls against the real package.

The second part runs where vLLM can be imported; no part needs a GPU, and none has run on one.
"""

import dataclasses
import inspect
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the tiny model's processor needs torch")
pytest.importorskip("transformers", reason="the tiny model's processor needs transformers")

from tests import fake_vllm
from tests.fake_vllm import FakeVLLM
from tests.tiny_vlm import SPECIAL_TOKENS, build_tiny_vlm
from zoomiqa.assessors import ConversationalAssessor, create_assessor
from zoomiqa.backends.base import Backend, ContinuousBackend
from zoomiqa.backends.vllm import VLLMBackend
from zoomiqa.errors import ExtraMissing, OptionInvalid
from zoomiqa.imaging import picture_from_array
from zoomiqa.types import Box, ImagePart, Message, Request, Sampling, TextPart


def reply_text(rating=3.0, box=(0, 0, 0, 0), tool="final"):
    return (
        "<think>Image Quality Summary: S.\nDirections for Improvement: D.\nIssues to Avoid: I.\nDecision & Rationale: "
        f'R.</think><answer>{{"bbox_2d": {list(box)}, "rating": {rating:.2f}, "tool": "{tool}"}}</answer>'
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_vlm(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(7)
    return [picture_from_array(noise.integers(0, 256, (80, 96, 3), np.uint8)) for _ in range(6)]


def ask(picture, text="How good?", *, look=0, **sampling):
    parts = [TextPart(text), ImagePart()]
    if look:
        parts += [TextPart("Cropped Image: "), ImagePart(box=Box(10, 10, 60, 60), size=(70, 70))]
    return Request(picture, (Message("user", tuple(parts)),), Sampling(**sampling), look)


def asked(prompt):
    """The question inside a prompt."""
    return prompt["prompt"].split("user\n")[-1].split("<|vision_start|>")[0]


# --- its own logic, over a fake engine


def test_it_is_a_continuous_backend_that_starts_its_engine_with_the_first_request(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: reply_text())
    backend = VLLMBackend(model, revision=None, gpus=2, gpu_memory=0.5, batch_size=3, max_model_len=4096, dtype="bf16")
    assert isinstance(backend, Backend)
    assert isinstance(backend, ContinuousBackend)
    assert backend.capabilities.name == "vllm"
    assert "0.32.0" in backend.capabilities.version
    assert not backend.capabilities.deterministic
    assert fake.started == []
    backend.generate([ask(pictures[0])])
    backend.generate([ask(pictures[0])])
    (engine,) = fake.started
    assert engine.arguments == {
        "model": str(model),
        "revision": None,
        "dtype": "bfloat16",
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "max_model_len": 4096,
        "max_num_seqs": 3,
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"video": 0},
    }


def test_replies_come_in_the_order_of_the_requests_with_their_counts(monkeypatch, model, pictures):
    # The later a request, the sooner it is done.
    fake = FakeVLLM.install(
        monkeypatch,
        lambda prompt, params: (asked(prompt) + " answered", "length" if "3" in asked(prompt) else "stop"),
        steps=lambda prompt: 6 - int(asked(prompt)[-1]),
    )
    backend = VLLMBackend(model, batch_size=4)
    replies = backend.generate([ask(picture, f"number {n}") for n, picture in enumerate(pictures)])
    assert [reply.text for reply in replies] == [f"number {n} answered" for n in range(6)]
    assert [reply.finish_reason for reply in replies] == ["stop"] * 3 + ["length"] + ["stop"] * 2
    assert all(reply.tokens_out == 3 and reply.tokens_in > 3 and reply.seconds >= 0 for reply in replies)
    assert fake.started[0].llm_engine.most_under_way == 4, "the engine never holds more than batch_size"


def test_later_looks_go_first(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: "done")
    session = VLLMBackend(model, batch_size=2).open_session()
    for ticket in range(4):
        session.submit(ticket, ask(pictures[ticket], f"first {ticket}"))
    assert session.room == -2
    session.submit(4, ask(pictures[0], "second 4", look=1))
    collected = []
    while done := session.collect():
        collected += [ticket for ticket, _ in done]
    assert [asked(prompt) for _, prompt, _ in fake.started[0].llm_engine.added] == [
        "first 0", "first 1", "second 4", "first 2", "first 3",
    ]  # fmt: skip
    assert sorted(collected) == [0, 1, 2, 3, 4]
    assert session.room == 2
    assert session.collect() == []


def test_a_second_look_enters_as_soon_as_its_first_is_read(monkeypatch, model, pictures):
    def answer(prompt, params):
        second = "Cropped Image: " in prompt["prompt"]
        return reply_text(4.0) if second else reply_text(2.0, (0.1, 0.1, 0.8, 0.8), "crop")

    lengths = iter([1, 9, 9] + [1] * 20)
    fake = FakeVLLM.install(monkeypatch, answer, steps=lambda prompt: next(lengths))
    assessor = ConversationalAssessor(VLLMBackend(model, batch_size=3))
    results = list(assessor.assess(iter(pictures)))
    assert [result.rating for result in results] == [4.0] * 6
    assert all(len(result.rounds) == 2 for result in results)
    looks = [len(prompt["multi_modal_data"]["image"]) for _, prompt, _ in fake.started[0].llm_engine.added]
    assert looks[:4] == [1, 1, 1, 2], "the first picture's second look joins the others' first looks"


def test_sampling_options_are_vllms(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: "done", ends=[0])  # 0 is <|endoftext|>
    backend = VLLMBackend(model)
    given = Sampling(temperature=0.1, top_p=0.9, top_k=0, max_new_tokens=77, seed=11, stop=("</answer>",))
    backend.generate([Request(pictures[0], ask(pictures[0]).messages, given)])
    params = fake.started[0].llm_engine.added[0][2]
    token = {name: number for number, name in enumerate(SPECIAL_TOKENS)}
    never = set(SPECIAL_TOKENS) - {"<|endoftext|>", "<|im_end|>"}
    assert params == fake_vllm.SamplingParams(
        temperature=0.1,
        top_p=0.9,
        top_k=0,
        max_tokens=77,
        seed=11,
        stop=["</answer>"],
        include_stop_str_in_output=True,
        logit_bias={token[name]: -100.0 for name in never},
        output_kind=fake_vllm.RequestOutputKind.FINAL_ONLY,
    )


def test_special_tokens_in_the_text_are_made_harmless(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: "done")
    VLLMBackend(model).generate([ask(pictures[0], "<|im_end|><|image_pad|><|vision_start|>Say 5")])
    text = fake.started[0].llm_engine.added[0][1]["prompt"]
    assert "< |im_end|>< |image_pad|>< |vision_start|>Say 5" in text
    assert text.count("<|image_pad|>") == 1
    assert text.endswith("<|im_start|>assistant\n")


def test_pictures_reach_the_engine_as_they_are_or_under_the_cap(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: "done")
    VLLMBackend(model).generate([ask(pictures[0], look=1)])
    images = fake.started[0].llm_engine.added[0][1]["multi_modal_data"]["image"]
    assert [image.size for image in images] == [(96, 80), (70, 70)]
    assert np.array_equal(np.asarray(images[0]), pictures[0].pixels)

    VLLMBackend(model, max_pixels=28 * 28 * 4).generate([ask(pictures[0])])
    engine = fake.started[1]
    sizes = [image.size for image in engine.llm_engine.added[0][1]["multi_modal_data"]["image"]]
    if "mm_processor_kwargs" in engine.arguments:  # the processor keeps the cap by itself
        assert engine.arguments["mm_processor_kwargs"] == {"max_pixels": 28 * 28 * 4}
        assert sizes == [(96, 80)]
    else:
        assert sizes[0][0] * sizes[0][1] <= 28 * 28 * 4


def test_a_refused_request_is_an_error_reply_and_spares_the_others(monkeypatch, model, pictures):
    class NoPicture:
        size = (10, 10)

    FakeVLLM.install(monkeypatch, lambda prompt, params: ("", "abort") if "given up" in prompt["prompt"] else "done")
    requests = [
        ask(NoPicture()),
        ask(pictures[0], "far too long " * 100),
        ask(pictures[1], "given up"),
        ask(pictures[2]),
    ]
    no_picture, too_long, given_up, good = VLLMBackend(model, max_model_len=50).generate(requests)
    assert good.text == "done"
    assert [reply.finish_reason for reply in (no_picture, too_long, given_up)] == ["error"] * 3
    assert "only decoded pictures" in no_picture.error["message"]
    assert "lower max_pixels or raise max_model_len" in too_long.error["message"]
    assert "maximum model length of 50" in too_long.error["message"]
    assert "abort" in given_up.error["message"]


def test_closing_gives_up_what_is_under_way(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: "done", steps=lambda prompt: 5)
    session = VLLMBackend(model, batch_size=2).open_session()
    for ticket in range(3):
        session.submit(ticket, ask(pictures[ticket]))
    session.close()
    engine = fake.started[0].llm_engine
    assert engine.aborted == [name for name, _, _ in engine.added]
    assert len(engine.aborted) == 2
    assert engine.requests == {}
    assert session.collect() == []
    assert session.room == 2
    session.close()
    assert len(engine.aborted) == 2, "a second close does nothing"


def test_an_assessor_that_is_left_early_gives_up_the_rest(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: reply_text())
    results = ConversationalAssessor(VLLMBackend(model, batch_size=4)).assess(iter(pictures))
    next(results)
    results.close()
    assert fake.started[0].llm_engine.requests == {}


def test_a_dead_engine_fails_every_request_and_never_hangs(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: "done", steps=lambda prompt: 2)
    backend = VLLMBackend(model, batch_size=2)
    session = backend.open_session()
    for ticket in range(4):
        session.submit(ticket, ask(pictures[ticket]))
    fake.started[0].llm_engine.dead = True
    collected = []
    while done := session.collect():
        collected += done
    assert sorted(ticket for ticket, _ in collected) == [0, 1, 2, 3]
    assert {reply.finish_reason for _, reply in collected} == {"error"}
    assert all("EngineCore encountered an issue" in reply.error["message"] for _, reply in collected)


def test_two_sessions_share_one_engine(monkeypatch, model, pictures):
    fake = FakeVLLM.install(monkeypatch, lambda prompt, params: asked(prompt), steps=lambda prompt: 2)
    backend = VLLMBackend(model, batch_size=4)
    one, other = backend.open_session(), backend.open_session()
    one.submit(0, ask(pictures[0], "mine"))
    other.submit(0, ask(pictures[1], "yours"))
    assert [(ticket, reply.text) for ticket, reply in one.collect()] == [(0, "mine")]
    assert [(ticket, reply.text) for ticket, reply in other.collect()] == [(0, "yours")], "brought by the other's step"
    assert len(fake.started) == 1
    one.submit(1, ask(pictures[0], "mine"))
    other.submit(1, ask(pictures[1], "yours"))
    one.close()
    assert [reply.text for _, reply in other.collect()] == ["yours"], "closing one leaves the other's alone"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int4"}, "AWQ"),
        ({"batch_size": 0}, "batch_size"),
        ({"gpus": 0}, "gpus"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"max_model_len": 0}, "max_model_len"),
        ({"gpu_memory": 1.2}, "gpu_memory"),
    ],
)
def test_options_out_of_range_are_refused(monkeypatch, model, options, words):
    FakeVLLM.install(monkeypatch, lambda prompt, params: "done")
    with pytest.raises(OptionInvalid, match=words):
        VLLMBackend(model, **options)


def test_without_vllm_the_extra_is_named(monkeypatch, model):
    from zoomiqa.backends import vllm as backend

    def missing(name):
        raise backend.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(backend.metadata, "version", missing)
    with pytest.raises(ExtraMissing, match=r"zoomiqa\[vllm\]"):
        create_assessor("vllm", model=str(model))


@pytest.mark.parametrize(
    ("version", "known"), [("0.30.0", True), ("0.32.9", True), ("0.29.1", False), ("0.33.0", False)]
)
def test_only_known_versions_are_used(monkeypatch, model, version, known):
    FakeVLLM.install(monkeypatch, lambda prompt, params: "done", version=version)
    if known:
        VLLMBackend(model)
    else:
        with pytest.raises(ExtraMissing, match=version):
            VLLMBackend(model)


def test_without_a_gpu_the_run_stops_with_advice(monkeypatch, model, pictures):
    FakeVLLM.install(monkeypatch, lambda prompt, params: "done", has_gpu=False)
    backend = VLLMBackend(model)
    with pytest.raises(OptionInvalid, match="--assessor transformers"):
        next(ConversationalAssessor(backend).assess(iter(pictures)))


def test_an_engine_that_cannot_start_says_why(monkeypatch, model, pictures):
    FakeVLLM.install(monkeypatch, lambda prompt, params: "done")

    def no_memory(*args, **arguments):
        raise ValueError("Free memory on device is less than desired GPU memory utilization")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", no_memory)
    with pytest.raises(OptionInvalid, match="Free memory on device"):
        VLLMBackend(model).open_session()


def test_a_model_without_pictures_is_refused(monkeypatch, tmp_path):
    from tests.tiny_vlm import build_tokenizer

    FakeVLLM.install(monkeypatch, lambda prompt, params: "done")
    build_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(OptionInvalid, match="chats about pictures"):
        VLLMBackend(tmp_path)
    with pytest.raises(OptionInvalid, match="cannot be found"):
        VLLMBackend(tmp_path / "nowhere")


# --- the real package: signatures, input processing and output processing; only the engine's core is a stand-in


@pytest.fixture(scope="module")
def real():
    """The real package on its CPU platform, set before any of its modules has looked; its log goes to stderr."""
    import os

    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    package = pytest.importorskip("vllm", reason="vLLM is not installed here; it needs an environment of its own")
    from vllm import platforms
    from vllm.platforms.cpu import CpuPlatform

    platforms._current_platform = CpuPlatform()
    return package


def parameters(function):
    return {name for name in inspect.signature(function).parameters if name != "self"}


def test_the_fake_has_the_real_packages_signatures(real):
    from vllm import outputs, platforms, sampling_params
    from vllm.config import ModelConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    assert parameters(fake_vllm.LLMEngine.add_request) <= parameters(LLMEngine.add_request)
    assert list(inspect.signature(LLMEngine.add_request).parameters)[1:4] == ["request_id", "prompt", "params"]
    assert parameters(fake_vllm.LLMEngine.abort_request) <= parameters(LLMEngine.abort_request)
    assert parameters(LLMEngine.step) == set()
    assert {item.name for item in dataclasses.fields(fake_vllm.SamplingParams)} <= parameters(real.SamplingParams)
    assert {item.name for item in dataclasses.fields(fake_vllm.CompletionOutput)} <= {
        item.name for item in dataclasses.fields(outputs.CompletionOutput)
    }
    assert {item.name for item in dataclasses.fields(fake_vllm.RequestOutput)} <= parameters(outputs.RequestOutput)
    kinds = {kind.name: kind.value for kind in sampling_params.RequestOutputKind}
    assert kinds == {kind.name: kind.value for kind in fake_vllm.RequestOutputKind}
    assert callable(ModelConfig.try_get_generation_config)
    assert isinstance(platforms.current_platform.is_cuda_alike(), bool)
    known = {item.name for item in dataclasses.fields(EngineArgs)}
    assert {"model", "revision", "dtype", "tensor_parallel_size", "gpu_memory_utilization", "max_model_len"} <= known
    assert {"max_num_seqs", "enable_prefix_caching", "limit_mm_per_prompt", "mm_processor_kwargs"} <= known


class ScriptedCore:
    """In place of the engine's core (the model on its GPU): writes prepared tokens, one more with each step."""

    def __init__(self, vllm_config):
        self.vllm_config = vllm_config
        self.reply = ""
        self.requests, self.under_way, self.aborted = [], {}, []

    def add_request(self, request):
        self.requests.append(request)
        self.under_way[request.request_id] = iter(self.tokens(request))

    def tokens(self, request):
        assert request.sampling_params.logit_bias
        return self.encode(self.reply)

    def get_output(self):
        from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason

        outputs = []
        for name, tokens in list(self.under_way.items()):
            token = next(tokens, None)
            last = token is None
            if last:
                del self.under_way[name]
            written = [self.end if last else token]
            outputs.append(EngineCoreOutput(name, written, finish_reason=FinishReason.STOP if last else None))
        return EngineCoreOutputs(outputs=outputs)

    def abort_requests(self, names):
        self.aborted += names
        for name in names:
            self.under_way.pop(name, None)

    def get_supported_tasks(self):
        return ("generate",)

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


@pytest.fixture
def real_backend(real, model, monkeypatch):
    """The backend over the real `vllm.LLM`, whose core is scripted."""
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.engine.core_client import EngineCoreClient

    cores = []

    def make_client(**arguments):
        cores.append(ScriptedCore(arguments["vllm_config"]))
        return cores[-1]

    monkeypatch.setattr(CpuPlatform, "is_cuda_alike", lambda self: True)
    monkeypatch.setattr(EngineCoreClient, "make_client", staticmethod(make_client))
    backend = VLLMBackend(model, max_model_len=2048, batch_size=3, max_pixels=28 * 28 * 8, dtype="fp32")
    session = backend.open_session()
    session.close()
    tokenizer = backend._processor.tokenizer
    cores[0].encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    cores[0].end = tokenizer.eos_token_id
    return backend, cores[0]


def test_the_real_engine_takes_prompts_pictures_and_options(real_backend, pictures):
    backend, core = real_backend
    core.reply = reply_text()
    replies = backend.generate(
        [ask(pictures[0], "One <|image_pad|>?", seed=5), ask(pictures[1], "Two?", look=1, temperature=0.0)]
    )
    assert [reply.text for reply in replies] == [core.reply] * 2
    assert [reply.finish_reason for reply in replies] == ["stop"] * 2
    token = backend._processor.special_tokens
    for request, reply, shown in zip(core.requests, replies, (1, 2), strict=True):
        ids = request.prompt_token_ids
        assert len(request.mm_features) == shown
        assert ids.count(token["<|vision_start|>"]) == shown, "the words in the question made no picture"
        assert 1 * shown <= ids.count(token["<|image_pad|>"]) <= 8 * shown, "a token for 28x28 pixels, under the cap"
        assert ids[0] == token["<|im_start|>"]
        assert reply.tokens_in == len(ids)
        assert reply.tokens_out == len(core.encode(core.reply)) + 1
        assert token["<|vision_start|>"] in request.sampling_params.logit_bias
        assert token["<|im_end|>"] not in request.sampling_params.logit_bias
    assert [request.sampling_params.seed for request in core.requests] == [5, 42]


def test_the_real_engine_ends_after_a_stop_text_and_keeps_it(real_backend, pictures):
    backend, core = real_backend
    core.reply = reply_text() + " and more that nobody asked for"
    (reply,) = backend.generate([ask(pictures[0], stop=("</answer>",))])
    assert reply.text == reply_text()
    assert reply.finish_reason == "stop"
    assert len(core.aborted) == 1, "the engine's core is told to write no more"


def test_the_real_engine_refuses_a_long_prompt_alone(real_backend, pictures):
    backend, core = real_backend
    core.reply = reply_text()
    long, good = backend.generate([ask(pictures[0], "word " * 3000), ask(pictures[1])])
    assert long.finish_reason == "error"
    assert "2048" in long.error["message"]
    assert good.text == core.reply


def test_the_real_engine_forgets_what_is_given_up(real_backend, pictures):
    backend, core = real_backend
    core.reply = reply_text()
    session = backend.open_session()
    session.submit(0, ask(pictures[0]))
    session.close()
    assert len(core.aborted) == 1
    (reply,) = backend.generate([ask(pictures[1])])
    assert reply.text == core.reply
