"""`restore-bridge watch`: complete files once each, whatever appears when."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from restore_bridge.cli import main
from restore_bridge.cli.watch import Settled
from zoomiqa.records import read_records


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def watched(inbox: Path) -> Settled:
    return Settled(inbox, 2.0, without=inbox / "out")


def test_a_file_is_taken_when_it_has_stopped_changing(inbox: Path) -> None:
    files = watched(inbox)
    path = inbox / "a.jpg"
    path.write_bytes(b"1")
    assert files.take(0.0) == []
    path.write_bytes(b"12")
    assert files.take(1.9) == []
    assert files.waiting == 1
    assert files.take(3.8) == []
    assert files.take(3.9) == [path]
    assert files.waiting == 0
    assert files.take(9.0) == []


def test_a_file_that_changes_later_is_taken_again(inbox: Path) -> None:
    files = watched(inbox)
    path = inbox / "a.jpg"
    path.write_bytes(b"1")
    files.take(0.0)
    assert files.take(2.0) == [path]
    path.write_bytes(b"12")
    assert files.take(3.0) == []
    assert files.take(5.0) == [path]


def test_hidden_files_results_and_other_files_do_not_count(inbox: Path) -> None:
    for name in (".a.jpg", ".cache/b.jpg", "out/pictures/c.jpg", "note.txt", "sub/d.png", "a.jpg.part"):
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox / name).write_bytes(b"1")
    files = watched(inbox)
    files.take(0.0)
    assert files.take(2.0) == [inbox / "sub" / "d.png"]


def test_files_and_folders_may_go_away(inbox: Path) -> None:
    files = watched(inbox)
    (inbox / "a.jpg").write_bytes(b"1")
    files.take(0.0)
    shutil.rmtree(inbox)
    assert files.take(2.0) == []
    inbox.mkdir()
    (inbox / "a.jpg").write_bytes(b"1")
    assert files.take(3.0) == []
    assert files.take(5.0) == [inbox / "a.jpg"]


def test_once_does_what_is_there_and_a_second_time_nothing(photos: Path, inbox: Path, tmp_path: Path, capfd) -> None:
    for name in ("coffee.png", "chelsea-part.jpg"):
        shutil.copy(photos / name, inbox / name)
    (inbox / "broken.png").write_bytes(b"no picture")
    command = ["watch", str(inbox), "--out", str(inbox / "out"), "--once", "--settle", "0", "--interval", "0.01"]
    command += ["--candidates", "1", "--restorer", "classical"]
    assert main(command) == 1
    records = list(read_records(inbox / "out" / "records.jsonl"))
    assert sorted(Path(record["image"]["path"]).name for record in records) == [
        "broken.png", "chelsea-part.jpg", "coffee.png",
    ]  # fmt: skip
    assert (inbox / "out" / "report.html").is_file()
    (inbox / "broken.png").unlink()
    capfd.readouterr()
    assert main(command) == 0
    assert len(list(read_records(inbox / "out" / "records.jsonl"))) == 3


@pytest.mark.parametrize("words", [["--settle", "-1"], ["--interval", "9999"]])
def test_times_out_of_range(words: list[str], inbox: Path, tmp_path: Path, capfd) -> None:
    assert main(["watch", str(inbox), "--out", str(tmp_path / "out"), *words]) == 2
    assert "must lie in 0..3600" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_folder_must_exist(tmp_path: Path, capfd) -> None:
    assert main(["watch", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "must exist" in capfd.readouterr().err


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_picks_up_new_files_until_it_is_stopped(ending: signal.Signals, photos: Path, inbox: Path) -> None:
    out = inbox.parent / "out"
    code = "import sys; from restore_bridge.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "watch", str(inbox), "--out", str(out), "--settle", "0.1"]
    command += ["--interval", "0.05", "--candidates", "1", "--restorer", "classical"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            for number, name in enumerate(("coffee.png", "chelsea.png"), start=1):
                shutil.copy(photos / name, inbox / name)
                deadline = time.monotonic() + 120
                while not _count(out) >= number:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            os.kill(process.pid, ending)
            printed, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, told
    assert printed.strip() == str(out / "report.html")
    assert "stopped watching" in told


def _count(out: Path) -> int:
    records = out / "records.jsonl"
    return sum(line.endswith(b"\n") for line in records.read_bytes().splitlines(True)) if records.is_file() else 0
