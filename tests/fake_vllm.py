"""vLLM's offline engine without a GPU: the classes and methods that the backend calls, in the shapes that it reads.

`tests/backends/test_vllm.py` compares every signature here with the real package's where that is installed.
"""

import enum
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = 16
    seed: int | None = None
    stop: list[str] | None = None
    include_stop_str_in_output: bool = False
    logit_bias: dict[int, float] | None = None
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE


@dataclass
class CompletionOutput:
    text: str
    token_ids: list[int]
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int] | None
    outputs: list[CompletionOutput]
    finished: bool


@dataclass
class _Request:
    prompt: dict
    params: SamplingParams
    steps_left: int


@dataclass
class LLMEngine:
    """Answers `answer(prompt, params)`, a text, after `steps(prompt)` steps, first come first served."""

    answer: object
    steps: object
    places: int
    max_model_len: int
    requests: dict = field(default_factory=dict)
    added: list = field(default_factory=list)
    aborted: list = field(default_factory=list)
    dead: bool = False
    most_under_way: int = 0

    def add_request(self, request_id, prompt, params, *, tokenization_kwargs=None):
        if self.dead:
            raise RuntimeError("EngineCore encountered an issue")
        if len(prompt["prompt"].split()) > self.max_model_len:
            raise ValueError(f"The decoder prompt is longer than the maximum model length of {self.max_model_len}.")
        assert tokenization_kwargs == {"add_special_tokens": False}
        assert prompt["prompt"].count("<|image_pad|>") == len(prompt.get("multi_modal_data", {}).get("image", []))
        self.requests[request_id] = _Request(prompt, params, self.steps(prompt))
        self.added.append((request_id, prompt, params))
        return request_id

    def step(self):
        assert self.requests, "nothing is under way: the real engine would wait for ever"
        if self.dead:
            raise RuntimeError("EngineCore encountered an issue")
        running = list(self.requests.items())[: self.places]
        self.most_under_way = max(self.most_under_way, len(self.requests))
        done = []
        for name, request in running:
            request.steps_left -= 1
            if request.steps_left <= 0:
                del self.requests[name]
                text = self.answer(request.prompt, request.params)
                reason = "stop"
                if isinstance(text, tuple):
                    text, reason = text
                words = request.prompt["prompt"].split()
                output = CompletionOutput(text, list(range(len(text.split()))), reason)
                done.append(RequestOutput(name, list(range(len(words))), [output], finished=True))
        return done

    def abort_request(self, request_ids):
        self.aborted += request_ids
        for name in request_ids:
            self.requests.pop(name, None)


class LLM:
    def __init__(self, model, **arguments):
        self.arguments = {"model": model, **arguments}
        self.model_config = SimpleNamespace(try_get_generation_config=lambda: {"eos_token_id": FakeVLLM.ends})
        longest = arguments["max_model_len"]
        self.llm_engine = LLMEngine(
            FakeVLLM.answer, FakeVLLM.steps, arguments["max_num_seqs"], 10**6 if longest == -1 else longest
        )
        FakeVLLM.started.append(self)


class FakeVLLM:
    """What the engines answer, and which were started; `install` puts the package in place of the real one."""

    @classmethod
    def install(cls, monkeypatch, answer, *, steps=lambda prompt: 1, ends=None, has_gpu=True, version="0.32.0"):
        import sys

        from zoomiqa.backends import vllm as backend

        cls.answer, cls.steps, cls.ends = staticmethod(answer), staticmethod(steps), ends
        cls.started = []
        package, params, platforms = (ModuleType(name) for name in ("vllm", "vllm.sampling_params", "vllm.platforms"))
        package.LLM, package.SamplingParams = LLM, SamplingParams
        params.RequestOutputKind = RequestOutputKind
        platforms.current_platform = SimpleNamespace(is_cuda_alike=lambda: has_gpu)
        for module in (package, params, platforms):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        others = backend.metadata.version
        monkeypatch.setattr(backend.metadata, "version", lambda name: version if name == "vllm" else others(name))
        return cls
