"""A run's folder: what is claimed, refused, removed, and where a run goes on."""

import json

import pytest

from training import runs
from zoomiqa.errors import OutputFailed, OutputWouldOverwrite, RecordCorrupt, RecordSettingsChanged

IDENTITY = {"rate": 0.5, "sizes": (1, 2), "data": "abc"}


def claim(out, identity=None, *, resume=False, overwrite=False):
    runs.claim(out, identity or IDENTITY, resume=resume, overwrite=overwrite)


def test_a_new_folder_tells_what_decides_the_run(tmp_path):
    claim(tmp_path / "a" / "run")
    assert json.loads((tmp_path / "a" / "run" / runs.SETTINGS).read_text()) == {**IDENTITY, "sizes": [1, 2]}


def test_a_run_goes_on_with_the_same_identity_only(tmp_path):
    claim(tmp_path)
    (tmp_path / "kept.txt").write_text("x")
    claim(tmp_path, resume=True)
    assert (tmp_path / "kept.txt").exists()
    with pytest.raises(RecordSettingsChanged, match=r"data: abc -> None, more: None -> 1, rate: 0\.5 -> 2"):
        claim(tmp_path, {"rate": 2, "sizes": [1, 2], "more": 1}, resume=True)
    (tmp_path / runs.SETTINGS).write_text("{half")
    with pytest.raises(RecordCorrupt, match="--overwrite"):
        claim(tmp_path, resume=True)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_what_is_no_run_is_never_replaced(tmp_path, options):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(OutputWouldOverwrite):
        claim(tmp_path, **options)
    assert (tmp_path / "precious.txt").exists()


def test_an_earlier_run_is_replaced_when_asked_for(tmp_path):
    claim(tmp_path)
    (tmp_path / "old.txt").write_text("x")
    with pytest.raises(OutputWouldOverwrite):
        claim(tmp_path)
    claim(tmp_path, {"rate": 1}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [runs.SETTINGS]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputFailed):
        claim(tmp_path / "file" / "run")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_goes_on_from_its_last_whole_checkpoint(tmp_path, monkeypatch, rank):
    """Numbers count, not names; only the first of several processes removes what was left unfinished."""
    monkeypatch.setenv("RANK", str(rank))
    assert runs.last_checkpoint(tmp_path, "mark") is None
    for steps in (9, 10, 11):
        (tmp_path / runs.CHECKPOINTS / f"checkpoint-{steps}").mkdir(parents=True)
    for steps in (9, 10):
        (tmp_path / runs.CHECKPOINTS / f"checkpoint-{steps}" / "mark").touch()
    found = runs.last_checkpoint(tmp_path, "mark")
    assert runs.steps_of(found) == 10
    assert (tmp_path / runs.CHECKPOINTS / "checkpoint-11").exists() == (rank > 0)


def test_processes_are_counted_as_the_launcher_set_them(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (runs.process_rank(), runs.process_count()) == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (runs.process_rank(), runs.process_count()) == (2, 4)
