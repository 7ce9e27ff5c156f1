"""The command `restore-bridge` as a user meets it, on the embedded assessor and restorer."""

import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from restore_bridge.cli import main
from restore_bridge.cli.names import output_names
from restore_bridge.cli.prompts import ENCODERS, assessment_from_record
from restore_bridge.prompts import BUDGETS
from tests.attacks import files
from zoomiqa.cli import main as zoomiqa_main
from zoomiqa.errors import RecordCorrupt
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
    record["before"]["negative"] = record["reason"] = record["rounds"][0]["prompts"]["positive"] = evil
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
    assert line["prompts"]["negative"].startswith("severe noise, ")
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
    assert [item["name"] for item in parts["restorers"]][:4] == ["identity", "classical", "compact", "realesrgan"]
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


IDENTITY = ("--restorer", "identity", "--no-report")
"""Restores nothing, so that every original is kept."""


def records_of(folder):
    return list(map(json.loads, (folder / "records.jsonl").read_text().splitlines()))


def small(path, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_picture(np.full((40, 50, 3), value, np.uint8), path)


def test_a_kept_original_is_never_written_over_an_input(tmp_path):
    """Neither over itself under another ending, nor over another input of the run."""
    photo = small(tmp_path / "out/pictures/a.png")
    before = photo.read_bytes()
    assert main(["run", str(photo), "--out", str(tmp_path / "out"), "--format", "jpg", *IDENTITY]) == 1
    assert records_of(tmp_path / "out")[0]["error"]["code"] == "ZIQ-601"
    assert photo.read_bytes() == before

    other, mine = small(tmp_path / "y/other.png", 40), small(tmp_path / "x/b.png")
    (tmp_path / "two/pictures").mkdir(parents=True)
    (tmp_path / "two/pictures/b.png").hardlink_to(other)
    before = other.read_bytes()
    assert main(["run", str(mine), str(other), "--out", str(tmp_path / "two"), *IDENTITY]) == 1
    assert [(item["error"] or {}).get("code") for item in records_of(tmp_path / "two")] == ["ZIQ-601", None]
    assert other.read_bytes() == before


def test_a_reference_is_never_replaced(tmp_path):
    photo, reference = small(tmp_path / "a.png"), small(tmp_path / "out/pictures/a.png", 70)
    before = reference.read_bytes()
    assert main(["run", str(photo), "--out", str(tmp_path / "out"), "--reference", str(reference.parent), *IDENTITY])
    assert reference.read_bytes() == before


def test_a_kept_original_replaces_a_link(tmp_path):
    photo, precious = small(tmp_path / "a.png"), tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "out/pictures").mkdir(parents=True)
    target = tmp_path / "out/pictures/a.png"
    target.symlink_to(precious)
    assert main(["run", str(photo), "--out", str(tmp_path / "out"), *IDENTITY]) == 0
    assert precious.read_bytes() == b"precious"
    assert not target.is_symlink()
    assert target.read_bytes() == photo.read_bytes()


def test_the_server_profile_passes_on_no_position(tmp_path):
    from PIL import Image

    photo = tmp_path / "a.jpg"
    photo.write_bytes(files.encoded(files.photo(), "JPEG", exif=files.exif(6), quality=95))
    for name, options in (("own", ()), ("server", ("--profile", "server"))):
        assert main(["run", str(photo), "--out", str(tmp_path / name), *IDENTITY, *options]) == 0
        assert records_of(tmp_path / name)[0]["kept"] == "original"
    assert (tmp_path / "own/pictures/a.jpg").read_bytes() == photo.read_bytes()
    target = tmp_path / "server/pictures/a.jpg"
    assert files.SERIAL.encode() not in target.read_bytes()
    with Image.open(target) as written:
        assert 0x8825 not in written.getexif()
        assert written.getexif()[272] == "Model 1"
    assert open_picture(target).size == open_picture(photo).size
    resumed = main(["run", str(photo), "--out", str(tmp_path / "own"), "--profile", "server", *IDENTITY])
    assert resumed == 2, "pictures made without stripping are no result of a run with it"


