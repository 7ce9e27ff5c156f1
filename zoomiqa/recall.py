"""From a record back to the assessment that it tells of. It must not know where records lie or what is made of them.

A record file may have been edited, so every part is checked as it is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zoomiqa.errors import RecordCorrupt, ZoomIQAError
from zoomiqa.types import Assessment, AssessorInfo, Box, Finding, ImageInfo, Round, Sections
from zoomiqa.vocabulary import Flaw, Severity


def assessment_from_record(record: Mapping[str, Any]) -> Assessment:
    """What a record of `zoomiqa assess` says.

    Looks with their sections, shown box, findings and ratings, the rating with its spread, the picture's size, who
    rated, and the error are rebuilt; reply texts, tokens and notes are not.

    Raises:
        RecordCorrupt: a part is missing or of the wrong type.
    """
    try:
        return _assessment(record)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, ZoomIQAError) as error:
        raise RecordCorrupt(
            "a record is not one of `zoomiqa assess`", f"{type(error).__name__}: {error}", "mend or remove it"
        ) from error


def _assessment(record: Mapping[str, Any]) -> Assessment:
    image, error, assessor = record.get("image"), record.get("error"), record.get("assessor")
    info = None
    if image is not None:
        size = (int(image.get("width") or 0), int(image.get("height") or 0))
        info = ImageInfo(_text(image.get("path")), _text(image.get("sha256")), *size)
    if error is not None:
        return Assessment((), None, error={str(key): str(value) for key, value in error.items()}, image=info)
    rounds = tuple(_round(look) for look in record.get("rounds") or ())
    if any(look.shown_box for look in rounds) and info is not None and not (info.width > 0 < info.height):
        raise ValueError("a region of a picture without a size")
    rating = _number(record.get("rating"))
    return Assessment(
        rounds,
        rounds[-1].rating if rating is None and rounds else rating,
        spread=_number(record.get("spread")),
        image=info,
        assessor=None if assessor is None else AssessorInfo(**{key: str(value) for key, value in assessor.items()}),
    )


def _round(look: Mapping[str, Any]) -> Round:
    sections = look["sections"]
    return Round(
        index=int(look["index"]),
        text="",
        sections=Sections(**{name: _text(sections.get(name)) for name in Sections().to_dict()}),
        rating=_number(look["rating"]),
        tool=None,
        shown_box=_box(look["shown_box"]),
        attributes={str(name): _figure(value) for name, value in look.get("attributes", {}).items()},
        findings=tuple(_finding(finding) for finding in look["findings"]),
    )


def _box(corners: Any) -> Box | None:
    return None if corners is None else Box(*(int(corner) for corner in corners))


def _finding(finding: Mapping[str, Any]) -> Finding:
    left, top, right, bottom = (_figure(edge) for edge in finding["box_fraction"])
    return Finding(
        flaw=Flaw(finding["flaw"]),
        severity=Severity(finding["severity"]),
        strength=_figure(finding["strength"]),
        signal=str(finding["signal"]),
        value=_figure(finding["value"]),
        limit=_figure(finding["limit"]),
        box_fraction=(left, top, right, bottom),
        region=str(finding["region"]),
        detail=str(finding["detail"]),
    )


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of text")
    return value


def _number(value: Any) -> float | None:
    return None if value is None else _figure(value)


def _figure(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite")
    return number
