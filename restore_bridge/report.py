"""One HTML page that shows what was seen, asked for, done and kept. Offline, self-contained, no network.

It must not know how anything in it was made: it reads records (see `restore_bridge.results.BridgeResult.to_dict`) and
the picture files they name. Text is escaped by the template; the page's own content security policy allows nothing but
its embedded pictures, its style and one script by hash.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from zoomiqa import __version__
from zoomiqa.errors import ImageError, RecordCorrupt
from zoomiqa.files import atomic_write_text
from zoomiqa.imaging import PixelArray, open_picture
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.text import plain
from zoomiqa.types import SECTION_TITLES
from zoomiqa.vocabulary import name_region

TITLE = "What was wrong, and what was done"

SHOWN_SIDE_PX = 1024
"""Longest side of an embedded picture. Embedding is lossless, so that no codec loss passes for a restoration's."""

_SCRIPT = """
for (const slider of document.querySelectorAll("[data-slider]")) {
  const range = slider.querySelector("input");
  const show = () => slider.style.setProperty("--cut", range.value + "%");
  range.addEventListener("input", show);
  show();
}
"""

_RULE = (
    "Which picture is kept is decided by its standing: the rating, less up to two points for each flaw that is still"
    " stated, in proportion to its measured strength. So a picture freed of a flaw can be kept although its bare rating"
    " is a little lower. It must also agree with the picture before, in structure (consistency) and in what nothing"
    " asked to change (change), so that invented detail is not rewarded."
)

SCHEMA_MAJOR = "2"
"""First figure of the version of records that can be shown."""

HONESTY = (
    "Ratings are estimates, given with their spread. Restoration can amplify or invent detail: do not use restored"
    " pictures as evidence, in medicine, or to identify people."
)


def write_report(
    records: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    records_folder: Path | None = None,
    title: str = TITLE,
    limits: Limits = LOCAL,
) -> Path:
    """Write the report of a run.

    Args:
        records: Records of `restore-bridge run`.
        path: The HTML file; written atomically.
        records_folder: Folder that the records' `output` paths are relative to; that of the page without it.
        title: Heading of the page.
        limits: Caps for opening the pictures.

    Raises:
        OutputFailed: the file cannot be written.
        RecordCorrupt: a record is not one of a restoration, lacks a part, or is of another version's form.
    """
    target = Path(path)
    cards = []
    for number, record in enumerate(records, start=1):
        _check_version(number, record)
        try:
            cards.append(_card(record, records_folder or target.parent, limits))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise RecordCorrupt(
                f"record {number} is not one of `restore-bridge run`", None, "give records.jsonl of a run"
            ) from error
    atomic_write_text(target, _render(cards, title))
    return target


def _check_version(number: int, record: Mapping[str, Any]) -> None:
    version = str(record.get("schema_version"))
    if "kept" in record and version.split(".")[0] != SCHEMA_MAJOR:
        raise RecordCorrupt(
            f"record {number} has another form than this version shows",
            version,
            f"run the pictures again; this version reads records of version {SCHEMA_MAJOR}",
        )


