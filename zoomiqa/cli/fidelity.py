"""`zoomiqa fidelity`: compare what texts state with what their pictures measure."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoomiqa.cli import common

_EXAMPLES = """
examples:
  zoomiqa fidelity results/records.jsonl --image-root data/
  zoomiqa fidelity assessments.jsonl --json | jq .stated_supported.share
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "fidelity",
        help="compare stated flaws with measured ones",
        description="Compare the flaws that texts state with those that their pictures measure. No judge is needed.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("records", type=Path, metavar="RECORDS", help="record file of assess or evaluate")
    parser.add_argument(
        "--image-root", type=Path, metavar="DIR", help="where the pictures are (default: where they were)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    common.add_progress_option(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=fidelity)


def fidelity(arguments: argparse.Namespace) -> int:
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.evaluation.fidelity import CIRCULAR_NOTE, compare, is_circular, summarize
    from zoomiqa.evaluation.reading import check_record
    from zoomiqa.evaluation.subjects import find_picture, open_subject
    from zoomiqa.records import latest, read_records

    options = common.open_options_from(arguments)
    records = latest(read_records(arguments.records))
    for record in records:
        check_record(record)
    comparisons, without_text = [], 0
    with common.Progress(arguments.progress, len(records)) as progress:
        for record in records:
            image, error = record["image"] or {}, record["error"]
            try:
                if error is None:
                    picture = open_subject(image, find_picture(record, arguments.image_root), options)
                    comparison = compare(record, picture)
                    if comparison is None:
                        without_text += 1
                    else:
                        comparisons.append(comparison)
            except ZoomIQAError as problem:
                error = problem.to_dict()
            progress.step(str(image.get("path")), error)
    summary = {
        "records": len(records),
        "compared": len(comparisons),
        "without_text": without_text,
        "failures": dict(sorted(progress.failures.items())),
        "note": CIRCULAR_NOTE if any(map(is_circular, records)) else None,
        **summarize(comparisons),
    }
    if arguments.json:
        common.print_json(summary)
    else:
        print(_table(summary), end="")
    common.complain("zoomiqa", progress.summary())
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


def _table(summary: Mapping[str, Any]) -> str:
    from zoomiqa.evaluation.report import grid

    compared, without, failed = (summary[key] for key in ("compared", "without_text", "failures"))
    lost = ", ".join(f"{code} x{count}" for code, count in failed.items())
    parts = [
        f"{compared} pictures compared, {without} records without text, {sum(failed.values())} failed"
        + (f" ({lost})." if lost else ".")
    ]
    if summary["note"]:
        parts.append(f"Note: {summary['note']}")
    entries = {"all": summary, **summary["flaws"]}
    rows = [
        (name, *_cells(entry["stated_supported"]), str(entry["stated_untold"]), *_cells(entry["measured_mentioned"]))
        for name, entry in entries.items()
    ]
    head = ("flaw", "stated", "borne out", "[95 %]", "untold", "strongly measured", "stated", "[95 %]")
    parts.append(grid(head, rows))
    parts.append(
        "borne out: of the flaws that a text states, those that measurement finds, at limits under which clean"
        " photographs stay; untold: stated beside a measured flaw that hides it, and in no share."
    )
    return "\n\n".join(parts) + "\n"


def _cells(share: Mapping[str, Any]) -> tuple[str, str, str]:
    if not share["of"]:
        return "0", "–", ""
    low, high = share["interval_95"]
    return str(share["of"]), f"{share['share']:.0%}", f"[{low:.0%}, {high:.0%}]"
