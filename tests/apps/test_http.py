"""The HTTP interface as a client meets it, on a service started by its command."""

import io
import json
import time
import zipfile
from dataclasses import fields

import pytest

from apps.service.tasks import RestoreTask
from tests.apps.conftest import finished
from zoomiqa import assess, open_picture
from zoomiqa.records import schema


def send(data, name="photo.png"):
    return {"picture": (name, data, "image/png")}


def test_assess_gives_the_record_that_the_library_gives(client, photo):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema checks the record")
    answer = client.post("/v1/assess", files=send(photo))
    assert answer.status_code == 200, answer.text
    record = answer.json()
    jsonschema.validate(record, schema())
    expected = assess(photo).to_dict()
    assert record["rating"] == expected["rating"]
    assert record["rounds"] == expected["rounds"]
    assert record["image"]["path"] == "photo.png"
    assert answer.headers["location"].startswith("/v1/jobs/")


def test_a_job_can_be_asked_for_at_once(client, photo):
    answer = client.post("/v1/assess", files=send(photo), headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    job = finished(client, answer.json()["links"]["self"])
    assert job["state"] == "done"
    result = client.get(job["links"]["result"]).json()
    assert set(result) == {"assessment", "prompts", "signals"}


def test_prompts_for_an_encoder_and_from_words_alone(client, photo):
    answer = client.post("/v1/prompts", files=send(photo), data={"encoder": "t5-300"}).json()
    assert answer["prompts"]["report"]["encoder"] == "t5-300"
    assert "noise" in answer["negative_lines"]
    words = {"directions": "Sharper edges.", "issues": "Severe noise in the upper left.", "encoder": "clip"}
    answer = client.post("/v1/prompts/text", json=words).json()
    assert answer["negative_lines"].endswith("[upper left]")
    assert answer["prompts"]["regional"]
    assert answer["prompts"]["negative"].startswith("severe noise"), "for a client's pipeline with one prompt"


def test_restore_events_result_and_files(client, photo):
    answer = client.post(
        "/v1/restore", files=send(photo, "Ferien 2026.PNG"), data={"candidates": "1", "format": "webp"}
    )
    assert answer.status_code == 202, answer.text
    job = answer.json()
    kinds, numbers = [], []
    with client.stream("GET", job["links"]["events"]) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kinds.append(line[7:])
            elif line.startswith("id: "):
                numbers.append(int(line[4:]))
    assert kinds[0] == "started"
    assert kinds[-1] == "end"
    assert {"opened", "look", "text", "read", "assessed", "candidate"} <= set(kinds)
    assert numbers == list(range(1, len(numbers) + 1))
    later = client.get(job["links"]["events"], headers={"Last-Event-ID": str(numbers[-1])}).text
    assert later.count("event:") == 1, "one who comes back hears nothing twice"
    done = client.get(job["links"]["self"]).json()
    result = client.get(done["links"]["result"]).json()
    record, files = result["record"], result["files"]
    assert record["image"]["path"] == "Ferien-2026.png"
    assert record["kept"] == "restored"
    assert client.get(done["links"]["file:sidecar"]).json()["scores"] == record["scores"]
    restored = client.get(done["links"]["file:picture"])
    assert restored.headers["content-type"] == "image/webp"
    assert restored.headers["content-disposition"] == f'attachment; filename="{files["picture"]}"'
    assert open_picture(restored.content).size == (220, 220)
    report = client.get(done["links"]["file:report"])
    assert "sandbox" in report.headers["content-security-policy"]
    assert "Ferien-2026.png" in report.text
    names = zipfile.ZipFile(io.BytesIO(client.get(done["links"]["file:all"]).content)).namelist()
    assert names == [files["picture"], files["sidecar"], "report.html"]


def test_edited_phrases_reach_the_restorer(client, photo):
    data = {"candidates": "1", "positive": "", "negative": "slight blur [lower left]"}
    job = finished(client, client.post("/v1/restore", files=send(photo), data=data).json()["links"]["self"])
    record = client.get(job["links"]["result"]).json()["record"]
    guidance = record["rounds"][0]["guidance"]
    assert guidance["positive"] == []
    assert [(item["text"], item["region"], item["origin"]) for item in guidance["negative"]] == [
        ("slight blur", "lower left", "user")
    ]
    assert {step["operation"] for item in record["candidates"] for step in item["steps"]} <= {"deblur"}
    assert "noise" in record["before"]["negative"], "what the assessor said stays as it was"


def test_score(client, photo):
    answer = client.post("/v1/score", files={"before": ("a.png", photo), "after": ("b.png", photo)}).json()
    rows = {row["metric"]: row for row in answer["scores"]}
    assert rows["psnr"]["after"] == 100
    assert rows["rating"]["before"] == rows["rating"]["after"] == answer["before"]["rating"]


def test_cancel(client):
    from tests.apps.conftest import noisy_photo

    data = {"candidates": "6", "loop": "3"}
    job = client.post("/v1/restore", files=send(noisy_photo(side=480)), data=data).json()
    while client.get(job["links"]["self"]).json()["state"] == "waiting":
        time.sleep(0.05)
    start = time.monotonic()
    client.post(job["links"]["cancel"])
    done = finished(client, job["links"]["self"])
    assert done["state"] == "cancelled"
    assert time.monotonic() - start < 30
    answer = client.get(job["links"]["result"])
    assert (answer.status_code, answer.json()["code"]) == (409, "ZIQ-803")


PROBLEMS = [
    ("/v1/assess", {}, {}, 400, "ZIQ-806"),
    ("/v1/assess", {"picture": ("a.png", b"")}, {}, 422, "ZIQ-101"),
    ("/v1/assess", {"picture": ("a.png", b"hello, this is text")}, {}, 422, "ZIQ-101"),
    ("/v1/assess", {"picture": ("a.gif", b"GIF89a" + bytes(40))}, {}, 415, "ZIQ-103"),
    ("/v1/assess", {"picture": ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")}, {}, 415, "ZIQ-103"),
    ("/v1/assess", {"picture": "photo"}, {"assessor": "nobody"}, 422, "ZIQ-501"),
    ("/v1/assess", {}, {"url": "https://example.org/a.png"}, 400, "ZIQ-806"),
    ("/v1/prompts", {"picture": "photo"}, {"encoder": "clap"}, 422, "ZIQ-501"),
    ("/v1/restore", {"picture": "photo"}, {"strength": "7"}, 422, "ZIQ-501"),
    ("/v1/restore", {"picture": "photo"}, {"seed": "1e99"}, 422, "ZIQ-501"),
    ("/v1/restore", {"picture": "photo"}, {"strength": "nan"}, 422, "ZIQ-501"),
    ("/v1/restore", {"picture": "photo"}, {"candidates": "10000"}, 422, "ZIQ-501"),
    ("/v1/restore", {"picture": "photo"}, {"restorer": "sdxl-tile"}, 422, "ZIQ-501"),
    ("/v1/restore", {"picture": "photo"}, {"restorer": "../../x"}, 422, "ZIQ-501"),
    ("/v1/restore", {"picture": "photo"}, {"negative": "x" * 5000}, 422, "ZIQ-501"),
    ("/v1/restore", {"picture": "photo"}, {"strenght": "0.2"}, 422, "ZIQ-501"),
    ("/v1/assess", {"picture": "photo"}, {"strength": "0.2"}, 422, "ZIQ-501"),
    ("/v1/assess", {"image": "photo"}, {}, 400, "ZIQ-806"),
    ("/v1/assess", {"picture": "photo", "mask": "photo"}, {}, 400, "ZIQ-806"),
    ("/v1/assess", {}, {"picture": "photo.png"}, 400, "ZIQ-806"),
    ("/v1/score", {"before": "photo"}, {}, 400, "ZIQ-806"),
]


@pytest.mark.parametrize(("path", "files", "data", "status", "code"), PROBLEMS)
def test_problems(client, photo, path, files, data, status, code):
    files = {name: ("photo.png", photo) if value == "photo" else value for name, value in files.items()}
    answer = client.post(path, files=files or None, data=data or (None if files else {"x": "1"}))
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) >= {"type", "title", "status", "detail", "code"}


def test_a_misspelt_option_is_told_the_right_one(client, photo):
    answer = client.post("/v1/restore", files=send(photo), data={"strenght": "0.2"})
    assert "did you mean strength?" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/v1/jobs", 404, None),
        ("POST", "/v1/jobs/none/files", 404, None),
        ("DELETE", "/v1/jobs/none", 405, "GET"),
        ("GET", "/v1/restore", 405, "POST"),
    ],
)
def test_other_addresses_and_methods_are_problems_too(client, method, path, status, allow):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers.get("allow")) == (status, allow)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