def _render(cards: Sequence[Mapping[str, Any]], title: str) -> str:
    from jinja2 import Environment

    source = (resources.files("restore_bridge") / "data" / "report.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    from markupsafe import Markup

    restored = sum(card.get("kept") == "restored" for card in cards)
    failed = sum(bool(card["error"]) for card in cards)
    lead = (
        f"{len(cards)} picture{'s' * (len(cards) != 1)} assessed in rounds; {restored} restored and found better,"
        f" {len(cards) - restored - failed} kept as they came" + (f", {failed} failed." if failed else ".")
    )
    return environment.from_string(source).render(
        cards=cards,
        title=title,
        lead=lead,
        script=Markup(_SCRIPT),  # noqa: S704 - our own constant, allowed by its hash in the page's policy
        script_hash=base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode(),
        rule=_RULE,
        honesty=HONESTY,
        origin=f"Made by restore-bridge {__version__}.",
    )


def _card(record: Mapping[str, Any], folder: Path, limits: Limits) -> dict[str, Any]:
    image = record.get("image") or {}
    name = plain(Path(image.get("path") or "picture").name)
    if record.get("error"):
        return {"name": name, "error": record["error"], "kept": None}
    before, after = record["before"], record.get("after")
    try:
        shown_before = _open(image.get("path"), limits)
        shown_after = _open(folder / record["output"]["path"], limits) if record["kept"] == "restored" else None
    except ImageError as error:
        return {"name": name, "error": error.to_dict(), "kept": None}
    height, width = shown_before.shape[:2]
    standing = record["standing"]
    is_known = standing["before"] is not None and standing["after"] is not None
    return {
        "name": name,
        "error": None,
        "before": before,
        "after": after,
        "change": standing["after"] - standing["before"] if is_known else None,
        "kept": record["kept"],
        "first_issue": _first_sentence(before.get("negative")),
        "reason": record["reason"].capitalize() + ".",
        "before_uri": _data_uri(_fit(shown_before)),
        "after_uri": _data_uri(_fit(shown_after)) if shown_after is not None else None,
        "shown_width": width,
        "shown_height": height,
        "boxes": _boxes(before, width, height),
        "looks": [_look(look) for look in before["rounds"]],
        "rounds": _rounds(record),
        "candidates": record["candidates"],
        "scores": [_score_row(row) for row in record.get("scores", [])],
        "notes": before["notes"] + record["notes"],
    }


def _prompts(prompts: Mapping[str, Any]) -> dict[str, Any]:
    """What was sent, with regions by name and what was cut in words."""
    return {
        "positive": prompts["positive"],
        "negative": prompts["negative"],
        "regional": [{**part, "region": name_region(tuple(part["box_fraction"]))} for part in prompts["regional"]],
        "cut": [part["text"] for part in prompts["report"]["cut"]],
    }


def _rounds(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each round set out from, asked for, did and ended with, in words."""
    made = {item["index"]: item for item in record["candidates"]}
    return [
        {
            "start": "the picture as it came" if one["start"] is None else f"candidate {one['start']}",
            "prompts": _prompts(one["prompts"]),
            "actions": [] if one["chosen"] is None else _steps(made[one["chosen"]]),
            "end": plain(one["reason"]).capitalize() + ".",
        }
        for one in record["rounds"]
    ]


def _steps(candidate: Mapping[str, Any]) -> list[str]:
    """What was done to a candidate, in words."""
    return [
        f"{plain(str(step['operation'])).replace('_', ' ')}: {plain(str(step.get('because', '')))}"
        for step in candidate["steps"]
        if step.get("amount")
    ]


def _look(look: Mapping[str, Any]) -> dict[str, Any]:
    box = look["shown_box"]
    title = f"zoom into x {box[0]}–{box[2]}, y {box[1]}–{box[3]}" if box else "the whole picture"
    sections = [
        ("Crop Inspection Summary" if key == "summary" and box else SECTION_TITLES[key], plain(text))
        for key, text in look["sections"].items()
        if text
    ]
    return {"title": title, "rating": look["rating"], "zoomed": bool(box), "sections": sections}


def _boxes(assessment: Mapping[str, Any], width: int, height: int) -> list[dict[str, Any]]:
    return [
        {
            "look": look["index"] + 1,
            "left": round(100 * box[0] / width, 3),
            "top": round(100 * box[1] / height, 3),
            "width": round(100 * (box[2] - box[0]) / width, 3),
            "height": round(100 * (box[3] - box[1]) / height, 3),
        }
        for look in assessment["rounds"]
        if (box := look["shown_box"])
    ]


def _score_row(score: Mapping[str, Any]) -> dict[str, Any]:
    before, after = score.get("before"), score.get("after")
    change = after - before if before is not None and after is not None else None
    better = None if change is None or not change else (change > 0) == (score["direction"] == "higher")
    arrow = "↑" if score["direction"] == "higher" else "↓"
    return {
        "label": f"{score['metric']} {arrow}",
        "kind": score["kind"],
        "before": _figure(before),
        "after": _figure(after),
        "change": "–" if change is None else f"{change:+.3f}",
        "tone": "" if better is None else "up" if better else "down",
    }


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _first_sentence(text: str | None) -> str:
    return plain(text or "").split(". ")[0].rstrip(".")[:120]


def _open(path: str | Path | None, limits: Limits) -> PixelArray:
    return open_picture(path or "", limits=limits).pixels


def _fit(pixels: PixelArray) -> PixelArray:
    """At most `SHOWN_SIDE_PX` on the longer side, area-averaged."""
    import cv2
    import numpy as np

    height, width = pixels.shape[:2]
    factor = SHOWN_SIDE_PX / max(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _data_uri(pixels: PixelArray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=60, method=3)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
