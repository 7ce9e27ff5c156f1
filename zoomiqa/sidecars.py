"""XMP sidecars: an assessment where photo editors find it. It must not know how anything was assessed.

`photo.jpg` gets `photo.jpg.xmp`, the name that darktable and digiKam use. What stands there is merged with, never
replaced: other programs keep their edits in it. Where only `photo.xmp` exists (Adobe's name) and no other picture could
own it, its content is the start of ours. Properties are in a namespace of our own; `xmp:Rating`, the stars, belongs to
the photographer and is written only on request.

=================  =============================================================
property           content
=================  =============================================================
Rating             1.00..5.00
Spread             expected error of the rating, in its points
Box                x1, y1, x2, y2 of the last region that was zoomed into, as
                   fractions of the upright picture's width and height
Summary, Directions, Issues, Decision    the sections of the reasoning
Attribute_NAME     1.00..5.00
Assessor           name and version
=================  =============================================================
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from zoomiqa.errors import OptionInvalid, OutputFailed, OutputWouldOverwrite
from zoomiqa.files import atomic_write_bytes, printable
from zoomiqa.types import Assessment
from zoomiqa.xmp import BASIC, BYTES_LIMIT, OWN, Name, Property, merge, read

_FORMS = {"rating": "{:.2f}", "spread": "{:.2f}"}


def sidecar_path(photo: str | Path) -> Path:
    """Where the sidecar of a picture is written."""
    photo = Path(photo)
    return photo.with_name(photo.name + ".xmp")


def write_sidecar(assessment: Assessment, photo: str | Path, *, stars: bool = False) -> Path:
    """Merge an assessment into the sidecar of its picture.

    Args:
        assessment: One with a rating.
        photo: The picture's file; it is not opened.
        stars: Whether `xmp:Rating` becomes the rating in whole stars, whoever set it before.

    Returns:
        The sidecar.

    Raises:
        OptionInvalid: the assessment has no rating.
        OutputWouldOverwrite: the present sidecar cannot be read; it is left as it is.
        OutputFailed: the sidecar cannot be written.
    """
    if assessment.rating is None:
        reason = (assessment.error or {}).get("message")
        raise OptionInvalid("a sidecar needs a rating", reason, "leave failed pictures out")
    target = sidecar_path(photo)
    source, packet = _present(Path(photo))
    properties = list(assessment_properties(assessment))
    if stars:
        # Halves go up: 2.5 is three stars. (Python's round would go to the even one.)
        properties.append(Property(Name(BASIC, "Rating"), str(math.floor(assessment.rating + 0.5))))
    try:
        data = merge(packet, properties, drop_namespace=OWN)
    except OptionInvalid as error:
        raise OutputWouldOverwrite(
            f"the present sidecar cannot be merged with ({error.what})", printable(str(source)), "move it away"
        ) from error
    return atomic_write_bytes(target, data + b"\n")


def read_sidecar(photo: str | Path) -> dict[str, str | tuple[str, ...]] | None:
    """Our properties in the sidecar of a picture, by local name, and `stars` where `xmp:Rating` is set.

    Either naming style is read. `None` where there is no sidecar.

    Raises:
        OptionInvalid: it cannot be read.
    """
    _, packet = _present(Path(photo))
    if packet is None:
        return None
    found = read(packet)
    ours = {name.local: value for name, value in found.items() if name.namespace == OWN}
    stars = found.get(Name(BASIC, "Rating"))
    return ours if stars is None else {**ours, "stars": stars}


def assessment_properties(assessment: Assessment) -> Iterator[Property]:
    """What a sidecar says of an assessment; see the table above."""

    def own(name: str, value: str | tuple[str, ...]) -> Property:
        return Property(Name(OWN, name), value)

    for name, form in _FORMS.items():
        value = getattr(assessment, name)
        if value is not None:
            yield own(name.capitalize(), form.format(value))
    if assessment.box is not None and assessment.image is not None:
        size = (assessment.image.width, assessment.image.height)
        corners = zip(assessment.box.to_list(), size * 2, strict=True)
        yield own("Box", tuple(f"{corner / side:.4f}" for corner, side in corners))
    for name, text in assessment.sections.to_dict().items():
        if text:
            yield own(name.capitalize(), text)
    for name, rating in assessment.attributes.items():
        yield own(f"Attribute_{name}", f"{rating:.2f}")
    if assessment.assessor is not None:
        yield own("Assessor", f"{assessment.assessor.name} {assessment.assessor.version}")


def _present(photo: Path) -> tuple[Path, bytes | None]:
    """The sidecar that there is, by either name, and its content."""
    own, adobe = sidecar_path(photo), photo.with_suffix(".xmp")
    for path in (own, adobe):
        try:
            # os.path, not Path: a name that is too long for a file system is none of its files.
            if os.path.isfile(path) and (path == own or _is_only_owner(photo)):
                with path.open("rb") as file:
                    return path, file.read(BYTES_LIMIT + 1)
        except OSError as error:
            reason = error.strerror or "unknown reason"
            raise OutputFailed(
                "the present sidecar cannot be read", printable(str(path)), f"{reason}; check it"
            ) from error
    return own, None


def _is_only_owner(photo: Path) -> bool:
    """Whether no other file of this stem (the raw file of a pair, say) could own `photo.xmp`."""
    own = {photo.name.lower(), f"{photo.stem}.xmp".lower()}
    start = f"{photo.stem}.".lower()
    return not any(
        each.name.lower().startswith(start) and each.stem.lower() == photo.stem.lower()
        for each in photo.parent.iterdir()
        if each.name.lower() not in own
    )
