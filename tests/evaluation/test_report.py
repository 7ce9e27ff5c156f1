"""The report: what is counted, what is said, and the command as a user meets it."""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from zoomiqa.cli import main
from zoomiqa.evaluation.agreement import agreement
from zoomiqa.evaluation.report import result_names, summarize, table, write_report

ASSESSOR = {"name": "test", "version": "1", "description": "", "prompt_set": "own", "prompt_hash": "0" * 16}


def record(
    dataset, place, rating, label, *, subset=None, error=None, looks=1, tokens=None, attributes=None, labels=None
):
    return {
        "assessor": ASSESSOR if error is None else None,
        "rating": None if error else rating,
        "error": {"code": error, "type": "T", "message": "m"} if error else None,
        "rounds": [{"tokens_in": tokens and 900, "tokens_out": tokens}] * looks,
        "attributes": attributes or {},
        "evaluation": {
            "dataset": dataset,
            "index": place,
            "source_index": place,
            "subset": subset,
            "ground_truth": label,
            "attributes": labels or {},
        },
    }


def many(dataset, count=60, noise=0.4, seed=0, **others):
    generator = np.random.default_rng(seed)
    labels = 1 + 4 * generator.random(count)
    ratings = np.round(np.clip(labels + noise * generator.normal(size=count), 1, 5), 2)
    return [
        record(dataset, place, float(rating), float(label), **others)
        for place, (rating, label) in enumerate(zip(ratings, labels, strict=True))
    ]


def test_failures_are_counted_by_code_and_stay_out_of_the_figures():
    records = many("koniq")
    failed = [
        record("koniq", 60 + place, 0, 3.0, error=code) for place, code in enumerate(["ZIQ-201"] * 3 + ["ZIQ-108"])
    ]
    entry = summarize(records + failed)["data_sets"]["koniq"]
    assert entry["pictures"] == 64
    assert entry["failures"] == {"count": 4, "rate": 4 / 64, "by_code": {"ZIQ-108": 1, "ZIQ-201": 3}}
    ratings, labels = ([each["rating"] for each in records], [each["evaluation"]["ground_truth"] for each in records])
    assert entry["raw"] == agreement(ratings, labels).to_dict()
    assert entry["interval_95"]["srcc"]["low"] < entry["raw"]["srcc"] < entry["interval_95"]["srcc"]["high"]
    text = table(summarize(records + failed))
    assert "4 (6.2%)" in text
    assert re.search(r"\| koniq +\| ZIQ-201 +\| +3 \|", text)


def test_subsets_and_the_mean_of_sets():
    records = [
        *many("one", subset="a"),
        *many("one", seed=1, noise=2.0, subset="b"),
        *many("two", seed=2),
    ]
    summary = summarize(records)
    one, two = summary["data_sets"].values()
    assert list(one["subsets"]) == ["a", "b"]
    assert two["subsets"] == {}
    assert one["subsets"]["a"]["raw"]["srcc"] > one["raw"]["srcc"] > one["subsets"]["b"]["raw"]["srcc"]
    assert summary["mean_over_data_sets"]["plcc"] == pytest.approx((one["raw"]["plcc"] + two["raw"]["plcc"]) / 2)
    undefined = [record("flat", place, 3.0, 1.0 + place / 20) for place in range(40)]
    assert summarize(records + undefined)["mean_over_data_sets"] == {"srcc": None, "plcc": None}
    assert summarize(many("alone"))["mean_over_data_sets"] == {"srcc": None, "plcc": None}


def test_attributes_where_both_sides_have_them():
    records = many("set", count=40)
    for place, each in enumerate(records):
        each["evaluation"]["attributes"] = {"sharpness": each["evaluation"]["ground_truth"], "noise": 3.0}
        if place < 30:
            each["attributes"] = {"sharpness": each["rating"], "composition": 2.0}
    attributes = summarize(records)["data_sets"]["set"]["attributes"]
    assert list(attributes) == ["sharpness"]
    assert attributes["sharpness"]["count"] == 30
    assert attributes["sharpness"]["raw"]["plcc"] > 0.9
    assert re.search(r"\| set +\| sharpness +\| +30 \|", table(summarize(records)))


def test_looks_tokens_scores_and_seconds():
    records = [
        record("set", place, 3.0 + place % 2, 1 + place / 10, looks=1 + place % 2, tokens=100) for place in range(30)
    ]
    entry = summarize(records, timing={"set": {"pictures": 10, "seconds": 5.0}})["data_sets"]["set"]
    assert entry["looks"] == {"mean": 1.5, "second_look_share": 0.5}
    assert entry["tokens_per_image"] == {"in": 1350, "out": 150}
    assert entry["unique_score_ratio"] == {"predictions": 2 / 30, "labels": 1.0}
    assert entry["seconds_per_image"] == 0.5
    untimed = summarize(many("set"))["data_sets"]["set"]
    assert untimed["tokens_per_image"] == {"in": None, "out": None}
    assert untimed["seconds_per_image"] is None


