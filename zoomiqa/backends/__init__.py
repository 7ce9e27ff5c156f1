"""Backends: what answers a chat about a picture. Plug-ins register in the entry-point group `zoomiqa.backends`."""

from zoomiqa.backends.base import Backend, Capabilities, ContinuousBackend, Session, StreamingBackend
from zoomiqa.backends.scripted import ScriptedBackend
from zoomiqa.backends.session import open_session, stream_reply

__all__ = [
    "Backend",
    "Capabilities",
    "ContinuousBackend",
    "ScriptedBackend",
    "Session",
    "StreamingBackend",
    "open_session",
    "stream_reply",
]
