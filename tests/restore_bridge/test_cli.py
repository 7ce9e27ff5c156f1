"""The command `restore-bridge` as a user meets it, on the embedded assessor and restorer."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from restore_bridge.cli import main
from restore_bridge.cli.run import output_names
from zoomiqa.imaging import open_picture, save_picture
from zoomiqa.imaging.distortions import distort


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """One run over a noisy photo, a clean one and a broken file, with references."""
    root = tmp_path_factory.mktemp("run")
    pristine = np.ascontiguousarray(data.astronaut()[60:300, 100:420])
    photos, references = root / "photos", root / "pristine"
    photos.mkdir()
    references.mkdir()
    save_picture(distort(pristine, "gaussian_noise", 4, seed=3).pixels, photos / "noisy.png")
    save_picture(pristine, references / "noisy.png")
    save_picture(pristine, photos / "clean.jpg")
    save_picture(pristine, references / "clean.png")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n")
    code = main(["run", str(photos), "--out", str(root / "out"), "--reference", str(references)])
    return root, code


def records(root):
    lines = (root / "out" / "records.jsonl").read_text().splitlines()
    return {Path(record["image"]["path"]).name: record for record in map(json.loads, lines)}


def test_a_run_leaves_pictures_sidecars_records_and_a_report(run_folder):
    root, code = run_folder
    assert code == 1, "one picture was broken"
    names = sorted(path.name for path in (root / "out" / "pictures").iterdir())
    assert names == ["clean.jpg", "clean.jpg.zoomiqa.json", "noisy.png", "noisy.png.zoomiqa.json"]
    assert set(records(root)) == {"noisy.png", "clean.jpg", "broken.png"}
    assert records(root)["broken.png"]["error"]["code"].startswith("ZIQ-1")
    assert json.loads((root / "out/pictures/noisy.png.zoomiqa.json").read_text()) == records(root)["noisy.png"]


def test_the_noisy_picture_is_restored_towards_the_pristine_one(run_folder):
    root, _ = run_folder
    record = records(root)["noisy.png"]
    assert record["kept"] == "restored"
    scores = {row["metric"]: row for row in record["scores"]}
    assert scores["psnr"]["after"] > scores["psnr"]["before"] + 1
    assert scores["rating"]["after"] == record["after"]["rating"]
    assert record["after"]["rating"] >= record["before"]["rating"] - 0.5
    kept = next(item for item in record["candidates"] if item["index"] == record["chosen"])
    assert kept["accepted"]
    assert "denoise" in [step["operation"] for step in kept["steps"]]


def test_a_kept_original_is_kept_to_the_byte(run_folder):
    root, _ = run_folder
    record = records(root)["clean.jpg"]
    if record["kept"] == "original":
        assert (root / "out/pictures/clean.jpg").read_bytes() == (root / "photos/clean.jpg").read_bytes()
    assert record["reason"]


def test_a_second_run_does_nothing_new(run_folder, capsys):
    root, _ = run_folder
    before = (root / "out" / "records.jsonl").read_bytes()
    stamp = (root / "out/pictures/noisy.png").stat().st_mtime_ns
    main(["run", str(root / "photos"), "--out", str(root / "out"), "--no-report"])
    assert (root / "out" / "records.jsonl").read_bytes() == before
    assert (root / "out/pictures/noisy.png").stat().st_mtime_ns == stamp
    assert main(["run", str(root / "photos"), "--out", str(root / "out"), "--candidates", "3"]) == 2
    assert "candidates: 2 then, 3 now" in capsys.readouterr().err


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(attrs)
        for name in ("src", "href"):
            if name in attrs:
                self.links.append(attrs[name])


def test_the_report_is_one_offline_page(run_folder):
    root, _ = run_folder
    text = (root / "out" / "report.html").read_text()
    page = Page(text)
    assert all(link.startswith(("data:image/webp;base64,", "#")) for link in page.links)
    assert all(image["alt"] for image in page.images)
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert not re.search(r"https?://", text)
    for words in ("Directions for Improvement", "Issues to Avoid", "What was sent to the restorer", "broken.png"):
        assert words in text


def test_reasoning_cannot_inject_into_the_report(run_folder, tmp_path):
    """C8 48."""
    from restore_bridge import write_report

    root, _ = run_folder
    record = json.loads(json.dumps(records(root)["noisy.png"]))
    evil = '<script>alert(1)</script><img src=x onerror=alert(1)> "onmouseover="x'
    record["before"]["rounds"][0]["sections"]["issues"] = evil
    record["before"]["negative"] = record["reason"] = record["prompts"]["positive"] = evil
    page = write_report([record], tmp_path / "r.html", records_folder=root / "out").read_text()
    assert page.count("<script>") == 1, "only the page's own"
    assert "<img src=x" not in page
    assert all("onerror" not in image for image in Page(page).images)


def test_report_from_a_folder(run_folder, tmp_path, capsys):
    root, _ = run_folder
    assert main(["report", str(root / "out"), "-o", str(tmp_path / "page.html"), "--title", "Mine & yours"]) == 0
    assert "<h1>Mine &amp; yours</h1>" in (tmp_path / "page.html").read_text()
    assert main(["report", str(tmp_path / "none.jsonl")]) == 2


def test_outputs_never_replace_inputs(tmp_path):
    photo = tmp_path / "pictures" / "a.png"
    photo.parent.mkdir()
    save_picture(np.full((40, 50, 3), 90, np.uint8), photo)
    before = photo.read_bytes()
    assert main(["run", str(photo), "--out", str(tmp_path)]) == 1
    assert photo.read_bytes() == before


def test_same_names_do_not_collide():
    """C8 60."""
    names = output_names([Path("x/a.jpg"), Path("y/a.jpg"), Path("y/b.jpg")], "same")
    assert len(set(names.values())) == 3
    assert names[Path("y/b.jpg")] == "b.jpg"
    assert output_names([Path("x/a.jpg")], "png")[Path("x/a.jpg")] == "a.png"


def test_prompts_from_text_records_and_pictures(run_folder, tmp_path, capsys, monkeypatch):
    import io

    assert (
        main(
            [
                "prompts",
                "--directions",
                "Crisp leaves.",
                "--issues",
                "Severe noise in the upper left.",
                "--prompt",
                "my dog",
            ]
        )
        == 0
    )
    line = json.loads(capsys.readouterr().out)
    assert line["prompts"]["positive"].startswith("my dog")
    assert line["prompts"]["regional"]
    monkeypatch.setattr(
        "sys.stdin",
        io.StringIO(json.dumps({"image": {"path": "p"}, "positive": "Sharp eyes.", "negative": "Blur."}) + "\n"),
    )
    assert main(["prompts", "--from-jsonl", "-"]) == 0
    assert "sharp eyes" in json.loads(capsys.readouterr().out)["prompts"]["positive"].lower()
    root, _ = run_folder
    assert main(["prompts", str(root / "photos/noisy.png"), "--encoder", "t5-120"]) == 0
    assert "noise" in json.loads(capsys.readouterr().out)["prompts"]["negative"]
    assert main(["prompts"]) == 2


def test_score_of_files_and_folders(run_folder, capsys):
    root, _ = run_folder
    pair = [str(root / "photos/noisy.png"), str(root / "out/pictures/noisy.png")]
    assert main(["score", *pair, "--reference", str(root / "pristine/noisy.png")]) == 0
    row = json.loads(capsys.readouterr().out)
    scores = {item["metric"]: item for item in row["scores"]}
    assert scores["ssim"]["after"] > scores["ssim"]["before"]
    assert {"rating", "psnr", "ssim", "consistency"} == set(scores)
    folders = [str(root / "photos"), str(root / "out/pictures")]
    assert main(["score", *folders, "--metrics", "psnr", "--format", "text"]) == 0
    out, err = capsys.readouterr()
    assert "noisy.png" in out
    assert "broken.png has no partner" in err
    assert main(["score", "--list"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {item["name"] for item in listed} >= {"psnr", "ssim", "consistency"}
    assert main(["score", pair[0]]) == 2
    assert main(["score", pair[0], pair[1], "--metrics", "pnsr"]) in (1, 2)


def test_plugins(capsys):
    assert main(["plugins", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in parts["restorers"]][:3] == ["identity", "classical", "realesrgan"]
    assert all(item["licence"] for item in parts["restorers"])
    assert main(["plugins"]) == 0
    assert "higher is better" in capsys.readouterr().out


def test_plan(run_folder, capsys):
    root, _ = run_folder
    assert main(["plan", str(root / "photos/noisy.png"), "--scale", "1"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["source_size"] == [320, 240]
    assert "denoise" in [action["operation"] for action in plan["actions"]]


def test_metadata_and_format_of_what_is_written(tmp_path, run_folder):
    """C8 66 through the whole command."""
    from PIL import Image

    root, _ = run_folder
    exif = Image.Exif()
    exif[0x010F] = "Camera maker"
    exif[0x0112] = 6
    source = tmp_path / "in.jpg"
    Image.open(root / "photos/noisy.png").save(source, exif=exif, quality=95)
    assert main(["run", str(source), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    target = tmp_path / "out/pictures/in.jpg"
    with Image.open(target) as written:
        assert written.getexif()[0x010F] == "Camera maker"
        if target.read_bytes() != source.read_bytes():
            assert written.getexif().get(0x0112, 1) == 1
    assert open_picture(target).size == (240, 320)
