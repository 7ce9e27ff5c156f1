"""What a curation run did: counts, reasons, and one page to browse. It must not decide anything.

The page is self-contained: thumbnails are embedded, text is escaped by the template, and its content security policy
allows nothing but its pictures and its style.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from zoomiqa.errors import ZoomIQAError
from zoomiqa.text import plain

from .trajectories import PictureFolder, is_kept

THUMBNAIL_PX = 320
VERDICTS = ("keep", "drop", "failed")


def summarize(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts by step, verdict and reason, in the order of the steps."""
    steps: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    total = kept = 0
    for record in records:
        total += 1
        kept += is_kept(record)
        for entry in record["curation"]:
            steps.setdefault(entry["step"], Counter())[entry["verdict"]] += 1
            if entry["verdict"] != "keep":
                reasons.setdefault(entry["step"], Counter()).update(entry["reasons"] or [entry["verdict"]])
    return {
        "trajectories": total,
        "kept": kept,
        "steps": [
            {
                "step": step,
                **{verdict: counts[verdict] for verdict in VERDICTS},
                "reasons": dict(sorted(reasons.get(step, {}).items())),
            }
            for step, counts in steps.items()
        ],
    }


def choose_examples(records: Iterable[Mapping[str, Any]], per_reason: int) -> list[Mapping[str, Any]]:
    """The first so many records of each step and reason, in the order of the file; then as many kept ones."""
    taken: Counter[tuple[str, str]] = Counter()
    chosen = []
    for record in records:
        marks = _marks(record)
        if any(taken[mark] < per_reason for mark in marks):
            chosen.append(record)
            taken.update(marks)
    return sorted(chosen, key=is_kept)


def _marks(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = [entry for entry in record["curation"] if entry["verdict"] != "keep"]
    return [(entry["step"], reason) for entry in told for reason in entry["reasons"] or [entry["verdict"]]] or [
        ("", "kept")
    ]


def render(records: Sequence[Mapping[str, Any]], folder: PictureFolder, *, title: str, per_reason: int) -> str:
    """The page.

    Args:
        records: Trajectories, after any number of steps.
        folder: Where their pictures are; one that cannot be opened is said to be missing.
        title: Heading of the page.
        per_reason: Examples of each reason, and of kept ones.
    """
    from jinja2 import Environment

    template = (resources.files(__package__) / "data" / "report.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    cards = [_card(record, folder) for record in choose_examples(records, per_reason)]
    summary = summarize(records)
    for step in summary["steps"]:
        step["step"] = plain(step["step"])
        step["reasons"] = {plain(reason): count for reason, count in step["reasons"].items()}
    return environment.from_string(template).render(title=plain(title), summary=summary, cards=cards)


def _card(record: Mapping[str, Any], folder: PictureFolder) -> dict[str, Any]:
    try:
        picture, missing = folder.open(record).pixels, ""
        thumbnail = _thumbnail(picture)
    except ZoomIQAError as error:
        thumbnail, missing = "", plain(str(error))
    width, height = (record["image"] or {}).get("width"), (record["image"] or {}).get("height")
    return {
        "id": plain(record["id"]),
        "kept": is_kept(record),
        "thumbnail": thumbnail,
        "missing": missing,
        "ground_truth": record["evaluation"].get("ground_truth"),
        "boxes": [
            {name: f"{value:.2f}%" for name, value in _percent(look["box"], width, height).items()}
            for look in record["rounds"]
            if look.get("box") and width and height
        ],
        "looks": [{"rating": look.get("rating"), "text": plain(look["text"])} for look in record["rounds"]],
        "decisions": [
            {
                "step": plain(entry["step"]),
                "verdict": entry["verdict"],
                "reasons": [plain(reason) for reason in entry["reasons"]],
                "details": _flat(entry["details"]),
            }
            for entry in record["curation"]
        ],
    }


def _percent(box: Sequence[float], width: float, height: float) -> dict[str, float]:
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return {
        "left": 100 * x1 / width,
        "top": 100 * y1 / height,
        "width": 100 * (x2 - x1) / width,
        "height": 100 * (y2 - y1) / height,
    }


def _flat(details: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Details as lines of a table."""
    lines: list[tuple[str, str]] = []
    for key, value in details.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lines += _flat(value, f"{name} · ")
        elif value not in (None, [], "") and key != "boxes":  # drawn up in the records; too long for a page
            lines.append((plain(name.replace("_", " ")), plain(str(value))[:1000]))
    return lines


def _thumbnail(pixels: Any) -> str:
    """The picture as a data URL of at most `THUMBNAIL_PX` a side."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
