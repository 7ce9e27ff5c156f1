"""The command: scored photos in; the weights file and its card out. It must not hold any of the steps' work."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from . import export, table
from .card import card
from .changes import known_changes
from .looks import Books
from .measure import LOOKS, cross_validate
from .members import fit_members, fit_spread

FEWEST_PHOTOS = 20
COMPARED = 100
"""Rows whose rating by the weights file is compared with that by the fitted members."""

SUFFIXES = (".png", ".jpg")


def build_parser() -> argparse.ArgumentParser:
    """The command's grammar."""
    parser = argparse.ArgumentParser(
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
    parser.add_argument("--copies", type=float, default=0.4, help="changed copies, as a share of the photos")
    parser.add_argument("--copy-weight", type=float, default=0.5, help="of a copy beside a photo's 1 (default: 0.5)")
    parser.add_argument("--cache", type=Path, help="keep the features here between runs (same data and code only)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = build_parser().parse_args(argv)
    cv2.setNumThreads(1)
    started = time.monotonic()
    records = read_records(options.annotations, options.limit)
    whole, books = _features(records, options)
    copies = len(whole) - len(records)
    print(f"features of {len(records)} photos and {copies} copies after {_since(started)}", flush=True)
    rows = table.weighted(whole, options.copy_weight)
    report, worst = _fit(rows, books, options)
    settings = {
        "photos": len(records),
        "copies": len(rows) - len(records),
        "copy_weight": options.copy_weight,
        "seed": options.seed,
    }
    measured = {
        "cross_validation": report,
        "export_difference": worst,
        "known_changes": _known_changes(books, options),
    }
    options.out.with_suffix(".json").write_text(card(options.out, settings, measured), encoding="utf-8")
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.2f} MB) after {_since(started)}", flush=True)
    return 0


def read_records(annotations: Path, limit: int) -> list[dict[str, Any]]:
    """The scored photos, or `limit` of them that are spread over the list.

    Raises:
        SystemExit: there are too few to fit anything.
    """
    records: list[dict[str, Any]] = json.loads(annotations.read_text(encoding="utf-8"))
    if limit and limit < len(records):
        records = [records[row] for row in _spread_over(len(records), limit)]
    if len(records) < FEWEST_PHOTOS:
        raise SystemExit(f"at least {FEWEST_PHOTOS} scored photos are needed")
    return records


def _features(records: list[dict[str, Any]], options: argparse.Namespace) -> tuple[table.Table, Books]:
    cache = options.cache.with_suffix(".npz") if options.cache else None
    if cache and cache.exists():
        return table.kept(cache)
    found = table.gather(records, options.image_root, options.seed, options.copies, options.jobs)
    if cache:
        table.keep(cache, *found)
    return found


def _fit(rows: table.Table, books: Books, options: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Cross-validate, then fit on all rows, write the file and compare it; the figures and the difference."""
    report, held_out = cross_validate(rows, range(options.seed, options.seed + options.repeats))
    scores = rows.score[table.originals(rows)]
    first, second = (fit_spread(held_out[f"inputs_{look}"], np.abs(held_out[look] - scores)) for look in LOOKS)
    fitted = fit_members(rows, options.seed)
    export.export(options.out, fitted, (first, second), books)
    some = rows.rows(_spread_over(len(rows), min(COMPARED, len(rows))))
    worst = export.difference(options.out, fitted, some)
    print(f"exported predictor differs from the fitted members by at most {worst:.2e}", flush=True)
    if worst > export.ALLOWED:
        raise SystemExit("the exported predictor is not the fitted one")
    return report, worst


def _known_changes(books: Books, options: argparse.Namespace) -> dict[str, Any]:
    photos = [
        path
        for folder in options.clean_photos
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[: options.clean_limit]
    ]
    if not photos:
        return {}
    cache = options.cache.with_name(f"{options.cache.stem}_order.npz") if options.cache else None
    found = known_changes(options.out, photos, books, options.jobs, cache)
    print(json.dumps(found, indent=1), flush=True)
    return found


def _spread_over(length: int, count: int) -> table.Indices:
    return np.linspace(0, length - 1, count).astype(np.intp)


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.0f} s"
