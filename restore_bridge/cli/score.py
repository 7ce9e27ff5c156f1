"""`restore-bridge score`: before against after, for two files or two folders."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge.cli.assessor import add_assessor_options, assessor_from
from restore_bridge.cli.metrics import add_metric_option, load_metrics, metric_names
from restore_bridge.cli.names import open_reference, partner
from zoomiqa.cli import common
from zoomiqa.cli.engine import add_engine_options, engine_from

if TYPE_CHECKING:
    from zoomiqa.types import Note

_EXAMPLES = """
examples:
  restore-bridge score before.jpg after.jpg
  restore-bridge score degraded/ restored/ --reference pristine/ --format csv > scores.csv
  restore-bridge score before.png after.png --metric psnr --metric pyiqa:piqe
  restore-bridge score --list

metrics named pyiqa:NAME need pip install "zoomiqa[metrics]". pyiqa is under PolyForm Noncommercial, most of its
weights under CC BY-NC-SA: no commercial use. Most of its metrics fetch weights on first use; without a network work
psnr, psnry, ssim, ssimc, ms_ssim, cw_ssim, fsim, vsi, vif, gmsd, nlpd, mad, entropy and piqe.
"""

FORMATS = ("auto", "json", "csv", "text")

_CHUNK = 16
"""Pairs given at once to a worker of a cluster."""

_Pair = tuple[Path, Path, Path | None]
"""Before, after, and the pristine picture where there is one."""

_COLUMNS = (
    "before",
    "after",
    "reference",
    "metric",
    "version",
    "kind",
    "direction",
    "range_low",
    "range_high",
    "is_range_rough",
    "value_before",
    "value_after",
    "change",
    "note",
    "error",
)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "score",
        help="score pictures before and after",
        epilog=_EXAMPLES,
        description="Score pictures before and after: rating, agreement with the input, full-reference metrics.",
    )
    parser.add_argument("before", nargs="?", type=Path, metavar="BEFORE", help="a picture, or a folder of pictures")
    parser.add_argument(
        "after", nargs="?", type=Path, metavar="AFTER", help="a picture, or a folder with the same paths or stems in it"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="PATH",
        help="the pristine picture, or a folder of them; full-reference metrics are then taken against it",
    )
    add_metric_option(parser)
    add_assessor_options(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="auto",
        help="json (JSON Lines), csv, text (a table), or auto: a table on a terminal, JSON Lines elsewhere",
    )
    parser.add_argument("--list", action="store_true", help="list the metrics with direction, range and version")
    add_engine_options(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=score)


def score(arguments: argparse.Namespace) -> int:
    from zoomiqa.assessors import create_assessor
    from zoomiqa.errors import BackendFailed, OptionInvalid
    from zoomiqa.scale import on_ray

    if arguments.list:
        return _list_metrics()
    if arguments.before is None or arguments.after is None:
        raise OptionInvalid("two pictures or two folders are needed", None, "give BEFORE and AFTER")
    engine = engine_from(arguments)
    load_metrics(arguments)
    assessor = create_assessor(assessor_from(arguments, common.limits_from(arguments)))
    pairs = _pairs(arguments)

    def lost(pair: _Pair) -> dict[str, Any]:
        dead = BackendFailed("every worker that had this picture died", None, "see Ray's log, or score it alone")
        return _row(pair, error=dead.to_dict())

    if engine.name == "ray":
        make_worker = partial(_cluster_worker, arguments)
        found = on_ray(pairs, make_worker, engine, lost=lost, parallel=assessor.parallel, largest_chunk=_CHUNK)
    else:
        found = map(partial(_score_one, arguments, assessor), pairs)
    rows: list[dict[str, Any]] = []
    wanted = _format(arguments)
    if wanted == "csv":
        _write_csv([_COLUMNS])
    for row in found:
        rows.append(row)
        if wanted == "json":
            common.write_line(row)
        elif wanted == "csv":
            _write_csv(_csv_lines(row))
    if wanted == "text":
        _print_table(rows)
    return common.EXIT_SOME_FAILED if any(row["error"] for row in rows) else common.EXIT_OK


def _list_metrics() -> int:
    from restore_bridge import pyiqa_metrics
    from restore_bridge.scoring import load_metric, metric_names

    metrics = [load_metric(name).to_dict() for name in metric_names()]
    if pyiqa_metrics.is_installed():
        metrics += pyiqa_metrics.describe_all()
    else:
        common.complain(
            "restore-bridge",
            f'those of pyiqa are not installed (pip install "zoomiqa[metrics]"); {pyiqa_metrics.LICENCE}',
        )
    common.print_json(metrics)
    return common.EXIT_OK


def _score_one(arguments: argparse.Namespace, assessor: Any, pair: _Pair) -> dict[str, Any]:
    """One line of the result; a picture that cannot be opened or scored is an error in it."""
    from restore_bridge.comparison import compare
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.imaging import open_picture

    limits = common.limits_from(arguments)
    open_one = partial(open_picture, limits=limits, allow_truncated=arguments.allow_truncated)
    before, after, reference = pair
    try:
        pristine, notes = open_reference(reference, open_one)
        scores = compare(
            open_one(before),
            open_one(after),
            reference=pristine,
            assessor=assessor,
            metrics=metric_names(arguments),
        )
    except ZoomIQAError as error:
        return _row(pair, error=error.to_dict())
    return _row(pair, scores=[item.to_dict() for item in scores], notes=notes)


def _row(
    pair: _Pair,
    *,
    scores: Sequence[dict[str, Any]] = (),
    notes: Sequence[Note] = (),
    error: dict[str, str] | None = None,
) -> dict[str, Any]:
    before, after, reference = pair
    return {
        "before": str(before),
        "after": str(after),
        "reference": None if reference is None else str(reference),
        "scores": list(scores),
        "notes": [note.to_dict() for note in notes],
        "error": error,
    }


def _cluster_worker(arguments: argparse.Namespace) -> Callable[[Sequence[_Pair]], Iterable[dict[str, Any]]]:
    """What a worker of a cluster does with pairs of pictures."""
    from zoomiqa.assessors import create_assessor
    from zoomiqa.batch import use_one_thread

    assessor = create_assessor(assessor_from(arguments, common.limits_from(arguments)))
    if assessor.parallel:
        use_one_thread()
    return lambda pairs: [_score_one(arguments, assessor, pair) for pair in pairs]


def _format(arguments: argparse.Namespace) -> str:
    if arguments.format != "auto":
        return str(arguments.format)
    return "text" if sys.stdout.isatty() else "json"


def _pairs(arguments: argparse.Namespace) -> list[_Pair]:
    """Files that belong together: by path inside the folders, or by stem where only the formats differ."""
    from zoomiqa.errors import OptionInvalid

    before, after, reference = arguments.before, arguments.after, arguments.reference
    if before.is_dir() != after.is_dir():
        raise OptionInvalid(
            "BEFORE and AFTER must be two files or two folders", f"{before} and {after}", "give both alike"
        )
    if not before.is_dir():
        if reference is not None and not reference.is_file():
            raise OptionInvalid("two pictures need one reference, a file that exists", reference, "name that picture")
        return [(before, after, reference)]
    if reference is not None and not reference.is_dir():
        raise OptionInvalid("two folders need a folder of references", reference, "give one, or compare two pictures")
    paths = common.find_inputs([str(before)])
    names = Counter(path.name for path in paths)
    pairs = []
    for path in paths:
        inside = path.relative_to(before)
        is_unique = names[path.name] == 1
        counterpart = partner(inside, after, is_unique=is_unique)
        if counterpart is None:
            common.complain("restore-bridge", f"{inside} has no partner in {after}; left out")
            continue
        pairs.append((path, counterpart, partner(inside, reference, is_unique=is_unique) if reference else None))
    if not pairs:
        raise OptionInvalid("the folders share no picture", f"{before} and {after}", "give pictures the same names")
    return pairs


def _csv_lines(row: Mapping[str, Any]) -> list[Sequence[Any]]:
    names = [row["before"], row["after"], row["reference"]]
    if row["error"]:
        return [[*names, *[None] * (len(_COLUMNS) - 4), f"{row['error']['code']}: {row['error']['message']}"]]
    return [
        [
            *names,
            item["metric"],
            item["version"],
            item["kind"],
            item["direction"],
            *item["range"],
            item["is_range_rough"],
            item["before"],
            item["after"],
            _change(item),
            "; ".join(note["message"] for note in [*row["notes"], *item["notes"]]),
            None,
        ]
        for item in row["scores"]
    ]


def _write_csv(lines: Iterable[Sequence[Any]]) -> None:
    """Lines of CSV on stdout; a text that a spreadsheet would take for a formula gets a `'`."""

    def cell(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value

    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([[cell(value) for value in line] for line in lines])
    sys.stdout.write(buffer.getvalue())
    sys.stdout.flush()


def _change(item: Mapping[str, Any]) -> float | None:
    return None if item["before"] is None or item["after"] is None else round(item["after"] - item["before"], 5)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoomiqa.text import plain

    table = Table()
    for heading in ("picture", "metric", "by", "better", "range", "kind", "before", "after", "change"):
        table.add_column(heading)
    for row in rows:
        name = plain(Path(row["after"]).name)
        if row["error"]:
            table.add_row(name, plain(f"{row['error']['code']}: {row['error']['message']}"))
        for item in row["scores"]:
            table.add_row(name, *_cells(item))
            name = ""
    if len(rows) > 1:
        table.add_section()
        for item, count in _means(rows):
            table.add_row(f"mean of {count}", *_cells(item))
    Console().print(table)


def _means(rows: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Each metric's mean over the pictures that have it on every side that it is taken of, and their number."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        for item in row["scores"]:
            if item["after"] is not None:
                found.setdefault((item["metric"], item["kind"]), []).append(item)
    means = []
    for items in found.values():
        both = [item for item in items if item["before"] is not None] or items
        mean = {side: _mean([item[side] for item in both]) for side in ("before", "after")}
        means.append(({**both[0], **mean}, len(both)))
    return means


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    """A score in words: metric, by whom, which way is better, range, kind, before, after, change."""
    low, high = ("" if end is None else f"{end:g}" for end in item["range"])
    about = "about " if item["is_range_rough"] else ""
    ends = f"{about}{low}..{high}" if low or high else "-"
    figures = ("-" if value is None else f"{value:.3f}" for value in (item["before"], item["after"]))
    change = _change(item)
    return (
        item["metric"],
        item["version"] or "-",
        item["direction"],
        ends,
        item["kind"],
        *figures,
        "-" if change is None else f"{change:+.3f}",
    )
