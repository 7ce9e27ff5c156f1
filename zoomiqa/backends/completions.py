"""The chat-completions format that model servers share: fields out, replies and refusals in.

Field names as OpenAI's API reference, vLLM's and SGLang's OpenAI-compatible servers, llama.cpp's server and
`transformers serve` state them; no two take the same set. It must not know connections, threads or pictures.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote

from zoomiqa.errors import (
    BackendFailed,
    ModelUnknown,
    RequestRejected,
    ServerFailed,
    ServerRefused,
    ZoomIQAError,
)
from zoomiqa.text import plain
from zoomiqa.types import Note, Reply, Sampling

PASSING_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""

REFUSING_STATUSES = frozenset({400, 422})
"""HTTP statuses of a server that does not take a field."""

_STOP_FIELDS = frozenset({"stop", "include_stop_str_in_output", "no_stop_trim"})
"""How a stop string is asked for, and asked to stay in the text (vLLM's name for that, then SGLang's). Without the
latter, whether a text ended with it or by itself cannot be told: then none is asked for, and the text is cut here."""

_DISPENSABLE = frozenset({"top_k", "seed", "stream_options"}) | _STOP_FIELDS
"""What a request can do without."""

_ALL_TOKENS = -1
"""The value of `top_k` that every server which knows it reads as no limit."""

_REFUSAL = re.compile(
    r"unsupported|unrecogni[sz]ed|unexpected|unknown|forbidden|does not support|extra (?:inputs|fields)"
    r"|not (?:be )?(?:supported|permitted|allowed|recogni[sz]ed|accepted|implemented)",
    re.IGNORECASE,
)
_DATA_URL = re.compile(r"data:[^,;\s\"']{0,64};base64,[A-Za-z0-9+/=]*")
_BEARER = re.compile(r"(?i)bearer +[^\s\"',]+")
_MAX_ERROR_CHARACTERS = 4_000


@dataclass(slots=True)
class Dialect:
    """The fields that one server takes, as far as its refusals have told."""

    refused: set[str] = field(default_factory=set)
    length_field: str = "max_tokens"
    """Known to every server but OpenAI's newer models, which refuse it by naming `max_completion_tokens`. The other way
    round would be silent: a server that does not know that name writes without a limit."""

    def fields(self, sampling: Sampling, *, is_stream: bool = False) -> dict[str, Any]:
        """The request's fields beside model and messages."""
        fields: dict[str, Any] = {self.length_field: sampling.max_new_tokens, "temperature": sampling.temperature}
        if sampling.temperature > 0:
            fields |= {"top_p": sampling.top_p, "top_k": sampling.top_k or _ALL_TOKENS, "seed": sampling.seed}
        if sampling.stop and not self.refused & _STOP_FIELDS:
            fields |= {"stop": list(sampling.stop), "include_stop_str_in_output": True, "no_stop_trim": True}
        if is_stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return {name: value for name, value in fields.items() if name not in self.refused}

    def learn(self, message: str, sent: Mapping[str, Any]) -> tuple[bool, list[str]]:
        """Read from a refusal which of the fields that were sent are to be left out from now on.

        A temperature or top_p other than 1 is never left out: the reply would be drawn in another way than asked for.

        Returns:
            Whether the request should be sent again, and what is new, in words.
        """
        if not _REFUSAL.search(message):
            return False, []
        if "max_tokens" in sent and "max_completion_tokens" in message:
            is_new = self.length_field == "max_tokens"
            self.length_field = "max_completion_tokens"
            return True, ["max_tokens, but max_completion_tokens"] if is_new else []
        named = {name for name in sent if re.search(rf"\b{name}\b", message)}
        neutral = {name for name in ("temperature", "top_p") if sent.get(name) == 1}
        dropped = named & (_DISPENSABLE | neutral)
        new = sorted(dropped - self.refused)
        self.refused |= dropped
        return bool(dropped), new

    def notes(self, sampling: Sampling) -> tuple[Note, ...]:
        """What of the wanted way to draw tokens the server did not take."""
        wanted = {"top_k", "seed"} if sampling.temperature > 0 else set()
        return tuple(
            Note("sampling-refused", f"The server does not take {name}; the reply was drawn without.")
            for name in sorted(wanted & self.refused)
        )


