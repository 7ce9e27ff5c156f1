"""The command: photographs in; weights, coefficients and a card out. It must not know how any of them is made."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import card, exposure, light, places, tones
from .photos import FIT, more, opened, photos, unseen

LIGHT, EXPOSURE, TONES = "color_light.npz", "exposure.npz", "tones.npz"


def build_parser() -> argparse.ArgumentParser:
    """The command's grammar."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description="Fit the compact diagnosis.")
    tasks = parser.add_subparsers(dest="task", required=True)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one task."""
    options = build_parser().parse_args(arguments)
    few = 12 if options.short else None
    clean, others = photos(options.photos, FIT)[:few], more(options.more, few)
    if options.task == "places":
        places.report(clean, others)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    if options.task == "card":
        card.write(options.out, clean, others, unseen(options.more, few))
        return 0
    if options.task == "tones":
        tones.fit(_torch(), (clean, others), options.out / TONES, is_short=options.short)
        tones.write_card(options.out / TONES, clean, others)
        return 0
    fit, side, name = (
        (light.fit, light.SIDE_PX, LIGHT) if options.task == "light" else (exposure.fit, exposure.SIDE_PX, EXPOSURE)
    )
    fit(_torch(), (opened(clean, side), opened(others, side)), options.out / name, is_short=options.short)
    return 0


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise SystemExit("training needs PyTorch: pip install torch") from error
    torch.set_num_threads(1)
    return torch
