"""The run: which question goes to which picture, what is recorded, and going on at any moment."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from zoomiqa.assessors import AssessorSpec, ConversationalAssessor
from zoomiqa.backends import ScriptedBackend
from zoomiqa.errors import OptionInvalid, OutputWouldOverwrite, RecordCorrupt, RecordSettingsChanged
from zoomiqa.evaluation.released import to_released
from zoomiqa.evaluation.runner import RECORDS, TIMING, Evaluation, load_sets, plan, read_timing
from zoomiqa.protocol import ConversationSettings, default_prompts
from zoomiqa.records import read_records, schema

ZOOMIQA = str(Path(sys.executable).with_name("zoomiqa"))
NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "astronaut-part.jpg", "chelsea-part.jpg", "coffee-part.jpg")


def answer(request):
    """A rating that depends on the picture alone."""
    rating = 1 + int(request.picture.info.sha256[:4], 16) / 65535 * 4
    return f'<answer>{{"bbox_2d": [0,0,0,0], "rating": {rating:.2f}, "tool": "final"}}</answer>'


def row(image, score=3.0, **others):
    return {"image": image, "gt_score": score, **others}


@pytest.fixture
def desk(photos, tmp_path):
    """A folder with pictures and two annotation files that share one of them."""
    shutil.copytree(photos, tmp_path / "pictures")
    rows = [
        row(name, 1.5 + 0.5 * place, subset="part" if "part" in name else "whole") for place, name in enumerate(NAMES)
    ]
    (tmp_path / "one.json").write_text(json.dumps(rows))
    others = [
        row("coffee.png", 4.1),
        row("missing.png", 2.0, id="gone"),
        row("coffee.png", 3.9, id="again", conversations=[{"from": "human", "value": "<|image|>\nHow sharp is it?"}]),
        row("chelsea.png", 2.2, attributes={"sharpness": 4.0}, mos=55.0),
    ]
    (tmp_path / "two.json").write_text(json.dumps(others))
    return tmp_path


def evaluation(desk, *, spec=None, backend=None, names=("one", "two"), limit=None, out="out", **options):
    spec = spec or AssessorSpec(name="scripted")
    sets = load_sets([desk / f"{name}.json" for name in names], desk / "pictures", limit=limit)
    assessor = ConversationalAssessor(backend or ScriptedBackend(answer), spec.conversation)
    items = plan(sets, spec, desk / "pictures")
    return Evaluation(desk / out, sets, items, spec, assessor, **options)


def run(desk, **options):
    with evaluation(desk, **options) as opened:
        for _ in opened.run():
            pass
        return opened.records


def test_every_row_has_its_record_though_pictures_repeat(desk):
    records = run(desk)
    assert list(read_records(desk / "out" / RECORDS)) == records
    entries = [record["evaluation"] for record in records]
    assert [entry["index"] for entry in entries] == list(range(10))
    assert [(entry["dataset"], entry["source_index"]) for entry in entries] == [
        *(("one", index) for index in range(6)),
        *(("two", index) for index in range(4)),
    ]
    coffee = [record for record in records if record["evaluation"]["image"] == "coffee.png"]
    assert len(coffee) == 3
    assert len({record["rating"] for record in coffee}) == 1
    assert [record["evaluation"]["ground_truth"] for record in coffee] == [2.5, 4.1, 3.9]
    assert entries[-1] | {"question": ""} == {
        "dataset": "two",
        "index": 9,
        "source_index": 3,
        "id": "two:3",
        "image": "chelsea.png",
        "subset": None,
        "split": None,
        "ground_truth": 2.2,
        "mos": 55.0,
        "attributes": {"sharpness": 4.0},
        "question": "",
        "question_source": "drawn",
    }
    for record in records:
        jsonschema.validate({key: value for key, value in record.items() if key != "evaluation"}, schema())


def test_a_missing_picture_is_a_failure_and_no_crash(desk):
    failed = [record for record in run(desk) if record["error"]]
    assert [record["evaluation"]["id"] for record in failed] == ["gone"]
    assert failed[0]["error"]["code"] == "ZIQ-108"
    assert failed[0]["rating"] is None


def test_questions_are_drawn_as_the_released_evaluator_draws(desk):
    """Per data set a generator of the seed; row by row; a row with its own question draws none."""
    questions = default_prompts().questions
    one, two = random.Random(42), random.Random(42)
    wanted = [one.choice(questions) for _ in range(6)]
    wanted += [two.choice(questions), two.choice(questions), "<|image|>\nHow sharp is it?", two.choice(questions)]
    records = run(desk)
    assert [record["evaluation"]["question"] for record in records] == wanted
    asked = [record["question"] for record in records if not record["error"]]
    assert asked == [question for place, question in enumerate(wanted) if place != 7]
    assert len(set(wanted[:6])) > 1, "or the order of draws would not be tested"


def test_the_place_mark_stays_in_the_history_alone(desk):
    def asks_to_zoom(request):
        tool = "crop" if request.round_index == 0 else "final"
        return f'<answer>{{"bbox_2d": [0.2, 0.2, 0.8, 0.8], "rating": 3.0, "tool": "{tool}"}}</answer>'

    backend = ScriptedBackend(asks_to_zoom)
    run(desk, backend=backend, names=("two",))
    own = [request for request in backend.requests if "How sharp is it?" in request.messages[0].text]
    first, second = sorted(own, key=lambda request: request.round_index)
    assert "<|image|>" not in first.messages[0].text
    assert second.messages[0].text == "<|image|>\nHow sharp is it?"


def test_the_users_question_stands_in_for_a_draw(desk):
    spec = AssessorSpec(name="scripted", conversation=ConversationSettings(question="Is it good?"))
    entries = [record["evaluation"] for record in run(desk, spec=spec, names=("two",))]
    assert [entry["question_source"] for entry in entries] == ["option", "option", "row", "option"]
    assert entries[0]["question"] == "Is it good?"


def test_limit_takes_the_first_rows_of_each_set(desk):
    entries = [record["evaluation"] for record in run(desk, limit=2)]
    assert [(entry["dataset"], entry["source_index"]) for entry in entries] == [
        ("one", 0),
        ("one", 1),
        ("two", 0),
        ("two", 1),
    ]
    with pytest.raises(RecordSettingsChanged), evaluation(desk, limit=3, resume=True):
        pass


def test_sets_need_names_of_their_own_and_rows(desk):
    (desk / "copy").mkdir()
    shutil.copy(desk / "one.json", desk / "copy")
    with pytest.raises(OptionInvalid, match="one name"):
        load_sets([desk / "one.json", desk / "copy" / "one.json"], desk / "pictures")
    with pytest.raises(OptionInvalid, match="image root"):
        load_sets([desk / "one.json"], desk / "no-such-folder")
    (desk / "none.json").write_text("[]")
    with pytest.raises(OptionInvalid, match="no rows"):
        load_sets([desk / "none.json"], desk / "pictures")


@pytest.mark.parametrize("stop_after", [0, 1, 4, 8, 10])
def test_an_interrupted_run_goes_on_to_the_same_bytes(desk, stop_after):
    run(desk, out="whole")
    with evaluation(desk) as opened:
        for count, _ in enumerate(opened.run(), start=1):
            if count >= max(stop_after, 1):
                break
    with (desk / "out" / RECORDS).open("ab") as file:
        file.write(b'{"image": {"pa')
    backend = ScriptedBackend(answer)
    records = run(desk, resume=True, backend=backend)
    assert (desk / "out" / RECORDS).read_bytes() == (desk / "whole" / RECORDS).read_bytes()
    assert len(records) == 10
    assert len(backend.requests) <= 9 - max(stop_after, 1) + (stop_after >= 8), "what is done is not asked again"


def test_a_finished_run_asks_nothing(desk):
    first = run(desk)
    backend = ScriptedBackend([])
    assert run(desk, resume=True, backend=backend) == first
    assert not backend.requests
    with pytest.raises(OutputWouldOverwrite):
        run(desk)
    assert run(desk, overwrite=True) == first


def test_a_picture_that_came_or_changed_is_assessed_again_and_one_that_went_is_not(desk):
    before = run(desk)
    shutil.copy(desk / "pictures" / "coffee.png", desk / "pictures" / "missing.png")
    shutil.copy(desk / "pictures" / "coffee.png", desk / "pictures" / "astronaut.png")
    (desk / "pictures" / "chelsea.png").unlink()
    after = run(desk, resume=True)
    changed = [new["evaluation"]["image"] for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["astronaut.png", "missing.png"]
    assert not any(record["error"] for record in after)
    assert len(list(read_records(desk / "out" / RECORDS))) == 12, "what was found before is not erased"
    assert run(desk, resume=True) == after


def test_failed_rows_are_retried_on_request(desk):
    silent = ScriptedBackend([])
    assert {record["error"]["code"] for record in run(desk, backend=silent)} == {"ZIQ-401", "ZIQ-108"}
    assert all(record["error"] for record in run(desk, resume=True)), "without a request they are done"
    after = run(desk, resume=True, retry_failed=True)
    assert [record["evaluation"]["id"] for record in after if record["error"]] == ["gone"]


def test_labels_may_not_change_under_a_run(desk):
    run(desk)
    rows = json.loads((desk / "two.json").read_text())
    rows[0]["gt_score"] = 1.0
    (desk / "two.json").write_text(json.dumps(rows))
    with pytest.raises(RecordSettingsChanged, match=r"data_sets\.two"), evaluation(desk, resume=True):
        pass


def test_time_is_kept_beside_the_records_over_all_sessions(desk):
    with evaluation(desk) as opened:
        for _ in zip(range(3), opened.run(), strict=False):
            pass
    assert b"seconds" not in (desk / "out" / RECORDS).read_bytes()
    first = read_timing(desk / "out")
    assert 3 <= first["one"]["pictures"] <= 4, "the fourth may be on the disk before the reader stops"
    run(desk, resume=True)
    timing = read_timing(desk / "out")
    assert {name: entry["pictures"] for name, entry in timing.items()} == {"one": 6, "two": 4}
    assert timing["one"]["seconds"] >= first["one"]["seconds"] > 0
    assert len(json.loads((desk / "out" / TIMING).read_text())["sessions"]) == 2
    run(desk, overwrite=True)
    assert read_timing(desk / "out")["one"]["pictures"] == 6


def test_edited_records_are_refused(desk):
    run(desk)
    path = desk / "out" / RECORDS
    path.write_bytes(path.read_bytes().replace(b'"evaluation"', b'"elsewhere"', 1))
    with pytest.raises(RecordCorrupt, match="evaluation"), evaluation(desk, resume=True):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sessions": [3]}', '{"sessions": [{"a": {"pictures": "x"}}]}'])
def test_a_damaged_timing_file_costs_no_result(desk, content):
    run(desk)
    (desk / "out" / TIMING).write_text(content)
    assert read_timing(desk / "out") == {}
    assert len(run(desk, resume=True)) == 10


def test_inputs_and_foreign_files_are_never_replaced(desk):
    shutil.copy(desk / "one.json", desk / "pictures" / "summary.json")
    with pytest.raises(OutputWouldOverwrite, match="input"):
        run(desk, names=("one",), out="pictures", results=["summary.json"], inputs=[desk / "pictures" / "summary.json"])
    with pytest.raises(OutputWouldOverwrite, match="input"):
        run(desk, names=("one",), out="pictures", results=["coffee.png"])
    (desk / "pictures" / "hard.md").hardlink_to(desk / "one.json")
    with pytest.raises(OutputWouldOverwrite, match="input"):
        run(desk, names=("one",), out="pictures", results=["hard.md"], inputs=[desk / "one.json"])
    with pytest.raises(OutputWouldOverwrite, match="no run"):
        run(desk, names=("one",), out="pictures", results=["summary.json"])
    assert not (desk / "pictures" / RECORDS).exists()


RELEASED_FIELDS = [
    "index",
    "dataset",
    "source_index",
    "id",
    "image",
    "question",
    "history_question",
    "ground_truth",
    "rating",
    "model_score",
    "valid",
    "error",
    "routing_warning",
    "rounds",
    "crop_bbox_pixels",
    "generated_tokens",
    "model_output",
    "output_history",
    "finish_reasons",
]


def test_the_released_form_of_every_record(desk):
    def zooms(request):
        if request.picture.info.path.endswith("astronaut.png"):
            return "no rating at all"
        if request.picture.info.path.endswith("chelsea.png"):
            return '<answer>{"rating": 2.5}</answer>'
        tool = "crop" if request.round_index == 0 else "final"
        return f'<answer>{{"bbox_2d": [0.2, 0.2, 0.8, 0.8], "rating": 3.25, "tool": "{tool}"}}</answer>'

    records = run(desk, backend=ScriptedBackend(zooms))
    released = [to_released(record) for record in records]
    for record in released:
        assert list(record) == RELEASED_FIELDS
        json.dumps(record, allow_nan=False)
    unrated, unrouted, zoomed, missing, own = (released[place] for place in (0, 1, 2, 7, 8))
    assert (unrated["rating"], unrated["model_score"], unrated["valid"]) == (-100, -100, False)
    assert unrated["error"].startswith("ZIQ-201: ")
    assert unrated["model_output"] == "no rating at all"
    assert (unrouted["rating"], unrouted["model_score"], unrouted["valid"], unrouted["error"]) == (
        2.5,
        37.5,
        True,
        None,
    )
    assert unrouted["routing_warning"] == "invalid_bbox"
    assert (zoomed["rounds"], zoomed["rating"], zoomed["crop_bbox_pixels"]) == (2, 3.25, [72, 60, 288, 240])
    assert '"crop"' in zoomed["output_history"][0]
    assert '"final"' in zoomed["model_output"]
    assert zoomed["finish_reasons"] == [{"finish_reason": "stop", "stop_reason": None}] * 2
    assert (missing["rounds"], missing["rating"], missing["model_output"]) == (0, -100, "")
    assert own["question"] == "\nHow sharp is it?"
    assert own["history_question"] == "<|image|>\nHow sharp is it?"


def test_the_table_of_released_fields_is_complete():
    page = (Path(__file__).resolve().parents[2] / "docs" / "records.md").read_text("utf-8")
    for field in RELEASED_FIELDS:
        assert f"| `{field}` |" in page, field


def command(desk, *options):
    return [
        ZOOMIQA,
        "evaluate",
        str(desk / "one.json"),
        str(desk / "two.json"),
        "--image-root",
        str(desk / "pictures"),
        *options,
    ]


@pytest.mark.slow
def test_kill_9_at_any_moment_and_resume_give_the_same_records(desk):
    """The whole command with the embedded assessor, killed without warning."""
    done = subprocess.run(command(desk, "--out", str(desk / "whole")), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    whole = (desk / "whole" / RECORDS).read_bytes()
    target, kills = desk / "out" / RECORDS, 0
    for least in (1, 4, 7):
        process = subprocess.Popen(
            command(desk, "--out", str(desk / "out"), "--resume"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None:
            if target.exists() and target.read_bytes().count(b"\n") >= least:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            time.sleep(0.005)
    assert kills >= 2, "the run was never interrupted, so nothing was tested"
    done = subprocess.run(
        command(desk, "--out", str(desk / "out"), "--resume", "--json"), capture_output=True, text=True, check=False
    )
    assert target.read_bytes() == whole
    assert json.loads(done.stdout)["data_sets"]["one"]["pictures"] == 6
    assert hashlib.sha256((desk / "out" / "sets.png").read_bytes()).digest() == (
        hashlib.sha256((desk / "whole" / "sets.png").read_bytes()).digest()
    ), "the same figures give the same plot"
    assert sorted(os.listdir(desk / "out")) == sorted(os.listdir(desk / "whole"))