class Writing:
    """The text of a reply as it arrives, in one piece or many.

    Reasoning that a server splits off is put back as `<think>…</think>` before the text, where the protocol has it.

    Args:
        stop: Texts after which the reply ends; they stay in it.
    """

    def __init__(self, stop: Collection[str] = ()) -> None:
        self.text = ""
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=1)
        self._handed_out = 0
        self._is_thinking = False
        self.has_stopped = False
        """Whether a stop string has come: what the server may send beyond it does not count."""

    def add(self, reasoning: str, content: str) -> None:
        """Take more of the text."""
        added = ""
        if reasoning:
            added += reasoning if self._is_thinking else f"<think>{reasoning}"
            self._is_thinking = True
        if content:
            added += f"</think>{content}" if self._is_thinking else content
            self._is_thinking = False
        if self.has_stopped or not added:
            return
        searched = max(0, len(self.text) - self._longest + 1)
        self.text += added
        ends = [place + len(stop) for stop in self._stop if (place := self.text.find(stop, searched)) >= 0]
        if ends:
            self.text, self.has_stopped = self.text[: min(ends)], True

    def take(self) -> str:
        """What can be handed out now: all but the beginning of what may turn out to be a stop string."""
        end = len(self.text) if self.has_stopped else max(self._handed_out, len(self.text) - self._longest + 1)
        piece, self._handed_out = self.text[self._handed_out : end], end
        return piece

    def end(self, reason: str | None, reported_stop: object = None) -> Literal["stop", "length"]:
        """Close the text.

        Args:
            reason: The server's `finish_reason`.
            reported_stop: The stop string that ended the text, where the server says so (`stop_reason` of vLLM,
                `matched_stop` of SGLang). One that was taken off is put back; nothing is ever put there by guessing.
        """
        is_cut = reason in ("length", "max_tokens")
        if not self.has_stopped:
            if self._is_thinking and not is_cut:
                self.text += "</think>"
            if reported_stop in self._stop:
                self.text += str(reported_stop)
                self.has_stopped = True
        return "length" if is_cut and not self.has_stopped else "stop"

    def rest(self) -> str:
        """What was not yet handed out."""
        piece, self._handed_out = self.text[self._handed_out :], len(self.text)
        return piece


def read_completion(data: object, stop: Collection[str]) -> Reply:
    """The reply in a server's answer to a request that was not streamed.

    Raises:
        BackendFailed: it holds no text.
        RequestRejected: the server or the model withholds the reply.
    """
    choice = first_choice(data)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise BackendFailed("the server's answer holds no reply", None, "see the server's log")
    refuse_withheld(choice, message)
    reasoning, content = texts_of(message)
    if "<think>" in content or "</think>" in content:
        reasoning = ""
    writing = Writing(stop)
    writing.add(reasoning, content)
    if not writing.text and message.get("content") is None:
        raise BackendFailed("the server's answer holds no text", choice.get("finish_reason"), "see the server's log")
    reason = writing.end(choice.get("finish_reason"), reported_stop(choice))
    tokens_in, tokens_out = usage_of(data)
    return Reply(writing.text, reason, tokens_in, tokens_out)


