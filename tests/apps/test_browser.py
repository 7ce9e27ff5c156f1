"""A person's way through the page, in a real browser, on the embedded defaults.

Needs Chromium (Debian: `chromium`; or CHROMIUM=/path) and Playwright for Python; skipped, with the reason, without.
Screenshots go to the folder of the environment variable SCREENSHOTS, else to pytest's own.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from benchmarks.first_words import FLAGS
from tests.apps.conftest import noisy_photo
from zoomiqa import open_picture

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright for Python: pip install playwright")

BROWSER = os.environ.get("CHROMIUM") or next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium, or set CHROMIUM")

PATIENCE_MS = 120_000
START_MS = 400_000
"""For the browser to come up, on a machine with much else to do."""


@pytest.fixture(scope="module")
def engine():
    with playwright.sync_playwright() as made:
        yield made.chromium


@pytest.fixture(scope="session")
def shots(tmp_path_factory):
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def open_page(engine, service):
    """Opens the page in a fresh profile; at the end nothing may have been complained of or fetched from elsewhere."""
    contexts, complaints, foreign = [], [], []

    def open_one(**options):
        profile = tempfile.mkdtemp(prefix="browser-")
        context = engine.launch_persistent_context(
            profile, executable_path=BROWSER, headless=True, args=FLAGS, timeout=START_MS, **options
        )
        contexts.append((context, profile))
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: foreign.append(request.url) if _is_foreign(request.url, service) else None)
        page.goto(service.url)
        page.wait_for_selector("#zq-assess")
        return page

    yield open_one
    for context, profile in contexts:
        context.close()
        shutil.rmtree(profile, ignore_errors=True)
    assert complaints == []
    assert foreign == []


def _is_foreign(url, service):
    return not url.startswith((service.url, "data:", "blob:"))


def put_in(page, folder, data, selector="#zq-picture", name="ferien.png"):
    file = folder / name
    file.write_bytes(data)
    page.set_input_files(f"{selector} input[type=file]", str(file))


WATCH = """() => {
  window.seen = [];
  const look = () => {
    const text = document.querySelector('#zq-reasoning').innerText;
    if (!window.seen.length || window.seen[window.seen.length - 1] !== text) window.seen.push(text);
  };
  const what = {childList: true, subtree: true, characterData: true};
  new MutationObserver(look).observe(document.querySelector('#zq-reasoning'), what);
}"""


def ask_for_another(page):
    page.click("#zq-another")
    page.wait_for_selector("#zq-picture input[type=file]", state="attached")
    page.wait_for_timeout(1500)  # the place listens a moment after it is there; nobody chooses a file faster


RESTORABLE = "#zq-restore:not([disabled])"


def shown(page, name):
    """Waits until a picture of this name is on the page and its assessment has ended."""
    page.wait_for_selector(f"#zq-stage img[alt^='{name}']")
    page.wait_for_selector("#zq-reasoning .zq-looks[aria-busy=false]")
    page.wait_for_selector(RESTORABLE)


def test_the_page_begins_with_an_assessment_that_can_be_acted_on(open_page, shots):
    """Its picture stands where an upload would: it can be assessed again, shown under a map, and restored."""
    page = open_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    shown(page, "noisy-portrait.png")
    assert page.locator("#zq-shell").count() == 0, "it went when the page was there"
    assert "noise" in page.locator("#zq-negative textarea").input_value()
    assert "Look 2" in page.locator("#zq-reasoning").inner_text()
    assert page.locator("#zq-rating .zq-rating").count() == 1
    page.screenshot(path=shots / "1-opening.png", full_page=True)
    page.evaluate(WATCH)
    page.click("#zq-assess")
    page.wait_for_function("window.seen.length >= 2")
    shown(page, "noisy-portrait.png")
    page.get_by_label("Gentle").click()
    page.click("#zq-restore")
    page.wait_for_selector("#zq-result .zq-slider")
    # An empty place for a picture of one's own; without one there is nothing to assess.
    ask_for_another(page)
    page.click("#zq-assess")
    page.wait_for_selector("#zq-reasoning .zq-failure")


def test_the_first_words_wait_for_no_script_of_the_page(engine, service, tmp_path):
    """The page's framework cannot be had at all, and still the assessment is read."""
    context = engine.launch_persistent_context(
        str(tmp_path), executable_path=BROWSER, headless=True, args=FLAGS, timeout=START_MS
    )
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.route("**/assets/*.js", lambda route: route.abort())
        page.goto(service.url, wait_until="commit")
        page.wait_for_selector("#zq-shell .zq-look h4")
        page.wait_for_selector("#zq-shell .zq-box")
        assert page.locator("#zq-assess").count() == 0
    finally:
        context.close()


