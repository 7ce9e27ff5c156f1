"""An assessor that holds conversations with a backend, many at once. It must not know how replies are made or read.

There is no barrier between rounds: the second look of one picture is asked for as soon as its first is read, beside
the first looks of others, and later looks go first, so that a picture leaves as soon as it can.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from zoomiqa.assessors.base import Assessor, Task
from zoomiqa.backends.base import Backend
from zoomiqa.backends.session import open_session, stream_reply
from zoomiqa.backends.talks import HELD_PER_SLOT, hold_talks
from zoomiqa.errors import OptionInvalid, ZoomIQAError
from zoomiqa.imaging.picture import Picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.protocol import ConversationSettings, PromptSet, converse, default_prompts
from zoomiqa.types import Assessment, AssessorInfo, Box, ImageInfo, Note, Reply, Request, Round, failed


@dataclass(frozen=True, slots=True)
class LookStarted:
    """A look begins."""

    index: int
    box: Box | None
    """The region shown; `None` for the whole picture."""


@dataclass(frozen=True, slots=True)
class TextWritten:
    """A piece of the reply under way."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class LookRead:
    """A look has ended and was read."""

    look: Round


Event = LookStarted | TextWritten | LookRead | Assessment
"""What `assess_stream` tells of; the assessment comes last."""


Talk = Generator[Request, Reply, Assessment]


class ConversationalAssessor(Assessor):
    """Drives `zoomiqa.protocol.converse` over any backend.

    Args:
        backend: What answers.
        settings: Rounds, context, question, sampling. Every picture draws from a stream of its own, derived from the
            seed and the picture's content, so that a result does not depend on what else is in the run.
        prompts: The words; the project's own by default.
        samples: Conversations per picture; with several, the rating is their mean and `spread` their standard
            deviation.
        limits: Caps on replies.
        batch_size: Requests under way at once; the backend's own preference by default.
    """

    def __init__(
        self,
        backend: Backend,
        settings: ConversationSettings | None = None,
        *,
        prompts: PromptSet | None = None,
        samples: int = 1,
        limits: Limits = LOCAL,
        batch_size: int | None = None,
    ) -> None:
        self.backend = backend
        self.settings = settings or ConversationSettings()
        self.prompts = prompts or default_prompts()
        self.samples = samples
        self.limits = limits
        self.batch_size = backend.capabilities.batch_size if batch_size is None else batch_size
        if self.batch_size < 1:
            raise OptionInvalid("batch_size must be at least 1", self.batch_size, "give a positive number")
        if samples < 1:
            raise OptionInvalid("samples must be at least 1", samples, "give a positive number")
        if samples > 1 and backend.capabilities.deterministic:
            raise OptionInvalid(
                f"several samples of {backend.capabilities.name}, which draws nothing, would be the same",
                samples,
                "ask for one; its expected error is its own",
            )
        if samples > 1 and self.settings.sampling.temperature == 0:
            raise OptionInvalid(
                "several samples with temperature 0 would be the same", samples, "raise the temperature or ask for one"
            )

    @property
    def info(self) -> AssessorInfo:
        able = self.backend.capabilities
        return AssessorInfo(able.name, able.version, able.description, self.prompts.name, self.prompts.digest)

    @property
    def parallel(self) -> bool:
        return self.backend.capabilities.parallel

    @property
    def can_unload(self) -> bool:
        """Whether a model lies in memory here that could be given up for a while."""
        return callable(getattr(self.backend, "unload", None))

    def unload(self) -> None:
        """Give the model's memory back, where there is one; the next picture loads it again."""
        if self.can_unload:
            self.backend.unload()  # type: ignore[attr-defined]

    def assess(self, pictures: Iterable[Picture | Task | Assessment]) -> Iterator[Assessment]:
        # What a result still needs of its picture; the pixels are not kept while results wait for their turn.
        owners: deque[tuple[ImageInfo, tuple[Note, ...]] | None] = deque()

        def talks() -> Iterator[Talk]:
            for item in pictures:
                if isinstance(item, Assessment):
                    owners.append(None)
                    yield _hand_on(item)
                    continue
                task = _as_task(item)
                for sample in range(self.samples):
                    owners.append((task.picture.info, task.picture.notes))
                    yield self._talk(task, sample)

        answers: list[Assessment] = []
        session = open_session(self.backend, self.batch_size)
        for answer in hold_talks(session, talks(), held=HELD_PER_SLOT * self.batch_size):
            owner = owners.popleft()
            if owner is None:
                yield answer
                continue
            answers.append(answer)
            if len(answers) == self.samples:
                yield self._finish(answers, *owner)
                answers = []

    def assess_stream(self, picture: Picture | Task) -> Iterator[Event]:
        """Assess one picture and tell of it as it goes: looks, their text piece by piece, what was read, the result.

        Raises:
            OptionInvalid: with several samples, whose texts would run into each other.
        """
        if self.samples > 1:
            raise OptionInvalid("a stream tells of one conversation", self.samples, "ask for one sample")
        task = _as_task(picture)
        talk = self._talk(task, 0)
        request = next(talk)
        while True:
            shown = request.looks[-1].box if request.looks else None
            yield LookStarted(request.round_index, shown)
            pieces = stream_reply(self.backend, request)
            while True:
                try:
                    yield TextWritten(request.round_index, next(pieces))
                except StopIteration as stop:
                    reply: Reply = stop.value
                    break
            try:
                request = talk.send(reply)
            except StopIteration as stop:
                answer: Assessment = stop.value
                break
            yield LookRead(request.looks[-1])
        if len(answer.rounds) > request.round_index:
            yield LookRead(answer.rounds[-1])
        yield self._finish([answer], task.picture.info, task.picture.notes)

    def _talk(self, task: Task, sample: int) -> Talk:
        """One sampled conversation about one picture. An error of ours is its result, and spares the others."""
        settings = self.settings
        # Drawn with the run's seed, as the released evaluator does, before the picture's own stream replaces it.
        question = task.question or settings.question or self.prompts.choose_question(settings.sampling.seed)
        seed = _own_seed(settings.sampling.seed, task.picture, sample)
        settings = replace(settings, question=question, sampling=replace(settings.sampling, seed=seed))
        try:
            return (yield from converse(task.picture, settings, prompts=self.prompts, limits=self.limits))
        except ZoomIQAError as error:
            return failed(error.to_dict())

    def _finish(self, answers: Sequence[Assessment], image: ImageInfo, notes: tuple[Note, ...]) -> Assessment:
        merged = answers[0] if len(answers) == 1 else _merge_samples(answers)
        return replace(merged, image=image, assessor=self.info, notes=notes + merged.notes)


