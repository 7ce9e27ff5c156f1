"""vLLM as the engine of rollouts, in the trainer's own processes and on its GPUs (TRL's colocated mode).

TRL starts the engine and hands it the weights; conversations enter its queue one look at a time, so that a closer look
starts as soon as its first is read, each with a seed of its own. Prompts and sampling are those of the `vllm` backend.
What vLLM says of the drawn tokens' probabilities comes with each reply: they differ a little from the trained model's,
and the loss weights tokens with the ratio.

Checked against a stand-in engine and the signatures of TRL 1.16; **no engine with a model was ever run on a GPU with
this code**. One GPU per engine; tensor parallelism is left to the cluster recipe. It must not know conversations.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from zoomiqa.backends.base import Session, error_reply
from zoomiqa.backends.vllm import VLLMBackend
from zoomiqa.errors import BackendFailed
from zoomiqa.types import Reply, Request

from ..models import TrainingModel  # noqa: TID252
from .policy import PolicyBackend
from .rollout import SampledReply


class ColocatedEngine:
    """TRL's colocated vLLM, asked look by look.

    Args:
        generation: TRL's `VLLMGeneration`, colocated.
        loaded: The model that is trained.
        device: Where it is.
        slots: Requests inside the engine at once.
    """

    def __init__(self, generation: Any, loaded: TrainingModel, device: str, slots: int | None) -> None:
        settings = loaded.settings
        self._generation, self._slots = generation, slots or 64
        self._ends = frozenset(loaded.ends)
        self._prompts = VLLMBackend(settings.model, revision=settings.revision, max_pixels=settings.max_pixels)
        # Never loaded: it makes of a request what the trained model reads.
        self._rows = PolicyBackend(settings, device, self._slots)
        self.names = (f"rollout-{number}" for number in itertools.count())

    @contextmanager
    def session(self) -> Iterator[Session]:
        """The engine with the present weights, awake; every process must call it, as weights may be shared out."""
        generation = self._generation
        generation.sync_weights()
        if generation.enable_sleep_mode:
            generation.llm.wake_up(tags=["kv_cache"])
        session = _Looks(self, generation.llm.llm_engine, self._slots)
        try:
            yield session
        finally:
            session.close()
            if generation.enable_sleep_mode:
                generation.llm.sleep(level=2)
                generation._llm_weights_sleeping = True  # TRL's own mark that weights must be sent again

    def begin(self, request: Request) -> tuple[dict[str, Any], Any, dict[str, Any]]:
        """A request as vLLM takes it, its sampling, and the same prompt as the trained model reads it."""
        sampling = self._prompts.sampling_of(request.sampling, self._ends)
        sampling.logprobs = 0  # the drawn token's own, no others
        return self._prompts.prompt_of(request), sampling, dict(self._rows.prepare(0, request).inputs)


class _Looks:
    """Requests under way: waiting here for a place in the engine, inside it, or done and not yet collected."""

    def __init__(self, owner: ColocatedEngine, engine: Any, slots: int) -> None:
        self._owner, self._engine, self._slots = owner, engine, slots
        self._waiting: list[tuple[int, int, Request]] = []
        self._inside: dict[str, tuple[int, dict[str, Any]]] = {}
        self._done: list[tuple[int, Reply]] = []

    @property
    def room(self) -> int:
        return self._slots - len(self._waiting) - len(self._inside)

    def submit(self, ticket: int, request: Request) -> None:
        heapq.heappush(self._waiting, (-request.round_index, ticket, request))

    def collect(self) -> list[tuple[int, Reply]]:
        self._feed()
        while not self._done and self._inside:
            for output in self._engine.step():
                if output.finished and output.request_id in self._inside:
                    ticket, prompt = self._inside.pop(output.request_id)
                    self._done.append((ticket, _reply(output, prompt)))
            self._feed()
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        if self._inside:
            self._engine.abort_request(list(self._inside))
        self._inside.clear()
        self._waiting.clear()

    def _feed(self) -> None:
        """Give the engine what it has places for, later looks first. A request that it refuses is done."""
        while self._waiting and len(self._inside) < self._slots:
            _, ticket, request = heapq.heappop(self._waiting)
            name = next(self._owner.names)
            try:
                prompt, sampling, read = self._owner.begin(request)
                self._engine.add_request(name, prompt, sampling, tokenization_kwargs={"add_special_tokens": False})
            except Exception as error:
                self._done.append((ticket, error_reply(error)))
            else:
                self._inside[name] = (ticket, read)


def _reply(output: Any, prompt: dict[str, Any]) -> Reply:
    written = output.outputs[0]
    if written.finish_reason not in ("stop", "length"):
        return error_reply(BackendFailed("vLLM gave the request up", written.finish_reason, "see its log"))
    read = prompt["input_ids"][0].tolist()
    if list(output.prompt_token_ids) != read:
        return error_reply(
            BackendFailed(
                "vLLM read the prompt with other tokens than the trained model",
                f"{len(output.prompt_token_ids)} and {len(read)}",
                "set --max-pixels so that both see the same pixels",
            )
        )
    reason: Literal["stop", "length"] = "length" if written.finish_reason == "length" else "stop"
    tokens = tuple(int(token) for token in written.token_ids)
    return SampledReply(
        written.text,
        finish_reason=reason,
        tokens_in=len(read),
        tokens_out=len(tokens),
        prompt=prompt,
        tokens=tokens,
        log_probs=tuple(float(step[token].logprob) for step, token in zip(written.logprobs, tokens, strict=True)),
    )
