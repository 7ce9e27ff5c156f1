"""A backend that answers from a script: the public test double, and a way to replay recorded replies.

It must not know rounds or parsing: it hands out texts in order, or what a function makes of each request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zoomiqa.backends.base import Capabilities
from zoomiqa.errors import BackendFailed, OptionInvalid
from zoomiqa.types import Reply, Request


class ScriptedBackend:
    """Replies from a list (used up in order) or from a function.

    Args:
        replies: Texts or `Reply` objects, one per request in the order of the calls; or a function from `Request` to
            either. When the list has run out, the reply is an error.
        batch_size: How many requests it takes at once; a test of batching sets it.

    Example:
        >>> from zoomiqa.backends import ScriptedBackend
        >>> backend = ScriptedBackend(['<answer>{"bbox_2d": [0,0,0,0], "rating": 3.5, "tool": "final"}</answer>'])
    """

    def __init__(
        self, replies: Iterable[str | Reply] | Callable[[Request], str | Reply], *, batch_size: int = 4
    ) -> None:
        self._answer = replies if callable(replies) else _from_list(replies)
        self.requests: list[Request] = []
        """Every request received, for tests to look at."""
        self.capabilities = Capabilities(
            name="scripted",
            version="1",
            description="Replays prepared replies; it does not look at the picture.",
            batch_size=batch_size,
        )

    @classmethod
    def from_file(cls, path: str | Path) -> ScriptedBackend:
        """Read replies from a file: JSON Lines of strings or objects with `text`, or one plain text reply.

        Raises:
            OptionInvalid: the file cannot be read, or a line is neither.
        """
        try:
            content = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionInvalid("the file of replies cannot be read", path, str(error)) from error
        if Path(path).suffix.lower() != ".jsonl":
            return cls([content])
        texts: list[str | Reply] = []
        for number, line in enumerate(filter(str.strip, content.splitlines()), start=1):
            try:
                value = json.loads(line)
                texts.append(value if isinstance(value, str) else str(value["text"]))
            except (ValueError, TypeError, KeyError) as error:
                raise OptionInvalid(
                    f"line {number} of the file of replies is neither a text nor an object with `text`", line, "mend it"
                ) from error
        return cls(texts)

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        self.requests.extend(requests)
        return [_as_reply(self._answer(request)) for request in requests]


def replay(replies: str | Path | None = None) -> ScriptedBackend:
    """The backend of `--assessor scripted`: replies from a file; see `ScriptedBackend.from_file`."""
    if replies is None:
        raise OptionInvalid("the scripted assessor needs a file of replies", None, "pass --replies FILE")
    return ScriptedBackend.from_file(replies)


def _from_list(replies: Iterable[str | Reply]) -> Callable[[Request], str | Reply]:
    remaining = iter(list(replies))

    def answer(_: Request) -> str | Reply:
        try:
            return next(remaining)
        except StopIteration:
            error = BackendFailed("the script has no reply left", None, "give one reply per look")
            return Reply("", finish_reason="error", error=error.to_dict())

    return answer


def _as_reply(answer: str | Reply) -> Reply:
    return Reply(answer) if isinstance(answer, str) else answer
