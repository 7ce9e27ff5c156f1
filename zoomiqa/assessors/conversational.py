"""An assessor that holds conversations with a backend, many at once. It must not know how replies are made or read.

There is no barrier between rounds: the second look of one picture is asked for in the same call as the first look of
another, and later looks go first, so that a picture leaves as soon as it can.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from zoomiqa.assessors.base import Assessor
from zoomiqa.backends.base import Backend
from zoomiqa.errors import BackendFailed, OptionInvalid, ZoomIQAError
from zoomiqa.imaging.picture import Picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.protocol import ConversationSettings, PromptSet, converse, default_prompts
from zoomiqa.types import Assessment, AssessorInfo, Reply, Request, failed


@dataclass(slots=True)
class _Talk:
    """A conversation under way."""

    order: int
    picture: Picture
    generator: Generator[Request, Reply, Assessment]
    request: Request


class ConversationalAssessor(Assessor):
    """Drives `zoomiqa.protocol.converse` over any backend.

    Args:
        backend: What answers.
        settings: Rounds, context, question, sampling.
        prompts: The words; the project's own by default.
        limits: Caps on replies.
        batch_size: Requests per call; the backend's own preference by default.
    """

    def __init__(
        self,
        backend: Backend,
        settings: ConversationSettings | None = None,
        *,
        prompts: PromptSet | None = None,
        limits: Limits = LOCAL,
        batch_size: int | None = None,
    ) -> None:
        self.backend = backend
        self.settings = settings or ConversationSettings()
        self.prompts = prompts or default_prompts()
        self.limits = limits
        self.batch_size = backend.capabilities.batch_size if batch_size is None else batch_size
        if self.batch_size < 1:
            raise OptionInvalid("batch_size must be at least 1", self.batch_size, "give a positive number")

    @property
    def info(self) -> AssessorInfo:
        able = self.backend.capabilities
        return AssessorInfo(able.name, able.version, able.description, self.prompts.name, self.prompts.digest)

    @property
    def parallel(self) -> bool:
        return self.backend.capabilities.parallel

    def assess(self, pictures: Iterable[Picture]) -> Iterator[Assessment]:
        source = enumerate(pictures)
        waiting: deque[_Talk] = deque()
        done: dict[int, Assessment] = {}
        next_out, exhausted = 0, False
        while True:
            while not exhausted and len(waiting) < self.batch_size:
                item = next(source, None)
                if item is None:
                    exhausted = True
                    break
                talk = self._open(*item)
                waiting.append(talk)
            if not waiting:
                return
            batch = [waiting.popleft() for _ in range(min(self.batch_size, len(waiting)))]
            going_on: list[_Talk] = []
            for talk, reply in zip(batch, self._ask([talk.request for talk in batch]), strict=True):
                try:
                    talk.request = talk.generator.send(reply)
                    going_on.append(talk)
                except StopIteration as stop:
                    done[talk.order] = self._finish(stop.value, talk.picture)
                except ZoomIQAError as error:
                    done[talk.order] = self._finish(failed(error.to_dict()), talk.picture)
            waiting.extendleft(reversed(going_on))
            while next_out in done:
                yield done.pop(next_out)
                next_out += 1

    def _open(self, order: int, picture: Picture) -> _Talk:
        generator = converse(picture, self.settings, prompts=self.prompts, limits=self.limits)
        return _Talk(order, picture, generator, next(generator))

    def _ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Call the backend; if a batch fails as a whole, each request is tried alone, so that one cannot void all."""
        try:
            replies = self.backend.generate(requests)
        except Exception as error:
            if len(requests) > 1:
                return [self._ask([request])[0] for request in requests]
            return [_error_reply(error)]
        if len(replies) != len(requests):
            miscount = BackendFailed(
                f"the backend gave {len(replies)} replies to {len(requests)} requests", None, "report it to its author"
            )
            return [_error_reply(miscount)] * len(requests)
        return replies

    def _finish(self, assessment: Assessment, picture: Picture) -> Assessment:
        return replace(assessment, image=picture.info, assessor=self.info, notes=picture.notes + assessment.notes)


def _error_reply(error: Exception) -> Reply:
    if not isinstance(error, ZoomIQAError):
        error = BackendFailed(f"the backend raised {type(error).__name__}", str(error), "see the backend's own log")
    return Reply("", finish_reason="error", error=error.to_dict())
