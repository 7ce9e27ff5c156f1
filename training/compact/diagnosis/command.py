"""The command: photographs in; weights, coefficients and a card out. It must not know how any of them is made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoomiqa.cli import common
from zoomiqa.errors import ExtraMissing, OptionInvalid

from ..files import command_line  # noqa: TID252 - in a wheel it is zoomiqa.training
from ..photos import FIT, clean_photos  # noqa: TID252
from . import card, exposure, light, places, tones
from .pictures import camera, more, opened

PROG = "diagnosis"
LIGHT, EXPOSURE, TONES = "color_light.npz", "exposure.npz", "tones.npz"


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(prog=f"python -m {__package__}", description="Fit the compact diagnosis.")
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True, parser_class=common.Parser)
    for name, what in (
        ("light", "train the networks for the colour of the light"),
        ("exposure", "train the networks for stops of light"),
        ("tones", "train the networks for light and stops by what a picture shows; after both others"),
        ("places", "fit and print what makes an unsharp place a flaw"),
        ("card", "measure what was made and write its card"),
    ):
        task = tasks.add_parser(name, help=what)
        task.add_argument("--photos", type=Path, required=True, help="folder of Kodak24 and BSDS500; odd ones are used")
        task.add_argument("--more", type=Path, required=True, help="images of BIQ2021's training part")
        if name != "places":
            task.add_argument("--out", type=Path, required=True, help="folder for what is made")
        task.add_argument("--short", action="store_true", help="a few samples, to see that all parts fit together")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one task; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    options = build_parser().parse_args(words)
    options.made_by = command_line(__package__, words)
    return common.run(fit, options, PROG)


def fit(options: argparse.Namespace) -> int:
    """Do the task that is asked for.

    Raises:
        OptionInvalid: the folders hold no such pictures.
    """
    few = 12 if options.short else None
    clean, others = clean_photos(options.photos, FIT)[:few], more(options.more, few)
    if not clean or not others:
        raise OptionInvalid(
            "there are no pictures to fit on", f"{len(clean)} photographs, {len(others)} others", "check the folders"
        )
    if options.task == "places":
        places.report(clean, others)
        return common.EXIT_OK
    options.out.mkdir(parents=True, exist_ok=True)
    if options.task == "card":
        card.write(options.out, clean, others, camera(options.more, few), options.made_by)
        return common.EXIT_OK
    if options.task == "tones":
        tones.fit(_torch(), (clean, others), options.out / TONES, is_short=options.short)
        tones.write_card(options.out / TONES, clean, others, options.made_by)
        return common.EXIT_OK
    make, side, name = (
        (light.fit, light.SIDE_PX, LIGHT) if options.task == "light" else (exposure.fit, exposure.SIDE_PX, EXPOSURE)
    )
    make(_torch(), (opened(clean, side), opened(others, side)), options.out / name, is_short=options.short)
    return common.EXIT_OK


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ExtraMissing("training needs PyTorch", error.name, 'pip install "zoomiqa[train]"') from error
    torch.set_num_threads(1)
    return torch
