"""Jobs: taken in or refused at once, done in order, ended, tried again, tidied away."""

import asyncio
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from apps.service.desk import Desk, Upload
from apps.service.errors import JobUnknown, ServiceBusy
from apps.service.settings import Offer, ServiceSettings
from apps.service.store import Store
from apps.service.tasks import make_task
from tests.apps.conftest import noisy_photo
from zoomiqa import assess
from zoomiqa.errors import OptionInvalid, RecordLocked


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    made = Desk(ServiceSettings(tmp_path_factory.mktemp("desk") / "data", workers=1, waiting=6, waiting_per_client=3))
    made.open()
    yield made
    made.close()


def submit(desk, kind="assess", client="me", data=None, **options):
    task = make_task(kind, options, desk.settings)
    return desk.submit(task, [Upload("a.png", data or noisy_photo(side=120))], client)


def ended(desk, job, seconds=120):
    return asyncio.run(desk.wait(job.id, seconds))


def test_events_are_numbered_and_the_result_is_the_librarys(desk):
    photo = noisy_photo(side=150)
    job = submit(desk, data=photo)

    async def listen():
        return [item async for item in desk.follow(job.id)]

    events = asyncio.run(listen())
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    kinds = [event["event"] for _, event in events]
    assert kinds[0] == "started"
    assert kinds.index("read") < kinds.index("assessed") < kinds.index("signals")
    job = desk.get(job.id)
    assert job.state == "done"
    assert job.result["assessment"]["rating"] == assess(photo).rating
    assert asyncio.run(listen()) == events, "they can be read again"


@pytest.mark.parametrize("turns", range(6))
def test_who_follows_can_leave_at_the_very_moment_of_news(turns):
    """Else a page whose time is up would go on, and fail."""

    async def leave():
        waiting = SimpleNamespace(has_ended=False)
        store = SimpleNamespace(get=lambda _: waiting, events=lambda *_: [])
        desk = SimpleNamespace(_changed=threading.Lock(), _listeners={}, store=store)
        events = Desk.follow(desk, "job")
        follower = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.1)
        for wake in desk._listeners["job"]:
            wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        follower.cancel()
        await asyncio.wait({follower}, timeout=1)
        assert follower.cancelled()
        await events.aclose()

    asyncio.run(leave())


def test_too_much_is_refused_at_once(desk):
    slow = submit(desk, "restore", client="first", data=noisy_photo(side=480), candidates=6, loop=3)
    while desk.get(slow.id).state == "waiting":
        time.sleep(0.01)
    jobs = [submit(desk, client="me") for _ in range(3)]
    start = time.monotonic()
    with pytest.raises(ServiceBusy) as caught:
        submit(desk, client="me")
    assert caught.value.is_own
    assert caught.value.retry_after >= 1
    jobs += [submit(desk, client="you") for _ in range(3)]
    with pytest.raises(ServiceBusy) as caught:
        submit(desk, client="someone else")
    assert not caught.value.is_own
    assert time.monotonic() - start < 20
    assert len(list((desk.settings.folder / "jobs").iterdir())) >= len(jobs) + 1
    desk.cancel(slow.id)
    for job in jobs:
        assert ended(desk, job).state == "done"
    assert ended(desk, slow).state == "cancelled"
    order = [desk.get(job.id).started for job in jobs]
    assert order == sorted(order), "first come, first served"


def test_a_waiting_job_is_cancelled_without_being_started(desk):
    slow = submit(desk, "restore", data=noisy_photo(side=300), candidates=2)
    job = submit(desk)
    assert desk.cancel(job.id).state == "cancelled"
    assert desk.get(job.id).attempts == 0
    assert desk.get(job.id).error["code"] == "ZIQ-803"
    assert desk.cancel(job.id).state == "cancelled", "once more changes nothing"
    desk.cancel(slow.id)
    ended(desk, slow)


def test_a_dead_worker_costs_one_attempt_and_two_end_the_job(desk):
    job = submit(desk, "restore", data=noisy_photo(side=480), candidates=6, loop=3)
    worker, killed = desk._workers[0], None
    for attempt in (1, 2):
        deadline = time.monotonic() + 120
        # A process that dies while it comes up has not begun the job, and costs it nothing.
        while desk.get(job.id).attempts < attempt or worker.pid == killed or not worker._is_ready:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        killed = worker.pid
        os.kill(killed, signal.SIGKILL)
    job = ended(desk, job)
    assert (job.state, job.error["code"], job.attempts) == ("failed", "ZIQ-805", 2)
    assert ended(desk, submit(desk)).state == "done", "others are served by a new worker"


