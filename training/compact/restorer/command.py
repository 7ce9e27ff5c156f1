"""The command: photographs in; weights, networks and a model card out. It must not know how any of them is made."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zoomiqa.cli import common

from ..files import command_line  # noqa: TID252 - in a wheel it is zoomiqa.training
from .photos import RATED_SHRINK, TONE_RATING, TONE_SHRINK, Photo, load, rated, split

PROG = "restorer"

SKIMAGE = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")
"""Photographs that come with scikit-image."""

CLEAN_WEIGHT = 3
"""How often a photograph of the clean folder is drawn for one that is rated `TONE_RATING` or better."""


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(prog=f"python -m {__package__}", description="Train the guided compact restorer.")
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True, parser_class=common.Parser)
    for name, what in (
        ("detail", "fit the detail network (about 100 minutes of one core with AMX; can be resumed)"),
        ("tone", "fit the tone network (about 8 minutes of one core)"),
        ("export", "write detail.onnx, tone.onnx and the model card"),
    ):
        task = tasks.add_parser(name, help=what)
        task.add_argument("--run", type=Path, required=True, help="folder for the state of the run")
        task.add_argument("--photos", type=Path, required=True, help="folder of clean photographs; some are held back")
        task.add_argument("--rated", type=Path, help="a folder with annotations.json, whose best photographs are added")
        if name == "export":
            task.add_argument("--out", type=Path, required=True, help="folder for the networks and their card")
            task.add_argument("--figures", type=Path, help="rows of benchmarks/guided_restoration.py, for the card")
            continue
        task.add_argument("--steps", type=int, help="steps in all")
        task.add_argument("--short", action="store_true", help="two steps, to see that all parts fit together")
        if name == "detail":
            task.add_argument("--until", type=int, help="stop at this step; the rate is that of a run of all steps")
            task.add_argument("--start", type=Path, help="a detail.onnx to go on from, in place of random weights")
            task.add_argument("--rate", type=float, help="highest learning rate")
        task.add_argument("--seed", type=int, default=0)
        task.add_argument("--threads", type=int, default=1)
    return parser


def bundled() -> list[Path]:
    """The photographs of `SKIMAGE`."""
    import skimage.data

    folder = Path(os.fspath(skimage.data.__file__)).parent
    return [folder / name for name in SKIMAGE]


def gather(photos: Path, rated_folder: Path | None) -> list[Photo]:
    """Every photograph that detail is trained on."""
    found = load(split(photos, "train")) + load(bundled())
    return found + (load(rated(rated_folder), RATED_SHRINK) if rated_folder else [])


def gather_tones(photos: Path, rated_folder: Path | None) -> list[Photo]:
    """Every photograph that tone is trained on; of rated ones many more, as small flaws of detail do not count."""
    found = load(split(photos, "train")) * CLEAN_WEIGHT
    return found + (load(rated(rated_folder, TONE_RATING), TONE_SHRINK) if rated_folder else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one task; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    options = build_parser().parse_args(words)
    options.made_by = command_line(__package__, words)
    return common.run({"detail": _detail, "tone": _tone, "export": _export}[options.task], options, PROG)


def _detail(options: argparse.Namespace) -> int:
    import torch

    from .fit_detail import FitSettings, fit_detail
    from .pool import PoolSettings

    torch.set_num_threads(options.threads)
    settings = FitSettings(steps=2, pool=PoolSettings(cases=4, batch=2)) if options.short else FitSettings()
    settings = replace(
        settings,
        seed=options.seed,
        steps=options.steps or settings.steps,
        rate=options.rate or settings.rate,
    )
    found = gather(options.photos, options.rated)
    fit_detail(found, settings, options.run, start=options.start, report=_say, until=options.until)
    return common.EXIT_OK


def _tone(options: argparse.Namespace) -> int:
    import torch

    from .fit_tone import ToneSettings, fit_tone, save_tone

    torch.set_num_threads(options.threads)
    settings = ToneSettings(steps=2) if options.short else ToneSettings()
    settings = replace(settings, seed=options.seed, steps=options.steps or settings.steps)
    save_tone(fit_tone(gather_tones(options.photos, options.rated), settings, report=_say), settings, options.run)
    return common.EXIT_OK


def _export(options: argparse.Namespace) -> int:
    from .card import write_card
    from .export import export_all

    export_all(options.run, options.out)
    used = {"photos": load(split(options.photos, "train")), "bundled": load(bundled())}
    if options.rated:
        used["rated"] = load(rated(options.rated, TONE_RATING))
    rows = json.loads(options.figures.read_text(encoding="utf-8")) if options.figures else []
    write_card(options.run, options.out, used, options.photos, rows, options.made_by)
    return common.EXIT_OK


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
