"""Zoom-IQA: rate a photograph the way a careful person does - look, zoom into what is uncertain, look again, decide.

    from zoomiqa import assess

    assessment = assess("photo.jpg")
    print(assessment.rating, assessment.positive, assessment.negative)

Importing this package brings neither numpy nor Pillow nor torch; each name below loads its room when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoomiqa.api import assess, assess_many
    from zoomiqa.assessors import Assessor, AssessorSpec, ConversationalAssessor, create_assessor
    from zoomiqa.backends import Backend, Capabilities, ScriptedBackend
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.imaging import Picture, find_pictures, open_picture, picture_from_array, save_picture
    from zoomiqa.limits import LOCAL, SERVER, Limits
    from zoomiqa.metric import QualityMetric
    from zoomiqa.protocol import ConversationSettings, PromptSet, converse, load_prompts, parse_reply
    from zoomiqa.types import Assessment, Box, Finding, Note, Reply, Request, Round, Sections
    from zoomiqa.vocabulary import Flaw, Severity

__version__ = "0.1.0"

_HOME = {
    "Assessment": "types",
    "Assessor": "assessors",
    "AssessorSpec": "assessors",
    "Backend": "backends",
    "Box": "types",
    "Capabilities": "backends",
    "ConversationSettings": "protocol",
    "ConversationalAssessor": "assessors",
    "Finding": "types",
    "Flaw": "vocabulary",
    "LOCAL": "limits",
    "Limits": "limits",
    "Note": "types",
    "Picture": "imaging",
    "QualityMetric": "metric",
    "PromptSet": "protocol",
    "Reply": "types",
    "Request": "types",
    "Round": "types",
    "SERVER": "limits",
    "ScriptedBackend": "backends",
    "Sections": "types",
    "Severity": "vocabulary",
    "ZoomIQAError": "errors",
    "assess": "api",
    "assess_many": "api",
    "converse": "protocol",
    "create_assessor": "assessors",
    "find_pictures": "imaging",
    "load_prompts": "protocol",
    "open_picture": "imaging",
    "parse_reply": "protocol",
    "picture_from_array": "imaging",
    "save_picture": "imaging",
}

__all__ = [
    "LOCAL",
    "SERVER",
    "Assessment",
    "Assessor",
    "AssessorSpec",
    "Backend",
    "Box",
    "Capabilities",
    "ConversationSettings",
    "ConversationalAssessor",
    "Finding",
    "Flaw",
    "Limits",
    "Note",
    "Picture",
    "PromptSet",
    "QualityMetric",
    "Reply",
    "Request",
    "Round",
    "ScriptedBackend",
    "Sections",
    "Severity",
    "ZoomIQAError",
    "__version__",
    "assess",
    "assess_many",
    "converse",
    "create_assessor",
    "find_pictures",
    "load_prompts",
    "open_picture",
    "parse_reply",
    "picture_from_array",
    "save_picture",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