@pytest.mark.parametrize(
    "path", ["/v1/jobs/none", "/v1/jobs/none/events", "/v1/jobs/none/result", "/v1/jobs/none/files/a"]
)
def test_unknown_jobs(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "ZIQ-802")


def test_limits_health_and_description(client):
    limits = client.get("/v1/limits").json()
    assert limits["limits"]["pixels"] == 50_000_000
    assert limits["limits"]["strip_private_metadata"] is True
    assert limits["assessors"] == ["compact"]
    assert limits["restorers"][0]["name"] == "compact"
    assert client.get("/healthz").json()["ok"] is True
    description = client.get("/openapi.json").json()
    assert sorted(path for path in description["paths"] if path.startswith(("/v1", "/healthz"))) == [
        "/healthz",
        "/v1/assess",
        "/v1/jobs/{key}",
        "/v1/jobs/{key}/cancel",
        "/v1/jobs/{key}/events",
        "/v1/jobs/{key}/files/{name}",
        "/v1/jobs/{key}/result",
        "/v1/limits",
        "/v1/prompts",
        "/v1/prompts/text",
        "/v1/restore",
        "/v1/score",
    ]
    form = description["paths"]["/v1/restore"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"picture", "url", *(field.name for field in fields(RestoreTask))}
    json.dumps(description)
