"""The reasoning card: a photograph with the region that was zoomed into, its rating, and the sections beside it."""

from __future__ import annotations

from zoomiqa.drawing.page import ACCENT, BAD, FAINT, GOOD, INK, Page
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import Picture
from zoomiqa.types import Assessment

_SECTIONS = (
    ("summary", "What is seen", INK),
    ("directions", "Directions for improvement", GOOD),
    ("issues", "Issues to avoid", BAD),
    ("decision", "Decision and rationale", INK),
)
_WIDTH, _PHOTO, _MARGIN = 1280, (640, 720), 32


def draw_card(picture: Picture, assessment: Assessment, *, title: str | None = None) -> Picture:
    """Draw an assessment as one picture, 1280 pixels wide.

    Args:
        picture: What was assessed.
        assessment: One with a rating.
        title: Over everything; the name of the file without it.

    Raises:
        OptionInvalid: the assessment has no rating.
    """
    if assessment.rating is None:
        reason = (assessment.error or {}).get("message")
        raise OptionInvalid("a card needs a rating", reason, "leave failed pictures out")
    page = Page(_WIDTH, _MARGIN)
    path = assessment.image.path if assessment.image else None
    page.text(title or (path or "photograph").replace("\\", "/").rsplit("/", 1)[-1], size=24, bold=True)
    top = page.bottom + 12
    boxes = (assessment.box.to_fraction(picture.size),) if assessment.box else ()
    width, height = page.photograph(picture, (_MARGIN, top), _PHOTO, boxes)
    photo_end = top + height
    left = _MARGIN + width + 36
    right = _WIDTH - _MARGIN

    spread = "" if assessment.spread is None else f" ± {assessment.spread:.2f}"
    page.bottom = top - 6
    page.text(f"{assessment.rating:.2f}{spread} of 5", size=30, bold=True, colour=ACCENT, left=left, right=right)
    page.rating(assessment.rating, assessment.spread, left=left, right=min(right, left + 380), top=page.bottom + 4)
    page.bottom += 46
    if assessment.attributes:
        rated = (f"{name.replace('_', ' ')} {value:.1f}" for name, value in assessment.attributes.items())
        page.text(" · ".join(rated), size=15, colour=FAINT, left=left, right=right, gap=8)
    for name, heading, colour in _SECTIONS:
        words = assessment.sections.to_dict().get(name)
        if words:
            page.text(heading, size=16, bold=True, colour=colour, left=left, right=right, gap=14)
            page.text(words, size=16, left=left, right=right, gap=2)
    page.bottom = max(page.bottom, photo_end)
    who = f"{assessment.assessor.name} {assessment.assessor.version}, " if assessment.assessor else ""
    looks = len(assessment.rounds)
    how = "one look" if looks == 1 else f"{looks} looks; the frame is where it zoomed in" if boxes else f"{looks} looks"
    page.text(f"{who}{how}. A rating is an estimate, given with its expected error.", size=13, colour=FAINT, gap=18)
    return page.finish()
