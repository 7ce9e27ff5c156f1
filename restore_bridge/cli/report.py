"""`restore-bridge report`: the HTML page of a run, from its records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoomiqa.cli import common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="write the HTML report of a run",
        description="Write one self-contained HTML page from the records of a run.",
    )
    parser.add_argument("records", type=Path, metavar="RECORDS", help="records.jsonl of a run, or its folder")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="the page (default: report.html beside the records)"
    )
    parser.add_argument("--title", help="heading of the page")
    parser.set_defaults(command=report)


def report(arguments: argparse.Namespace) -> int:
    records = arguments.records / "records.jsonl" if arguments.records.is_dir() else arguments.records
    common.print_path(report_from_records(records, arguments.out or records.with_name("report.html"), arguments.title))
    return common.EXIT_OK


def report_from_records(records: Path, out: Path, title: str | None = None) -> Path:
    """Write the report of a record file; returns its path."""
    from restore_bridge.report import TITLE, write_report
    from zoomiqa.errors import OptionInvalid
    from zoomiqa.records import latest, read_records

    if not records.is_file():
        raise OptionInvalid("there is no record file", records, "give records.jsonl of a run, or its folder")
    try:
        lines = latest(read_records(records))
    except OSError as error:
        raise OptionInvalid("the record file cannot be read", records, error.strerror or "check the path") from error
    return write_report(lines, out, records_folder=records.parent, title=title or TITLE)
