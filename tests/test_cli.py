"""The command `zoomiqa` as a user meets it."""

import dataclasses
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import jsonschema
import pytest

from zoomiqa.cli import common, main
from zoomiqa.limits import LOCAL
from zoomiqa.records import latest, schema

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
        (["assess", "x.jpg", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["assess", "x.jpg", "--max-failures", "0"], "--max-failures must be at least 1, got 0"),
        (["assess", ""], "an empty name names no picture"),
        (["assess", "x.jpg", "--resume"], "--resume goes with --out"),
        (["assess", "x.jpg", "--overwrite"], "--overwrite goes with --out"),
        (["assess", "x.jpg", "--out", "r.jsonl", "--retry-failed"], "--retry-failed goes with --resume"),
        (["assess", "x.jpg", "--out", "r.jsonl", "--resume", "--overwrite"], "--overwrite contradicts --resume"),
        (["assess", "x.jpg", "--samples", "3"], "several samples of compact, which draws nothing, would be the same"),
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


def test_resume_says_what_failed_and_rates_it_again_on_request(photos, tmp_path, capsys):
    paths = [str(photos / name) for name in ("chelsea.png", "coffee.png")]
    out, replies = tmp_path / "r.jsonl", tmp_path / "replies.jsonl"
    assess = ["assess", *paths, "--out", str(out), "--assessor", "scripted", "--replies", str(replies)]
    replies.write_text("\n".join(map(json.dumps, (REPLY, "no idea"))))
    assert main(assess) == 1
    first = lines(out.read_text())
    replies.write_text(json.dumps(REPLY))
    run = out.with_name("r.jsonl.run.json")  # a server's place would not be part of the settings, prepared replies are
    settings = json.loads(run.read_text())["settings"]
    settings["options"]["replies"] = hashlib.sha256(replies.read_bytes()).hexdigest()
    run.write_text(json.dumps({"settings": settings}))
    capsys.readouterr()
    assert main([*assess, "--resume"]) == 1
    said = "resuming: 1 of 2 pictures are done, 1 failed (--retry-failed takes it again)"
    assert said in capsys.readouterr().err
    assert lines(out.read_text()) == first
    assert main([*assess, "--resume", "--retry-failed"]) == 0
    err = capsys.readouterr().err
    assert "resuming: 1 of 2 pictures are done\n" in err
    assert "2 pictures: 2 done, 0 failed" in err
    assert [record["rating"] for record in lines(out.read_text())] == [3.25, None, 3.25]
    assert [record["rating"] for record in latest(lines(out.read_text()))] == [3.25, 3.25]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["plugins", "schema"])
