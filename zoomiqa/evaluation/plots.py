"""The plots of an evaluation, for print and screen. They show figures; none is computed here.

Colours are Okabe and Ito's, which people with any colour vision can tell apart; everything is labelled where it stands.
The same figures give the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoomiqa.evaluation.agreement import logistic
from zoomiqa.text import plain
from zoomiqa.types import RATING_MAX, RATING_MIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("png", "svg")

_BLUE, _ORANGE, _VERMILION = "#0072B2", "#E69F00", "#D55E00"
_INK, _GREY = "#222222", "#767676"
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 10,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "text.color": _INK,
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.hashsalt": "zoomiqa",
}
_DPI = 160
_LONGEST_NAME = 32


def draw_scatter(name: str, figures: Mapping[str, Any], points: Sequence[tuple[float, float]], form: str) -> bytes:
    """Ratings against labels, with the line of equality and the fitted logistic curve.

    Args:
        name: The data set's.
        figures: Its entry in the summary.
        points: (rating, label) of every rated picture.
        form: "png" or "svg".
    """
    return _draw(lambda figure: _scatter(figure, name, figures, points), (5.6, 5.6), form)


def draw_sets(summary: Mapping[str, Any], form: str) -> bytes:
    """SRCC and PLCC of every data set, with their intervals."""
    size = (7.2, 1.5 + 0.85 * len(summary["data_sets"]))
    return _draw(lambda figure: _sets(figure, summary), size, form)


def _draw(paint: Callable[[Figure], None], size_in: tuple[float, float], form: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    # A figure without pyplot: nothing is shown, and no display or global state is touched.
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font", category=UserWarning)
        figure = Figure(figsize=size_in, dpi=_DPI)
        paint(figure)
        figure.savefig(buffer, format=form, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def _scatter(figure: Figure, name: str, figures: Mapping[str, Any], points: Sequence[tuple[float, float]]) -> None:
    axes = figure.add_axes((0.125, 0.1, 0.84, 0.74))
    ratings, labels = (np.array([point[axis] for point in points], float) for axis in (0, 1))
    on_scale = not len(points) or (labels.min() >= RATING_MIN and labels.max() <= RATING_MAX)
    # Rasterised, so that ten thousand points do not make a file of megabytes.
    axes.scatter(ratings, labels, s=16, color=_BLUE, alpha=_alpha(len(points)), linewidths=0, rasterized=True, zorder=2)
    axes.set_xlim(RATING_MIN - 0.1, RATING_MAX + 0.1)
    if on_scale:
        axes.set_ylim(RATING_MIN - 0.1, RATING_MAX + 0.1)
        axes.plot([RATING_MIN, RATING_MAX], [RATING_MIN, RATING_MAX], color=_GREY, lw=0.8, ls=(0, (5, 4)), zorder=1)
        axes.annotate(
            "rating = label",
            (1.05, 1.05),
            xytext=(0, 4),
            textcoords="offset points",
            color=_GREY,
            fontsize=8.5,
            rotation=45,
            rotation_mode="anchor",
            transform_rotates_text=True,
        )
    _curve(axes, figures, ratings)
    axes.set_xlabel("predicted rating (1 to 5)")
    axes.set_ylabel("label: mean opinion score of people" + (" (1 to 5)" if on_scale else " (the set's own scale)"))
    figure.text(0.035, 0.945, _short(name), fontsize=13, fontweight="bold")
    figure.text(0.035, 0.877, _caption(figures), fontsize=9, color=_GREY, linespacing=1.5)


def _curve(axes: Axes, figures: Mapping[str, Any], ratings: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    fit = figures["logistic"]
    if not fit or not fit["parameters"]:
        return
    x = np.linspace(ratings.min(), ratings.max(), 200)
    y = logistic(x, *fit["parameters"])
    axes.plot(x, y, color=_VERMILION, lw=2, zorder=3, solid_capstyle="round")
    side = -1 if fit["is_rising"] else 1  # where points are few: below a rising curve, above a falling one
    axes.annotate(
        "logistic fit",
        (x[140], y[140]),
        xytext=(48, 48 * side),
        textcoords="offset points",
        color=_VERMILION,
        fontweight="bold",
        ha="center",
        va="center",
        arrowprops={"arrowstyle": "-", "color": _VERMILION, "lw": 0.8, "shrinkB": 3},
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2},
        zorder=4,
    )


def _sets(figure: Figure, summary: Mapping[str, Any]) -> None:
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    names = list(summary["data_sets"])
    least = 0.0
    for row, name in enumerate(names):
        entry = summary["data_sets"][name]
        for offset, key, colour, ink in ((-0.19, "srcc", _BLUE, "white"), (0.19, "plcc", _ORANGE, _INK)):
            value = entry["raw"][key] if entry["raw"] else None
            if value is None:
                _write(axes, 0.0, row + offset, f"{key.upper()} is not defined", color=_GREY)
                continue
            interval = entry["interval_95"][key]
            low, high = (interval["low"], interval["high"]) if interval else (value, value)
            least = min(least, low, value)
            axes.barh(row + offset, value, height=0.34, color=colour, zorder=2)
            axes.plot([low, high], [row + offset] * 2, color=_INK, lw=1.2, zorder=3, marker="|", markersize=6)
            is_negative = value < 0
            if abs(value) > 0.2:
                _write(axes, 0.0, row + offset, key.upper(), color=ink, is_left=is_negative)
            end = min(low, value) if is_negative else max(high, value)
            _write(axes, end, row + offset, f"{value:.3f}", color=_INK, is_left=is_negative)
    axes.set_yticks(range(len(names)), [_set_label(name, summary["data_sets"][name]) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(least - 0.25 if least < 0 else 0.0, 1.25 if least < 0 else 1.1)
    axes.set_xticks((-1.0, -0.5, 0.0, 0.5, 1.0) if least < -0.25 else (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=_GREY, lw=0.8, zorder=1)
    axes.set_xlabel("raw correlation, with its 95 % interval")
    axes.set_title("Agreement of ratings with people", loc="left", fontsize=13, fontweight="bold")


def _write(axes: Axes, x: float, y: float, text: str, *, color: str, is_left: bool = False) -> None:
    """Text beside a place, five points to the right or left of it."""
    axes.annotate(
        text,
        (x, y),
        xytext=(-5 if is_left else 5, 0),
        textcoords="offset points",
        ha="right" if is_left else "left",
        va="center",
        color=color,
        fontsize=9,
        zorder=4,
    )


def _set_label(name: str, entry: Mapping[str, Any]) -> str:
    failures = entry["failures"]["count"]
    return f"{_short(name)}\n{entry['pictures']} pictures, {failures} failed"


def _caption(figures: Mapping[str, Any]) -> str:
    failures = figures["failures"]["count"]
    parts = []
    for key in ("srcc", "plcc"):
        if figures["raw"] and figures["raw"][key] is not None:
            interval = figures["interval_95"][key]
            shown = f" [{interval['low']:.3f}, {interval['high']:.3f}]" if interval else ""
            parts.append(f"{key.upper()} {figures['raw'][key]:.3f}{shown}")
    figures_line = "   ".join(parts) or "no correlation is defined"
    return f"{figures['pictures'] - failures} pictures rated, {failures} failed\n{figures_line}"


def _alpha(count: int) -> float:
    """Few points are solid; where many overlap, density shows."""
    return float(np.clip(8 / max(count, 1) ** 0.5, 0.12, 0.8))


def _short(name: str) -> str:
    name = plain(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
