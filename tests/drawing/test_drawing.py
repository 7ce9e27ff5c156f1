"""Cards, maps and the page they are set on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoomiqa import assess, open_picture
from zoomiqa.cli import main
from zoomiqa.drawing import Page, draw_card, draw_map
from zoomiqa.drawing.page import ACCENT, BAD, FAINT, GOOD, INK, PAPER, _font, shorten, wrap
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import picture_from_array
from zoomiqa.types import Assessment


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("colour", [INK, FAINT, ACCENT, GOOD, BAD])
def test_text_can_be_read_on_the_paper(colour: tuple[int, int, int]) -> None:
    assert (luminance(PAPER) + 0.05) / (luminance(colour) + 0.05) >= 4.5


@given(st.text(max_size=200), st.integers(20, 400))
def test_wrapping_keeps_words_and_width(words: str, width: int) -> None:
    from zoomiqa.text import plain

    lines = list(wrap(words, width, 17))
    assert "".join("".join(lines).split()) == "".join(plain(words).split())
    assert all(_font(17, False).getlength(line) <= width or len(line) <= 1 for line in lines)


def test_paragraphs_and_long_words() -> None:
    assert list(wrap("one\n\ntwo", 400, 17)) == ["one", "", "two"]
    broken = list(wrap("a " + "w" * 60, 100, 17))
    assert broken[0] == "a"
    assert "".join(broken[1:]) == "w" * 60
    assert shorten("x" * 100, 80, 17).endswith("…")
    assert shorten("\x1b[31mshort\n", 80, 17) == "short"


def test_a_page_grows_and_ends_below_its_text() -> None:
    page = Page(300, 20)
    for number in range(30):
        page.text(f"line {number}")
    pixels = page.finish().pixels
    assert pixels.shape[:2] == (page.bottom + 20, 300)
    assert (pixels[: page.bottom] != PAPER).any(axis=(1, 2))[-24:].any()
    assert (pixels[page.bottom :] == PAPER).all()


def test_a_photograph_is_reduced_and_never_enlarged() -> None:
    red = np.zeros((100, 200, 3), np.uint8)
    red[..., 0] = 255
    page = Page(300, 10)
    assert page.photograph(picture_from_array(red), (10, 10), (400, 400)) == (200, 100)
    assert page.photograph(picture_from_array(red), (10, 120), (50, 50), ((0.2, 0.2, 0.8, 0.8),)) == (50, 25)
    pixels = page.finish().pixels
    assert (pixels[20, 20] == (255, 0, 0)).all()
    assert (pixels[120:145, 10:60] == ACCENT).all(axis=2).any()


def test_the_card_shows_the_photo_the_box_and_all_sections(photos: Path) -> None:
    picture = open_picture(photos / "coffee.png")
    assessment = assess(picture)
    card = draw_card(picture, assessment)
    assert card.width == 1280
    bare = draw_card(picture, Assessment(rounds=assessment.rounds[:1], rating=3.0))
    assert card.height > bare.height or (card.pixels[: bare.height] != bare.pixels[: card.height]).any()
    photo = card.pixels[32 + 34 : 32 + 34 + 280, 32 : 32 + 360]
    assert (photo == ACCENT).all(axis=2).any()
    again = draw_card(picture, assessment)
    assert (card.pixels == again.pixels).all()


def test_a_card_of_hostile_text(photos: Path) -> None:
    from dataclasses import replace

    picture = open_picture(photos / "coffee.png")
    assessment = assess(picture)
    look = assessment.rounds[-1]
    words = "\x1b[2J<script>" + "\u202e" + "y" * 3000 + "\n" * 50
    hostile = replace(
        assessment, rounds=(*assessment.rounds[:-1], replace(look, sections=replace(look.sections, summary=words)))
    )
    assert draw_card(picture, hostile).height < 8000


def test_a_failed_assessment_has_no_card(photos: Path) -> None:
    failed = Assessment(rounds=(), rating=None, error={"code": "ZIQ-401", "message": "x"})
    with pytest.raises(OptionInvalid, match="needs a rating"):
        draw_card(open_picture(photos / "coffee.png"), failed)


def test_a_map_is_bright_where_the_value_is_high() -> None:
    grey = picture_from_array(np.full((80, 120, 3), 128, np.uint8))
    cells = np.zeros((4, 6), np.float32)
    cells[:, 3:] = 1
    cells[0, 0] = np.nan
    drawn = draw_map(grey, cells, title="test", low=0, high=1).pixels.astype(int)
    top = drawn.shape[0] - 24 - 20 - 14 - 80  # counted from below: margin, figures, scale, the photograph
    photo = drawn[top - 14 : top - 14 + 80, 24:144]
    left, right = photo[40:, 10:40].mean((0, 1)), photo[40:, 80:110].mean((0, 1))
    assert right[1] > left[1] + 60  # viridis: dark violet to yellow
    assert (photo[5, 5] == 128).all()  # nothing to show there: the photograph itself


@pytest.mark.parametrize(
    ("cells", "ends", "message"),
    [
        (np.full((2, 2), np.nan, np.float32), {}, "cells with figures"),
        (np.zeros((0, 0), np.float32), {}, "cells with figures"),
        (np.zeros(4, np.float32), {}, "cells with figures"),
        (np.zeros((2, 2), np.float32), {"low": 2, "high": 1}, "must be a range"),
    ],
)
def test_maps_that_cannot_be_drawn(cells: np.ndarray, ends: dict[str, float], message: str) -> None:
    with pytest.raises(OptionInvalid, match=message):
        draw_map(picture_from_array(np.zeros((8, 8, 3), np.uint8)), cells, title="x", **ends)


def test_one_value_everywhere_is_drawn() -> None:
    drawn = draw_map(picture_from_array(np.zeros((8, 8, 3), np.uint8)), np.ones((2, 2), np.float32), title="x")
    assert np.isfinite(drawn.pixels).all()


def test_the_command_looks_at_its_target_first_and_tells_a_failure_as_one(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, replies = tmp_path / "card.png", tmp_path / "replies.jsonl"
    replies.write_text('"no idea"')
    scripted = ["--assessor", "scripted", "--replies", str(replies)]
    assert main(["card", str(photos / "coffee.png"), "--out", str(out), *scripted]) == 1
    err = capsys.readouterr().err
    assert err.startswith("zoomiqa: ReplyUnusable[ZIQ-201]: the reply of look 1 holds no usable rating")
    assert "{" not in err
    assert not out.exists()
    out.write_bytes(b"kept")
    assert main(["card", "no-such.png", "--out", str(out)]) == 2, "and it was not even opened"
    assert "ZIQ-601" in (err := capsys.readouterr().err)
    assert "--overwrite" in err
    assert main(["card", str(photos / "coffee.png"), "--out", str(replies), "--overwrite", *scripted]) == 2
    assert out.read_bytes() == b"kept"


def test_the_command(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "card.png"
    assert main(["card", str(photos / "coffee.png"), "--out", str(out)]) == 0
    assert capfd.readouterr().out.strip() == str(out)
    assert open_picture(out).width == 1280
    assert main(["card", str(photos / "coffee.png"), "--out", str(out)]) == 2
    assert "ZIQ-601" in capfd.readouterr().err
    assert main(["card", str(photos / "coffee.png"), "--out", str(out), "--overwrite", "--map", "noise_sigma"]) == 0
    assert open_picture(out).width < 1280
    assert main(["card", str(photos / "coffee.png"), "--out", str(out), "--overwrite", "--map", "nonsense"]) == 2
    assert "it has banding" in capfd.readouterr().err
