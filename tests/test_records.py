"""Record files: what is written, what resumes, what is refused."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from zoomiqa import records
from zoomiqa.errors import (
    OptionInvalid,
    OutputFailed,
    OutputWouldOverwrite,
    RecordCorrupt,
    RecordLocked,
    RecordSettingsChanged,
)
from zoomiqa.records import RecordFile, fingerprint, latest, read_record_lines, read_records, to_line

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


@pytest.mark.parametrize("content", [None, "", "[]", '{"settings": 5}', '{"settings": [1]}', "{}"])
def test_a_missing_or_damaged_run_file_is_not_guessed(tmp_path, content):
    path, run = tmp_path / "r.jsonl", tmp_path / "r.jsonl.run.json"
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
    run.unlink()
    if content is not None:
        run.write_text(content)
    with pytest.raises(RecordSettingsChanged, match="missing or damaged"), RecordFile(path, SETTINGS, resume=True):
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


@pytest.mark.parametrize("host", [socket.gethostname(), "another-machine"])
def test_a_lock_file_that_nobody_holds_does_not_block(tmp_path, host):
    """Whatever it says: also its process id may be another process's by now."""
    (tmp_path / "r.jsonl.lock").write_text(f"{os.getpid()} {host}\n")
    with RecordFile(tmp_path / "r.jsonl", SETTINGS) as file:
        file.write(record("a"))
        assert (tmp_path / "r.jsonl.lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    assert not (tmp_path / "r.jsonl.lock").exists()


def test_a_live_process_blocks_and_a_killed_one_does_not(tmp_path):
    path = tmp_path / "r.jsonl"
    holds = (
        "import sys, time\nfrom zoomiqa.records import RecordFile\n"
        f"with RecordFile({str(path)!r}, {SETTINGS!r}):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holds], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            # Even where the lock says nothing of use, it is held.
            (tmp_path / "r.jsonl.lock").write_text("")
            with pytest.raises(RecordLocked), RecordFile(path, SETTINGS):
                pass
            assert (tmp_path / "r.jsonl.lock").exists()
        finally:
            other.send_signal(signal.SIGKILL)
    assert (tmp_path / "r.jsonl.lock").exists()
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))


def test_a_lock_removed_between_opening_and_locking_is_not_taken_for_ours(tmp_path, monkeypatch):
    """The race of the last owner's unlink: who locked the removed file must start again with the new one."""
    lock = tmp_path / "r.jsonl.lock"
    lock.write_text("")
    flock, calls = records._flock, []

    def late(handle):
        calls.append(handle)
        if len(calls) == 1:
            lock.unlink()
        return flock(handle)

    monkeypatch.setattr(records, "_flock", late)
    with (
        RecordFile(tmp_path / "r.jsonl", SETTINGS),
        pytest.raises(RecordLocked),
        RecordFile(tmp_path / "r.jsonl", SETTINGS),
    ):
        pass
    assert len(calls) == 3


def test_without_flock_the_existence_of_the_file_is_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "fcntl", None)
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS), pytest.raises(RecordLocked, match="remove the lock file"):
        RecordFile(path, SETTINGS).__enter__()
    assert not (tmp_path / "r.jsonl.lock").exists()
    with RecordFile(path, SETTINGS):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"photo")
    (tmp_path / "r.jsonl.lock").symlink_to(photo)
    with pytest.raises(OutputFailed), RecordFile(tmp_path / "r.jsonl", SETTINGS):
        pass
    assert photo.read_bytes() == b"photo"