def test_without_the_switch_a_picture_waits_for_the_button(open_page):
    page = open_page(viewport={"width": 1280, "height": 900})
    shown(page, "noisy-portrait.png")
    page.get_by_role("button", name="Who assesses").click()
    page.get_by_label("Assess a picture as soon as it is chosen").uncheck()
    page.get_by_role("button", name="Blocky cat").click()
    page.wait_for_selector("#zq-picture img")
    page.wait_for_timeout(1500)
    assert page.locator("#zq-stage img").count() == 0
    page.click("#zq-assess")
    shown(page, "blocky-cat.png")


BOX_AT_REST = """() => {
  const box = document.querySelector('.zq-box'), picture = document.querySelector('.zq-frame img');
  if (!box || !picture.naturalWidth || box.getAnimations().length) return null;
  const inner = box.getBoundingClientRect(), outer = picture.getBoundingClientRect();
  return [inner.left, inner.right].map(edge => (edge - outer.left) / outer.width);
}"""
"""Left and right edge of the box as shares of the picture's width, both measured in one look; nothing before the
picture has its size and the box, which appears larger than it is, has shrunk into its place."""


def test_the_whole_way(open_page, shots, tmp_path):
    page = open_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    shown(page, "noisy-portrait.png")
    ask_for_another(page)
    page.evaluate(WATCH)
    put_in(page, tmp_path, noisy_photo(side=390))
    # Reasoning at once, a look at a time; the box is on the picture as soon as the first look is read.
    shown(page, "ferien.png")
    page.wait_for_selector(".zq-box")
    seen = page.evaluate("window.seen")
    assert len(seen) >= 3, "it came in pieces"
    assert any("Look 1" in text and "Look 2" not in text for text in seen)
    assert "Look 2" in seen[-1]
    assert page.get_by_label("Rating:").count() == 1
    page.wait_for_selector("#zq-picture", state="hidden")
    left, right = page.wait_for_function(BOX_AT_REST).json_value()
    assert -0.005 <= left < right <= 1.005
    assert "ferien.png" in page.locator(".zq-frame img").first.get_attribute("alt")
    page.screenshot(path=shots / "2-assessed.png", full_page=True)
    # Signals, and a map over the picture.
    page.click("#zq-signals-fold button")
    page.wait_for_selector(".zq-chart li")
    page.click("#zq-maps input")
    page.get_by_role("option", name="noise_sigma", exact=True).click()
    page.wait_for_selector(".zq-map")
    page.screenshot(path=shots / "3-map.png", full_page=True)
    # The phrases are changed, then it is restored under them.
    gone = page.locator("#zq-negative textarea")
    assert "noise" in gone.input_value()
    gone.fill("severe noise")
    page.click("#zq-restore")
    page.wait_for_selector("#zq-progress progress")
    page.wait_for_selector("#zq-result .zq-slider")
    # The handle is moved by keys.
    handle = page.locator("#zq-result .zq-slider input")
    handle.focus()
    before = page.locator("#zq-result .zq-slider").evaluate("item => getComputedStyle(item).getPropertyValue('--cut')")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    after = page.locator("#zq-result .zq-slider").evaluate("item => getComputedStyle(item).getPropertyValue('--cut')")
    assert (before, after) == ("50%", "30%")
    assert page.locator(".zq-table tr", has_text="rating ↑").locator("td").last.inner_text().endswith("better")
    assert page.locator(".zq-side").count() == 2
    page.wait_for_function(
        "[...document.querySelectorAll('#zq-result img')].every(item => item.complete && item.naturalWidth)"
    )
    page.screenshot(path=shots / "4-restored.png", full_page=True)
    # What is taken along.
    with page.expect_download() as coming:
        page.get_by_role("link", name="Picture", exact=True).click()
    saved = tmp_path / coming.value.suggested_filename
    coming.value.save_as(saved)
    assert saved.name == "ferien-restored.png"
    assert open_picture(saved).size == (390, 390)
    with page.expect_download() as coming:
        page.get_by_role("link", name="Sidecar (JSON)").click()
    record = json.loads(Path(coming.value.path()).read_text("utf-8"))
    assert [item["text"] for item in record["rounds"][0]["guidance"]["negative"]] == ["severe noise"]
    with page.context.expect_page() as opening:
        page.get_by_role("link", name="Report", exact=True).click()
    opening.value.wait_for_selector("article")
    opening.value.screenshot(path=shots / "5-report.png")


