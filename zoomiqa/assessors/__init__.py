"""Assessors: what rates pictures. `compact` is embedded; `conversational` drives any backend."""

from zoomiqa.assessors.base import Assessor, Task
from zoomiqa.assessors.conversational import ConversationalAssessor, Event, LookRead, LookStarted, TextWritten
from zoomiqa.assessors.registry import DEFAULT_ASSESSOR, AssessorSpec, builtin_assessors, create_assessor

__all__ = [
    "DEFAULT_ASSESSOR",
    "Assessor",
    "AssessorSpec",
    "ConversationalAssessor",
    "Event",
    "LookRead",
    "LookStarted",
    "Task",
    "TextWritten",
    "builtin_assessors",
    "create_assessor",
]
