"""An assessment for a person at a terminal: the picture in small with its box, the rating, and the four sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from zoomiqa.errors import ZoomIQAError
from zoomiqa.text import plain
from zoomiqa.types import Assessment, Box

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from zoomiqa.assessors import Event
    from zoomiqa.imaging import Picture

_TITLES = {
    "summary": "Image Quality Summary",
    "directions": "Directions for Improvement",
    "issues": "Issues to Avoid",
    "decision": "Decision & Rationale",
}
_BOX_COLOUR = (255, 64, 160)
_THUMBNAIL_COLUMNS = 44


def show_assessment(
    console: Console, assessment: Assessment, open_picture: Callable[[], Picture] | None = None
) -> None:
    """Print one assessment.

    Args:
        console: Where to.
        assessment: What is shown.
        open_picture: Gives the picture for the thumbnail; called where there is room for one.
    """
    from rich.columns import Columns
    from rich.panel import Panel
    from rich.text import Text

    name = plain(assessment.image.path or "picture") if assessment.image else "picture"
    if assessment.error:
        message = Text(f"{assessment.error['code']} {plain(assessment.error['message'])}", style="bold red")
        console.print(Panel(message, title=Text(name), title_align="left"))
        return
    body = Text()
    body.append(_rating_line(assessment), style="bold")
    _add_attributes(assessment, body)
    for look in assessment.rounds:
        body.append(f"\n\n{_look_title(look.index, look.shown_box)}", style="bold magenta")
        if look.rating is not None and len(assessment.rounds) > 1:
            body.append(f"  rated {look.rating:.2f}", style="dim")
        for key, text in look.sections.to_dict().items():
            if text:
                heading = "Crop Inspection Summary" if key == "summary" and look.shown_box else _TITLES[key]
                body.append(f"\n{heading}: ", style="cyan")
                body.append(plain(text))
    _add_notes(assessment, body)
    parts: list[RenderableType] = [body]
    picture = None
    if open_picture is not None and console.is_terminal and console.width >= 2 * _THUMBNAIL_COLUMNS:
        with suppress(ZoomIQAError):  # it was there when it was assessed
            picture = open_picture()
    if picture is not None:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(width=_THUMBNAIL_COLUMNS)
        table.add_column(ratio=1)
        table.add_row(_thumbnail(picture, assessment.box), body)
        parts = [table]
    console.print(Panel(Columns(parts) if len(parts) > 1 else parts[0], title=Text(name), title_align="left"))


def _rating_line(assessment: Assessment) -> str:
    if assessment.rating is None:
        return "no rating"
    filled = round((assessment.rating - 1) / 4 * 20)
    spread = f" ± {assessment.spread:.2f}" if assessment.spread is not None else ""
    bar = "█" * filled + "░" * (20 - filled)
    who = f"  by {assessment.assessor.name}" if assessment.assessor else ""
    score = f"score {assessment.score:.0f} of 100, higher is better"
    return f"{bar}  rating {assessment.rating:.2f}{spread} of 5 ({score}){who}"


def _box_words(box: Box) -> str:
    return f"x {box.x1}-{box.x2}, y {box.y1}-{box.y2}"


def _thumbnail(picture: Picture, box: Box | None) -> Text:
    """The picture in half-block characters, two pixels a character, the zoom box drawn over it."""
    import numpy as np
    from PIL import Image
    from rich.style import Style
    from rich.text import Text

    columns = _THUMBNAIL_COLUMNS
    rows = max(2, min(60, round(columns * picture.height / picture.width / 2) * 2))
    small = np.array(Image.fromarray(picture.pixels).resize((columns, rows), Image.Resampling.BOX))
    if box is not None:
        x1, y1, x2, y2 = box.to_fraction(picture.size)
        left, right = int(x1 * (columns - 1)), int(x2 * (columns - 1))
        top, bottom = int(y1 * (rows - 1)), int(y2 * (rows - 1))
        small[top : bottom + 1, [left, right]] = _BOX_COLOUR
        small[[top, bottom], left : right + 1] = _BOX_COLOUR
    text = Text(no_wrap=True)
    for row in range(0, rows, 2):
        for column in range(columns):
            upper, lower = (tuple(int(value) for value in small[row + step, column]) for step in (0, 1))
            text.append("▀", Style(color=_hex(upper), bgcolor=_hex(lower)))
        text.append("\n")
    return text


def _hex(colour: tuple[int, ...]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)


def show_stream(console: Console, name: str, events: Iterator[Event]) -> Assessment:
    """Print an assessment while it is written; returns it.

    Args:
        console: Where to.
        name: What the picture is called.
        events: Of `ConversationalAssessor.assess_stream`.
    """
    from rich.text import Text

    from zoomiqa.assessors import LookRead, LookStarted, TextWritten

    console.print(Text(plain(name), style="bold"))
    for event in events:
        match event:
            case LookStarted(index, box):
                console.print(Text(_look_title(index, box), style="bold magenta"))
            case TextWritten(_, text):
                console.print(Text(plain(text)), end="", soft_wrap=True)
            case LookRead(look):
                rated = "no usable rating" if look.rating is None else f"rated {look.rating:.2f}"
                console.print(Text(f"\n{rated}\n", style="dim"))
            case Assessment():
                result = event
    if result.error:
        console.print(Text(f"{result.error['code']} {plain(result.error['message'])}", style="bold red"))
    else:
        console.print(Text(_rating_line(result), style="bold"))
        body = Text()
        _add_attributes(result, body)
        _add_notes(result, body)
        console.print(body)
    return result


def _look_title(index: int, box: Box | None) -> str:
    return f"Look {index + 1}: " + (f"zoom into {_box_words(box)}" if box else "the whole picture")


def _add_attributes(assessment: Assessment, body: Text) -> None:
    if assessment.attributes:
        rated = (f"{name.replace('_', ' ')} {rating:.2f}" for name, rating in assessment.attributes.items())
        body.append("\n" + ", ".join(rated), style="dim")


def _add_notes(assessment: Assessment, body: Text) -> None:
    for note in assessment.notes:
        body.append(f"\nnote {note.code}: ", style="yellow")
        body.append(plain(note.message))