@pytest.mark.parametrize(
    "name", ["r.jsonl", "r.jsonl.run.json", "r.jsonl.lock", "hard.png", "soft.png", "gone/../r.jsonl"]
)
def test_an_input_is_never_replaced(tmp_path, name):
    """Not by the records, the run file or the lock, under whatever name and whatever else is set."""
    path = tmp_path / "r.jsonl"
    (tmp_path / "gone").mkdir()
    protected = tmp_path / name
    if name == "hard.png":
        path.write_bytes(b"photo")
        protected.hardlink_to(path)
    elif name == "soft.png":
        path.write_bytes(b"photo")
        protected.symlink_to(path)
    else:
        protected.write_bytes(b"photo")
    before = sorted(os.listdir(tmp_path))
    for options in ({"overwrite": True}, {"resume": True}, {}):
        with (
            pytest.raises(OutputWouldOverwrite, match="input"),
            RecordFile(path, SETTINGS, protected=[tmp_path / "other", protected], **options),
        ):
            pass
    assert protected.read_bytes() == b"photo"
    assert sorted(os.listdir(tmp_path)) == before


def test_a_missing_record_file_is_said(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path, "a\0b"):
        with pytest.raises(OptionInvalid, match="record file cannot be read"):
            list(read_records(path))


def test_record_lines_are_read_with_the_same_checks_from_anywhere():
    assert list(read_record_lines(['{"a": 1}\n', "\n", b'{"b": 2}\n', '{"c'], "stdin")) == [{"a": 1}, {"b": 2}]
    assert list(read_record_lines(['{"a": 1}', '{"b": 2}'], "stdin")) == [{"a": 1}, {"b": 2}]
    for lines in (["no json\n"], ['{"a', '{"b": 2}'], ["[1]\n"], [b"\xff\n"]):
        with pytest.raises(RecordCorrupt, match="line 1 of stdin"):
            list(read_record_lines(lines, "stdin"))


def row(dataset, index, rating, path="p"):
    return {**record(path, rating), "evaluation": {"dataset": dataset, "source_index": index}}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([record("a", 1), record("b", 2), record("a", 3)], [3, 2]),
        ([row("x", 0, 1), row("x", 1, 2), row("y", 0, 3), row("x", 0, 4)], [4, 2, 3]),
        ([record("p", 1), row("x", 0, 2)], [1, 2]),
        ([{"rating": 1}, {"image": None, "rating": 2}, {"image": "a", "rating": 3}], [1, 2, 3]),
        ([{"image": {"path": ["a"]}, "rating": 1}, {"image": {"path": ["a"]}, "rating": 2}], [1, 2]),
        ([row(["x"], 0, 1, "a"), row(None, 0, 2, "b"), row("x", {}, 3, "c")], [1, 2, 3]),
        ([], []),
    ],
)
def test_of_several_records_about_one_subject_the_last_counts(given, kept):
    assert [item["rating"] for item in latest(given)] == kept


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_target_that_is_no_file_is_refused_and_nothing_is_left(tmp_path, kind, options):
    path = tmp_path / "target"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(OutputFailed, match="folder" if kind == "folder" else "no regular file"):
        RecordFile(path, SETTINGS, **options).__enter__()
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize(
    "line",
    ['{"image": "a.jpg"}', '{"image": {"path": ["x"]}}', '{"image": {"path": "x", "sha256": {}}}', '{"image": 3}'],
)
def test_records_without_a_usable_key_are_said(tmp_path, line):
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
    path.write_text("\n" + line + "\n")
    with pytest.raises(RecordCorrupt, match=r"record 1 of r\.jsonl"):
        RecordFile(path, SETTINGS, resume=True).__enter__()
    assert path.read_text() == "\n" + line + "\n"
    assert not (tmp_path / "r.jsonl.lock").exists()


def test_a_blank_line_is_no_damage_to_resume_after(tmp_path):
    """It is none to `read_records` either."""
    path = tmp_path / "r.jsonl"
    with RecordFile(path, SETTINGS) as file:
        file.write(record("a"))
    path.write_bytes(path.read_bytes() + b"\n")
    with RecordFile(path, SETTINGS, resume=True) as file:
        file.write(record("b"))
    assert [item["image"]["path"] for item in read_records(path)] == ["a", "b"]


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
