"""A running service, as `restore-bridge app` starts it, and pictures to send it."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("gradio", "fastapi", "uvicorn")):
    pytest.skip('the app needs its extra: pip install "zoomiqa[app]"', allow_module_level=True)

import httpx
import numpy as np

from zoomiqa.imaging import encode_picture
from zoomiqa.imaging.distortions import distort

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 240
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from restore_bridge.cli import main; sys.exit(main())"


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Service:
    """One service process and its address."""

    def __init__(self, command, port, log):
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        with open(log, "ab") as stream:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env={**os.environ, "ZOOMIQA_PLUGINS": "0"},
            )

    def wait(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text("utf-8", "replace")[-3000:]
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200:
                    return self
            time.sleep(0.2)
        raise AssertionError(self.log.read_text("utf-8", "replace")[-3000:])

    def kill(self):
        """At once, as a crash would end it: not its workers, which have to notice by themselves."""
        self.process.kill()
        self.process.wait(20)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def start_bare(folder, **settings):
    """A service without pages."""
    port = free_port()
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "tests.apps.serve", str(folder), str(port), *words]
    return Service(command, port, folder.with_suffix(".log")).wait()


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """The whole app, started by its command, without torch: the embedded defaults need none, and it takes long."""
    folder = tmp_path_factory.mktemp("app")
    port = free_port()
    command = [sys.executable, "-c", WITHOUT_TORCH, "app"]
    command += ["--port", str(port), "--data", str(folder / "data"), "--workers", "2"]
    made = Service(command, port, folder / "app.log")
    yield made.wait()
    made.end()


@pytest.fixture
def client(service):
    with httpx.Client(base_url=service.url, timeout=120) as made:
        yield made


def finished(client, address, seconds=120):
    """The job at `address`, once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = client.get(address).json()
        if answer["state"] in ("done", "failed", "cancelled"):
            return answer
        time.sleep(0.1)
    raise AssertionError("the job did not end")


def noisy_photo(seed=1, side=220):
    """A small real photograph with noise, as PNG bytes."""
    from skimage import data

    pixels = np.ascontiguousarray(data.astronaut()[20 : 20 + side, 120 : 120 + side])
    return encode_picture(distort(pixels, "gaussian_noise", 3, seed=seed).pixels, ".png")


@pytest.fixture(scope="session")
def photo():
    return noisy_photo()
