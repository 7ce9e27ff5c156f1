"""The report of a replication: a table beside the paper's, curves, scatter plots, and what did and did not come out.

Everything is read from what the stages wrote. It must not know how any of it was made.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoomiqa.evaluation.report import grid
from zoomiqa.files import atomic_write_bytes, atomic_write_text
from zoomiqa.records import latest, read_records

from .forms import ARMS, Arm
from .stages import TIMING, Mini, histories, read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT, RESULTS = "report.md", "results.json"
CURVES, SCATTERS = "curves", "scatter"

_COLOURS = {
    "sft": "#767676", "rank": "#0072B2", "score": "#E69F00", "no-coverage": "#CC79A7", "full": "#D55E00",
    "progressive": "#009E73",
}  # fmt: skip
"""Okabe and Ito's, which people with any colour vision can tell apart."""

_SHOWN = (
    ("reward", "total reward"),
    ("rewards/score", "score reward"),
    ("rewards/rank", "rank reward"),
    ("rewards/format", "format reward"),
    ("rollout/unique_scores", "unique scores over all"),
    ("rollout/second_round_share", "share with a closer look"),
    ("rollout/numeric_entropy", "entropy of numbers (nats)"),
    ("coverage/value", "KL-Coverage"),
)
_SMOOTHED = 5
"""Rollouts in the running mean of a curve."""


def write_report(mini: Mini, page: Path | None = None) -> Path:
    """Write the report with its plots beside it, and its figures as JSON into the replication's folder.

    Args:
        mini: All stages of its arms are done.
        page: The report's file; `None` is `report.md` in the replication's folder.

    Returns:
        The report's file.
    """
    page = page or mini.out / REPORT
    figures = {arm.name: _figures(mini, arm) for arm in mini.arms}
    curves = histories(mini)
    points = {arm.name: _points(mini, arm) for arm in mini.arms}
    results = {"form": asdict(mini.form), "seed": mini.seed, "arms": figures, "seconds": read_json(mini.out / TIMING)}
    atomic_write_text(mini.out / RESULTS, json.dumps(results, indent=1) + "\n")
    plots = {name: f"{page.stem}-{name}.png" for name in ((CURVES, SCATTERS) if curves else (SCATTERS,))}
    if curves:
        atomic_write_bytes(page.with_name(plots[CURVES]), _draw(partial(_paint_curves, curves=curves), (11, 5.6)))
    scatters = partial(_paint_scatters, arms=mini.arms, points=points)
    atomic_write_bytes(page.with_name(plots[SCATTERS]), _draw(scatters, (11, 7)))
    atomic_write_text(page, _page(mini, figures, plots))
    return page


def _figures(mini: Mini, arm: Arm) -> dict[str, Any]:
    summary = read_json(mini.evaluation_of(arm) / "summary.json")
    return dict(summary["data_sets"]["test"])


def _points(mini: Mini, arm: Arm) -> list[tuple[float, float]]:
    records = latest(read_records(mini.evaluation_of(arm) / "records.jsonl"))
    return [(float(r["evaluation"]["ground_truth"]), float(r["rating"])) for r in records if r["rating"] is not None]


def _page(mini: Mini, figures: Mapping[str, Mapping[str, Any]], plots: Mapping[str, str]) -> str:
    form, card = mini.form, read_json(mini.out / "data" / "card.json")
    sft = read_json(mini.out / "sft" / "training.json")
    seconds = read_json(mini.out / TIMING)
    train = len(read_json(mini.out / "train.json"))
    rows = [_row(arm, figures[arm.name]) for arm in mini.arms]
    heads = (
        "arm", "PLCC", "95 %", "SRCC", "95 %", "RMSE", "unique scores", "second look", "failed", "paper: PLCC", "SRCC",
    )  # fmt: skip
    times = ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items())
    curves = f"\n![Curves of GRPO, running means]({plots[CURVES]})\n" if CURVES in plots else ""
    return f"""# The ablation in miniature

{train} photos with human scores to train on, {form.test} to test on (split by subset with seed {mini.seed}); no test
photo was used in synthesis, SFT or GRPO. The model has {sft["weights"]["all"] / 1e6:.2f} million weights (real
Qwen2.5-VL classes, pictures of about {form.shape.side} x {form.shape.side} px as it sees them) and began from nothing.

- Cold start: {sft["steps"]} steps of {form.sft_batch} rows ({sft["epochs"]:.2f} epochs) over {card["trajectories"]}
  trajectories of the measured teacher in few words ({card["looks"].get("2", 0)} with a closer look); last loss mean
  {sft["loss"]:.3f}. The teacher's ratings come from the compact assessor, which was fitted on scores of photos of the
  same data set, test photos among them; the student saw none of those.
- GRPO: {form.rollouts} rollouts of {form.groups} photos with {form.group_size} conversations each, two optimizer steps
  per rollout, learning rate {form.grpo_rate:g}, the same seed in every arm.
- Evaluation: greedy, both looks, `zoomiqa evaluate`. Minutes: {times}.

{grid(heads, rows)}

The paper's figures are KonIQ's, with a model of seven billion weights; they stand here for their order only. Intervals
are bootstrapped over the test photos: they say nothing of other seeds.

{_subsets(mini, figures)}

## What came out, and what did not

{_verdicts(figures)}
{curves}
![Ratings against people's scores]({plots[SCATTERS]})
"""


