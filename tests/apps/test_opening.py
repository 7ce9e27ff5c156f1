"""The assessment that a page begins with: shared while under way, refused without a word, and sent with the page."""

import asyncio
import re

import httpx
import pytest

from apps.service.desk import Upload
from apps.service.errors import ServiceBusy
from apps.service.settings import ServiceSettings
from apps.studio import opening as room
from apps.studio.opening import Opening
from tests.apps.conftest import finished


class Job:
    def __init__(self, key):
        self.id, self.has_ended = key, False


class Desk:
    """Takes jobs in and lets the test end them."""

    def __init__(self, folder):
        self.settings = ServiceSettings(folder)
        self.jobs, self.pictures, self.clients = {}, [], []
        self.waiting, self.running, self.is_full = 0, 0, False

    def submit(self, task, uploads, client):
        if self.is_full:
            raise ServiceBusy("full", None, "wait")
        job = Job(str(len(self.jobs)))
        self.jobs[job.id] = job
        self.pictures.append(uploads[0].data)
        self.clients.append(client)
        return job

    def get(self, key):
        return self.jobs[key]

    def state(self):
        return {"waiting": self.waiting, "running": self.running, "workers": 1}


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_pages_share_what_is_under_way_and_then_get_their_own(desk):
    async def visits():
        opening = Opening(desk, is_on=True)
        first, second = opening.begin(), opening.begin()
        assert first == second
        job = await opening.job(first)
        assert opening.begin() == first
        job.has_ended = True
        third = opening.begin()
        assert third != first
        assert (await opening.job(third)).id != job.id
        assert await opening.job(first) is job, "its page may still ask for it"

    asyncio.run(visits())
    assert len(desk.jobs) == 2
    assert desk.pictures[0] != desk.pictures[1], "each has a picture of its own"
    assert set(desk.clients) == {room.CLIENT}


@pytest.mark.parametrize("change", [{"waiting": 1}, {"running": 1}, {"is_full": True}])
def test_nothing_is_begun_where_there_is_no_room(desk, change):
    for name, value in change.items():
        setattr(desk, name, value)

    async def visit():
        opening = Opening(desk, is_on=True)
        return await opening.job(opening.begin())

    assert asyncio.run(visit()) is None
    assert desk.jobs == {}


@pytest.fixture
def quick(monkeypatch):
    """Drawing takes no time."""
    monkeypatch.setattr(room, "_draw", lambda: Upload("photo.png", b"drawn"))


def test_loading_pages_without_end_begins_few_jobs(desk, quick):
    async def visits():
        opening = Opening(desk, is_on=True)
        for _ in range(100):
            job = await opening.job(opening.begin())
            if job is not None:
                job.has_ended = True

    asyncio.run(visits())
    assert 1 < len(desk.jobs) <= 22


def test_switched_off_and_strangers_tickets(desk):
    async def visits():
        off = Opening(desk, is_on=False)
        assert await off.job(off.begin()) is None
        assert await Opening(desk, is_on=True).job("../../etc/passwd") is None

    asyncio.run(visits())
    assert desk.jobs == {}


def test_old_tickets_are_forgotten(desk, quick, monkeypatch):
    monkeypatch.setattr(room, "_TICKETS", 3)

    async def visits():
        opening = Opening(desk, is_on=True)
        first = opening.begin()
        for _ in range(4):
            job = await opening.job(opening.begin())
            if job is not None:
                job.has_ended = True
        assert await opening.job(first) is None

    asyncio.run(visits())


def test_the_page_says_its_words_before_its_scripts(client):
    """In one answer: the shell, the words, then the framework."""
    page = client.get("/").text
    places = [page.index('id="zq-shell"'), page.index("zqFill({"), page.index("window.gradio_config = ")]
    assert places == sorted(places)
    assert page.index("window.gradio_config = ") < page.index("zqHandOver(") < page.index("<gradio-app")
    said = page[places[1] : places[2]]
    assert "</script>" in said
    assert "\\u003ch4>" in said, "what was said cannot end its script"
    picture = re.search(r"v1/jobs/[\w-]+/files/before\.png", said)
    assert client.get(f"/{picture[0]}").headers["content-type"] == "image/png"


def test_each_visit_has_its_own_assessment(client):
    tickets, pictures = [], []
    for _ in range(2):
        page = client.get("/").text
        tickets.append(re.search(r'zqTicket = "([\w-]+)"', page)[1])
        job = re.search(r"(v1/jobs/[\w-]+)/files/before\.png", page)[1]
        pictures.append(client.get(f"/{job}/files/before.png").content)
        # The page ends with its last words, a moment before its job does; until then another would share it.
        assert finished(client, f"/{job}")["state"] == "done"
    assert tickets[0] != tickets[1]
    assert pictures[0] != pictures[1]


def test_the_page_comes_packed_or_plain_and_is_not_kept(service):
    for coding in ("gzip", "br, gzip", "identity"):
        answer = httpx.get(service.url, headers={"Accept-Encoding": coding}, timeout=60)
        assert answer.headers.get("content-encoding") == (None if coding == "identity" else "gzip")
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert answer.text.rstrip().endswith("</html>")


def test_a_name_of_the_service_cannot_be_another_ones(service):
    """A page made for one host is not given to who asks by another."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert "evil.example" in client.get("/", headers={"Host": "evil.example"}).text
        assert "evil.example" not in client.get("/").text


def test_a_page_with_a_question_in_its_address_is_the_frameworks_own(client):
    page = client.get("/?__theme=dark").text
    assert "<gradio-app" in page
    assert 'zq-shell"' not in page
