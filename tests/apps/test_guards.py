"""What a stranger may not get from the running app: files, other people's jobs, open doors of the page server."""

import io
import json
import socket
import threading
import time
import zipfile

import httpx
import pytest

from zoomiqa.imaging import encode_picture, open_picture


def events_of(client, name, data):
    """Call an endpoint of the page's API by hand; gives its last event and what it says."""
    answer = client.post(f"/gradio_api/call/{name}", json={"data": data})
    if answer.status_code != 200:
        return "refused", answer.text
    lines = client.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text.splitlines()
    kind = [line[7:] for line in lines if line.startswith("event: ")][-1]
    return kind, [line[6:] for line in lines if line.startswith("data: ")][-1]


def upload(client, data, name="photo.png"):
    return client.post("/gradio_api/upload", files={"files": (name, data)}).json()[0]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file={data}/jobs.sqlite3",
        "/gradio_api/file={data}/jobs",
        "/gradio_api/file={data}/samples/noisy-portrait.png",
        "/gradio_api/file=http://127.0.0.1/",
        "/gradio_api/file=https://example.org/",
        "/gradio_api/file=https%3A%2F%2Fexample.org",
        "/gradio_api/file=%2568ttps://example.org/",
        "/gradio_api/file=//example.org/",
        "/gradio_api/file=FILE:///etc/passwd",
        "/gradio_api/proxy=https://example.org/",
        "/file=/etc/passwd",
        "/file/etc/passwd",
        "/static/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/monitoring",
        "/gradio_api/monitoring/summary",
        "/gradio_api/runs",
        "/gradio_api/openapi.json",
        "/gradio_api/vibe-code/",
        "/gradio_api/stream/x/1/1/playlist.m3u8",
        "/gradio_api/custom_component/x/client/y/z",
        "/gradio_api/mcp/",
        "/docs",
        "/redoc",
        "/v1/jobs/..%2f..%2fjobs.sqlite3/files/a",
    ],
)
def test_no_file_and_no_other_door(client, service, path):
    """C8 43."""
    data = service.log.parent / "data"
    answer = client.get(path.replace("{data}", str(data)))
    assert answer.status_code in (400, 403, 404), answer.text[:200]
    assert "root:" not in answer.text
    assert "[project]" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/gradio_api/process_recording", "/gradio_api/component_server", "/gradio_api/vibe-edit"]
)
def test_no_other_door_to_write(client, method, path):
    assert client.request(method, path, json={}).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "https://example.org/a.png",
        "http://127.0.0.1:1/a.png",
        "file:///etc/passwd",
        "../../etc/passwd",
        "a\0b",
    ],
)
def test_the_pages_read_only_what_was_uploaded(client, service, path):
    """A client names a file of the server, or an address, where its upload should be."""
    for given in (
        {"path": path},
        {"path": path, "url": "https://example.org/a.png"},
        {"path": path, "meta": {"_type": "gradio.FileData"}},
    ):
        kind, said = events_of(client, "assess", [given, "", ""])
        assert kind in ("error", "refused"), said
        assert "root:" not in said
        assert str(service.log.parent) not in said


def test_the_pages_do_not_read_jobs_or_samples_of_the_service(client, service):
    jobs = next((service.log.parent / "data").glob("jobs.sqlite3"))
    kind, _ = events_of(client, "assess", [{"path": str(jobs)}, "", ""])
    assert kind == "error"


def test_errors_hold_no_path_and_no_address(client, service):
    """C8 44, for what the pages' own API says."""
    path = upload(client, b"\x89PNG\r\n\x1a\n" + bytes(200))
    kind, said = events_of(client, "assess", [{"path": path}, "", ""])
    assert kind == "error"
    assert "0x" not in said
    assert str(service.log.parent) not in said


