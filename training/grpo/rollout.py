"""Sampled conversations: the one conversation generator, driven over any engine, with the tokens that were drawn.

Nothing of the zoom is done here; what an engine must add to an ordinary backend is that its replies say which tokens
were drawn (`SampledReply`). Every sample has a seed of its own, made of the run's seed, the rollout, the place of its
group and its number, and every look another one, so that a rollout depends neither on how many processes share it nor
on what was drawn before. It must not know models, rewards or trainers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zoomiqa.backends.base import Session
from zoomiqa.backends.talks import hold_talks
from zoomiqa.errors import BackendFailed, ZoomIQAError
from zoomiqa.imaging import Picture
from zoomiqa.protocol import ConversationSettings, PromptSet, converse
from zoomiqa.rewards import Trajectory
from zoomiqa.types import Assessment, ImagePart, Message, Reply, Request, TextPart, failed

from .items import Item

Talk = Generator[Request, Reply, "Sample"]


@dataclass(frozen=True, slots=True)
class SampledReply(Reply):
    """A reply with what it takes to train on it."""

    prompt: Mapping[str, Any] = field(default_factory=dict)
    """What the processor made of the prompt: `input_ids` (1, length) with the tokens of pictures, and the rest."""

    tokens: tuple[int, ...] = ()
    """Every token that was drawn, the one that ended the reply included."""

    log_probs: tuple[float, ...] | None = None
    """Of these, as the engine drew them, where it is not the trained model itself."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample to be made."""

    item: Item
    group: int
    """Place of the picture in the rollout, over all processes."""

    number: int
    """Of the sample within its group."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One sampled conversation."""

    draw: Draw
    looks: tuple[SampledReply, ...]
    """The replies that were drawn; none where the engine failed at once."""

    trajectory: Trajectory | None
    """What is rewarded; `None` without a look."""

    error: Mapping[str, str] | None = None
    """What went wrong in the engine. Not a bad reply: that is no error, and earns what it earns."""

    assessment: Assessment | None = None
    """`None` for a perception task."""


def seed_of(*parts: object) -> int:
    """31 bits that depend on every part."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big") >> 1


def sample_all(session: Session, talks: Sequence[Talk]) -> list[Sample]:
    """All samples, in order; their looks share the engine without a barrier between rounds.

    Raises:
        BackendFailed: the engine answered nothing at all.
    """
    samples = list(hold_talks(session, talks, held=len(talks) + 1))
    if samples and not any(sample.looks for sample in samples):
        first = next((sample.error for sample in samples if sample.error), None)
        raise BackendFailed(
            "no conversation of a rollout came about", (first or {}).get("message"), "look at the first"
        )
    return samples


def talks_of(
    draws: Iterable[Draw],
    pictures: Iterable[Picture],
    settings: ConversationSettings,
    prompts: PromptSet,
    *,
    seed: int,
    rollout: int,
) -> list[Talk]:
    """A talk for each draw.

    Args:
        draws: Of this process.
        pictures: The picture of each.
        settings: Rounds, context, question, sampling.
        prompts: The words.
        seed: Of the run.
        rollout: Its number in the run.
    """
    return [
        _talk(draw, picture, settings, prompts, seed_of(seed, rollout, draw.group), seed_of(seed, rollout, "words"))
        for draw, picture in zip(draws, pictures, strict=True)
    ]


def _talk(
    draw: Draw, picture: Picture, settings: ConversationSettings, prompts: PromptSet, group_seed: int, words_seed: int
) -> Talk:
    """One sampled conversation. All samples of a group are asked the same question."""
    item, looks = draw.item, []
    error: Mapping[str, str] | None = None
    conversation: Generator[Request, Reply, Assessment | None]
    if item.is_task:
        conversation = _task(picture, item, settings)
    else:
        question = item.question or settings.question or prompts.choose_question(seed_of(words_seed, draw.group))
        conversation = converse(picture, replace(settings, question=question), prompts=prompts)
    try:
        request = next(conversation)
        while True:
            seed = seed_of(group_seed, draw.number, request.round_index)
            reply = yield replace(request, sampling=replace(request.sampling, seed=seed))
            if reply.finish_reason == "error" or reply.error:
                error = reply.error or {"code": BackendFailed.code, "type": "BackendFailed", "message": "no reply"}
            elif isinstance(reply, SampledReply) and reply.tokens:
                looks.append(reply)
            request = conversation.send(reply)
    except StopIteration as stop:
        assessment: Assessment | None = stop.value
    except ZoomIQAError as failure:
        error = failure.to_dict()
        assessment = failed(error)
    return Sample(draw, tuple(looks), _trajectory(item, looks, assessment, prompts), error, assessment)


def _task(picture: Picture, item: Item, settings: ConversationSettings) -> Generator[Request, Reply, None]:
    """A perception task: one question, one answer."""
    yield Request(picture, (Message("user", (TextPart(item.question or ""), ImagePart())),), settings.sampling)


def _trajectory(
    item: Item, looks: Sequence[SampledReply], assessment: Assessment | None, prompts: PromptSet
) -> Trajectory | None:
    if not looks:
        return None
    known: dict[str, Any] = {"group": item.id, "truth": item.truth, "dataset": item.dataset}
    if assessment is None:
        return Trajectory.from_texts([look.text for look in looks], **known)
    if not assessment.rounds:  # an error of ours after the first reply
        return replace(Trajectory.from_texts([looks[0].text], **known), rating=None)
    return Trajectory.from_assessment(assessment, attributes=prompts.attributes, **known)