def first_choice(data: object) -> dict[str, Any] | None:
    """The first of an answer's choices, or `None`."""
    choices = data.get("choices") if isinstance(data, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def texts_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """(reasoning, content) of a message, or of a piece of one."""
    reasoning = next((text for name in ("reasoning_content", "reasoning") if (text := message.get(name))), "")
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return (reasoning if isinstance(reasoning, str) else ""), (content if isinstance(content, str) else "")


def refuse_withheld(choice: Mapping[str, Any], message: Mapping[str, Any]) -> None:
    """Refuse a reply that is not the model's own text.

    Raises:
        RequestRejected: a content filter or the model's refusal stands in its place.
        BackendFailed: the server gave up while writing.
    """
    reason = choice.get("finish_reason")
    if reason == "content_filter" or message.get("refusal"):
        raise RequestRejected(
            "the server withholds the reply", reason, "its content filter objects to the picture or the text"
        )
    if reason in ("abort", "error", "cancelled"):
        raise BackendFailed("the server gave up on the reply", reason, "see the server's log")


def reported_stop(choice: Mapping[str, Any]) -> object:
    """The stop string that a server says has ended the text; a token's number where that has."""
    return next((value for name in ("stop_reason", "matched_stop") if (value := choice.get(name)) is not None), None)


def usage_of(data: object) -> tuple[int | None, int | None]:
    """Tokens read and written, where the server counts them."""
    usage = data.get("usage") if isinstance(data, dict) else None
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (
        count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None for count in counts
    )
    return tokens_in, tokens_out


def error_text(body: bytes, secrets: Collection[str]) -> str:
    """What a server says is wrong, as a harmless line without keys and pictures; empty where it says nothing."""
    text = body.decode("utf-8", "replace")
    try:
        text = _words_of(json.loads(text))
    except (ValueError, RecursionError):
        if re.match(r"\s*<", text):
            text = "a web page instead of an answer"
    return " ".join(plain(redact(text, secrets)[:_MAX_ERROR_CHARACTERS]).split())


def _words_of(data: object) -> str:
    """The sentence in an error body: `error` (OpenAI's form), `detail` (FastAPI's) or `message`."""
    if isinstance(data, dict):
        for name in ("error", "detail", "message"):
            if data.get(name):
                extra = [str(data[key]) for key in ("param", "code") if isinstance(data.get(key), str)]
                return " ".join([_words_of(data[name]), *extra])
        if "msg" in data:  # one of FastAPI's complaints; what it repeats of the request is left out
            place = data.get("loc")
            return f"{'.'.join(map(str, place))}: {data['msg']}" if isinstance(place, list) else str(data["msg"])
    if isinstance(data, list):
        return "; ".join(_words_of(item) for item in data[:8])
    return data if isinstance(data, str) else ""


def redact(text: str, secrets: Collection[str]) -> str:
    """The text without the given secrets (also as JSON or a URL would write them), bearer tokens and data URLs."""
    for secret in secrets:
        for form in {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}:
            text = text.replace(form, "[key]")
    return _BEARER.sub("[key]", _DATA_URL.sub("[picture]", text))


@dataclass(frozen=True, slots=True)
class Address:
    """What a message says of where a request went."""

    model: str
    base_url: str
    key_env: str
    has_key: bool


def status_failure(status: int, said: str, address: Address) -> ZoomIQAError:
    """The error for an HTTP status other than success.

    Args:
        status: 300..599.
        said: The server's own words, from `error_text`.
        address: Where the request went.
    """
    value = said or None
    match status:
        case 401 | 403 | 407:
            key = (
                f"the key in the environment variable {address.key_env} does not do"
                if address.has_key
                else f"put a key into the environment variable {address.key_env or 'that --api-key-env names'}"
            )
            return ServerRefused(f"the server refuses access (HTTP {status})", value, key)
        case 404:
            return ModelUnknown(
                f"the server at {address.base_url} has no model {address.model!r}, or is none (HTTP 404)",
                value,
                "check the model's served name and the address",
            )
        case 413:
            return RequestRejected("the request is too large for the server (HTTP 413)", value, "lower max_pixels")
        case _ if status in PASSING_STATUSES or status >= 500:
            return ServerFailed(
                f"the server is too busy or broken (HTTP {status})", value, "try again later, or lower concurrency"
            )
        case _ if status < 400:
            return RequestRejected(f"the server redirects (HTTP {status})", None, "give its final address as base_url")
        case _:
            return RequestRejected(
                f"the server rejects the request (HTTP {status})", value, "change the option that it names"
            )


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110 10.2.3).

    Args:
        headers: Of the answer, looked up without regard to case.
        now: Seconds since 1970.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
