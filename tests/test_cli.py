"""The command `zoomiqa` as a user meets it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from zoomiqa.cli import main
from zoomiqa.records import schema

ZOOMIQA = str(Path(sys.executable).with_name("zoomiqa"))
REPLY = (
    "<think>Image Quality Summary: \x1b[31mRed\x1b[0m.\nDirections for Improvement: D.\nIssues to Avoid: I.\n"
    'Decision & Rationale: R.</think><answer>{"bbox_2d": [0, 0, 0, 0], "rating": 3.25, "tool": "final"}</answer>'
)


@pytest.fixture
def replies(tmp_path):
    file = tmp_path / "replies.jsonl"
    file.write_text("\n".join([json.dumps(REPLY)] * 12))
    return ["--assessor", "scripted", "--replies", str(file)]


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_on_stdout_and_nothing_else(photos, replies, capsys):
    assert main(["assess", str(photos), *replies]) == 0
    out, err = capsys.readouterr()
    records = lines(out)
    assert [Path(record["image"]["path"]).name for record in records] == sorted(os.listdir(photos))
    for record in records:
        jsonschema.validate(record, schema())
        assert record["rating"] == 3.25
    assert "6 pictures: 6 done, 0 failed" in err


def test_a_readable_rendering_without_escapes_of_the_model(photos, replies, capsys):
    assert main(["assess", str(photos / "coffee.png"), "--format", "text", *replies]) == 0
    out = capsys.readouterr().out
    assert "rating 3.25 of 5" in out
    assert "Issues to Avoid: I." in out
    assert "\x1b[31m" not in out


def test_a_bad_picture_is_a_record_and_exit_1(photos, replies, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing")
    assert main(["assess", str(photos / "coffee.png"), str(bad), str(photos / "chelsea.png"), *replies]) == 1
    out, err = capsys.readouterr()
    records = lines(out)
    assert [record["rating"] for record in records] == [3.25, None, 3.25]
    jsonschema.validate(records[1], schema())
    assert records[1]["error"]["code"].startswith("ZIQ-1")
    assert records[1]["score"] is None
    assert "2 done, 1 failed (ZIQ-1" in err


def test_max_failures_stops(replies, tmp_path, capsys):
    for index in range(4):
        (tmp_path / f"{index}.png").write_bytes(b"x")
    assert main(["assess", str(tmp_path / "*.png"), "--max-failures", "2", *replies]) == 1
    out, err = capsys.readouterr()
    assert len(lines(out)) == 2
    assert "stopped after 2 failures" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["assess", "x.jpg", "--assessor", "compakt"], "did you mean compact?"),
        (["assess", "x.jpg", "--rounds", "0"], "rounds must lie in 1..8"),
        (["assess", "x.jpg", "--prompts", "none.toml"], "ZIQ-202"),
        (["assess", "x.jpg", "--assessor", "scripted"], "--replies"),
    ],
)
def test_wrong_configuration_is_one_sentence_and_exit_2(argv, words, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [(["assess", "x", "--ouut", "f"], "did you mean --out?"), (["asess"], "invalid choice"), ([], "required")],
)
def test_wrong_usage_is_exit_2_with_advice(argv, words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_tracebacks_on_request(monkeypatch):
    from zoomiqa.errors import OptionInvalid

    monkeypatch.setenv("ZOOMIQA_RAISE_ERRORS", "1")
    with pytest.raises(OptionInvalid):
        main(["assess", "x.jpg", "--rounds", "0"])


def test_out_and_resume(photos, replies, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    assert main(["assess", str(photos / "coffee.png"), "--out", str(out), *replies]) == 0
    first = out.read_bytes()
    assert main(["assess", str(photos), "--out", str(out), *replies]) == 2
    assert main(["assess", str(photos), "--out", str(out), "--resume", "--rounds", "3", *replies]) == 2
    assert "rounds: 2 then, 3 now" in capsys.readouterr().err
    assert main(["assess", str(photos), "--out", str(out), "--resume", *replies]) == 0
    assert out.read_bytes().startswith(first)
    assert len(lines(out.read_text())) == 6
    assert capsys.readouterr().out == ""


def test_a_closed_pipe_is_no_error(photos):
    done = subprocess.run(
        f"'{ZOOMIQA}' schema | head -n 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


def test_schema_is_valid_itself(capsys):
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed == schema()


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert {item["name"] for item in report["base"]} >= {"numpy", "pillow", "opencv-python-headless"}
    assert set(report["extras"]) >= {"vlm", "vllm", "diffusion", "metrics", "train", "app", "all", "dev"}
    assert report["device"]["reason"]
    assert main(["doctor"]) == 0
    assert "device: " in capsys.readouterr().out


def test_plugins(capsys, monkeypatch):
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["assessors"] == ["compact", "scripted"]
    monkeypatch.setenv("ZOOMIQA_PLUGINS", "0")
    assert main(["plugins"]) == 0
    assert "switched off" in capsys.readouterr().out


def test_progress_as_json(photos, replies, capsys):
    assert main(["assess", str(photos / "coffee.png"), "--progress", "json", *replies]) == 0
    assert lines(capsys.readouterr().err) == [
        {"done": 1, "total": 1, "name": str(photos / "coffee.png"), "error": None}
    ]


def test_workers_give_the_same_records(photos, capsys):
    assert main(["assess", str(photos), "--jobs", "1"]) == 0
    alone = capsys.readouterr().out
    assert main(["assess", str(photos), "--jobs", "2"]) == 0
    assert capsys.readouterr().out == alone


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_kill_9_and_resume_give_the_same_file(photos, tmp_path, jobs):
    """C8 55: killed at random moments and resumed, byte for byte the uninterrupted file."""
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(14):
        for source in sorted(photos.iterdir())[:1]:
            (folder / f"{index:02}{source.suffix}").write_bytes(source.read_bytes())
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    command = [ZOOMIQA, "assess", str(folder), "--jobs", jobs, "--progress", "plain"]
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    chance = random.Random(7)
    kills = 0
    for _ in range(40):
        child = subprocess.Popen(
            [*command, "--out", str(broken), "--resume"], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        for _, line in zip(range(chance.randint(1, 3)), child.stderr, strict=False):
            if line.startswith("["):
                continue
        time.sleep(chance.random() * 0.05)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
        child.stderr.close()
        if broken.exists() and broken.read_bytes().count(b"\n") >= 14:
            break
    subprocess.run([*command, "--out", str(broken), "--resume"], check=True, capture_output=True)
    assert kills >= 2, "the run was never interrupted, so nothing was tested"
    assert broken.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "broken.jsonl",
        "broken.jsonl.run.json",
        "many",
        "whole.jsonl",
        "whole.jsonl.run.json",
    ]
