"""`restore-bridge score`: before against after, for two files or two folders."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from zoomiqa.cli import common

_EXAMPLES = """
examples:
  restore-bridge score before.jpg after.jpg
  restore-bridge score degraded/ restored/ --reference pristine/ --format json
  restore-bridge score --list
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "score",
        help="score pictures before and after",
        epilog=_EXAMPLES,
        description="Score pictures before and after: rating, agreement with the input, full-reference metrics.",
    )
    parser.add_argument("before", nargs="?", type=Path, metavar="BEFORE", help="a picture, or a folder of pictures")
    parser.add_argument(
        "after", nargs="?", type=Path, metavar="AFTER", help="a picture, or a folder with the same names"
    )
    parser.add_argument("--reference", type=Path, metavar="PATH", help="the pristine picture, or a folder of them")
    parser.add_argument("--metrics", metavar="NAMES", help="comma-separated metrics (default: the basic ones)")
    parser.add_argument("--assessor", default="compact", help="who rates both (default: compact)")
    parser.add_argument(
        "--format",
        choices=("auto", "json", "text"),
        default="auto",
        help="auto: a table on a terminal, JSON Lines elsewhere",
    )
    parser.add_argument("--list", action="store_true", help="list the metrics with direction and range")
    common.add_limit_options(parser)
    parser.set_defaults(command=score)


def score(arguments: argparse.Namespace) -> int:
    from restore_bridge.comparison import compare
    from restore_bridge.scoring import load_metric, metric_names
    from zoomiqa.assessors import create_assessor
    from zoomiqa.errors import OptionInvalid, ZoomIQAError
    from zoomiqa.imaging import open_picture

    if arguments.list:
        common.print_json([load_metric(name).to_dict() for name in metric_names()])
        return common.EXIT_OK
    if arguments.before is None or arguments.after is None:
        raise OptionInvalid("two pictures or two folders are needed", None, "give BEFORE and AFTER")
    limits = common.limits_from(arguments)
    open_one = partial(open_picture, limits=limits, allow_truncated=arguments.allow_truncated)
    assessor = create_assessor(arguments.assessor)
    names = tuple(arguments.metrics.split(",")) if arguments.metrics else None
    failed = False
    rows: list[dict[str, Any]] = []
    for before, after, reference in _pairs(arguments):
        try:
            pristine = None if reference is None else open_one(reference)
            scores = compare(
                open_one(before),
                open_one(after),
                reference=pristine,
                assessor=assessor,
                metrics=names,
            )
        except ZoomIQAError as error:
            failed = True
            rows.append({"before": str(before), "after": str(after), "scores": [], "error": error.to_dict()})
        else:
            rows.append(
                {
                    "before": str(before),
                    "after": str(after),
                    "scores": [item.to_dict() for item in scores],
                    "error": None,
                }
            )
        if not _as_text(arguments):
            common.write_line(rows[-1])
    if _as_text(arguments):
        _print_table(rows)
    return common.EXIT_SOME_FAILED if failed else common.EXIT_OK


def _as_text(arguments: argparse.Namespace) -> bool:
    return arguments.format == "text" or (arguments.format == "auto" and sys.stdout.isatty())


def _pairs(arguments: argparse.Namespace) -> list[tuple[Path, Path, Path | None]]:
    """Files that belong together: by name, or by stem where only the formats differ."""
    from zoomiqa.errors import OptionInvalid

    before, after, reference = arguments.before, arguments.after, arguments.reference
    if before.is_dir() != after.is_dir():
        raise OptionInvalid(
            "BEFORE and AFTER must be two files or two folders", f"{before} and {after}", "give both alike"
        )
    if not before.is_dir():
        return [(before, after, reference)]
    pairs = []
    for path in common.find_inputs([str(before)]):
        partner = _partner(path, after)
        if partner is None:
            common.complain("restore-bridge", f"{path.name} has no partner in {after}; left out")
            continue
        pairs.append((path, partner, _partner(path, reference) if reference else None))
    if not pairs:
        raise OptionInvalid("the folders share no picture", f"{before} and {after}", "give pictures the same names")
    return pairs


def _partner(path: Path, folder: Path) -> Path | None:
    if (exact := folder / path.name).exists():
        return exact
    from zoomiqa.imaging import SUFFIXES

    return next((found for found in sorted(folder.glob(f"{path.stem}.*")) if found.suffix.lower() in SUFFIXES), None)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoomiqa.text import plain

    table = Table()
    for heading in ("picture", "metric", "kind", "before", "after", "change"):
        table.add_column(heading)
    for row in rows:
        name = plain(Path(row["after"]).name)
        if row["error"]:
            table.add_row(name, plain(row["error"]["message"]))
        for item in row["scores"]:
            arrow = "higher is better" if item["direction"] == "higher" else "lower is better"
            values = ["-" if item[side] is None else f"{item[side]:.3f}" for side in ("before", "after")]
            both = item["before"] is not None and item["after"] is not None
            change = f"{item['after'] - item['before']:+.3f}" if both else "-"
            table.add_row(name, f"{item['metric']} ({arrow})", item["kind"], *values, change)
            name = ""
    Console().print(table)
