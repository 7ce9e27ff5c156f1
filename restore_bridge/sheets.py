"""Pictures of a run: a before-and-after sheet of each photograph, one plot of all. It must not know how they were made.

It reads records (see `restore_bridge.results.BridgeResult.to_dict`), like the report.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from zoomiqa.drawing import Page
from zoomiqa.drawing.page import ACCENT, BAD, FAINT, GOOD
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import Picture
from zoomiqa.text import plain

_WIDTH, _MARGIN, _GAP = 1280, 32, 24

_MOST_ROWS = 60
"""Photographs in the plot of a run; of more, those whose rating changed most are shown, and the title says so."""


def draw_sheet(before: Picture, after: Picture, record: Mapping[str, Any]) -> Picture:
    """The input and the kept picture side by side, rated, with what was asked for and why one was kept.

    Args:
        before: The input.
        after: The picture that was kept.
        record: Of the run, without an error.

    Raises:
        OptionInvalid: the record is of a failure.
    """
    if record["error"] or not record["before"]:
        raise OptionInvalid("a sheet needs a finished record", record["error"], "leave failed pictures out")
    page = Page(_WIDTH, _MARGIN)
    page.text(str(record["image"]["path"]).replace("\\", "/").rsplit("/", 1)[-1], size=24, bold=True)
    top = page.bottom + 10
    room = ((_WIDTH - 2 * _MARGIN - _GAP) // 2, 760)
    lefts = (_MARGIN, _MARGIN + room[0] + _GAP)
    restored = record["kept"] == "restored"
    rated = (record["before"], record["after"] if restored else record["before"])
    captions = ("Before", "After" if restored else "Kept as it was")
    end = top
    for left, picture, assessment, caption in zip(lefts, (before, after), rated, captions, strict=True):
        _, height = page.photograph(picture, (left, top + 34), room)
        page.label(f"{caption}: {_rating(assessment)}", (left, top), size=19, bold=True, colour=ACCENT)
        end = max(end, top + 34 + height)
    page.bottom = end
    page.text(str(record["reason"]), size=16, gap=14)
    prompts = _prompts(record)
    for name, colour in (("positive", GOOD), ("negative", BAD)):
        if prompts.get(name):
            page.text("Asked for" if name == "positive" else "To avoid", size=16, bold=True, colour=colour, gap=12)
            page.text(str(prompts[name]), size=16, gap=2)
    page.text(
        "Ratings are estimates with their expected error. Restoration can amplify or invent detail.",
        size=13,
        colour=FAINT,
        gap=18,
    )
    return page.finish()


def _rating(assessment: Mapping[str, Any]) -> str:
    spread = assessment.get("spread")
    return f"{assessment['rating']:.2f}" + ("" if spread is None else f" ± {spread:.2f}") + " of 5"


def _prompts(record: Mapping[str, Any]) -> Mapping[str, Any]:
    rounds = record.get("rounds") or [{}]
    return rounds[0].get("prompts") or {}


def plot_run(records: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG with the rating of each photograph before and after, those with the largest change on top.

    Raises:
        OptionInvalid: no record has a rating.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = []
    for record in records:
        if record["error"] or not record["before"] or record["before"]["rating"] is None:
            continue
        first = record["before"]["rating"]
        last = record["after"]["rating"] if record["kept"] == "restored" and record["after"] else first
        rows.append((last - first, first, last, str(record["image"]["path"]).replace("\\", "/").rsplit("/", 1)[-1]))
    if not rows:
        raise OptionInvalid("a plot needs rated pictures", f"{len(records)} records", "run restore-bridge first")
    changed = sum(change != 0 for change, *_ in rows)
    mean = sum(change for change, *_ in rows) / len(rows)
    shown = sorted(sorted(rows, key=lambda row: -abs(row[0]))[:_MOST_ROWS], key=lambda row: (row[0], row[1]))
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "zoomiqa"}):
        figure = Figure(figsize=(8, 1.3 + 0.24 * len(shown)), layout="constrained")
        axes = figure.subplots()
        for place, (_, first, last, name) in enumerate(shown):
            axes.plot([first, last], [place, place], color="#bbbbbb", linewidth=2, zorder=1)
            axes.scatter([first], [place], s=28, facecolor="white", edgecolor="#555555", zorder=2)
            if last != first:
                axes.scatter([last], [place], s=30, color="#c41e6e", zorder=3)
            # A dollar sign would start a formula.
            axes.text(0.0, place, _short(name).replace("$", r"\$"), transform=axes.get_yaxis_transform(), ha="right",
                      va="center", color="#333333")  # fmt: skip
        axes.set(xlim=(1, 5), ylim=(-1, len(shown)), yticks=[], xlabel="rating (1 to 5, higher is better)")
        less = "" if len(shown) == len(rows) else f"; the {len(shown)} that changed most are shown"
        axes.set_title(
            f"{len(rows)} photographs, {changed} restored; mean change {mean:+.2f}{less}\n"
            "○ before   ● after, where the restored picture was kept",
            loc="left",
            fontsize=10,
        )
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.grid(axis="x", color="#eeeeee")
        axes.set_axisbelow(True)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _short(name: str) -> str:
    text = " ".join(plain(name).split())
    return text if len(text) <= 34 else f"{text[:16]}…{text[-17:]}"
