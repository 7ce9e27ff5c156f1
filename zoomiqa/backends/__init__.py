"""Backends: what answers a chat about a picture. Plug-ins register in the entry-point group `zoomiqa.backends`."""

from zoomiqa.backends.base import Backend, Capabilities
from zoomiqa.backends.scripted import ScriptedBackend

__all__ = ["Backend", "Capabilities", "ScriptedBackend"]
