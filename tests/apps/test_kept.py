"""Files that never change: the same bytes under every coding, kept for a year, and nothing else from that folder."""

import asyncio
import gzip

import brotli
import pytest

from apps.web.kept import KeptFiles, best_coding

SCRIPT = b"export const words = " + b"'blur', " * 200


async def beneath(scope, receive, send):
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"beneath"})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Index-Akn07EZk2.js").write_bytes(SCRIPT)
    (tmp_path / "in" / "plain.js").write_bytes(b"changes")
    (tmp_path / "secret-abcdefgh.js").write_bytes(b"secret")
    return KeptFiles(beneath, "/assets/", tmp_path / "in")


def ask(files, path, accepted=b"", method="GET"):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"accept-encoding", accepted)]}
    asyncio.run(files(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.parametrize(
    ("accepted", "coding", "unpack"),
    [(b"gzip, deflate, br", b"br", brotli.decompress), (b"gzip", b"gzip", gzip.decompress), (b"", None, bytes)],
)
def test_a_file_under_each_coding(files, accepted, coding, unpack):
    for _ in range(2):
        status, headers, body = ask(files, "/assets/Index-Akn07EZk2.js", accepted)
        assert status == 200
        assert unpack(body) == SCRIPT
        assert headers.get(b"content-encoding") == coding
        assert headers[b"content-length"] == str(len(body)).encode()
        assert b"immutable" in headers[b"cache-control"]
        assert headers[b"vary"] == b"Accept-Encoding"
        assert headers[b"content-type"].startswith(b"text/javascript")


@pytest.mark.parametrize(
    "path", ["/assets/plain.js", "/assets/../secret-abcdefgh.js", "/assets/none-abcdefgh.js", "/other", "/assets/"]
)
def test_everything_else_goes_beneath(files, path):
    assert ask(files, path)[2] == b"beneath"


def test_only_reading(files):
    assert ask(files, "/assets/Index-Akn07EZk2.js", method="POST")[2] == b"beneath"


def test_a_coding_that_is_refused_is_not_taken():
    assert best_coding(b"br;q=0, gzip;q=0.5") == "gzip"
    assert best_coding(b"identity") == ""


def test_the_running_app_keeps_the_frameworks_files(client):
    page = client.get("/").text
    name = page.split('rel="modulepreload" href="./')[1].split('"')[0]
    answer = client.get(f"/{name}")
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
