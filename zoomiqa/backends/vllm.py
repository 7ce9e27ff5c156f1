"""Vision-language models through vLLM's offline engine, for runs over many pictures on GPUs.

Any chat model for pictures that vLLM serves; Qwen2.5-VL is the family of the released checkpoint. Requests come and go
in the engine's own queue, so a picture's second look enters as soon as its first is read. It must not know rounds,
crops or parsing.

What is called here is checked against the signatures of vLLM 0.30 to 0.32, and prompts, pictures and sampling options
against its own input processing on a CPU; **no engine with a model was ever run on a GPU with this code**.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from zoomiqa.backends.base import Capabilities, Session, error_reply
from zoomiqa.backends.processor import load_processor
from zoomiqa.backends.session import answer_all
from zoomiqa.errors import BackendFailed, ExtraMissing, OptionInvalid
from zoomiqa.types import Reply, Request, Sampling

DTYPES = {"auto": "auto", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

SUPPORTED = ((0, 30), (0, 33))
"""Versions of vLLM: from the first, below the second. Others may take other arguments."""

_INSTALL = 'run: pip install "zoomiqa[vllm]" in an environment of its own'

_NEVER = -100.0
"""Added to a token's logit so that it is never drawn; the least that vLLM's own interface allows."""


class VLLMBackend:
    """Answers with a vision-language model that vLLM runs here. The engine starts with the first request.

    Args:
        model: Hub id (`owner/name`) or folder.
        revision: Branch, tag or commit on the hub.
        dtype: `auto` (the weights' own), `bf16`, `fp16` or `fp32`. Weights quantised beforehand (AWQ, GPTQ, FP8) are
            recognised with `auto`.
        max_pixels: Pictures are shrunk to so many pixels before the model sees them; `None` is the model's own limit.
        batch_size: Replies under way at once.
        gpus: GPUs that share the model (tensor parallelism).
        gpu_memory: Share of each GPU's memory that vLLM may take, 0..1.
        max_model_len: Longest prompt and reply together, in tokens; `None` is the longest that the model allows and
            the memory holds. Qwen2.5-VL takes a token for 784 pixels, and a second look shows two pictures.

    Raises:
        ExtraMissing: vLLM is not installed, or in a version that is not known here.
        OptionInvalid: an option out of range; no such model, or one that is no chat model for pictures.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        max_pixels: int | None = None,
        batch_size: int = 64,
        gpus: int = 1,
        gpu_memory: float = 0.9,
        max_model_len: int | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise OptionInvalid(
                f"dtype must be one of {', '.join(DTYPES)} with vLLM",
                dtype,
                "for fewer bits, name a model whose weights are quantised (AWQ, GPTQ or FP8)",
            )
        counts = {"max_pixels": max_pixels, "batch_size": batch_size, "gpus": gpus, "max_model_len": max_model_len}
        for name, number in counts.items():
            if number is not None and number < 1:
                raise OptionInvalid(f"{name} must be at least 1", number, "give a positive number")
        if not 0 < gpu_memory <= 1:
            raise OptionInvalid("gpu_memory must be above 0 and at most 1", gpu_memory, "0.9 leaves some to others")
        self._version = _vllm_version()
        self._model, self._revision = str(model), revision
        self._batch_size = batch_size
        self._processor = load_processor(self._model, revision, max_pixels)
        self._arguments: dict[str, Any] = {
            "model": self._model,
            "revision": revision,
            "dtype": DTYPES[dtype],
            "tensor_parallel_size": gpus,
            "gpu_memory_utilization": gpu_memory,
            "max_model_len": -1 if max_model_len is None else max_model_len,
            "max_num_seqs": batch_size,
            # The instructions are the same for every picture, and a second look shows the whole picture again.
            "enable_prefix_caching": True,
            # Without films, no memory is kept for them. Pictures are not counted.
            "limit_mm_per_prompt": {"video": 0},
        }
        self._engine: _Engine | None = None
        self._starting = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            name="vllm",
            version=f"{self._model}@{self._revision or 'main'}, {self._arguments['dtype']}, vLLM {self._version}",
            description=f"The vision-language model {self._model}, run with vLLM {self._version}.",
            batch_size=self._batch_size,
        )

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        return answer_all(self.open_session(), requests)

    def open_session(self, batch_size: int | None = None) -> Session:
        """Begin; the first time, this starts the engine, which takes minutes.

        Raises:
            OptionInvalid: there is no GPU, or the model does not fit.
        """
        with self._starting:
            if self._engine is None:
                self._engine = _Engine(_start(self._arguments))
        return _EngineSession(self, self._engine, self._batch_size if batch_size is None else batch_size)

    def prompt_of(self, request: Request) -> dict[str, Any]:
        """What vLLM's engine takes: the text with a place for each picture, and the pictures.

        Raises:
            BackendFailed: the subject is no decoded picture, or the chat template refuses the conversation.
        """
        from PIL import Image

        chat = self._processor.chat_of(request)
        try:
            text = self._processor.prompt(chat.messages)
        except (ValueError, TypeError) as error:
            raise BackendFailed("the model's chat template refused the request", error, "see what it says") from error
        pictures = [Image.fromarray(pixels) for pixels in chat.images]
        return {"prompt": text, "multi_modal_data": {"image": pictures}} if pictures else {"prompt": text}

    def sampling_of(self, sampling: Sampling, ends: frozenset[int]) -> Any:
        """vLLM's form of the sampling options. Special tokens other than `ends` are never drawn."""
        vllm = import_module("vllm")
        never = {number: _NEVER for number in self._processor.special_tokens.values() if number not in ends}
        return vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,  # 0 is all tokens there as well
            max_tokens=sampling.max_new_tokens,
            seed=sampling.seed,
            stop=list(sampling.stop),
            include_stop_str_in_output=True,
            logit_bias=never,
            output_kind=import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY,
        )

    def end_tokens(self, engine: _Engine) -> frozenset[int]:
        """Ids that end a reply: the model's own, and the tokenizer's."""
        ids = engine.llm.model_config.try_get_generation_config().get("eos_token_id")
        own = self._processor.tokenizer.eos_token_id
        return frozenset(number for number in (*(ids if isinstance(ids, list) else [ids]), own) if number is not None)


