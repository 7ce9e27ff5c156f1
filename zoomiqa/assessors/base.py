"""What an assessor is. It must not know how it comes to its rating."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from zoomiqa.imaging.picture import Picture
from zoomiqa.types import Assessment, AssessorInfo


@dataclass(frozen=True, slots=True)
class Task:
    """A picture with its own question."""

    picture: Picture
    question: str | None = None
    """`None` asks what the assessor would ask."""


@runtime_checkable
class Assessor(Protocol):
    """Rates pictures."""

    @property
    def info(self) -> AssessorInfo:
        """Who it is; part of every record."""
        ...

    @property
    def parallel(self) -> bool:
        """Whether copies of it in several processes make a run faster."""
        ...

    def assess(self, pictures: Iterable[Picture | Task | Assessment]) -> Iterator[Assessment]:
        """One assessment per item, in order, taken from `pictures` only as fast as they are needed.

        A picture that cannot be assessed gives an assessment with `error` set; it never stops the others. An item that
        is an assessment already (a file that could not be opened) is handed on in its place.
        """
        ...
