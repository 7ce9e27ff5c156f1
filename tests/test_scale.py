"""Runs on a Ray cluster: the same records as in one process, whatever happens to the workers."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import fast_look
from zoomiqa import scale
from zoomiqa.cli import main
from zoomiqa.errors import ExtraMissing, OptionInvalid
from zoomiqa.scale import Engine, check_engine, on_ray

ZOOMIQA = str(Path(sys.executable).with_name("zoomiqa"))

needs_ray = pytest.mark.skipif(
    scale.find_spec("ray") is None or scale.find_spec("pyarrow") is None, reason="needs the extra `scale` (Ray Data)"
)


@pytest.fixture(scope="module")
def plug(tmp_path_factory):
    """A folder for the module path, with the assessor `fast` in it."""
    folder = tmp_path_factory.mktemp("plug")
    fast_look.install(folder)
    return folder


@pytest.fixture(scope="module")
def environment(plug):
    return {**os.environ, "PYTHONPATH": str(plug), "ZOOMIQA_PLUGINS": "1"}


@pytest.fixture
def pids(tmp_path):
    folder = tmp_path / "pids"
    folder.mkdir()
    return folder


def save_pictures(folder, count):
    folder.mkdir()
    noise = np.random.default_rng(3)
    for number in range(count):
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number:04}.png")
    return folder


def command(folder, out, pids, *more, seconds=0.001):
    options = ["--option", f"pids={pids}", "--option", f"seconds={seconds}"]
    return [ZOOMIQA, "assess", str(folder), "--assessor", "fast", *options, "--out", str(out), *more]


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@contextmanager
def started(words, environment):
    """A process in a group of its own; it does not outlive the test."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=environment, text=True, start_new_session=True, **pipes) as run:
        try:
            yield run
        finally:
            if run.poll() is None:
                run.kill()


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def workers_in(pids, but):
    return [pid for pid in (int(path.name) for path in pids.iterdir()) if pid != but and is_running(pid)]


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by /proc")
def test_2000_pictures_with_a_worker_killed_give_the_same_file(tmp_path, environment, pids):
    folder = save_pictures(tmp_path / "pictures", 2000)
    one, many = tmp_path / "one.jsonl", tmp_path / "many.jsonl"
    subprocess.run(command(folder, one, pids, "--jobs", "1"), env=environment, check=True, capture_output=True)
    chance = random.Random(11)
    with started(command(folder, many, pids, "--engine", "ray", "--workers", "2", seconds=0.005), environment) as run:
        after = chance.randint(200, 1200)
        wait_for(lambda: lines_of(many) > after or run.poll() is not None)
        victim = chance.choice(sorted(workers_in(pids, run.pid)))
        os.kill(victim, signal.SIGKILL)
        written = lines_of(many)
        output, words = run.communicate(timeout=300)
    assert run.returncode == 0, words
    assert written < 2000, "the worker was killed while there was work left"
    assert output == "", "standard output is for records"
    assert "Traceback" not in words
    # `seconds` is an option of the assessor; nothing of it is in a record.
    assert many.read_bytes() == one.read_bytes()
    paths = [json.loads(line)["image"]["path"] for line in many.read_text().splitlines()]
    assert paths == [str(path) for path in sorted(folder.iterdir())]
    wait_for(lambda: not workers_in(pids, run.pid), 30)


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by /proc")
def test_an_interrupted_run_stops_its_cluster_and_goes_on_anywhere(tmp_path, environment, pids):
    folder = save_pictures(tmp_path / "pictures", 300)
    one, many = tmp_path / "one.jsonl", tmp_path / "many.jsonl"
    subprocess.run(command(folder, one, pids, "--jobs", "1"), env=environment, check=True)
    slow = {**environment, "FAST_LOOK_SECONDS": "0.2"}  # half a minute in all: far from done when it is interrupted
    with started(command(folder, many, pids, "--engine", "ray", "--workers", "2"), slow) as run:
        wait_for(lambda: lines_of(many) >= 30 or run.poll() is not None)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to the whole group
        output, words = run.communicate(timeout=120)
    assert run.returncode == 130, words
    assert output == ""
    # Ray's own objects may complain while the interpreter goes; nothing of ours may.
    assert not re.search(r'File ".*/(zoomiqa|restore_bridge)/', words), words
    assert 30 <= lines_of(many) < 300
    wait_for(lambda: not workers_in(pids, run.pid), 30)
    subprocess.run(command(folder, many, pids, "--resume", "--jobs", "1"), env=environment, check=True)
    assert many.read_bytes() == one.read_bytes()


@pytest.fixture(scope="module")
def cluster(plug, tmp_path_factory):
    """A local cluster that the host program has joined: what runs on it must leave it as it is."""
    pytest.importorskip("ray.data", reason="needs the extra `scale` (Ray Data)", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(plug))
        patch.syspath_prepend(plug)
        with scale._cluster(Engine("ray", workers=2)) as ray:
            yield ray


def make_doubler(factor, items):
    return [factor * item for item in items]


def make_worker(factor):
    return partial(make_doubler, factor)


def make_nothing():
    raise OptionInvalid("the model cannot be found", "nowhere", "name another")


