"""The few calls most users need. It must not hold logic of its own.

from zoomiqa import assess

assessment = assess("photo.jpg")
print(assessment.rating, assessment.box, assessment.positive, assessment.negative)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from zoomiqa.assessors import Assessor, create_assessor
from zoomiqa.imaging import Picture, open_picture, picture_from_array
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Assessment

if TYPE_CHECKING:
    from PIL.Image import Image

Source: TypeAlias = "str | Path | bytes | np.ndarray | Image | Picture"


def as_picture(source: Source, *, limits: Limits = LOCAL) -> Picture:
    """A `Picture` from a path, encoded bytes, an array (see `picture_from_array`), a PIL image, or a `Picture` itself.

    A PIL image is turned upright by its EXIF and taken for sRGB; give the file where it has a profile.

    Raises:
        ImageError: it cannot be opened or used.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return picture_from_array(source)
    if not isinstance(source, str | Path | bytes):
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(source)
        mode = "RGBA" if upright.has_transparency_data else "RGB"
        return picture_from_array(np.asarray(upright.convert(mode)))
    return open_picture(source, limits=limits)


def assess(source: Source, assessor: Assessor | str | None = None, *, limits: Limits = LOCAL) -> Assessment:
    """Assess one picture.

    Args:
        source: Path, encoded bytes, array, PIL image or `Picture`.
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
