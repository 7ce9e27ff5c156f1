"""A service that is killed during its work and started again: nothing that was taken in is lost."""

import time

import httpx

from tests.apps.conftest import noisy_photo, start_bare
from zoomiqa import assess


def test_kill_during_jobs_and_start_again(tmp_path):
    folder = tmp_path / "data"
    photos = [noisy_photo(seed=seed, side=160) for seed in range(6)]
    service = start_bare(folder, workers=2)
    accepted = {}
    with httpx.Client(base_url=service.url, timeout=60) as client:
        big = {"picture": ("big.png", noisy_photo(side=400))}
        slow = client.post("/v1/restore", files=big, data={"candidates": "2"}).json()["id"]
        for index, photo in enumerate(photos):
            answer = client.post(
                "/v1/assess", files={"picture": (f"{index}.png", photo)}, headers={"Prefer": "respond-async"}
            )
            assert answer.status_code == 202
            accepted[answer.json()["id"]] = photo
        waiting = client.post("/v1/assess", files=big, headers={"Prefer": "respond-async"}).json()
        client.post(waiting["links"]["cancel"])
        deadline = time.monotonic() + 60
        while client.get(f"/v1/jobs/{slow}").json()["state"] != "running" and time.monotonic() < deadline:
            time.sleep(0.01)
    service.kill()
    again = start_bare(folder, workers=2)
    try:
        with httpx.Client(base_url=again.url, timeout=60) as client:
            for key, photo in {**accepted, slow: None}.items():
                deadline = time.monotonic() + 120
                while (job := client.get(f"/v1/jobs/{key}").json())["state"] in ("waiting", "running"):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                assert job["state"] == "done", job
                if photo is not None:
                    result = client.get(job["links"]["result"]).json()
                    assert result["assessment"]["rating"] == assess(photo).rating
            job = client.get(f"/v1/jobs/{slow}").json()
            assert job["attempts"] == 2, "it was under way, and was done anew"
            assert client.get(job["links"]["file:picture"]).status_code == 200
            assert client.get(f"/v1/jobs/{waiting['id']}").json()["state"] in ("cancelled", "done")
    finally:
        again.end()