def test_a_stdout_that_cannot_be_written_is_one_sentence_and_exit_2(command, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [ZOOMIQA, command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("zoomiqa: OutputFailed[ZIQ-602]: standard output cannot be written")
    assert done.stderr.count("\n") == 1


def test_a_picture_is_opened_again_only_for_a_thumbnail(photos):
    from rich.console import Console

    from zoomiqa import assess, open_picture
    from zoomiqa.cli.show import show_assessment
    from zoomiqa.errors import ImageNotFound

    path, opened = photos / "coffee.png", []

    def again():
        opened.append(path)
        return open_picture(path)

    def gone():
        raise ImageNotFound("there is no file at that path")

    def shown(open_it, **terminal):
        console = Console(file=io.StringIO(), **terminal)
        show_assessment(console, assessment, open_it)
        return console.file.getvalue()

    assessment = assess(path)
    wide = {"force_terminal": True, "width": 120, "color_system": "truecolor"}
    assert "▀" not in shown(again)
    assert "▀" not in shown(again, force_terminal=True, width=60)
    assert opened == []
    assert "▀" in shown(again, **wide)
    assert opened == [path]
    assert "rating" in shown(gone, **wide)


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


def test_doctor_without_an_installed_package(capsys, monkeypatch):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert main(["doctor"]) == 1
    assert "what is needed is not known" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["is_installed"], report["base"]) == (False, False, [])


@pytest.mark.parametrize("address", ["https://example.org/a.png", "file:///etc/passwd"])
def test_an_address_is_called_one(address, replies, capsys):
    assert main(["assess", address, *replies]) == 1
    (record,) = lines(capsys.readouterr().out)
    assert record["error"]["code"] == "ZIQ-108"
    assert "addresses are not opened" in record["error"]["message"]


def test_plugins(capsys, monkeypatch):
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["assessors"] == ["compact", "openai", "scripted", "signals", "transformers", "vllm"]
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


@pytest.mark.parametrize("target", ["in.png", "link.png", "replies.jsonl", "prompts.toml"])
def test_an_input_is_never_overwritten(photos, replies, tmp_path, capsys, target):
    from importlib import resources

    photo, prompts = tmp_path / "in.png", tmp_path / "prompts.toml"
    photo.write_bytes((photos / "coffee.png").read_bytes())
    prompts.write_bytes((resources.files("zoomiqa.protocol") / "data" / "zoomiqa-1.toml").read_bytes())
    (tmp_path / "link.png").hardlink_to(photo)
    before = (tmp_path / target).read_bytes()
    argv = ["assess", str(photo), *replies, "--prompts", str(prompts), "--out", str(tmp_path / target), "--overwrite"]
    assert main(argv) == 2
    assert "ZIQ-601" in capsys.readouterr().err
    assert (tmp_path / target).read_bytes() == before


def test_only_regular_files_within_the_limit_have_a_digest(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"12345")
    code = (
        "import sys; from pathlib import Path; from zoomiqa.batch import file_digest\n"
        "print([file_digest(Path(name)) for name in sys.argv[1:]])\n"
        "print([(file_digest(Path(sys.argv[3]), limit_bytes=n) or '')[:8] for n in (4, 5)])"
    )
    names = ["/dev/zero", str(tmp_path / "pipe"), str(tmp_path / "file"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=30, check=True
    ).stdout.splitlines()
    digest = hashlib.sha256(b"12345").hexdigest()
    assert done == [str([None, None, digest, None]), str(["", digest[:8]])]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_failures_are_given_out_as_they_occur(photos, tmp_path, monkeypatch, batch_size):
    from zoomiqa import batch
    from zoomiqa.assessors import ConversationalAssessor
    from zoomiqa.backends import ScriptedBackend

    bad = [tmp_path / f"{index}.png" for index in range(40)]
    good = sorted(photos.iterdir())
    paths = [*bad[:3], good[0], *bad[3:6], good[1], good[2], *bad[6:], good[3]]
    opened = []

    def open_one(path, options):
        opened.append(path)
        return original(path, options)

    original = batch.open_one
    monkeypatch.setattr(batch, "open_one", open_one)
    assessor = ConversationalAssessor(ScriptedBackend(lambda _: REPLY, batch_size=batch_size))
    results = batch.assess_files(paths, batch.AssessorSpec(), assessor=assessor)
    names, ahead = [], []
    for result in results:
        names.append(Path(result.image.path))
        ahead.append(len(opened) - len(names))
        assert (result.error is None) == (names[-1] in good)
    assert names == paths
    assert max(ahead[:3]) <= 2
    assert max(ahead) <= 9 * batch_size + 2


def test_settings_that_change_records_are_in_the_fingerprint(photos, replies, tmp_path, capsys):
    out, photo = tmp_path / "r.jsonl", str(photos / "coffee.png")
    assert main(["assess", photo, "--out", str(out), *replies]) == 0
    settings = json.loads(out.with_name("r.jsonl.run.json").read_text())["settings"]
    assert settings["limits"] == dataclasses.asdict(LOCAL)
    assert main(["assess", photo, "--out", str(out), "--resume", "--profile", "server", *replies]) == 2
    assert "limits.file_bytes" in capsys.readouterr().err
    with (tmp_path / "replies.jsonl").open("a") as file:
        file.write("\n" + json.dumps(REPLY))
    assert main(["assess", photo, "--out", str(out), "--resume", *replies]) == 2
    assert "options.replies" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_closed_stdout_is_said_or_not_needed(photos, replies, tmp_path, form):
    command = [ZOOMIQA, "assess", str(photos / "coffee.png"), "--format", form, *replies]
    for more, code in (([], 2), (["--out", str(tmp_path / "r.jsonl")], 0)):
        closed = ["/bin/bash", "-c", '"$@" >&-', "bash", *command, *more]
        done = subprocess.run(closed, capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert len(lines((tmp_path / "r.jsonl").read_text())) == 1


def test_a_name_that_is_not_utf8_is_shown_escaped(photos, replies, tmp_path):
    photo = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(photo)).write_bytes((photos / "coffee.png").read_bytes())
    done = subprocess.run(
        [ZOOMIQA, "assess", photo, "--format", "text", "--progress", "plain", *replies],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict", "COLUMNS": "300"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"caf\\udce9.png" in done.stdout
    assert b"caf\\udce9.png: done" in done.stderr


def test_a_name_cannot_draw_on_the_terminal(photos, replies, tmp_path, capsys):
    photo = tmp_path / "a\x1b[31m\n[9-9] b\u202e.png"
    photo.write_bytes((photos / "coffee.png").read_bytes())
    assert main(["assess", str(photo), "--progress", "plain", *replies]) == 0
    assert capsys.readouterr().err == f"[1/1] {tmp_path}/a\\n[9-9] b.png: done\n"
    common.complain("zoomiqa", "a\x1b[31m\nb")
    assert capsys.readouterr().err == "zoomiqa: a\\nb\n"


def test_jobs_are_said_with_their_reason(photos, replies, capsys):
    assert main(["assess", str(photos), "--jobs", "2"]) == 0
    assert "zoomiqa: 2 worker processes: asked for" in capsys.readouterr().err
    assert main(["assess", str(photos), "--jobs", "2", *replies]) == 0
    out, err = capsys.readouterr()
    assert [record["rating"] for record in lines(out)] == [3.25] * 6
    assert "zoomiqa: 1 worker process: this assessor batches by itself" in err
    assert main(["assess", str(photos / "coffee.png"), *replies]) == 0
    assert capsys.readouterr().err == ""


def test_resume_counts_the_failures_of_the_earlier_run(photos, replies, tmp_path, capsys):
    bad, out = tmp_path / "bad.png", tmp_path / "r.jsonl"
    bad.write_bytes(b"nothing")
    assert main(["assess", str(bad), "--out", str(out), *replies]) == 1
    capsys.readouterr()
    more = ["--out", str(out), "--resume", "--max-failures", "1", *replies]
    for _ in range(2):
        assert main(["assess", str(bad), str(photos / "coffee.png"), *more]) == 1
        err = capsys.readouterr().err
        assert "2 pictures: 1 done, 1 failed (ZIQ-101 x1)" in err
        assert "stopped" not in err
    assert len(lines(out.read_text())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_kill_9_and_resume_give_the_same_file(photos, tmp_path, jobs):
    """C8 55: killed at random moments and resumed, byte for byte the uninterrupted file."""
    folder = tmp_path / "many"
    folder.mkdir()
    source = min(photos.iterdir())
    for index in range(14):
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
        done = (line for line in child.stderr if line.startswith("["))
        for _ in islice(done, chance.randint(1, 3)):
            pass
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
