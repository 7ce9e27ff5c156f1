"""How long a visitor waits for the first words: the app in a real browser, beside a bare page of the same framework.

python benchmarks/first_words.py                 five visits, the app and the peer in turn
python benchmarks/first_words.py --visits 9

The clock runs from the moment the browser is told to go to the page until the first words of the reasoning are in
sight; each visit has an assessment of its own, of a picture that is drawn anew for it. "answered" is when the page
begins to come, "page" when it is in sight with its controls, "answers" when the first assessment is whole and can be
acted on. "click" is a further sample: from the click until its own words are in sight. A cold visit has a fresh
profile; a warm one comes back in the same. The peer is a page of one text box, made with the same framework and served
by it alone; the browser runs already. Needs Playwright for Python and Chromium (or CHROMIUM=/path).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 120_000
START_SECONDS = 240

_APP = "import sys; from restore_bridge.cli import main; sys.exit(main(sys.argv[1:]))"
_PEER = """
import sys
import gradio
with gradio.Blocks(analytics_enabled=False) as page:
    gradio.Textbox(label="Text", elem_id="peer")
page.launch(server_port=int(sys.argv[1]), ssr_mode=False, quiet=True)
"""
WORDS = ".zq-look h4"
OTHER_SAMPLE = ("Blocky cat", "#zq-stage img[alt^='blocky-cat']")


@contextmanager
def served(command: list[str], url: str) -> Iterator[None]:
    """A server by its command, until it is done with."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "0"})
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=10).close()  # noqa: S310 - an address of this machine
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"nothing came up at {url}") from None
                time.sleep(0.3)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def visit_app(page: Any, url: str, *, clicks: bool) -> dict[str, float]:
    """One visit to the app; seconds since the browser was told to go there, but "click"."""
    start = time.perf_counter()
    page.goto(url, wait_until="commit")
    times = {"answered": time.perf_counter() - start}
    for part, place in (("words", WORDS), ("page", "#zq-assess"), ("answers", "#zq-restore:not([disabled])")):
        page.wait_for_selector(place)
        times[part] = time.perf_counter() - start
    if clicks:
        title, picture = OTHER_SAMPLE
        start = time.perf_counter()
        page.get_by_role("button", name=title).click()
        page.wait_for_selector(picture)
        page.wait_for_selector(WORDS)
        times["click"] = time.perf_counter() - start
        page.wait_for_selector("#zq-restore:not([disabled])")
    return times


def visit_peer(page: Any, url: str) -> dict[str, float]:
    """One visit to the peer."""
    start = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#peer textarea")
    return {"page": time.perf_counter() - start}


def measure(app: str, peer: str, visits: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by visitor and by part."""
    from playwright.sync_api import sync_playwright

    found = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
    path = os.environ.get("CHROMIUM") or (shutil.which(found) if found else None)
    if path is None:
        raise SystemExit("needs Chromium: apt-get install chromium, or set CHROMIUM")
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def note(who: str, times: Mapping[str, float]) -> None:
        for part, value in times.items():
            seconds[who][part].append(value)

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, args=FLAGS)
        for _ in range(visits):
            for url, who in ((peer, "peer"), (app, "app")):
                context = browser.new_context(viewport={"width": 1440, "height": 1000})
                page = context.new_page()
                page.set_default_timeout(PATIENCE_MS)
                for state in ("cold", "warm"):
                    is_cold = state == "cold"
                    name = f"{who}, {state}"
                    note(name, visit_peer(page, url) if who == "peer" else visit_app(page, url, clicks=is_cold))
                context.close()
                time.sleep(1)
        browser.close()
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--port", type=int, default=7862)
    arguments = parser.parse_args()
    app, peer = (f"http://127.0.0.1:{arguments.port + index}/" for index in range(2))
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "data")
        command = [sys.executable, "-c", _APP, "app", "--port", str(arguments.port), "--data", data]
        with served(command, f"{app}healthz"), served([sys.executable, "-c", _PEER, str(arguments.port + 1)], peer):
            time.sleep(3)
            before = os.getloadavg()[0]
            seconds = measure(app, peer, arguments.visits)
            after = os.getloadavg()[0]
    report: dict[str, Any] = {
        "visits": arguments.visits,
        "cores": os.cpu_count(),
        "load_before_and_after": [round(before, 2), round(after, 2)],
    }
    for who, parts in seconds.items():
        report[who] = {
            part: {"median": round(statistics.median(values), 2), "most": round(max(values), 2)}
            for part, values in parts.items()
        }
    for state in ("cold", "warm"):
        bare = statistics.median(seconds[f"peer, {state}"]["page"])
        report[f"of the peer's page, {state}"] = {
            part: round(statistics.median(seconds[f"app, {state}"][part]) / bare, 2) for part in ("words", "page")
        }
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
