"""Assessors by name. It must not know what any of them does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoomiqa.assessors.base import Assessor
from zoomiqa.assessors.conversational import ConversationalAssessor
from zoomiqa.backends.base import Backend
from zoomiqa.errors import OptionInvalid
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.plugins import Registry
from zoomiqa.protocol import ConversationSettings, default_prompts, load_prompts

DEFAULT_ASSESSOR = "compact"

BACKENDS: Registry[Backend] = Registry(
    "assessor",
    "zoomiqa.backends",
    {
        "compact": "zoomiqa.assessors.compact:CompactBackend",
        "scripted": "zoomiqa.backends.scripted:ScriptedBackend",
    },
)


@dataclass(frozen=True, slots=True)
class AssessorSpec:
    """Everything needed to build an assessor, in a form that can be sent to a worker process."""

    name: str = DEFAULT_ASSESSOR
    """A built-in name, or that of a plug-in backend."""

    conversation: ConversationSettings = field(default_factory=ConversationSettings)
    prompts_file: Path | None = None
    replies_file: Path | None = None
    """For `scripted` only."""

    limits: Limits = LOCAL

    def to_dict(self) -> dict[str, Any]:
        """What decides its answers; part of a run's fingerprint."""
        return {
            "name": self.name,
            "conversation": self.conversation.to_dict(),
            "replies_sha256": self._replies_digest(),
        }

    def _replies_digest(self) -> str | None:
        """SHA-256 of the file of replies; `None` without one, or where it is a pipe, which can be read only once."""
        if self.replies_file is None or not self.replies_file.is_file():
            return None
        return hashlib.sha256(self.replies_file.read_bytes()).hexdigest()


def create_assessor(spec: AssessorSpec | str | None = None) -> Assessor:
    """Build the assessor that `spec` (or a bare name) describes; the embedded default without one.

    Raises:
        BackendUnknown: no such name.
        OptionInvalid: `scripted` without a file of replies.
        PromptSetInvalid: the prompt file cannot be used.
    """
    spec = AssessorSpec(name=spec) if isinstance(spec, str) else spec or AssessorSpec()
    backend = _scripted(spec) if spec.name == "scripted" else BACKENDS.load(spec.name)
    prompts = load_prompts(spec.prompts_file) if spec.prompts_file else default_prompts()
    return ConversationalAssessor(backend, spec.conversation, prompts=prompts, limits=spec.limits)


def builtin_assessors() -> tuple[str, ...]:
    """Names that are always there."""
    return tuple(sorted(BACKENDS.built_in))


def _scripted(spec: AssessorSpec) -> Backend:
    from zoomiqa.backends.scripted import ScriptedBackend

    if spec.replies_file is None:
        raise OptionInvalid("the scripted assessor needs a file of replies", None, "pass --replies FILE")
    return ScriptedBackend.from_file(spec.replies_file)
