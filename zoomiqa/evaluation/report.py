"""What an evaluation found: figures per data set, as JSON, as a table and as plots.

It works from records alone, so that a finished folder reports again at any time. Failures come first and are never left
out silently; what is not fitted on the labels comes before what is. It must not know how a record came about.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from zoomiqa.evaluation.agreement import (
    LEAST_PAIRS,
    agreement,
    bootstrap,
    fit_logistic,
    isotonic_on_test_set,
    unique_ratio,
)
from zoomiqa.files import atomic_write_bytes, atomic_write_text
from zoomiqa.text import plain
from zoomiqa.types import RATING_MAX, RATING_MIN

Record = Mapping[str, Any]

SUMMARY_VERSION = "1.0"
SUMMARY_JSON, SUMMARY_TEXT = "summary.json", "summary.md"

_FEW = 30
"""Pictures below which percentile intervals of a correlation are known to be too narrow."""

_TOO_FEW = f"fewer than {LEAST_PAIRS} rated pictures"


def result_names(datasets: Iterable[str]) -> list[str]:
    """Names of the files that `write_report` makes, for the data sets of a run."""
    plots = ["sets", *(f"scatter-{name}" for name in datasets)]
    return [SUMMARY_JSON, SUMMARY_TEXT, *(f"{plot}.{form}" for plot in plots for form in ("png", "svg"))]


def summarize(
    records: Sequence[Record],
    *,
    timing: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """The figures of a run as JSON.

    Args:
        records: Of `zoomiqa.evaluation.runner`; each with `evaluation`.
        timing: Pictures and wall seconds by data set.
    """
    by_set: dict[str, list[Record]] = {}
    for record in records:
        by_set.setdefault(record["evaluation"]["dataset"], []).append(record)
    timing = timing or {}
    sets = {}
    for name, chosen in by_set.items():
        subsets = sorted({record["evaluation"]["subset"] for record in chosen} - {None})
        sets[name] = {
            **_figures(chosen),
            "seconds_per_image": _seconds_per_image(timing.get(name)),
            "subsets": {
                subset: _figures([record for record in chosen if record["evaluation"]["subset"] == subset])
                for subset in subsets
            },
        }
    return {
        "summary_version": SUMMARY_VERSION,
        "assessor": next((record["assessor"] for record in records if record.get("assessor")), None),
        "data_sets": sets,
        "mean_over_data_sets": {
            figure: _mean_of_all(entry["raw"] and entry["raw"][figure] for entry in sets.values())
            for figure in ("srcc", "plcc")
        },
    }


def _figures(records: Sequence[Record]) -> dict[str, Any]:
    rated = [record for record in records if not record["error"]]
    failed = Counter(record["error"]["code"] for record in records if record["error"])
    predictions = [float(record["rating"]) for record in rated]
    labels = [float(record["evaluation"]["ground_truth"]) for record in rated]
    looks = [len(record["rounds"]) for record in rated]
    names = sorted({name for record in rated for name in record["evaluation"].get("attributes") or {}})
    attributes = {name: _attribute(rated, name) for name in names}
    return {
        "pictures": len(records),
        "failures": {
            "count": sum(failed.values()),
            "rate": sum(failed.values()) / len(records) if records else 0.0,
            "by_code": dict(sorted(failed.items())),
        },
        **_compare(predictions, labels),
        "label_range": [min(labels), max(labels)] if labels else None,
        "unique_score_ratio": {
            "predictions": unique_ratio(predictions) if predictions else None,
            "labels": unique_ratio(labels) if labels else None,
        },
        "looks": {"mean": _mean(looks), "second_look_share": _mean(count > 1 for count in looks)},
        "tokens_per_image": {"in": _tokens(rated, "tokens_in"), "out": _tokens(rated, "tokens_out")},
        "attributes": {name: figures for name, figures in attributes.items() if figures["count"]},
    }


def _compare(predictions: Sequence[float], labels: Sequence[float]) -> dict[str, Any]:
    if len(predictions) < LEAST_PAIRS:
        return {
            "raw": None,
            "interval_95": None,
            "logistic": None,
            "isotonic_on_test_set": None,
            "undefined": _TOO_FEW,
        }
    raw = agreement(predictions, labels)
    intervals = bootstrap(predictions, labels)
    return {
        "raw": raw.to_dict(),
        "interval_95": {name: found.to_dict() if found else None for name, found in intervals.items()},
        "logistic": fit_logistic(predictions, labels).to_dict(),
        "isotonic_on_test_set": isotonic_on_test_set(predictions, labels).to_dict(),
        "undefined": raw.undefined,
    }


def _attribute(records: Sequence[Record], name: str) -> dict[str, Any]:
    """Agreement on one attribute, over the pictures that have both a label and a rating of it."""
    pairs = [
        (float(record["attributes"][name]), float(record["evaluation"]["attributes"][name]))
        for record in records
        if name in record["attributes"] and name in record["evaluation"]["attributes"]
    ]
    if len(pairs) < LEAST_PAIRS:
        return {"count": len(pairs), "raw": None, "interval_95": None}
    predictions, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    intervals = bootstrap(predictions, labels)
    return {
        "count": len(pairs),
        "raw": agreement(predictions, labels).to_dict(),
        "interval_95": {key: found.to_dict() if found else None for key, found in intervals.items()},
    }


def _tokens(records: Sequence[Record], name: str) -> float | None:
    """Mean of a picture's tokens over all its looks; `None` where the backend does not count them."""
    sums = [
        sum(look[name] for look in record["rounds"])
        for record in records
        if record["rounds"] and all(look[name] is not None for look in record["rounds"])
    ]
    return _mean(sums)