@pytest.mark.parametrize(
    ("records", "remark"),
    [
        ([record("s", place, 3.0, 1 + place / 10) for place in range(40)], "all predictions are equal"),
        ([record("s", place, 3.0, 2.0, error="ZIQ-401") for place in range(9)], "fewer than 3 rated pictures"),
        (many("s", count=12), "12 rated pictures are few"),
        ([record("s", place, 5 - place / 10, 1 + place / 10) for place in range(40)], "the logistic curve falls"),
        ([record("s", place, 1 + place / 10, 10.0 * place) for place in range(40)], "not in 1..5"),
    ],
)
def test_what_a_reader_must_know_is_said(records, remark, tmp_path):
    summary = summarize(records)
    assert remark in table(summary)
    write_report(tmp_path, records, summary)
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_raw_figures_come_before_fitted_ones_and_the_isotonic_last():
    text = table(summarize(many("koniq")))
    places = [text.index(word) for word in ("failed", "SRCC [95 %]", "logistic: PLCC", "isotonic on test set: PLCC")]
    assert places == sorted(places)
    widths = {len(line) for line in text.splitlines() if line.startswith(("| koniq", "| data set"))}
    assert len(widths) == 3, "three tables, each with aligned columns"


def test_names_from_files_are_harmless(tmp_path):
    name = "a|b $x$ \x1b[31m图"
    records = many(name)
    summary = summarize(records)
    assert "\x1b" not in table(summary)
    assert "a\\|b" in table(summary)
    written = write_report(tmp_path, records, summary)
    assert {path.name for path in written} == set(result_names([name]))


def test_plots_can_be_read_and_are_the_same_each_time(tmp_path):
    records = many("koniq") + many("flat", noise=0.0)
    summary = summarize(records)
    (tmp_path / "again").mkdir()
    for path in write_report(tmp_path, records, summary):
        if path.suffix == ".png":
            picture = Image.open(path)
            assert min(picture.size) > 400
            assert len(picture.convert("RGB").getcolors(10**6)) > 20
        elif path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for path in write_report(tmp_path / "again", records, summary):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_points_are_drawn_where_the_figures_are(tmp_path):
    """A scatter with one point has its colour at one place only: at the rating and label of that point."""
    from zoomiqa.evaluation.plots import draw_scatter

    records = [record("one", 0, 2.0, 4.0)]
    entry = summarize(records)["data_sets"]["one"]
    pixels = np.asarray(Image.open(BytesIO(draw_scatter("one", entry, [(2.0, 4.0)], "png"))).convert("RGB"), int)
    blue = (pixels[..., 2] - pixels[..., 0]) > 60
    rows, columns = np.nonzero(blue)
    height, width = blue.shape
    assert columns.mean() / width == pytest.approx(0.125 + 0.84 * (2.0 - 0.9) / 4.2, abs=0.01)
    assert 1 - rows.mean() / height == pytest.approx(0.1 + 0.74 * (4.0 - 0.9) / 4.2, abs=0.01)


@pytest.fixture
def desk(photos, tmp_path):
    names = sorted(path.name for path in photos.iterdir())
    rows = [{"image": name, "gt_score": 1.5 + 0.5 * place} for place, name in enumerate(names)]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    (tmp_path / "broken.json").write_text(json.dumps([*rows, {"image": "missing.png", "gt_score": 3}]))
    return tmp_path


def test_the_command(desk, photos, capsys):
    out = desk / "out"
    run = ["evaluate", str(desk / "set.json"), "--image-root", str(photos), "--out", str(out)]
    assert main(run) == 0
    text, err = capsys.readouterr()
    assert text == (out / "summary.md").read_text()
    assert "6 pictures: 6 done, 0 failed" in err
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["records.jsonl", "records.jsonl.run.json", "timing.json", *result_names(["set"])]
    )
    assert main(run) == 2
    assert "--resume" in capsys.readouterr().err
    for name in result_names(["set"]):
        (out / name).unlink()
    assert main([*run, "--resume", "--json", "--released-format"]) == 0
    text, err = capsys.readouterr()
    assert json.loads(text) == json.loads((out / "summary.json").read_text())
    assert "resuming: 6 of 6 pictures are done" in err
    assert {path.name for path in out.iterdir()} >= set(result_names(["set"]))
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 6


def test_the_command_with_a_failure_and_several_processes(desk, photos, capsys):
    out = desk / "out"
    run = [
        "evaluate",
        str(desk / "set.json"),
        str(desk / "broken.json"),
        "--image-root",
        str(photos),
        "--out",
        str(out),
    ]
    assert main([*run, "--jobs", "2", "--json"]) == 1
    text, err = capsys.readouterr()
    sets = json.loads(text)["data_sets"]
    assert sets["broken"]["failures"] == {"count": 1, "rate": 1 / 7, "by_code": {"ZIQ-108": 1}}
    assert sets["set"]["raw"] == sets["broken"]["raw"], "the same pictures, one of them beside a failure"
    assert "13 pictures: 12 done, 1 failed (ZIQ-108 x1)" in err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--limit", "0"],
        ["--retry-failed"],
        ["--overwrite", "--resume"],
        ["--jobs", "0"],
        ["--resume", "--assessor", "no-such"],
    ],
)
def test_wrong_usage_is_a_sentence(desk, photos, capsys, wrong):
    run = ["evaluate", str(desk / "set.json"), "--image-root", str(photos), "--out", str(desk / "out")]
    assert main([*run, *wrong]) == 2
    assert "zoomiqa: " in capsys.readouterr().err
    assert not (desk / "out").exists()


def test_matplotlib_is_loaded_for_plots_alone(desk, photos):
    import subprocess

    code = (
        "import sys, zoomiqa.evaluation.report, zoomiqa.evaluation.plots, zoomiqa.evaluation.runner\n"
        "print([name for name in ('matplotlib', 'sklearn', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
