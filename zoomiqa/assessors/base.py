"""What an assessor is. It must not know how it comes to its rating."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from zoomiqa.imaging.picture import Picture
from zoomiqa.types import Assessment, AssessorInfo


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

    def assess(self, pictures: Iterable[Picture]) -> Iterator[Assessment]:
        """One assessment per picture, in order, taken from `pictures` only as fast as they are needed.

        A picture that cannot be assessed gives an assessment with `error` set; it never stops the others.
        """
        ...