def _seconds_per_image(entry: Mapping[str, float] | None) -> float | None:
    return entry["seconds"] / entry["pictures"] if entry and entry["pictures"] else None


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None


def _mean_of_all(values: Iterable[float | None]) -> float | None:
    """The mean of several figures; `None` where one of them is missing, as the rest would not be comparable."""
    figures = list(values)
    known = [value for value in figures if value is not None]
    return fmean(known) if len(known) == len(figures) > 1 else None


def table(summary: Mapping[str, Any]) -> str:
    """The figures as Markdown that reads well as plain text too."""
    groups = list(_groups(summary))
    parts = ["# Evaluation", _heading(summary), "## Agreement with people", _NOTHING_FITTED]
    parts.append(grid(("data set", "pictures", "failed", *_CORRELATIONS), _raw(summary)))
    parts += ["## After a fit to the same labels", _FITTED]
    fits = ("data set", "logistic: PLCC", "RMSE", "isotonic on test set: PLCC", "SRCC")
    parts.append(grid(fits, [(name, *_fits(group)) for name, group in groups]))
    parts += ["## Spread of scores, looks and cost", _SPREAD]
    costs = ("data set", "unique scores", "of labels", "looks", "second", "tokens in", "out", "s/picture")
    parts.append(grid(costs, [(name, *_costs(group)) for name, group in groups]))
    attributes = [
        (name, attribute, str(figures["count"]), *_correlations(figures))
        for name, group in groups
        for attribute, figures in group["attributes"].items()
    ]
    if attributes:
        parts += ["## Attributes", grid(("data set", "attribute", "pictures", *_CORRELATIONS), attributes)]
    failures = [
        (name, code, str(count))
        for name, entry in summary["data_sets"].items()
        for code, count in entry["failures"]["by_code"].items()
    ]
    if failures:
        parts += ["## Failures", grid(("data set", "code", "pictures"), failures)]
    if remarks := list(_remarks(summary)):
        parts += ["## Remarks", "\n".join(f"- {remark}" for remark in remarks)]
    return "\n\n".join(parts) + "\n"


_NOTHING_FITTED = (
    "Raw figures; nothing is fitted. Failed pictures are in no figure. Intervals: percentiles of 1,000 resamples of the"
    " images."
)
_FITTED = (
    "Both curves are fitted on the labels that they are then compared with. The isotonic fit inflates most, SRCC as"
    " well; it is the figure that the released evaluator prints, and stands here for comparison with it alone."
)
_SPREAD = (
    "Unique scores: different values after rounding to two decimals, as a share of the rated pictures; small beside"
    " that of the labels where scores have collapsed."
)
_CORRELATIONS = ("SRCC [95 %]", "PLCC [95 %]", "KRCC", "RMSE")
_NONE = "–"


