"""`zoomiqa datasets`: annotation files out of the downloads of public data sets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from zoomiqa.cli import common

_EXAMPLES = """
examples:
  zoomiqa datasets list
  zoomiqa datasets prepare koniq-10k downloads/koniq10k --out annotations
  zoomiqa datasets prepare live-wild downloads/ChallengeDB_release --out annotations
  zoomiqa datasets prepare spaq downloads/SPAQ --labels SPAQ.txt.gz --out annotations --allow-partial
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "datasets",
        help="turn downloads of public data sets into annotation files",
        description="Turn the authors' downloads of public data sets into annotation files.",
        epilog=_EXAMPLES,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=common.Parser)
    listing = actions.add_parser("list", help="name the known data sets", description="Name the known data sets.")
    listing.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    listing.set_defaults(command=list_datasets)
    _add_prepare(actions)


def _add_prepare(actions: Any) -> None:
    parser = actions.add_parser(
        "prepare",
        help="write annotation files and a card for a download",
        description="Write NAME.json, one file for each published split, and NAME.card.json. Scores become ratings of "
        "1 to 5\nwith the smallest and largest label of the whole set; SRC is the image root of the files.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", help="see `zoomiqa datasets list`")
    parser.add_argument("source", type=Path, metavar="SRC", help="folder that the authors' archive unpacks to")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--labels",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="label file in place of the one in SRC, packed with gzip or not (repeatable)",
    )
    parser.add_argument(
        "--allow-partial", action="store_true", help="take a set that lacks labels or pictures, with a note"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier run")
    parser.set_defaults(command=prepare)


def list_datasets(arguments: argparse.Namespace) -> int:
    from zoomiqa.evaluation.datasets import DATASETS

    if arguments.json:
        common.print_json(
            [
                {
                    "name": spec.name,
                    "title": spec.title,
                    "pictures": spec.total,
                    "splits": dict(spec.splits),
                    "full_reference": spec.reference_name is not None,
                    "labels": [form.title for form in spec.forms],
                    "citation": spec.citation,
                    "licence": spec.licence,
                }
                for spec in DATASETS.values()
            ]
        )
        return common.EXIT_OK
    for spec in DATASETS.values():
        splits = ", ".join(f"{split} {count}" for split, count in spec.splits.items())
        print(f"{spec.name:<12} {spec.total:>6}  {spec.title}{f' ({splits})' if splits else ''}")
    return common.EXIT_OK


def prepare(arguments: argparse.Namespace) -> int:
    from zoomiqa.evaluation.datasets import find_dataset, prepare_dataset

    done = prepare_dataset(
        find_dataset(arguments.name),
        arguments.source,
        arguments.out,
        labels=arguments.labels,
        allow_partial=arguments.allow_partial,
        overwrite=arguments.overwrite,
    )
    card = done.card
    scale = card["scale"]
    print(
        f"{card['title']}: {card['counts']['written']} of {card['counts']['published']} pictures; labels "
        f"{scale['low']:g} to {scale['high']:g} ({scale['direction']}) became ratings of 1 to 5",
        file=sys.stderr,
    )
    for file in card["files"]:
        print(f"  {file['file']}: {file['count']}", file=sys.stderr)
    for note in card["notes"]:
        print(f"note: {common.one_line(note)}", file=sys.stderr)
    for path in done.files:
        common.print_path(path)
    return common.EXIT_OK
