"""Before-and-after sheets and the plot of a run."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from restore_bridge.cli import main
from restore_bridge.sheets import draw_sheet, plot_run
from zoomiqa import open_picture
from zoomiqa.errors import OptionInvalid
from zoomiqa.records import read_records


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over two photographs and one file that is none."""
    inbox = tmp_path_factory.mktemp("inbox")
    shutil.copy(photos / "coffee.png", inbox / "c$offee_$.png")
    shutil.copy(photos / "chelsea-part.jpg", inbox / "chelsea.jpg")
    (inbox / "broken.png").write_bytes(b"none")
    out = inbox.parent / f"{inbox.name}-out"
    assert main(["run", str(inbox), "--out", str(out), "--candidates", "1", "--no-report"]) == 1
    return out


def records_of(folder: Path) -> list[dict]:
    return list(read_records(folder / "records.jsonl"))


def test_sheets_of_a_run(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sheets", str(finished)]) == 0
    assert capfd.readouterr().out.strip() == str(finished / "sheets" / "ratings.png")
    assert sorted(path.name for path in (finished / "sheets").iterdir()) == [
        "c$offee_$.png", "chelsea.png", "ratings.png",
    ]  # fmt: skip
    assert open_picture(finished / "sheets" / "chelsea.png").width == 1280


def test_an_original_that_is_gone_costs_its_sheet_only(finished: Path, tmp_path: Path, capfd) -> None:
    moved = tmp_path / "run"
    shutil.copytree(finished, moved)
    (moved / "pictures" / "chelsea.jpg").unlink()
    assert main(["sheets", str(moved), "--out", str(tmp_path / "s")]) == 1
    assert "no sheet of" in capfd.readouterr().err
    assert len(list((tmp_path / "s").iterdir())) == 2


def test_a_sheet_shows_both_pictures(finished: Path) -> None:
    record = next(each for each in records_of(finished) if each["error"] is None)
    before = open_picture(Path(record["image"]["path"]))
    dark = before.with_pixels(before.pixels // 2)
    same, other = draw_sheet(before, before, record).pixels, draw_sheet(before, dark, record).pixels
    differing = (same != other).any(axis=(0, 2)).nonzero()[0]
    assert differing.min() >= 640  # the right half only
    assert len(differing) > 200


def test_the_plot(finished: Path) -> None:
    with Image.open(io.BytesIO(plot_run(records_of(finished)))) as image:
        assert image.width == 1040
        few = image.height
    many = [record for record in records_of(finished) if not record["error"]] * 100
    with Image.open(io.BytesIO(plot_run(many))) as image:
        assert few < image.height < 3000  # the largest changes only, not two hundred rows
    assert plot_run(records_of(finished)) == plot_run(records_of(finished))


def test_nothing_to_draw(finished: Path, tmp_path: Path, capfd) -> None:
    failed = next(record for record in records_of(finished) if record["error"])
    picture = open_picture(Path(records_of(finished)[-1]["image"]["path"]))
    with pytest.raises(OptionInvalid, match="finished record"):
        draw_sheet(picture, picture, failed)
    with pytest.raises(OptionInvalid, match="rated pictures"):
        plot_run([failed])
    assert main(["sheets", str(tmp_path)]) == 2
    assert "no record file" in capfd.readouterr().err