@pytest.mark.parametrize("options", [(), ("--format", "jpg")])
def test_a_second_run_keeps_the_pictures_of_the_first(tmp_path, options):
    """Another input of the same name, into the same folder."""
    first, second = small(tmp_path / "x/a.png", 60), small(tmp_path / "y/a.png", 120)
    for photo in (first, second, first):
        assert main(["run", str(photo), "--out", str(tmp_path / "out"), *IDENTITY, *options]) == 0
    made = [tmp_path / "out" / record["output"]["path"] for record in records_of(tmp_path / "out")]
    assert [path.read_bytes() for path in made] == [first.read_bytes(), second.read_bytes()]
    assert made[0].name == "a.png"


def test_same_format_knows_every_ending_that_opens(tmp_path, run_folder):
    from PIL import Image

    root, _ = run_folder
    photo = tmp_path / "a.jfif"
    Image.open(root / "photos/noisy.png").save(photo, format="JPEG", quality=95)
    assert main(["run", str(photo), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    assert records_of(tmp_path / "out")[0]["kept"] == "restored"
    assert open_picture(tmp_path / "out/pictures/a.jfif").info.format == "JPEG"


def lines(capsys):
    return list(map(json.loads, capsys.readouterr().out.splitlines()))


def test_prompts_of_a_picture_and_of_its_record_agree(run_folder, tmp_path, capsys):
    """Also of the record of a run."""
    root, _ = run_folder
    photo = str(root / "photos/noisy.png")
    assert main(["prompts", photo]) == 0
    (from_picture,) = lines(capsys)
    assert from_picture["prompts"]["regional"] or from_picture["guidance"]["negative"]
    assert zoomiqa_main(["assess", photo, "--out", str(tmp_path / "r.jsonl")]) == 0
    (tmp_path / "run.jsonl").write_text(json.dumps(records(root)["noisy.png"]) + "\n")
    for name in ("r.jsonl", "run.jsonl"):
        assert main(["prompts", "--from-jsonl", str(tmp_path / name)]) == 0
        assert lines(capsys) == [from_picture]


def test_a_record_is_read_back_with_its_regions():
    look = {
        "index": 1,
        "sections": {"summary": None, "directions": "Crisp leaves.", "issues": "Severe noise.", "decision": None},
        "rating": 2.5,
        "shown_box": [10, 20, 60, 70],
        "findings": [],
    }
    record = {"image": {"path": "p", "width": 100, "height": 80}, "rounds": [look], "error": None}
    assessment = assessment_from_record(record)
    assert assessment.image.width == 100
    assert assessment.rounds[0].shown_box.to_list() == [10, 20, 60, 70]
    assert (assessment.rating, assessment.negative) == (2.5, "Severe noise.")
    finding = {"flaw": "noise", "severity": "severe", "strength": 0.5, "signal": "s", "value": 1, "limit": 1}
    finding |= {"region": "whole frame", "detail": "", "box_fraction": [0, 0, 1, 1]}
    look["findings"] = [finding]
    assert assessment_from_record(record).findings[0].flaw == "noise"
    for part, name, value in (
        (look, "shown_box", [10, 20, 5, 70]),
        (look, "sections", ["text"]),
        (look, "rating", float("nan")),
        (look, "index", float("inf")),
        (look["sections"], "issues", 5),
        (finding, "flaw", "ugliness"),
        (finding, "box_fraction", [0, 1]),
        (record["image"], "width", None),
        (record, "rounds", 5),
        (record, "rounds", []),
        (record, "image", "p"),
    ):
        kept, part[name] = part[name], value
        with pytest.raises(RecordCorrupt, match="zoomiqa assess"):
            assessment_from_record(record)
        part[name] = kept


def test_of_a_picture_assessed_twice_the_later_record_is_split(tmp_path, capsys, monkeypatch):
    said = ({"image": {"path": "p"}, "positive": f"{word} eyes.", "negative": "Blur."} for word in ("Dull", "Sharp"))
    text = "".join(json.dumps(record) + "\n" for record in said)
    (tmp_path / "r.jsonl").write_text(text)
    assert main(["prompts", "--from-jsonl", str(tmp_path / "r.jsonl")]) == 0
    (line,) = lines(capsys)
    assert "sharp eyes" in line["prompts"]["positive"].lower()
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["prompts", "--from-jsonl", "-"]) == 0
    assert len(lines(capsys)) == 2, "of a pipe, each as it comes"


def test_failures_are_lines_of_their_own_in_prompts_and_plan(run_folder, tmp_path, capsys):
    root, _ = run_folder
    photos = [str(root / "photos" / name) for name in ("broken.png", "noisy.png", "absent.png")]
    assert main(["prompts", *photos]) == 1
    found = lines(capsys)
    assert [item["image"] for item in found] == photos
    assert [item.get("error", {}).get("code", "")[:5] for item in found] == ["ZIQ-1", "", "ZIQ-1"]
    assert "prompts" not in found[0]
    assert main(["plan", *photos]) == 1
    plans = json.loads(capsys.readouterr().out)
    assert [item["path"] for item in plans] == photos
    assert ["error" in item for item in plans] == [True, False, True]
    assert plans[1]["prompts"]
    assert zoomiqa_main(["assess", *photos, "--out", str(tmp_path / "r.jsonl")]) == 1
    assert main(["prompts", "--from-jsonl", str(tmp_path / "r.jsonl")]) == 1
    assert lines(capsys) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json\n", "ZIQ-302"),
        ("[1]\n", "ZIQ-302"),
        ("[" * 100_000 + "\n", "ZIQ-302"),
        ('{"image": null}\n', "ZIQ-302"),
        ("not json", "ZIQ-501"),
        ("", "ZIQ-501"),
        (None, "ZIQ-501"),
    ],
)
def test_bad_records_on_stdin_are_errors_with_a_code(text, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None if text is None else io.StringIO(text))
    assert main(["prompts", "--from-jsonl", "-"]) == 2
    assert words in capsys.readouterr().err
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr("sys.stdin", stream)
    assert main(["prompts", "--from-jsonl", "-"]) == 2