@pytest.mark.parametrize(
    "name",
    [
        "../../../../tmp/zq-escape.png",
        "..%2f..%2fzq-escape.png",
        "/tmp/zq-escape.png",
        "a\\..\\b.png",
        "x" * 5000 + ".png",
    ],
)
def test_names_of_uploads_lead_nowhere(client, service, photo, name):
    """C8 42, over both doors."""
    answer = client.post("/v1/assess", files={"picture": (name, photo)})
    if len(name) > 4096:
        assert answer.status_code == 400
        return
    assert answer.status_code == 200
    shown = answer.json()["image"]["path"]
    assert not {"/", "\\"} & set(shown)
    assert len(shown) < 80
    answer = client.post("/gradio_api/upload", files={"files": (name, photo)})
    if answer.status_code == 200:
        assert answer.json()[0].startswith(str(service.log.parent / "data"))


def test_over_limit_uploads_are_refused(client, service):
    """C8 45: by what is declared, and by what comes in, whether it was declared or not."""
    limit = client.get("/v1/limits").json()["limits"]["file_bytes"]
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", int(service.url.rsplit(":", 1)[1]))) as plain:
        plain.sendall(b"POST /v1/assess HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in plain.recv(4096).split(b"\r\n")[0]
    assert time.monotonic() - start < 5, "nothing has to come in for it"

    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
        while True:
            yield bytes(2**20)

    start = time.monotonic()
    try:
        answer = client.post(
            "/v1/assess", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert answer.status_code == 413
    except httpx.TransportError:  # the connection was closed while it was still being written to
        pass
    assert time.monotonic() - start < 60
    answer = client.post("/v1/assess", files={"picture": ("a.png", bytes(limit + 10))})
    assert (answer.status_code, answer.json()["code"]) == (413, "ZIQ-102")
    answer = client.post("/gradio_api/upload", files={"files": ("a.png", bytes(limit + 10))})
    assert answer.status_code == 413


def test_a_bomb_is_refused_before_it_is_decoded(client):
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    side = 13300
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes((side // 8 + 2) * side), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    start = time.monotonic()
    answer = client.post("/v1/assess", files={"picture": ("a.png", bomb)})
    assert (answer.status_code, answer.json()["code"]) == (413, "ZIQ-102")
    assert time.monotonic() - start < 10


def test_a_polyglot_leaves_only_its_picture(client, photo):
    """C8 10 over the service: the archive behind the picture is noted and does not come out again."""
    tail = io.BytesIO()
    with zipfile.ZipFile(tail, "w") as archive:
        archive.writestr("evil.js", "alert(1)")
    answer = client.post("/v1/restore", files={"picture": ("a.png", photo + tail.getvalue())}, data={"candidates": "1"})
    job = answer.json()
    client.get(job["links"]["events"])
    done = client.get(job["links"]["self"]).json()
    record = client.get(done["links"]["result"]).json()["record"]
    assert "trailing-data" in [note["code"] for note in record["before"]["notes"]]
    for role in ("picture", "before", "after"):
        data = client.get(done["links"][f"file:{role}"]).content
        assert b"evil.js" not in data
        assert not [note for note in open_picture(data).notes if note.code == "trailing-data"]


def test_entities_and_other_formats_are_not_opened(client):
    """C8 8, 50: no reader of XML, PostScript or PDF is behind the door."""
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>'
    for data in (bomb, b"%!PS-Adobe-3.0 EPSF-3.0", b"%PDF-1.7", b"8BPS" + bytes(50), b"PK\x03\x04" + bytes(50)):
        answer = client.post("/v1/assess", files={"picture": ("a.png", data)})
        assert (answer.status_code, answer.json()["code"]) == (415, "ZIQ-103")


def test_position_does_not_come_out(client, photo):
    """C8 62: the server profile strips it, also from a picture that is kept as it came."""
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(0x8825)[2] = (51.0, 2.0, 3.0)
    exif[0x013B] = "Someone's Name"
    data = io.BytesIO()
    Image.fromarray(open_picture(photo).pixels).save(data, "JPEG", exif=exif, quality=95)
    for name in ("strength", "nothing"):
        form = {"candidates": "1", "format": "jpg"} | ({"positive": "", "negative": ""} if name == "nothing" else {})
        job = client.post("/v1/restore", files={"picture": ("a.jpg", data.getvalue())}, data=form).json()
        client.get(job["links"]["events"])
        done = client.get(job["links"]["self"]).json()
        out = client.get(done["links"]["file:picture"]).content
        assert b"Someone" not in out
        assert 0x8825 not in Image.open(io.BytesIO(out)).getexif()


def test_two_users_do_not_see_each_other(client, photo):
    """C8 46: a job is found by its unguessable id alone; nothing lists them."""
    keys = [
        client.post("/v1/assess", files={"picture": ("a.png", photo)}, headers={"Prefer": "respond-async"}).json()["id"]
        for _ in range(2)
    ]
    assert len(set(keys)) == 2
    assert all(len(key) >= 24 for key in keys)
    for path in ("/v1/jobs", "/v1/jobs/", f"/v1/jobs/{keys[0]}/files", f"/v1/jobs/{keys[0]}/files/"):
        assert client.get(path).status_code in (404, 405), path
    for name in ("0-a.png", "..%2fin%2f0-a.png", "maps.json", "%2e%2e", "."):
        assert client.get(f"/v1/jobs/{keys[0]}/files/{name}").status_code == 404, name


@pytest.mark.parametrize("path", ["/v1/assess", "/gradio_api/queue/join", "/gradio_api/upload"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
)
def test_pages_of_other_sites_cannot_write(client, path, headers):
    assert client.post(path, headers=headers, json={}).status_code == 403


def test_headers_of_every_answer(client):
    for path in ("/", "/v1/limits", "/v1/jobs/none", "/nowhere"):
        answer = client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_names_of_the_api_are_fixed(client):
    """C8 47."""
    described = client.get("/gradio_api/info").json()
    assert described["unnamed_endpoints"] == {}
    assert {
        name: [item["parameter_name"] for item in entry["parameters"]]
        for name, entry in described["named_endpoints"].items()
    } == {
        "/assess": ["picture", "assessor", "question"],
        "/prompts": ["picture", "encoder"],
        "/restore": ["picture", "restorer", "positive", "negative", "strength", "seed"],
        "/score": ["before", "after"],
    }


def test_nothing_of_the_pages_is_fetched_from_elsewhere(client):
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    page = client.get("/").text + client.get("/theme.css").text + json.dumps(config["css"]) + str(config["stylesheets"])
    for host in ("googleapis", "gstatic", "cdnjs", "jsdelivr", "unpkg", "huggingface.co"):
        assert host not in page


def test_slow_bodies_do_not_hold_others_up(client, service, photo):
    """Connections that say little keep nobody from being served."""
    port = int(service.url.rsplit(":", 1)[1])
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    try:
        for plain in held:
            plain.sendall(b"POST /v1/assess HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab")
        start = time.monotonic()
        done = []
        thread = threading.Thread(
            target=lambda: done.append(client.post("/v1/assess", files={"picture": ("a.png", photo)}))
        )
        thread.start()
        thread.join(60)
        assert done[0].status_code == 200
        assert time.monotonic() - start < 60
    finally:
        for plain in held:
            plain.close()


def test_sizes_at_the_edge(client):
    """C8 6 over the service: a result or one of our errors, nothing else."""
    import numpy as np

    for shape in ((1, 1), (1, 150), (5000, 1), (7, 3)):
        data = encode_picture(np.full((*shape, 3), 90, np.uint8), ".png")
        answer = client.post("/v1/assess", files={"picture": ("a.png", data)})
        assert answer.status_code in (200, 422), answer.text
        assert answer.status_code == 200 or answer.json()["code"].startswith("ZIQ-")