def _row(arm: Arm, entry: Mapping[str, Any]) -> tuple[str, ...]:
    raw, interval = entry["raw"] or {}, entry["interval_95"] or {}
    return (
        f"{arm.paper_row} {arm.title}",
        _number(raw.get("plcc")), _interval(interval.get("plcc")),
        _number(raw.get("srcc")), _interval(interval.get("srcc")),
        _number(raw.get("rmse")),
        _percent(entry["unique_score_ratio"]["predictions"]),
        _percent(entry["looks"]["second_look_share"]),
        str(entry["failures"]["count"]),
        f"{arm.paper[0]:.3f}", f"{arm.paper[1]:.3f}",
    )  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _interval(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{value['low']:.2f} to {value['high']:.2f}"


def _subsets(mini: Mini, figures: Mapping[str, Mapping[str, Any]]) -> str:
    names = sorted({name for entry in figures.values() for name in entry["subsets"]})
    if not names:
        return ""
    rows = []
    for arm in mini.arms:
        subsets = figures[arm.name]["subsets"]
        raws = [(subsets.get(name) or {}).get("raw") or {} for name in names]
        rows.append((arm.title, *(f"{_number(raw.get('plcc'))} / {_number(raw.get('srcc'))}" for raw in raws)))
    return "By subset (PLCC / SRCC):\n\n" + grid(("arm", *names), rows)


_CLAIMS: tuple[tuple[str, str, str, str], ...] = (
    ("full", "sft", "plcc", "GRPO with all parts is above the cold start"),
    ("full", "no-coverage", "plcc", "KL-Coverage helps"),
    ("score", "rank", "plcc", "on the data trained on, the score reward alone is above the rank reward alone"),
    ("full", "rank", "plcc", "both rewards are above the rank reward alone"),
    ("full", "score", "plcc", "both rewards are above the score reward alone"),
    ("progressive", "full", "plcc", "progressive re-sampling helps"),
)
"""What the paper's table says of KonIQ: the first arm is above the second in the figure."""


def _verdicts(figures: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for better, worse, figure, claim in _CLAIMS:
        if better not in figures or worse not in figures:
            continue
        first, second = ((figures[name]["raw"] or {}).get(figure) for name in (better, worse))
        if first is None or second is None:
            lines.append(f"- {claim}: cannot be said, as an arm has no correlation.")
            continue
        difference = first - second
        width = _half_width(figures[better], figure)
        sure = width is not None and abs(difference) > width
        said = ("yes" if difference > 0 else "no") if sure else "open"
        limit = "" if width is None else f", against an interval of +-{width:.3f} on each"
        lines.append(f"- {claim}: **{said}** (PLCC {difference:+.3f}{limit}).")
    if {"full", "no-coverage"} <= set(figures):
        shares = [figures[name]["unique_score_ratio"]["predictions"] for name in ("full", "no-coverage")]
        if None not in shares:
            lines.append(f"- KL-Coverage keeps scores apart: {shares[0]:.1%} unique with it, {shares[1]:.1%} without.")
    collapsed = [
        arm.title for arm in ARMS if arm.name in figures and _is_collapsed(figures[arm.name]["unique_score_ratio"])
    ]
    if collapsed:
        where = f"{len(collapsed)} of {len(figures)} arms ({', '.join(collapsed)})"
        lines.append(
            f"- **Ratings collapsed** in {where}: read greedily, nearly every photo gets the same rating. Such a model"
            " has learned how to answer, not what it sees; it neither confirms nor refutes the paper's table."
        )
    return "\n".join(lines) or "There is nothing to compare."


_COLLAPSED = 0.02
"""Share of different ratings below which an arm counts as collapsed; the paper finds 2.04 % in a collapsed model."""


def _is_collapsed(ratios: Mapping[str, float | None]) -> bool:
    ratio = ratios["predictions"]
    return ratio is not None and ratio < _COLLAPSED


def _half_width(entry: Mapping[str, Any], figure: str) -> float | None:
    interval = (entry["interval_95"] or {}).get(figure)
    return None if interval is None else (interval["high"] - interval["low"]) / 2


def _draw(paint: Any, size: tuple[float, float]) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    style = {"font.size": 9, "axes.spines.right": False, "axes.spines.top": False, "legend.frameon": False}
    buffer = io.BytesIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, dpi=130, layout="constrained")
        paint(figure)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _paint_curves(figure: Figure, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    axes = figure.subplots(2, 4)
    titles = {arm.name: arm.title for arm in ARMS}
    for place, (name, title) in zip(axes.flat, _SHOWN, strict=True):
        for arm, history in curves.items():
            values = [(number, float(line[name])) for number, line in enumerate(history) if line.get(name) is not None]
            if values:
                steps, heights = zip(*values, strict=True)
                place.plot(steps, _smooth(heights), color=_COLOURS[arm], label=titles[arm], linewidth=1.3)
        place.set_title(title, fontsize=9)
        place.set_xlabel("log entry")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _smooth(values: Sequence[float]) -> Any:
    window = min(_SMOOTHED, len(values))
    padded = np.pad(np.asarray(values, float), (window - 1, 0), mode="edge")
    return np.convolve(padded, np.full(window, 1 / window), mode="valid")


def _paint_scatters(figure: Figure, arms: Sequence[Arm], points: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    columns = min(3, len(arms))
    axes = np.atleast_1d(figure.subplots(-(-len(arms) // columns), columns, sharex=True, sharey=True)).reshape(-1)
    for place, arm in zip(axes, arms, strict=False):
        place.plot((1, 5), (1, 5), color="#BBBBBB", linewidth=1)
        if points[arm.name]:
            truth, rating = zip(*points[arm.name], strict=True)
            place.scatter(truth, rating, s=7, color=_COLOURS[arm.name], alpha=0.6, linewidths=0)
        place.set(title=arm.title, xlim=(1, 5), ylim=(1, 5), xlabel="people's score", ylabel="rating")
    for place in axes[len(arms) :]:
        place.axis("off")