def make_buggy():
    return lambda items: [1 // item for item in items]


def results(items, make, **options):
    settings = {"lost": lambda item: "lost", "parallel": True, "largest_chunk": 3, **options}
    return on_ray(items, make, Engine("ray", workers=2), **settings)


def test_results_come_in_order_one_per_item(cluster):
    items = list(range(50))
    assert list(results(items, partial(make_worker, 3))) == [3 * item for item in items]
    assert list(results([], partial(make_worker, 3))) == []
    assert cluster.is_initialized(), "the host program's cluster is left running"


def test_a_run_that_is_left_early_leaves_the_cluster(cluster):
    some = results(list(range(50)), partial(make_worker, 2))
    assert [next(some), next(some)] == [0, 2]
    some.close()
    assert list(results([4, 5], partial(make_worker, 2))) == [8, 10]


def test_a_worker_that_cannot_be_made_stops_the_run_with_its_own_error(cluster):
    with pytest.raises(OptionInvalid, match="the model cannot be found"):
        list(results([1, 2], make_nothing))


def test_a_bug_is_raised_where_the_run_was_started(cluster):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(results([1, 0], make_buggy))


def test_a_cluster_without_the_gpus_says_so(cluster):
    engine = Engine("ray", workers=1, gpus=8)
    with pytest.raises(OptionInvalid, match="8 of 0"):
        list(on_ray([1], partial(make_worker, 1), engine, lost=str, parallel=False, largest_chunk=1))


@pytest.mark.slow
def test_failures_are_values_and_a_deadly_picture_spares_the_others(cluster, tmp_path, environment, pids, monkeypatch):
    from zoomiqa.assessors import AssessorSpec
    from zoomiqa.batch import OpenOptions, assess_files

    folder = save_pictures(tmp_path / "pictures", 12)
    (folder / "0003.png").write_bytes(b"no picture")
    Image.new("RGB", fast_look.DEADLY).save(folder / "0007.png")
    paths = [*sorted(folder.iterdir()), tmp_path / "gone.png"]
    spec = AssessorSpec("fast", options={"pids": str(pids)})
    assessments = list(assess_files(paths, spec, options=OpenOptions(), engine=Engine("ray", workers=2)))
    assert [assessment.image.path for assessment in assessments] == list(map(str, paths))
    codes = {Path(item.image.path).name: item.error["code"] for item in assessments if item.error}
    assert codes == {"0003.png": "ZIQ-101", "0007.png": "ZIQ-401", "gone.png": "ZIQ-108"}
    assert "every worker" in assessments[7].error["message"]
    safe = [path for path in paths if path.name != "0007.png"]
    alone = list(assess_files(safe, spec))
    assert [item for item in assessments if Path(item.image.path).name != "0007.png"] == alone


@pytest.mark.slow
def test_restoring_gives_the_same_files_and_records(cluster, photos, tmp_path, capsys, monkeypatch):
    from restore_bridge.cli import main as restore_bridge

    monkeypatch.chdir(tmp_path)
    on_two = ["--engine", "ray", "--workers", "2"]
    assert restore_bridge(["run", str(photos), "--out", "here", "--no-report"]) == 0
    assert (
        restore_bridge(["run", str(photos), "--out", "there", "--no-report", "--engine", "ray", "--workers", "2"]) == 0
    )
    here, there = (
        {path.relative_to(top): path.read_bytes() for path in sorted(Path(top).rglob("*")) if path.is_file()}
        for top in ("here", "there")
    )
    assert len(here) >= 2 * 6 + 2
    assert here == there

    capsys.readouterr()
    scores = ["score", str(photos), "here/pictures", "--format", "json"]
    assert restore_bridge(scores) == 0
    alone = capsys.readouterr().out
    assert len(alone.splitlines()) == 6
    assert restore_bridge([*scores, *on_two]) == 0
    assert capsys.readouterr().out == alone


def test_evaluating_gives_the_same_records_and_figures(cluster, photos, tmp_path, capsys):
    rows = [{"image": path.name, "gt_score": 2 + index / 3} for index, path in enumerate(sorted(photos.iterdir()))]
    (tmp_path / "set.json").write_text(json.dumps([*rows, {"image": "gone.png", "gt_score": 3.0}]))
    words = ["evaluate", str(tmp_path / "set.json"), "--image-root", str(photos), "--json", "--out"]
    assert main([*words, str(tmp_path / "here")]) == 1
    assert main([*words, str(tmp_path / "there"), "--engine", "ray", "--workers", "2"]) == 1
    here, there = ((tmp_path / name / "records.jsonl").read_bytes() for name in ("here", "there"))
    assert here == there
    assert lines_of(tmp_path / "here" / "records.jsonl") == 7


# --- without a cluster


@pytest.mark.parametrize("name", ["ray", "pyarrow"])
def test_without_ray_the_extra_is_named(monkeypatch, capsys, tmp_path, name):
    monkeypatch.setattr(scale, "find_spec", lambda wanted: None if wanted == name else object())
    with pytest.raises(ExtraMissing, match=r"zoomiqa\[scale\]"):
        check_engine(Engine("ray"))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    out = tmp_path / "r.jsonl"
    assert main(["assess", str(tmp_path / "a.png"), "--engine", "ray", "--out", str(out)]) == 2
    assert "ZIQ-502" in capsys.readouterr().err
    assert not out.exists(), "nothing is written before the engine is known to work"


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "head", "head:port", "127.0.0.1:99999"])
def test_a_bad_address_is_found_out_at_once(monkeypatch, capsys, tmp_path, address):
    started = time.monotonic()
    with pytest.raises(OptionInvalid, match=r"127\.0\.0\.1|head"):
        check_engine(Engine("ray", address=address))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(OptionInvalid):
        check_engine(Engine("ray"))
    assert time.monotonic() - started < 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workers", "2"], "--engine ray"),
        (["--ray-address", "auto"], "--engine ray"),
        (["--worker-gpus", "1"], "--engine ray"),
        (["--engine", "ray", "--jobs", "2"], "--workers"),
        (["--engine", "ray", "--workers", "0"], "at least 1"),
        (["--engine", "ray", "--worker-gpus", "-1"], "at least 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(photos, capsys, options, words):
    assert main(["assess", str(photos), *options]) == 2
    assert words in capsys.readouterr().err
