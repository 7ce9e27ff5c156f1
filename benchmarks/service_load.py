"""Many clients at once against the service, with the embedded assessor: is anything lost, wrong, or without bounds?

python benchmarks/service_load.py                       50 clients for 60 seconds on this machine
python benchmarks/service_load.py --clients 10 --seconds 10

Each client has an address of its own (127.0.1.x) and posts one of a few photographs after the other, waiting for each
answer. An answer is right if it is the rating that the library gives for that photograph. A refusal (429 or 503) has to
come at once and to say when to try again; the client then waits that long. One more client, the greedy one, sends
without waiting, to be refused for its own share. Memory is that of the service and its workers, sampled from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from zoomiqa import assess
from zoomiqa.imaging import encode_picture
from zoomiqa.imaging.distortions import distort

PHOTOS = 8
SIDE = 160
_SERVE = """
import sys
from pathlib import Path
if __name__ == "__main__":
    from restore_bridge.cli import main
    sys.exit(main(sys.argv[1:]))
"""


@dataclass
class Tally:
    """What the clients saw."""

    right: int = 0
    wrong: int = 0
    refused: int = 0
    refused_without_time: int = 0
    lost: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    refusal_seconds: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)


def photographs() -> list[tuple[bytes, float]]:
    """Encoded photographs and the ratings that the library gives them."""
    from skimage import data

    made = []
    for index in range(PHOTOS):
        source = getattr(data, ("astronaut", "coffee", "chelsea")[index % 3])()
        pixels = np.ascontiguousarray(source[10 : 10 + SIDE, 20 * index : 20 * index + SIDE])
        encoded = encode_picture(distort(pixels, "gaussian_noise", 1 + index % 4, seed=index).pixels, ".png")
        made.append((encoded, assess(encoded).rating or 0.0))
    return made


async def one_client(url: str, address: str, photos: list[tuple[bytes, float]], end: float, tally: Tally) -> None:
    """Posts and waits, until the time is over."""
    transport = httpx.AsyncHTTPTransport(local_address=address, limits=httpx.Limits(max_connections=2))
    async with httpx.AsyncClient(base_url=url, transport=transport, timeout=300) as client:
        turn = int(address.rsplit(".", 1)[1])
        while time.monotonic() < end:
            turn += 1
            data, expected = photos[turn % len(photos)]
            await post(client, data, expected, tally, is_patient=True)


async def greedy_client(url: str, photos: list[tuple[bytes, float]], end: float, tally: Tally) -> None:
    """Sends many at once again and again."""
    transport = httpx.AsyncHTTPTransport(local_address="127.0.2.1", limits=httpx.Limits(max_connections=40))
    async with httpx.AsyncClient(base_url=url, transport=transport, timeout=300) as client:
        while time.monotonic() < end:
            await asyncio.gather(
                *(post(client, *photos[turn % len(photos)], tally, is_patient=False) for turn in range(40))
            )
            await asyncio.sleep(1)


async def post(client: httpx.AsyncClient, data: bytes, expected: float, tally: Tally, *, is_patient: bool) -> None:
    """One request and what became of it."""
    start = time.monotonic()
    try:
        answer = await client.post("/v1/assess", files={"picture": ("photo.png", data)})
        while answer.status_code == 202:  # it took longer than an answer may wait: the job's address is given
            await asyncio.sleep(0.5)
            answer = await client.get(answer.json()["links"]["result"])
    except httpx.HTTPError as error:
        tally.lost += 1
        tally.errors[type(error).__name__] = tally.errors.get(type(error).__name__, 0) + 1
        return
    seconds = time.monotonic() - start
    if answer.status_code == 200:
        record = answer.json()
        rating = record.get("assessment", record)["rating"]
        tally.right += rating == expected
        tally.wrong += rating != expected
        tally.seconds.append(seconds)
    elif answer.status_code in (429, 503):
        tally.refused += 1
        tally.refusal_seconds.append(seconds)
        wait = answer.headers.get("retry-after")
        tally.refused_without_time += wait is None
        if is_patient:
            await asyncio.sleep(min(5, int(wait or 1)))
    else:
        tally.lost += 1
        key = f"status {answer.status_code}"
        tally.errors[key] = tally.errors.get(key, 0) + 1


def memory_mib(root: int) -> float:
    """Resident memory of a process and all below it."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                pages = int((entry / "statm").read_text().split()[1])
            except OSError:
                continue
            parents[int(entry.name)], sizes[int(entry.name)] = int(fields[1]), pages
    own = {root}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(sizes.get(pid, 0) for pid in own) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def watch(root: int, end: float, tally: Tally) -> None:
    """Samples the memory."""
    while time.monotonic() < end:
        tally.memory_mib.append(memory_mib(root))
        await asyncio.sleep(1)


async def load(url: str, root: int, clients: int, seconds: float) -> Tally:
    """The whole load on a running service whose process is `root`."""
    photos, tally = photographs(), Tally()
    end = time.monotonic() + seconds
    await asyncio.gather(
        *(one_client(url, f"127.0.1.{number + 1}", photos, end, tally) for number in range(clients)),
        greedy_client(url, photos, end, tally),
        watch(root, end, tally),
    )
    return tally


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """The service by its command, without pages; returns when it answers."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, "app", "--no-pages", "--port", str(port), "--data", str(folder)]
    )
    for _ in range(1200):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200:
                return process
        except httpx.HTTPError:
            time.sleep(0.2)
        if process.poll() is not None:
            break
    raise SystemExit("the service did not come up")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--port", type=int, default=7861)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process = start(Path(folder) / "data", arguments.port)
        before = os.getloadavg()[0]
        try:
            url = f"http://127.0.0.1:{arguments.port}"
            tally = asyncio.run(load(url, process.pid, arguments.clients, arguments.seconds))
            health = httpx.get(f"{url}/healthz").json()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    third = max(1, len(tally.memory_mib) // 3)
    report = {
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "load_before": round(before, 2),
        "right": tally.right,
        "wrong": tally.wrong,
        "lost": tally.lost,
        "errors": tally.errors,
        "refused": tally.refused,
        "refused_without_time": tally.refused_without_time,
        "answer_seconds_median": round(statistics.median(tally.seconds or [0]), 2),
        "answer_seconds_most": round(max(tally.seconds, default=0), 2),
        "refusal_seconds_median": round(statistics.median(tally.refusal_seconds or [0]), 3),
        "memory_mib_first_third": round(max(tally.memory_mib[:third], default=0)),
        "memory_mib_last_third": round(max(tally.memory_mib[-third:], default=0)),
        "left_over": health["waiting"] + health["running"],
    }
    print(json.dumps(report, indent=2))
    return 0 if tally.right and not (tally.wrong or tally.lost or tally.refused_without_time) else 1


if __name__ == "__main__":
    sys.exit(main())
