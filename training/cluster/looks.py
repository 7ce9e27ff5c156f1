"""verl's agent loop around the one conversation generator: every look is an output, and so a training row.

A later look with a rewritten context is a prompt of its own, so a trajectory is a list of outputs (verl's form for
several contexts); an appended context is served alike. Beside its tokens each output carries, under `RECORD` in
`extra_fields`, the trajectory it belongs to, what was said in all looks, and a flag for each token that is a number of
the answer: what the controller needs for rewards and KL-Coverage.

Conversations, questions and trajectories are `training.grpo.rollout`'s; prompts and pictures those of inference
(`zoomiqa.backends.processor`); verl's part is tokens in, tokens out. It must not know crops or parsing, nor which
samples share a batch. `reward_score` holds the rewards that need no other sample: verl's validation shows it, and in
training the controller replaces it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.workers.rollout.replica import TokenOutput

from zoomiqa.backends.processor import ChatProcessor
from zoomiqa.errors import BackendFailed
from zoomiqa.imaging import Picture, open_picture
from zoomiqa.types import Request

from ..grpo.rollout import Draw, Sample, SampledReply, talks_of  # noqa: TID252
from ..grpo.scoring import Outcome, score  # noqa: TID252
from ..objectives.tokens import Pieces, numeric_in_answer, token_pieces  # noqa: TID252
from .data import AGENT, item_of
from .settings import ClusterSettings, read_settings

RECORD = "zoomiqa"

NEVER = -100.0
"""Added to a token's logit so that it is never drawn; the least that vLLM's interface allows."""

_pictures: OrderedDict[Path, asyncio.Task[Picture]] = OrderedDict()
"""The last pictures: all samples of a group show the same one, at about the same time."""

_KEPT = 32


@register(AGENT)
class ZoomAgentLoop(AgentLoopBase):  # type: ignore[misc]  # verl is not typed
    """One sampled conversation about one picture. verl makes one of these for each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings: ClusterSettings = read_settings(self.config)
        self._chat = ChatProcessor(self.processor, self._settings.max_pixels, None)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> list[AgentLoopOutput]:
        """Sample the conversation of a row of `data`.

        Args:
            sampling_params: verl's; special tokens other than the end of a reply are never drawn.
            row: As `data` gives it, with verl's `uid` of the group and `session_id` of the sample.

        Returns:
            One output per look.

        Raises:
            ImageError: the picture cannot be opened.
            BackendFailed: no look came about.
        """
        item = item_of(row["item"])
        picture = await _opened(item.root / item.path)
        draw = Draw(item, int(row["group"]), int(row["session_id"]))
        prompts = self._settings.prompt_set()
        (talk,) = talks_of(
            [draw], [picture], self._settings.conversation, prompts,
            seed=self._settings.seed, rollout=int(row["rollout"]),
        )  # fmt: skip
        params = suppressed(sampling_params, self._chat, self.rollout_config.name)
        outputs = []
        request = next(talk)
        while True:
            output, reply = await self._look(request, params)
            outputs.append(output)
            try:
                request = talk.send(reply)
            except StopIteration as stop:
                sample: Sample = stop.value
                break
        record_sample(outputs, sample, row, prompts.attributes, _pieces(self.tokenizer), self._settings)
        return outputs

    async def _look(self, request: Request, params: Mapping[str, Any]) -> tuple[AgentLoopOutput, SampledReply]:
        """Ask verl's servers for one reply."""
        from PIL import Image

        chat = await self.loop.run_in_executor(None, self._chat.chat_of, request)
        images = [Image.fromarray(pixels) for pixels in chat.images]
        self._assert_mm_supported(bool(images))
        prompt = await self.ct_build_initial_tokens(chat.messages, images=images)
        found: TokenOutput = await self.server_manager.generate(
            request_id=uuid4().hex, prompt_ids=prompt, sampling_params=dict(params), image_data=images
        )
        longest = self.rollout_config.response_length
        tokens = found.token_ids[:longest]
        if not tokens or found.stop_reason == "aborted":
            raise BackendFailed("verl's server gave a reply up", found.stop_reason, "see its log")
        log_probs = found.log_probs[:longest] if found.log_probs else None
        output = AgentLoopOutput(
            prompt_ids=prompt,
            response_ids=tokens,
            response_mask=[1] * len(tokens),
            response_logprobs=log_probs,
            multi_modal_data={"images": images},
            metrics=AgentLoopMetrics(num_preempted=-1 if found.num_preempted is None else found.num_preempted),
            extra_fields=dict(found.extra_fields),
        )
        has_ended = tokens[-1] == self.tokenizer.eos_token_id or len(tokens) < longest
        return output, SampledReply(
            text=self.tokenizer.decode(tokens, skip_special_tokens=True),
            finish_reason="stop" if has_ended else "length",
            tokens_in=len(prompt),
            tokens_out=len(tokens),
            tokens=tuple(tokens),
            log_probs=None if log_probs is None else tuple(log_probs),
        )


def record_sample(
    outputs: Sequence[AgentLoopOutput],
    sample: Sample,
    row: Mapping[str, Any],
    attributes: Sequence[str],
    pieces: Pieces,
    settings: ClusterSettings,
) -> None:
    """Write into the outputs of a trajectory what the controller, the log and verl's validation need.

    Raises:
        BackendFailed: no look came about.
    """
    trajectory = sample.trajectory
    if trajectory is None:
        raise BackendFailed("no look of a conversation came about", sample.error, "see the server's log")
    scored = score([Outcome(0, trajectory)], settings.rewards)
    alone = {name: values[0] for name, values in scored.parts.items() if values[0] is not None}
    for output in outputs:
        output.num_turns = 2 * len(outputs)
        output.reward_score = float(scored.totals[0] or 0.0)
        output.extra_fields["reward_extra_info"] = alone
        output.extra_fields[RECORD] = {
            "trajectory": f"{row['uid']}_{row['session_id']}",
            "group": str(row["uid"]),
            "texts": list(trajectory.texts),
            "rating": trajectory.rating,
            "attributes": list(attributes),
            "item": row["item"],
            "numeric": numeric_in_answer([pieces(token) for token in output.response_ids]),
        }


def suppressed(params: Mapping[str, Any], chat: ChatProcessor, server: str) -> dict[str, Any]:
    """Sampling options under which special tokens other than the end of a reply are never drawn.

    A written place of a picture or video would make the positions of the next forward pass disagree with the pictures.
    """
    ids = sorted(number for number in chat.special_tokens.values() if number != chat.tokenizer.eos_token_id)
    return {**params, "logit_bias": {str(number) if server == "sglang" else number: NEVER for number in ids}}


@lru_cache(maxsize=2)
def _pieces(tokenizer: Any) -> Pieces:
    return token_pieces(tokenizer)


async def _opened(path: Path) -> Picture:
    """The picture, opened beside the event loop and once for all who ask for it."""
    task = _pictures.get(path)
    if task is None or (task.done() and (task.cancelled() or task.exception())) or task.get_loop().is_closed():
        task = _pictures[path] = asyncio.ensure_future(asyncio.to_thread(open_picture, path))
        while len(_pictures) > _KEPT:
            _pictures.popitem(last=False)
    return await asyncio.shield(task)