def _hand_on(assessment: Assessment) -> Talk:
    """A conversation that is over before it begins."""
    yield from ()
    return assessment


def _as_task(item: Picture | Task) -> Task:
    return item if isinstance(item, Task) else Task(item)


def _own_seed(seed: int, picture: Picture, sample: int) -> int:
    """The seed of one sample of one picture: the same whatever else the run holds, and in whatever order (31 bits)."""
    content = picture.info.sha256 or hashlib.sha256(picture.pixels.tobytes()).hexdigest()
    return int.from_bytes(hashlib.sha256(f"{seed}/{content}/{sample}".encode()).digest()[:4], "big") >> 1


def _merge_samples(answers: Sequence[Assessment]) -> Assessment:
    """The mean rating of several conversations, shown by the nearest one. Failed ones are left out, with a note."""
    ratings = [answer.rating for answer in answers]
    rated = [rating for rating in ratings if rating is not None]
    if not rated:
        return replace(answers[0], samples=tuple(ratings))
    mean = fmean(rated)
    nearest = min(answers, key=lambda answer: math.inf if answer.rating is None else abs(answer.rating - mean))
    notes = nearest.notes
    if lost := len(ratings) - len(rated):
        notes += (Note("samples-failed", f"{lost} of {len(ratings)} sampled conversations failed and were left out."),)
    spread = stdev(rated) if len(rated) > 1 else None
    return replace(nearest, rating=mean, spread=spread, samples=tuple(ratings), notes=notes)
