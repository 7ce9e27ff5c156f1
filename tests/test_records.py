"""Record files: what is written, what resumes, what is refused."""

import errno
import json
import os

import pytest

from zoomiqa.errors import OutputFailed, OutputWouldOverwrite, RecordCorrupt, RecordLocked, RecordSettingsChanged
from zoomiqa.records import RecordFile, fingerprint, read_records, to_line

SETTINGS = {"assessor": {"name": "scripted", "version": "1"}, "rounds": 2}


def record(name, rating=3.0):
    return {"image": {"path": name, "sha256": "0" * 64}, "rating": rating}


def test_records_are_lines_in_order(tmp_path):
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
        file.write(record("b"))
    assert [item["image"]["path"] for item in read_records(path)] == ["a", "b"]
    assert sorted(os.listdir(tmp_path)) == ["r.jsonl", "r.jsonl.run.json"]
    run = json.loads((tmp_path / "r.jsonl.run.json").read_text())
    assert run == {"fingerprint": fingerprint(SETTINGS), "settings": SETTINGS}


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_resume_drops_an_unfinished_line_and_gives_the_same_bytes(tmp_path, cut):
    """C8 55 at the level of the file: whatever part of a line was written, the result is the uninterrupted one."""
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    with RecordFile(whole, SETTINGS) as file:
        for name in "abc":
            file.write(record(name))
    with RecordFile(broken, SETTINGS) as file:
        file.write(record("a"))
    with broken.open("ab") as raw:
        raw.write(to_line(record("b"))[:cut])
    with RecordFile(broken, SETTINGS, resume=True) as file:
        assert [key[0] for key in file.done] == ["a"]
        for name in "bc":
            file.write(record(name))
    assert broken.read_bytes() == whole.read_bytes()


def test_other_settings_are_refused_with_the_difference(tmp_path):
    """C8 59."""
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
    changed = {**SETTINGS, "rounds": 3}
    with pytest.raises(RecordSettingsChanged, match="rounds: 2 then, 3 now"), RecordFile(path, changed, resume=True):
        pass
    assert len(list(read_records(path))) == 1


def test_a_missing_run_file_is_not_guessed(tmp_path):
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
    (tmp_path / "r.jsonl.run.json").unlink()
    with pytest.raises(RecordSettingsChanged), RecordFile(path, SETTINGS, resume=True):
        pass


def test_existing_records_are_never_lost_by_accident(tmp_path):
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
    with pytest.raises(OutputWouldOverwrite), RecordFile(path, SETTINGS):
        pass
    with RecordFile(path, SETTINGS, overwrite=True) as file:
        assert file.done == {}
    assert path.read_bytes() == b""


def test_a_damaged_line_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
        file.write(record("b"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0][:-10] + b"\n" + lines[1])
    with pytest.raises(RecordCorrupt, match="line 1"), RecordFile(path, SETTINGS, resume=True):
        pass
    with pytest.raises(RecordCorrupt):
        list(read_records(path))


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS), pytest.raises(RecordLocked), RecordFile(path, SETTINGS, resume=True):
        pass
    assert not (tmp_path / "r.jsonl.lock").exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    import socket
    import subprocess
    import sys

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "r.jsonl.lock").write_text(f"{gone.pid} {socket.gethostname()}\n")
    with RecordFile(tmp_path / "r.jsonl", SETTINGS) as file:
        file.write(record("a"))
    (tmp_path / "r.jsonl.lock").write_text("1 another-machine\n")
    with pytest.raises(RecordLocked), RecordFile(tmp_path / "r.jsonl", SETTINGS, resume=True):
        pass


def test_a_full_disk_stops_in_a_resumable_state(tmp_path, monkeypatch):
    """C8 57."""
    path = tmp_path / "r.jsonl"

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OutputFailed, match="No space left"):
                file.write(record("b"))
    with RecordFile(path, SETTINGS, resume=True) as file:
        assert ("a", "0" * 64) in file.done


def test_a_missing_folder_is_said(tmp_path):
    """C8 58."""
    with pytest.raises(OutputFailed), RecordFile(tmp_path / "none" / "r.jsonl", SETTINGS):
        pass


def test_lines_are_json_whatever_the_name():
    """C8 61: a name that is not UTF-8 is escaped, not lost."""
    name = os.fsdecode(b"caf\xe9.jpg")
    assert json.loads(to_line(record(name)))["image"]["path"] == name
    assert "é".encode() in to_line(record("é"))
    with pytest.raises(ValueError, match="JSON"):
        to_line(record("a", rating=float("nan")))


def test_same_name_in_different_folders_does_not_collide(tmp_path):
    """C8 60."""
    with RecordFile(tmp_path / "r.jsonl", SETTINGS) as file:
        file.write(record("x/a.jpg"))
        file.write(record("y/a.jpg"))
        assert len(file.done) == 2
