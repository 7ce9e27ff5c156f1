"""The commands of the recipe: prepare, train, export, and `all` of them. It must not hold any of their work."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoomiqa.cli import common
from zoomiqa.errors import WeightsUnsuitable

from ..files import command_line  # noqa: TID252 - in a wheel it is zoomiqa.training
from ..photos import EVEN, ODD, clean_photos  # noqa: TID252
from ..scored import FOLDS, folds_of, read_scenes, read_scored, write_scenes  # noqa: TID252
from . import cache, card, corpus, export, learning, measure
from .backbone import load_backbone
from .network import RatingNetwork, Upper
from .scenes import scenes_of

PROG = "rating"
WEIGHTS, REPORT, SCENES = "upper.pt", "report.json", "scenes.json"
SHORT = learning.Settings(pretraining_steps=2, epochs=2, batch=4, chains=3)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(words)
    arguments.made_by = command_line(__package__, words)
    return common.run(fit, arguments, PROG)


def fit(arguments: argparse.Namespace) -> int:
    """Do the steps that are asked for."""
    cache.quiet()
    settings = SHORT if arguments.short else learning.Settings()
    settings = replace(settings, seed=arguments.seed, epochs=arguments.epochs or settings.epochs)
    steps = ("prepare", "train", "export") if arguments.step == "all" else (arguments.step,)
    work = _Work(arguments, settings)
    for step in steps:
        started = time.monotonic()
        getattr(work, step)()
        print(f"{step}: {time.monotonic() - started:.0f} s", flush=True)
    return common.EXIT_OK


class _Work:
    def __init__(self, arguments: argparse.Namespace, settings: learning.Settings) -> None:
        self.folder: Path = arguments.work
        self.out: Path = arguments.out
        self.settings, self.seed, self.folds = settings, int(arguments.seed), int(arguments.folds)
        self.backbone = load_backbone(arguments.backbone)
        self.scored = read_scored(arguments.annotations, arguments.image_root, arguments.limit)
        clean, unseen = (clean_photos(arguments.photos, half) for half in (ODD, EVEN))
        if arguments.limit:
            clean = clean[: max(1, arguments.limit // 20)]
        self.unseen = unseen[:: max(1, len(unseen) // arguments.unseen)][: arguments.unseen]
        self.unseen_invented = int(arguments.unseen_invented)
        self.made_by: str = arguments.made_by
        self.subsets = [photo.subset for photo in self.scored]
        # Folds without scenes: nothing was looked at yet, and a chain is trained on only where its source is.
        sources = np.flatnonzero(folds_of(self.subsets, self.seed) != 0)
        self.chains = corpus.plan_chains(self.scored, sources, clean, self.seed, invented=arguments.invented)

    def prepare(self) -> dict[str, learning.Pictures]:
        """Open every picture once; nothing where that was done."""
        trunk = cache.fast_trunk(RatingNetwork(self.backbone).eval().trunk)
        views, crops = cache.cache_scored(trunk, self.scored, self.folder, self.seed)
        links = cache.cache_chains(trunk, self.chains, self.folder)
        both = cache.cache_measured(
            lambda number: corpus.looks_of(self.scored[number], number, self.seed),
            *(len(self.scored), 2, self.folder, "photos", cache.identity_of(self.scored, self.seed)),
        )
        of_links = cache.cache_measured(
            lambda number: corpus.render(self.chains[number]),
            *(len(self.chains), corpus.LINKS, self.folder, "links", [chain.identity for chain in self.chains]),
        )
        measured = {"views": both[:, 0], "crops": both[:, 1], "chains": of_links.reshape(-1, of_links.shape[2])}
        upper, maps = Upper(self.backbone), {"views": views, "crops": crops, "chains": links}
        pictures = {
            name: learning.Pictures(cache.cache_features(upper, maps[name], self.folder, name), measured[name])
            for name in maps
        }
        write_scenes(self.folder / SCENES, self.scored, scenes_of(pictures["views"].features))
        return pictures

    def train(self) -> None:
        """Train on all photos, then with each fold held back for spread and report; keep weights and report.

        What was trained before with the same settings on the same pictures is not trained again.
        """
        pictures = self.prepare()
        torch.manual_seed(self.seed)
        start = Upper(self.backbone)
        learning.fit_scale(start.heads, pictures["views"], pictures["crops"])
        views, crops, links = (learning.describe(start.heads, pictures[name]) for name in ("views", "crops", "chains"))
        material = learning.Material(self.scored, views, crops, self.chains, links)
        scenes = read_scenes(self.folder / SCENES, self.scored)
        fold = folds_of(self.subsets, self.seed, FOLDS, scenes)

        def fitted(name: str, rows: NDArray[np.int64]) -> Upper:
            upper, path = Upper(self.backbone), self.folder / f"{name}.{self._identity()}.pt"
            upper.load_state_dict(torch.load(path, weights_only=True) if path.exists() else start.state_dict())
            if path.exists():
                return upper.eval()
            print(f"training: {name}", flush=True)
            upper = learning.train(upper, material, rows, self.settings)
            torch.save(upper.state_dict(), path)
            return upper

        final = fitted("final", np.arange(len(self.scored)))
        held: dict[int, measure.Held] = {}
        for number in range(self.folds):
            upper, rows = fitted(f"fold-{number}", np.flatnonzero(fold != number)), np.flatnonzero(fold == number)
            held[number] = measure.Held(rows, learning.look(upper, views, rows), learning.look(upper, crops, rows))
        report: dict[str, Any] = {"settings": learning.described(self.settings), "photos": len(self.scored)}
        made = [chain.operation for chain in self.chains]
        report |= {"chains": len(made), "invented": made.count(corpus.INVENTION), "folds": self.folds}
        learning.fit_spread(final.heads, *measure.errors(held.values(), material.scores))
        parts = {"validation": [held[0]], "out_of_fold": list(held.values())}
        for name, part in parts.items():
            report[name] = measure.agreement(final.heads, part, material)
            print(f"{name}: {measure.line(report[name])}", flush=True)
        torch.save(final.state_dict(), self.folder / WEIGHTS)
        (self.folder / REPORT).write_text(json.dumps(report, indent=1), "utf-8")

    def _identity(self) -> str:
        known = [learning.described(self.settings), cache.identity_of(self.scored, self.seed)]
        known.append([(photo.score, photo.subset) for photo in self.scored])
        known.append([(chain.identity, chain.source, chain.share) for chain in self.chains])
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]

    def export(self) -> None:
        """Write the ONNX file, check it against the trained network, and write its card."""
        network = RatingNetwork(self.backbone)
        network.upper.load_state_dict(torch.load(self.folder / WEIGHTS, weights_only=True))
        export.export(network, self.out)
        worst = export.difference(network, self.out, self._some())
        print(f"exported network differs from the trained one by at most {worst:.4f}", flush=True)
        if worst > export.ALLOWED:
            raise WeightsUnsuitable(
                "the exported network is not the trained one", f"{worst:.4f}", f"up to {export.ALLOWED} is rounding"
            )
        report = json.loads((self.folder / REPORT).read_text("utf-8"))
        report["known_changes"] = measure.known_changes(self.out, self.unseen, self.unseen_invented)
        print(json.dumps(report["known_changes"], indent=1), flush=True)
        self.out.with_suffix(".json").write_text(card.card(self.out, report, worst, self.made_by), "utf-8")

    def _some(self) -> list[corpus.PixelArray]:
        return [corpus.open_scored(photo.path) for photo in self.scored[:: max(1, len(self.scored) // 8)]]


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(
        prog=f"python -m {__package__}", description="Train, export and describe the compact rating network."
    )
    parser.add_argument("step", choices=("prepare", "train", "export", "all"))
    parser.add_argument("--annotations", type=Path, required=True, help="scores, as `zoomiqa.evaluation` reads them")
    parser.add_argument("--image-root", type=Path, required=True, help="folder that the annotations' paths start from")
    parser.add_argument("--photos", type=Path, required=True, help="folder with Kodak24 and BSDS500")
    parser.add_argument("--work", type=Path, required=True, help="folder for cached maps and the trained weights")
    parser.add_argument("--out", type=Path, required=True, help="the ONNX file; its card is written beside it")
    parser.add_argument("--backbone", type=Path, help="ImageNet weights; those of the installed package by default")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the chains and the training (default: 0)")
    parser.add_argument("--epochs", type=int, help=f"default: {learning.Settings().epochs}")
    parser.add_argument(
        "--folds",
        type=int,
        choices=range(1, FOLDS + 1),
        default=FOLDS,
        help=f"of {FOLDS} folds, how many are held back in turn before the last training (default: all)",
    )
    parser.add_argument("--invented", type=int, default=0, help="chains made by Real-ESRGAN, slow (default: none)")
    parser.add_argument("--unseen", type=int, default=48, help="photos for the report on known changes (default: 48)")
    parser.add_argument(
        "--unseen-invented", type=int, default=0, help="of how many of these Real-ESRGAN's version is rated, slow"
    )
    parser.add_argument("--limit", type=int, default=0, help="use only this many scored photos")
    parser.add_argument("--short", action="store_true", help="a few steps, to see that all parts fit together")
    return parser