@dataclass(slots=True)
class _UnderWay:
    """A request inside the engine."""

    session: _EngineSession
    ticket: int
    since: float


class _Engine:
    """vLLM's engine, shared by sessions: whoever makes a step hands each output to the session that waits for it."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self._numbers = itertools.count()
        self._under_way: dict[str, _UnderWay] = {}
        self._lock = threading.RLock()  # sessions may belong to different threads

    def add(self, prompt: dict[str, Any], sampling: Any, session: _EngineSession, ticket: int) -> None:
        name = f"zoomiqa-{next(self._numbers)}"
        with self._lock:
            # The chat template has written the tokens that begin a text already.
            self.llm.llm_engine.add_request(name, prompt, sampling, tokenization_kwargs={"add_special_tokens": False})
            self._under_way[name] = _UnderWay(session, ticket, time.perf_counter())

    def step(self, session: _EngineSession) -> None:
        """Wait until something is done and hand it out; at once where another's step has brought `session` something.

        If the engine fails, so does everything under way.
        """
        with self._lock:
            if session.has_done:
                return
            try:
                outputs = self.llm.llm_engine.step()
            except Exception as error:
                under_way, self._under_way = self._under_way, {}
                for item in under_way.values():
                    item.session.take(item.ticket, error_reply(error))
                with contextlib.suppress(Exception):  # a dead engine cannot give them up
                    self.llm.llm_engine.abort_request(list(under_way))
                return
            for output in outputs:
                if output.finished and output.request_id in self._under_way:
                    item = self._under_way.pop(output.request_id)
                    item.session.take(item.ticket, _reply(output, time.perf_counter() - item.since))

    def abort(self, session: _EngineSession) -> None:
        """Give up what a session has under way."""
        with self._lock:
            names = [name for name, item in self._under_way.items() if item.session is session]
            for name in names:
                del self._under_way[name]
            if names:
                with contextlib.suppress(Exception):  # a dead engine has nothing to give up
                    self.llm.llm_engine.abort_request(names)


class _EngineSession:
    """Requests under way: waiting here for a place in the engine, inside it, or done and not yet collected."""

    def __init__(self, backend: VLLMBackend, engine: _Engine, batch_size: int) -> None:
        self._backend, self._engine, self._batch_size = backend, engine, batch_size
        self._ends = backend.end_tokens(engine)
        self._waiting: list[tuple[int, int, Request]] = []
        self._inside: set[int] = set()
        self._done: list[tuple[int, Reply]] = []

    @property
    def room(self) -> int:
        return self._batch_size - len(self._waiting) - len(self._inside)

    @property
    def has_done(self) -> bool:
        return bool(self._done)

    def submit(self, ticket: int, request: Request) -> None:
        heapq.heappush(self._waiting, (-request.round_index, ticket, request))
        self._feed()

    def collect(self) -> list[tuple[int, Reply]]:
        while not self._done and self._inside:
            self._engine.step(self)
            self._feed()
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        self._engine.abort(self)
        self._waiting.clear()
        self._inside.clear()
        self._done.clear()

    def take(self, ticket: int, reply: Reply) -> None:
        """Called by the engine when a request is done."""
        self._inside.discard(ticket)
        self._done.append((ticket, reply))

    def _feed(self) -> None:
        """Give the engine what it has places for, later looks first. A request that it refuses is done."""
        while self._waiting and len(self._inside) < self._batch_size:
            _, ticket, request = heapq.heappop(self._waiting)
            try:
                prompt = self._backend.prompt_of(request)
                sampling = self._backend.sampling_of(request.sampling, self._ends)
                self._engine.add(prompt, sampling, self, ticket)
            except BackendFailed as error:
                self._done.append((ticket, error_reply(error)))
            except Exception as error:
                refused = BackendFailed(
                    "vLLM refused the request", error, "if it is too long, lower max_pixels or raise max_model_len"
                )
                self._done.append((ticket, error_reply(refused)))
            else:
                self._inside.add(ticket)


def _reply(output: Any, seconds: float) -> Reply:
    written = output.outputs[0]
    if written.finish_reason not in ("stop", "length"):
        ended = BackendFailed("vLLM gave the request up", written.finish_reason, "see its log")
        return error_reply(ended)
    reason: Literal["stop", "length"] = "length" if written.finish_reason == "length" else "stop"
    return Reply(
        text=written.text,
        finish_reason=reason,
        tokens_in=len(output.prompt_token_ids or ()),
        tokens_out=len(written.token_ids),
        seconds=seconds,
    )


def _vllm_version() -> str:
    try:
        version = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        raise ExtraMissing("backend 'vllm' needs vLLM", None, _INSTALL) from None
    numbers = re.match(r"(\d+)\.(\d+)", version)
    first, beyond = SUPPORTED
    if numbers is None or not first <= (int(numbers[1]), int(numbers[2])) < beyond:
        below = ".".join(map(str, beyond))
        raise ExtraMissing(
            f"backend 'vllm' works with vLLM from {'.'.join(map(str, first))}, below {below}", version, _INSTALL
        )
    return version


def _start(arguments: dict[str, Any]) -> Any:
    """A running `vllm.LLM`."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output is for records
    try:
        vllm = import_module("vllm")
        # Asked without torch: its own question would keep vLLM from forking its processes.
        has_gpu = import_module("vllm.platforms").current_platform.is_cuda_alike()
    except ImportError as error:
        raise ExtraMissing("vLLM is installed, but cannot be imported", error, _INSTALL) from error
    if not has_gpu:
        raise OptionInvalid(
            "vLLM needs a CUDA device, and finds none on this machine",
            None,
            "use --assessor transformers, or --base-url with the address of a server",
        )
    try:
        return vllm.LLM(**arguments)
    except Exception as error:
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OptionInvalid(
            "vLLM could not start with this model",
            arguments["model"],
            f"it says: {why}; where memory is short, lower max_model_len or batch_size, or raise gpus",
        ) from error