def test_a_job_that_takes_too_long_says_so(tmp_path):
    desk = Desk(ServiceSettings(tmp_path / "data", workers=1, job_seconds=0.5))
    desk.open()
    try:
        job = submit(desk, "restore", data=noisy_photo(side=480), candidates=6, loop=3)
        job = ended(desk, job)
        assert (job.state, job.error["code"]) == ("failed", "ZIQ-804")
    finally:
        desk.close()


def test_what_waits_is_taken_up_by_the_next_desk(tmp_path):
    settings = ServiceSettings(tmp_path / "data", workers=1)
    first = Desk(settings)  # never opened: no worker takes anything
    jobs = [submit(first) for _ in range(3)]
    first.store.start(jobs[0].id)
    first.close()
    second = Desk(settings)
    second.open()
    try:
        done = [ended(second, job) for job in jobs]
        assert [job.state for job in done] == ["done"] * 3
        assert [job.attempts for job in done] == [2, 1, 1]
        assert [job.started for job in done] == sorted(job.started for job in done)
    finally:
        second.close()


def test_one_desk_at_a_time_and_no_strays(tmp_path):
    store = Store(tmp_path / "data")
    with pytest.raises(RecordLocked):
        Store(tmp_path / "data")
    job = store.add("assess", "me", {"assessor": "compact"}, [("a.png", b"bytes")])
    assert store.inputs(job)[0].read_bytes() == b"bytes"
    store.close()
    (tmp_path / "data" / "jobs" / "half-taken-in" / "in").mkdir(parents=True)
    store = Store(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data" / "jobs").iterdir()] == [job.id]
    store.end(job.id, "done", result={"x": 1})
    assert store.remove_ended(time.time() - 60) == 0
    assert store.remove_ended(time.time() + 1) == 1
    assert not store.job_folder(job.id).exists()
    with pytest.raises(JobUnknown):
        store.get(job.id)
    store.close()


def test_files_of_a_job_are_only_those_it_made(desk, tmp_path):
    job = ended(desk, submit(desk))
    assert desk.file(job.id, "before.png").is_file()
    (desk.store.outputs(job) / "link.png").symlink_to("/etc/passwd")
    for name in ("../in/0-a.png", "in", "..", "", "link.png", "/etc/passwd", "nothing.png"):
        with pytest.raises(JobUnknown):
            desk.file(job.id, name)
    with pytest.raises(JobUnknown):
        desk.file("../" + job.id, "before.png")


SETTINGS = ServiceSettings(folder=None, restorers=(Offer("classical", ""), Offer("sdxl-tile", "", False, "no GPU")))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("paint", {}, "no such kind"),
        ("assess", {"asessor": "compact"}, "did you mean assessor"),
        ("assess", {"assessor": "vllm"}, "no such assessor"),
        ("assess", {"question": ["a"]}, "plain value"),
        ("assess", {"question": 7}, "must be a text"),
        ("restore", {"restorer": "sdxl-tile"}, "no such restorer"),
        ("restore", {"seed": True}, "plain value"),
        ("restore", {"seed": -1}, "seed must lie"),
        ("restore", {"seed": 1.5}, "whole number"),
        ("restore", {"seed": "inf"}, "must be a number"),
        ("restore", {"strength": "0"}, "strength must lie"),
        ("restore", {"strength": "nan"}, "strength must lie"),
        ("restore", {"scale": 2}, "no scale 2"),
        ("restore", {"candidates": 7}, "candidates must lie"),
        ("restore", {"loop": 0}, "loop must lie"),
        ("restore", {"prepass": "swinir"}, "prepass must be"),
        ("restore", {"format": "exe"}, "format must be"),
        ("restore", {"color_fix": "x"}, "color_fix must be"),
        ("prompts", {"encoder": "x"}, "no text budget"),
    ],
)
def test_tasks_are_checked_before_they_are_taken_in(kind, options, message):
    with pytest.raises(OptionInvalid, match=message):
        make_task(kind, options, SETTINGS)


def test_an_empty_side_is_not_a_missing_one():
    assert make_task("restore", {"positive": "", "negative": None}, SETTINGS).positive == ""
    assert make_task("restore", {"positive": None}, SETTINGS).positive is None
    assert make_task("assess", {"question": ""}, SETTINGS).question is None
