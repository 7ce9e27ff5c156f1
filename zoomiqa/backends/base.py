"""What a backend is: one method that answers chats about pictures. It must not know rounds, crops or parsing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from zoomiqa.types import Reply, Request


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend is and can do, as data."""

    name: str
    version: str
    description: str
    """One plain sentence on what answers."""

    batch_size: int = 1
    """Requests per call that suit it best."""

    deterministic: bool = False
    """Whether the same requests always give the same replies."""

    parallel: bool = False
    """Whether copies of it in several processes make a run faster (CPU work without shared weights)."""


@runtime_checkable
class Backend(Protocol):
    """Answers requests.

    Contract (held by `tests/backends/test_contract.py` for every backend): one reply per request, in order; a request
    that fails comes back as a reply with `finish_reason="error"` and does not void the others; requests are not
    changed; no state is carried from one call to the next that a reply could depend on.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def generate(self, requests: Sequence[Request]) -> list[Reply]: ...