def test_bad_record_files_are_errors_with_a_code(run_folder, tmp_path, capsys):
    root, _ = run_folder
    (tmp_path / "cut.jsonl").write_text('{"image": ')
    for path in (tmp_path / "missing.jsonl", tmp_path, tmp_path / "cut.jsonl"):
        assert main(["prompts", "--from-jsonl", str(path)]) == 2
        assert "ZIQ-501" in capsys.readouterr().err
    assert zoomiqa_main(["assess", str(root / "photos/noisy.png"), "--out", str(tmp_path / "r.jsonl")]) == 0
    assert main(["report", str(tmp_path / "r.jsonl")]) == 2
    assert "ZIQ-302" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes there")
def test_names_that_are_not_utf8(tmp_path, capsysbinary, monkeypatch):
    folder = tmp_path / os.fsdecode(b"\xff")
    photo = str(small(folder / os.fsdecode(b"\xfe.png")))
    for command in (["prompts", photo], ["plan", photo], ["score", photo, photo, "--metrics", "psnr"]):
        assert main(command) == 0
        row = json.loads(capsysbinary.readouterr().out)
        assert photo in (row.get("image"), row.get("path"), row.get("before"))
    assert main(["run", photo, "--out", str(folder / "out"), "--restorer", "identity"]) == 0
    assert capsysbinary.readouterr().out == os.fsencode(folder / "out/report.html") + b"\n"
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["prompts", photo]) == 0
    assert json.loads(stream.getvalue())["image"] == photo


def test_cut_files_are_opened_where_allowed(run_folder, tmp_path, capsys):
    root, _ = run_folder
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((root / "photos/clean.jpg").read_bytes()[:-4000])
    for command in (["prompts", str(cut)], ["score", str(cut), str(cut)], ["plan", str(cut)]):
        assert main(command) == 1
        assert "ZIQ-104" in capsys.readouterr().out
        assert main([*command, "--allow-truncated"]) == 0
        assert "ZIQ-104" not in capsys.readouterr().out


def test_encoders_are_the_budgets(capsys):
    assert tuple(BUDGETS) == ENCODERS
    with pytest.raises(SystemExit):
        main(["prompts", "--issues", "Noise.", "--encoder", "t5"])
    assert "t5-120" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["prompts", "--help"])
    shown = re.sub(r"-\n\s+", "-", capsys.readouterr().out)  # a line may be broken inside a name
    assert all(name in shown for name in ENCODERS)


@pytest.mark.skipif(sys.platform == "win32", reason="closes a descriptor in a shell")
def test_stdin_that_is_closed_for_real():
    command = f'"{sys.executable}" -c "import sys; from restore_bridge.cli import main; sys.exit(main(sys.argv[1:]))"'
    done = subprocess.run(
        ["sh", "-c", f"{command} prompts --from-jsonl - <&-"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "ZIQ-501" in done.stderr
