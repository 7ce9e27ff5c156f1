"""Assessors by name. It must not know what any of them does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoomiqa.assessors.base import Assessor
from zoomiqa.assessors.conversational import ConversationalAssessor
from zoomiqa.backends.base import Backend
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.plugins import Registry
from zoomiqa.protocol import ConversationSettings, default_prompts, load_prompts

DEFAULT_ASSESSOR = "compact"

BACKENDS: Registry[Backend] = Registry(
    "assessor",
    "zoomiqa.backends",
    {
        "compact": "zoomiqa.assessors.compact:CompactBackend",
        "openai": "zoomiqa.backends.openai:OpenAIBackend",
        "scripted": "zoomiqa.backends.scripted:replay",
        "signals": "zoomiqa.assessors.compact:SignalsBackend",
        "transformers": "zoomiqa.backends.transformers:TransformersBackend",
        "vllm": "zoomiqa.backends.vllm:VLLMBackend",
    },
)

_TRANSPORT_OPTIONS = frozenset(
    {"api_key_env", "base_url", "batch_size", "concurrency", "device", "gpu_memory", "gpus", "retries", "timeout"}
)
"""Options that say where and how fast the answers come, not what they are: a resumed run may change them."""


@dataclass(frozen=True, slots=True)
class AssessorSpec:
    """Everything needed to build an assessor, in a form that can be sent to a worker process."""

    name: str = DEFAULT_ASSESSOR
    """A built-in name, or that of a plug-in backend."""

    conversation: ConversationSettings = field(default_factory=ConversationSettings)
    prompts_file: Path | None = None
    attributes: bool = False
    """Ask for attribute ratings in the same pass."""

    samples: int = 1
    """Conversations per picture."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """The backend's own options, e.g. `model`: the arguments of its class."""

    limits: Limits = LOCAL

    def to_dict(self) -> dict[str, Any]:
        """What decides its answers; part of a run's fingerprint."""
        options = {name: _describe(value) for name, value in self.options.items() if name not in _TRANSPORT_OPTIONS}
        return {
            "name": self.name,
            "conversation": self.conversation.to_dict(),
            "attributes": self.attributes,
            "samples": self.samples,
            "options": options,
        }


def create_assessor(spec: AssessorSpec | str | None = None, **options: Any) -> Assessor:
    """Build the assessor that `spec` (or a bare name, with the backend's options) describes; the embedded default
    without one.

    Example:
        >>> assessor = create_assessor("transformers", model="Ethanliang99/Zoom-IQA-7B", max_pixels=1_003_520)

    Raises:
        BackendUnknown: no such name.
        OptionInvalid: the backend has no such option, or lacks one that it needs.
        PromptSetInvalid: the prompt file cannot be used.
    """
    if not isinstance(spec, AssessorSpec):
        spec = AssessorSpec(name=spec or DEFAULT_ASSESSOR, options=options)
    backend = BACKENDS.load(spec.name, **spec.options)
    prompts = load_prompts(spec.prompts_file) if spec.prompts_file else default_prompts()
    return ConversationalAssessor(
        backend,
        spec.conversation,
        prompts=prompts.with_attributes() if spec.attributes else prompts,
        samples=spec.samples,
        limits=spec.limits,
    )


def builtin_assessors() -> tuple[str, ...]:
    """Names that are always there."""
    return tuple(sorted(BACKENDS.built_in))


def _describe(value: object) -> object:
    """An option as JSON; a file stands for its content. A pipe can be read only once and is named by its path."""
    if isinstance(value, Path):
        return hashlib.sha256(value.read_bytes()).hexdigest() if value.is_file() else str(value)
    return value