def test_a_sample_by_night(open_page, shots):
    page = open_page(viewport={"width": 1440, "height": 1000}, color_scheme="dark")
    shown(page, "noisy-portrait.png")
    page.get_by_role("button", name="Blurred cup").click()
    shown(page, "blurred-cup.png")
    assert page.evaluate("document.body.classList.contains('dark')")
    page.screenshot(path=shots / "6-night.png", full_page=True)


def test_a_narrow_screen(open_page, shots):
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark", device_scale_factor=2)
    shown(page, "noisy-portrait.png")
    page.get_by_role("button", name="Dark coffee").click()
    shown(page, "dark-coffee.png")
    page.click("#zq-restore")
    page.wait_for_selector("#zq-result .zq-slider")
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=shots / "7-narrow.png", full_page=True)
    assert wide <= 390, "nothing has to be moved sideways"


def test_cancel_and_a_bad_file(open_page, shots, tmp_path):
    page = open_page(viewport={"width": 1280, "height": 900})
    shown(page, "noisy-portrait.png")
    ask_for_another(page)
    put_in(page, tmp_path, b"\x89PNG\r\n\x1a\n" + bytes(300), name="broken.png")
    page.wait_for_selector("#zq-reasoning .zq-failure")
    assert "ZIQ-104" in page.locator("#zq-reasoning .zq-failure").inner_text()
    page.screenshot(path=shots / "8-failure.png", full_page=True)
    ask_for_another(page)
    put_in(page, tmp_path, noisy_photo(side=480))
    shown(page, "ferien.png")
    page.get_by_label("Thorough").click()
    page.click("#zq-restore")
    page.wait_for_selector("#zq-progress progress")
    page.click("#zq-cancel")
    page.wait_for_selector("#zq-progress .zq-failure")
    assert "ZIQ-803" in page.locator("#zq-progress .zq-failure").inner_text()


def test_a_batch_and_its_table(open_page, shots, tmp_path):
    page = open_page(viewport={"width": 1280, "height": 900})
    page.get_by_role("tab", name="Batch").click()
    names = ["=HYPERLINK(1).png", "two.png"]
    for index, name in enumerate(names):
        (tmp_path / name).write_bytes(noisy_photo(seed=index + 1, side=120))
    page.set_input_files("#zq-pictures input[type=file]", [str(tmp_path / name) for name in names])
    page.wait_for_timeout(1500)
    page.click("#zq-batch-start")
    with page.expect_download() as coming:
        page.get_by_role("link", name="Table (CSV)").click()
    text = Path(coming.value.path()).read_text("utf-8-sig")
    page.screenshot(path=shots / "9-batch.png", full_page=True)
    assert len(text.splitlines()) >= 3
    assert not [line for line in text.splitlines() if line.startswith(("=", '"='))]
    assert page.locator("#zq-table tbody tr").count() == 2


UNNAMED = """() => [...document.querySelectorAll('button, a, input, textarea')]
  .filter(item => item.offsetParent && item.type !== 'file')
  .filter(item => !(item.innerText || item.ariaLabel || item.title || item.labels?.length || item.placeholder))
  .map(item => item.outerHTML)"""


def test_keys_reach_everything(open_page):
    """From the top, Tab comes by every control in sight, and each shows that it is there."""
    page = open_page(viewport={"width": 1440, "height": 1000})
    page.wait_for_timeout(500)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("(document.activeElement.innerText || document.activeElement.ariaLabel || '').trim()")
        )
    assert {"Assess", "New picture", "Noisy portrait"} <= reached
    unnamed = page.evaluate(UNNAMED)
    assert unnamed == []
