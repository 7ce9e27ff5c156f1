"""The embedded assessor: signals, a learned rating, and honest words about both. No download, CPU, seconds."""

from zoomiqa.assessors.compact.backend import CompactBackend

__all__ = ["CompactBackend"]
