"""The command: scored photos in; the weights file and its card out. It must not hold any of the steps' work."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from zoomiqa.cli import common
from zoomiqa.errors import OptionInvalid, WeightsUnsuitable

from ...runs import claim, files_digest  # noqa: TID252 - in a wheel it is zoomiqa.training
from ..files import command_line  # noqa: TID252
from ..scored import Scored, read_scenes, read_scored, spread_over  # noqa: TID252
from . import export, table
from .card import card
from .changes import known_changes
from .looks import Books
from .measure import LOOKS, cross_validate
from .members import fit_members, fit_spread

PROG = "signals"
FEWEST_PHOTOS = 20
COMPARED = 100
"""Rows whose rating by the weights file is compared with that by the fitted members."""

SUFFIXES = (".png", ".jpg")
TABLE, ORDER = "table.npz", "order.npz"
"""In the cache: features of scored photos and of their copies; of clean photographs."""


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(
        prog=f"python -m {__package__}", description="Fit, cross-validate and export the compact rating."
    )
    parser.add_argument("annotations", type=Path, help="scores, as `zoomiqa.evaluation` reads them")
    parser.add_argument("--image-root", type=Path, required=True, help="folder that the annotations' paths start from")
    parser.add_argument("--out", type=Path, required=True, help="the weights file; its card is written beside it")
    parser.add_argument("--seed", type=int, default=0, help="of copies, folds and trees (default: 0)")
    parser.add_argument("--limit", type=int, default=0, help="use only this many photos, spread over the list")
    parser.add_argument("--clean-photos", type=Path, nargs="*", default=[], help="folders for the ordering report")
    parser.add_argument("--clean-limit", type=int, default=40, help="photos taken from each such folder (default: 40)")
    parser.add_argument("--jobs", type=int, default=2, help="processes that open pictures (default: 2)")
    parser.add_argument("--repeats", type=int, default=1, help="repeats of the folds (default: 1)")
    parser.add_argument(
        "--scenes", type=Path, metavar="FILE", help="scenes.json of `rating prepare`: photos of one scene share a fold"
    )
    parser.add_argument("--copies", type=float, default=0.4, help="changed copies, as a share of the photos")
    parser.add_argument("--copy-weight", type=float, default=0.5, help="of a copy beside a photo's 1 (default: 0.5)")
    parser.add_argument(
        "--cache", type=Path, help="folder that keeps the features between runs (of the same code only)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    options = build_parser().parse_args(words)
    options.made_by = command_line(__package__, words)
    return common.run(fit, options, PROG)


def fit(options: argparse.Namespace) -> int:
    """Gather, fit, measure and write.

    Raises:
        OptionInvalid: there are too few photos to fit anything.
        RecordSettingsChanged: the cache is of other photos or settings.
    """
    cv2.setNumThreads(1)
    started = time.monotonic()
    scored = read_scored(options.annotations, options.image_root, options.limit)
    if len(scored) < FEWEST_PHOTOS:
        raise OptionInvalid("there are too few scored photos to fit anything", len(scored), f"give {FEWEST_PHOTOS}")
    scenes = read_scenes(options.scenes, scored) if options.scenes else None
    clean = _clean_photos(options)
    if options.cache:
        claim(options.cache, _identity(scored, clean, options), resume=True, overwrite=False)
    whole, books = _features(scored, options)
    copies = len(whole) - len(scored)
    print(f"features of {len(scored)} photos and {copies} copies after {_since(started)}", flush=True)
    rows = table.weighted(whole, options.copy_weight)
    report, worst = _fit(rows, books, scenes, options)
    settings = {
        "made_by": options.made_by,
        "photos": len(scored),
        "copies": len(rows) - len(scored),
        "copy_weight": options.copy_weight,
        "seed": options.seed,
    }
    measured = {
        "cross_validation": report,
        "export_difference": worst,
        "known_changes": _known_changes(books, clean, options),
    }
    options.out.with_suffix(".json").write_text(card(options.out, settings, measured), encoding="utf-8")
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.2f} MB) after {_since(started)}", flush=True)
    return common.EXIT_OK


def _identity(scored: Sequence[Scored], clean: Sequence[Path], options: argparse.Namespace) -> dict[str, Any]:
    """What the cached features depend on."""
    known = repr([(photo.digest, photo.score, photo.subset) for photo in scored])
    return {
        "scored": hashlib.sha256(known.encode()).hexdigest(),
        "clean_photos": files_digest(clean),
        "seed": options.seed,
        "copies": options.copies,
    }


def _features(scored: Sequence[Scored], options: argparse.Namespace) -> tuple[table.Table, Books]:
    cache = options.cache / TABLE if options.cache else None
    if cache and cache.exists():
        return table.kept(cache)
    found = table.gather(scored, options.seed, options.copies, options.jobs)
    if cache:
        table.keep(cache, *found)
    return found


def _fit(
    rows: table.Table, books: Books, scenes: table.Indices | None, options: argparse.Namespace
) -> tuple[dict[str, Any], float]:
    """Cross-validate, then fit on all rows, write the file and compare it; the figures and the difference."""
    report, held_out = cross_validate(rows, range(options.seed, options.seed + options.repeats), scenes)
    scores = rows.score[table.originals(rows)]
    first, second = (fit_spread(held_out[f"inputs_{look}"], np.abs(held_out[look] - scores)) for look in LOOKS)
    fitted = fit_members(rows, options.seed)
    export.export(options.out, fitted, (first, second), books)
    some = rows.rows(spread_over(len(rows), min(COMPARED, len(rows))))
    worst = export.difference(options.out, fitted, some)
    print(f"exported predictor differs from the fitted members by at most {worst:.2e}", flush=True)
    if worst > export.ALLOWED:
        raise WeightsUnsuitable(
            "the exported predictor is not the fitted one", f"{worst:.2e}", f"up to {export.ALLOWED} is rounding"
        )
    return report, worst


def _clean_photos(options: argparse.Namespace) -> list[Path]:
    return [
        path
        for folder in options.clean_photos
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[: options.clean_limit]
    ]


def _known_changes(books: Books, photos: Sequence[Path], options: argparse.Namespace) -> dict[str, Any]:
    if not photos:
        return {}
    found = known_changes(options.out, photos, books, options.jobs, options.cache / ORDER if options.cache else None)
    print(json.dumps(found, indent=1), flush=True)
    return found


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.0f} s"
