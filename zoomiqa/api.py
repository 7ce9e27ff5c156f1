"""The few calls most users need. It must not hold logic of its own.

from zoomiqa import assess

assessment = assess("photo.jpg")
print(assessment.rating, assessment.box, assessment.positive, assessment.negative)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from zoomiqa.assessors import Assessor, create_assessor
from zoomiqa.imaging import Picture, open_picture, picture_from_array
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Assessment

Source = str | Path | bytes | np.ndarray | Picture


def as_picture(source: Source, *, limits: Limits = LOCAL) -> Picture:
    """A `Picture` from a path, encoded bytes, an array (see `picture_from_array`), or a `Picture` itself.

    Raises:
        ImageError: it cannot be opened or used.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return picture_from_array(source)
    return open_picture(source, limits=limits)


def assess(source: Source, assessor: Assessor | str | None = None, *, limits: Limits = LOCAL) -> Assessment:
    """Assess one picture.

    Args:
        source: Path, encoded bytes, array or `Picture`.
        assessor: An assessor or the name of one; the embedded default (`compact`) without it.
        limits: Resource limits for opening.

    Returns:
        The assessment. A picture that opens but cannot be rated has `error` set and `rating` None.

    Raises:
        ImageError: the picture cannot be opened.
    """
    return next(assess_many([source], assessor, limits=limits))


def assess_many(
    sources: Iterable[Source], assessor: Assessor | str | None = None, *, limits: Limits = LOCAL
) -> Iterator[Assessment]:
    """Assess pictures one after the other, in order; see `assess`."""
    judge = create_assessor(assessor) if assessor is None or isinstance(assessor, str) else assessor
    return judge.assess(as_picture(source, limits=limits) for source in sources)
