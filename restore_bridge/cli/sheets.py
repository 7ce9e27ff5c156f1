"""`restore-bridge sheets`: before-and-after pictures of a run, and a plot of all its ratings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoomiqa.cli import common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "sheets",
        help="draw before-and-after sheets and a plot of a run",
        description="Draw a sheet of each photograph of a run, before and after, and ratings.png, a plot of all.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder of a run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the sheets (default: DIR/sheets)")
    common.add_limit_options(parser)
    parser.set_defaults(command=sheets)


def sheets(arguments: argparse.Namespace) -> int:
    from restore_bridge.cli.names import SHEETS, make_folder, output_names
    from restore_bridge.sheets import draw_sheet, plot_run
    from zoomiqa.errors import OptionInvalid, ZoomIQAError
    from zoomiqa.files import atomic_write_bytes
    from zoomiqa.imaging import open_picture, save_picture
    from zoomiqa.records import latest, read_records

    records_path = arguments.folder / "records.jsonl"
    if not records_path.is_file():
        raise OptionInvalid("there is no record file", records_path, "give the output folder of a run")
    limits = common.limits_from(arguments)
    records = latest(read_records(records_path))
    finished = {Path(record["image"]["path"]): record for record in records if not record["error"]}
    out = make_folder(arguments.out or arguments.folder / SHEETS)
    names = output_names(list(finished), "png")
    failures = 0
    for path, record in finished.items():
        kept = arguments.folder / record["output"]["path"]
        try:
            opened = [open_picture(file, limits=limits, allow_truncated=True) for file in (path, kept)]
            sheet = draw_sheet(opened[0], opened[1], record)
            save_picture(sheet, out / names[path], overwrite=True, protected=[path, kept])
        except ZoomIQAError as error:  # an original that was moved away
            failures += 1
            common.complain("restore-bridge", f"no sheet of {path}: {type(error).__name__}[{error.code}]: {error}")
    common.print_path(atomic_write_bytes(out / "ratings.png", plot_run(records)))
    return common.EXIT_SOME_FAILED if failures else common.EXIT_OK
