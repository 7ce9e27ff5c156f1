"""The embedded assessors: signals, a learned rating, and honest words about both. No download, CPU, seconds."""

from zoomiqa.assessors.compact.backend import CompactBackend, SignalsBackend

__all__ = ["CompactBackend", "SignalsBackend"]