def _groups(summary: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Every data set and, after it, its subsets."""
    for name, entry in summary["data_sets"].items():
        yield plain(name), entry
        for subset, group in entry["subsets"].items():
            yield f"{plain(name)} / {plain(subset)}", group


def _heading(summary: Mapping[str, Any]) -> str:
    sets = summary["data_sets"].values()
    pictures, failed = sum(entry["pictures"] for entry in sets), sum(entry["failures"]["count"] for entry in sets)
    assessor = summary["assessor"]
    who = f"{assessor['name']} {assessor['version']}, prompts {assessor['prompt_set']}" if assessor else "no assessor"
    return f"{plain(who)}: {pictures} pictures, {failed} failed."


def _raw(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = [(name, str(group["pictures"]), _failed(group), *_correlations(group)) for name, group in _groups(summary)]
    mean = summary["mean_over_data_sets"]
    if any(value is not None for value in mean.values()):
        rows.append(("mean of data sets", "", "", _figure(mean["srcc"]), _figure(mean["plcc"]), "", ""))
    return rows


def _failed(group: Mapping[str, Any]) -> str:
    return f"{group['failures']['count']} ({group['failures']['rate']:.1%})"


def _correlations(group: Mapping[str, Any]) -> tuple[str, ...]:
    raw, intervals = group["raw"], group["interval_95"]
    if raw is None:
        return (_NONE,) * 4
    shown = []
    for name in ("srcc", "plcc"):
        found = intervals[name]
        shown.append(_figure(raw[name]) + (f" [{found['low']:.3f}, {found['high']:.3f}]" if found else ""))
    return (*shown, _figure(raw["krcc"]), _figure(raw["rmse"]))


def _fits(group: Mapping[str, Any]) -> tuple[str, ...]:
    logistic, isotonic = group["logistic"] or {}, group["isotonic_on_test_set"] or {}
    figures = (logistic.get("plcc"), logistic.get("rmse"), isotonic.get("plcc"), isotonic.get("srcc"))
    return tuple(_figure(figure) for figure in figures)


def _costs(group: Mapping[str, Any]) -> tuple[str, ...]:
    unique, looks, tokens = group["unique_score_ratio"], group["looks"], group["tokens_per_image"]
    return (
        _share(unique["predictions"]),
        _share(unique["labels"]),
        _figure(looks["mean"], 2),
        _share(looks["second_look_share"]),
        _figure(tokens["in"], 0),
        _figure(tokens["out"], 0),
        _figure(group.get("seconds_per_image"), 2),
    )


def _figure(value: float | None, places: int = 3) -> str:
    return _NONE if value is None else f"{value:.{places}f}"


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _remarks(summary: Mapping[str, Any]) -> Iterable[str]:
    """What a reader of the figures must know besides."""
    for name, group in _groups(summary):
        if group["undefined"]:
            yield f"{name}: no correlation is defined, {group['undefined']}"
            continue
        logistic = group["logistic"]
        if logistic["undefined"]:
            yield f"{name}: logistic fit: {logistic['undefined']}"
        elif not logistic["is_rising"]:
            yield f"{name}: the logistic curve falls, so its PLCC hides that higher ratings go with lower labels"
        if flat := group["isotonic_on_test_set"]["undefined"]:
            yield f"{name}: isotonic fit: {flat}"
        if group["raw"]["count"] < _FEW:
            yield f"{name}: {group['raw']['count']} rated pictures are few; their intervals are too narrow to rely on"
        low, high = group["label_range"]
        if low < RATING_MIN or high > RATING_MAX:
            yield f"{name}: labels lie in {low:g}..{high:g}, not in 1..5, so RMSE says nothing"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    safe = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[column]) for row in safe)) for column in range(len(head))]
    lines = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in safe
    ]
    lines.insert(1, ["-" * width if index == 0 else "-" * (width - 1) + ":" for index, width in enumerate(widths)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_report(folder: str | Path, records: Sequence[Record], summary: Mapping[str, Any]) -> list[Path]:
    """Write summary and plots into `folder`; returns the files.

    Raises:
        OutputFailed: the disk is full or the folder cannot be written.
    """
    from zoomiqa.evaluation.plots import FORMS, draw_scatter, draw_sets

    target = Path(folder)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    written = [atomic_write_text(target / SUMMARY_JSON, text), atomic_write_text(target / SUMMARY_TEXT, table(summary))]
    for form in FORMS:
        written.append(atomic_write_bytes(target / f"sets.{form}", draw_sets(summary, form)))
        for name in summary["data_sets"]:
            drawn = draw_scatter(name, summary["data_sets"][name], _points(records, name), form)
            written.append(atomic_write_bytes(target / f"scatter-{name}.{form}", drawn))
    return written


def _points(records: Sequence[Record], dataset: str) -> list[tuple[float, float]]:
    """(rating, label) of every rated picture of a data set."""
    return [
        (record["rating"], record["evaluation"]["ground_truth"])
        for record in records
        if record["evaluation"]["dataset"] == dataset and not record["error"]
    ]
