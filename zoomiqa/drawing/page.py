"""A page to draw on: text that is measured and wrapped, bars, photographs with boxes. It must not know assessments.

Sizes are pixels. The typeface is DejaVu Sans, which comes with matplotlib, so a page is the same on every machine and
knows more scripts than Pillow's own. Text is untrusted: what `zoomiqa.text.plain` drops is dropped here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoomiqa.imaging import Picture, picture_from_array
from zoomiqa.imaging.picture import PixelArray
from zoomiqa.text import plain
from zoomiqa.types import RATING_MAX, RATING_MIN, BoxFraction

if TYPE_CHECKING:
    from PIL import Image, ImageFont

Colour = tuple[int, int, int]

PAPER, INK, FAINT, RULE = (252, 252, 250), (32, 34, 38), (110, 114, 122), (222, 223, 226)
ACCENT, GOOD, BAD = (196, 30, 110), (22, 120, 84), (176, 58, 32)
"""Text in these on `PAPER` has a contrast of at least 4.5 : 1 (WCAG 2.2, 1.4.3)."""

LINE = 1.42
"""Distance of lines, in sizes of the letters."""


class Page:
    """A page of fixed width that grows downward.

    Args:
        width: In pixels.
        margin: On all sides.
    """

    def __init__(self, width: int, margin: int = 28) -> None:
        from PIL import Image

        self.width, self.margin = width, margin
        self._image = Image.new("RGB", (width, 64), PAPER)
        self.bottom = margin
        """Lower end of what `text` and its kind have written."""

    def text(
        self,
        words: str,
        *,
        size: int = 17,
        colour: Colour = INK,
        bold: bool = False,
        left: int | None = None,
        right: int | None = None,
        gap: int = 0,
    ) -> None:
        """Write wrapped text below what there is.

        Args:
            words: Line feeds begin a paragraph.
            size: Of the letters.
            colour: Of the letters.
            bold: Whether they are.
            left: Left end of the column; that of the page without it.
            right: Right end likewise.
            gap: Empty pixels above.
        """
        left = self.margin if left is None else left
        right = self.width - self.margin if right is None else right
        self.bottom += gap
        for line in wrap(words, right - left, size, bold=bold):
            self._put(line, (left, self.bottom), size, colour, bold)
            self.bottom += round(size * LINE)

    def label(
        self,
        words: str,
        place: tuple[int, int],
        *,
        size: int = 15,
        colour: Colour = INK,
        bold: bool = False,
        ends: bool = False,
    ) -> None:
        """One line at `place` (left, top), cut to the page; what is written below stays where it is.

        With `ends` it ends at `place` instead of beginning there.
        """
        room = place[0] - self.margin if ends else self.width - self.margin - place[0]
        line = shorten(words, room, size, bold=bold)
        left = place[0] - round(_font(size, bold).getlength(line)) if ends else place[0]
        self._put(line, (left, place[1]), size, colour, bold)

    def rule(self, gap: int = 14) -> None:
        """A thin line across."""
        from PIL import ImageDraw

        self.bottom += gap
        self._grow(self.bottom + 2)
        ends = (self.margin, self.bottom, self.width - self.margin, self.bottom)
        ImageDraw.Draw(self._image).line(ends, RULE, 1)
        self.bottom += gap

    def rating(self, rating: float, spread: float | None, *, left: int, right: int, top: int) -> None:
        """A scale of 1 to 5 with the rating as a mark and its spread as a band."""
        from PIL import ImageDraw

        self._grow(top + 40)
        draw = ImageDraw.Draw(self._image)

        def across(value: float) -> float:
            share = (min(max(value, RATING_MIN), RATING_MAX) - RATING_MIN) / (RATING_MAX - RATING_MIN)
            return left + share * (right - left)

        draw.rounded_rectangle((left, top + 8, right, top + 16), 4, RULE)
        if spread is not None:
            draw.rounded_rectangle(
                (across(rating - spread), top + 8, across(rating + spread), top + 16), 4, (238, 176, 206)
            )
        draw.ellipse((across(rating) - 8, top + 4, across(rating) + 8, top + 20), ACCENT)
        for stop in range(int(RATING_MIN), int(RATING_MAX) + 1):
            figure = str(stop)
            self._put(
                figure, (round(across(stop) - _font(12, False).getlength(figure) / 2), top + 22), 12, FAINT, False
            )

    def photograph(
        self,
        picture: Picture,
        place: tuple[int, int],
        room: tuple[int, int],
        boxes: tuple[BoxFraction, ...] = (),
    ) -> tuple[int, int]:
        """A photograph, reduced to fit.

        Args:
            picture: It is never enlarged.
            place: Left and top.
            room: Greatest width and height.
            boxes: Regions to frame, as fractions.

        Returns:
            The (width, height) that it takes.
        """
        from PIL import Image, ImageDraw

        share = min(room[0] / picture.width, room[1] / picture.height, 1.0)
        size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
        self._grow(place[1] + size[1])
        small = Image.fromarray(picture.pixels).resize(size, Image.Resampling.LANCZOS)
        draw = ImageDraw.Draw(small)
        for box in boxes:
            corners = [round(part * side) for part, side in zip(box, size * 2, strict=True)]
            draw.rectangle(corners, outline=(255, 255, 255), width=5)
            draw.rectangle((corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1), outline=ACCENT, width=3)
        self._image.paste(small, place)
        return size

    def paste(self, pixels: PixelArray, place: tuple[int, int]) -> None:
        """Put finished pixels, H×W×3, at `place` (left, top)."""
        from PIL import Image

        self._grow(place[1] + pixels.shape[0])
        self._image.paste(Image.fromarray(pixels), place)

    def finish(self) -> Picture:
        """The page, cut below what was drawn."""
        return picture_from_array(np.asarray(self._image))

    def _put(self, line: str, place: tuple[int, int], size: int, colour: Colour, bold: bool) -> None:
        from PIL import ImageDraw

        self._grow(place[1] + round(size * LINE))
        ImageDraw.Draw(self._image).text(place, line, colour, _font(size, bold))

    def _grow(self, bottom: int) -> None:
        """Make room down to `bottom` and a margin."""
        wanted = bottom + self.margin
        if wanted > self._image.height:
            grown = _blank((self.width, wanted))
            grown.paste(self._image, (0, 0))
            self._image = grown


def wrap(words: str, width: int, size: int, *, bold: bool = False) -> Iterator[str]:
    """`words` in lines of at most `width` pixels; a word that is longer is broken."""
    font = _font(size, bold)
    for paragraph in plain(words).expandtabs(4).split("\n"):
        line = ""
        for word in paragraph.split():
            while (fitting := _fitting(word, width, font)) < len(word):
                if line:
                    yield line
                    line = ""
                yield word[: max(fitting, 1)]
                word = word[max(fitting, 1) :]
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                yield line
                longer = word
            line = longer
        yield line


def shorten(words: str, width: int, size: int, *, bold: bool = False) -> str:
    """`words` as one line of at most `width` pixels, its end cut with an ellipsis."""
    font = _font(size, bold)
    line = " ".join(plain(words).split())
    fitting = _fitting(line, width, font)
    if fitting == len(line):
        return line
    return line[: _fitting(line[:fitting], width - round(font.getlength("…")), font)] + "…"


def _fitting(line: str, width: float, font: ImageFont.FreeTypeFont) -> int:
    """How many of the first characters fit in `width` pixels. A long word costs no more than what fits of it."""
    known = 0
    step = 16
    while known < len(line):
        if font.getlength(line[: known + step]) <= width:
            known = min(known + step, len(line))
        elif step == 1:
            break
        else:
            step //= 2
    return known


def _blank(size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    return Image.new("RGB", size, PAPER)


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    # The basic layout does not need a library that only some builds of Pillow have.
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
