"""The commands of the recipe: prepare, train, export, and `all` of them. It must not hold any of their work."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from . import cache, card, corpus, export, learning, measure
from .backbone import load_backbone
from .network import RatingNetwork, Upper

REPORTED_EPOCHS = 4
WEIGHTS, REPORT = "upper.pt", "report.json"
SHORT = learning.Settings(pretraining_steps=2, epochs=2, batch=8, chains=3)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    cache.quiet()
    settings = SHORT if arguments.short else learning.Settings()
    settings = replace(settings, seed=arguments.seed, epochs=arguments.epochs or settings.epochs)
    steps = ("prepare", "train", "export") if arguments.step == "all" else (arguments.step,)
    work = _Work(arguments, settings)
    for step in steps:
        started = time.monotonic()
        getattr(work, step)()
        print(f"{step}: {time.monotonic() - started:.0f} s", flush=True)
    return 0


class _Work:
    def __init__(self, arguments: argparse.Namespace, settings: learning.Settings) -> None:
        self.folder: Path = arguments.work
        self.out: Path = arguments.out
        self.settings, self.seed = settings, int(arguments.seed)
        self.backbone = load_backbone(arguments.backbone)
        self.scored = corpus.read_scored(arguments.annotations, arguments.image_root, arguments.limit)
        fold = corpus.folds_of([photo.subset for photo in self.scored], self.seed)
        self.fit, self.validation = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
        clean, unseen = (corpus.clean_photos(arguments.photos, half) for half in (1, 0))
        if arguments.limit:
            clean = clean[: max(1, arguments.limit // 20)]
        self.unseen = unseen[:: max(1, len(unseen) // arguments.unseen)][: arguments.unseen]
        self.unseen_invented = min(arguments.invented, arguments.unseen)
        self.chains = corpus.plan_chains(self.scored, self.fit, clean, self.seed, invented=arguments.invented)

    def prepare(self) -> learning.Material:
        """Open every picture once; nothing where that was done."""
        trunk = cache.fast_trunk(RatingNetwork(self.backbone).eval().trunk)
        views, crops = cache.cache_scored(trunk, self.scored, self.folder, self.seed)
        links = cache.cache_chains(trunk, self.chains, self.folder)
        upper, named = Upper(self.backbone), {"views": views, "crops": crops, "chains": links}
        found = {name: cache.cache_features(upper, maps, self.folder, name) for name, maps in named.items()}
        return learning.Material(self.scored, found["views"], found["crops"], self.chains, found["chains"])

    def train(self) -> None:
        """Train, print the validation figures now and then, keep weights and report."""
        material, epochs = self.prepare(), []

        def after_epoch(number: int, upper: Upper, views: learning.Described, crops: learning.Described) -> None:
            if number % REPORTED_EPOCHS and number != self.settings.epochs:
                return
            figures = measure.on_validation(upper, material, views, crops, self.validation)
            print(f"  validation: {measure.line(figures)}", flush=True)
            epochs.append({"epoch": number, **figures})

        upper = learning.train(Upper(self.backbone), material, self.fit, self.settings, after_epoch)
        torch.save(upper.state_dict(), self.folder / WEIGHTS)
        report = {"settings": learning.described(self.settings), "epochs": epochs, "photos": len(self.scored)}
        report |= {"fit": len(self.fit), "validation": len(self.validation), "chains": len(self.chains)}
        (self.folder / REPORT).write_text(json.dumps(report, indent=1), "utf-8")

    def export(self) -> None:
        """Write the ONNX file, check it against the trained network, and write its card."""
        network = RatingNetwork(self.backbone)
        network.upper.load_state_dict(torch.load(self.folder / WEIGHTS, weights_only=True))
        export.export(network, self.out)
        worst = export.difference(network, self.out, self._some(self.validation))
        print(f"exported network differs from the trained one by at most {worst:.4f}", flush=True)
        if worst > export.ALLOWED:
            raise SystemExit("the exported network is not the trained one")
        report = json.loads((self.folder / REPORT).read_text("utf-8"))
        report["known_changes"] = measure.known_changes(self.out, self.unseen, self.unseen_invented)
        print(json.dumps(report["known_changes"], indent=1), flush=True)
        self.out.with_suffix(".json").write_text(card.card(self.out, report, worst), "utf-8")

    def _some(self, rows: NDArray[np.int64]) -> list[corpus.PixelArray]:
        return [corpus.open_scored(self.scored[int(row)].path) for row in rows[:: max(1, len(rows) // 8)]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.compact.rating", description=__doc__)
    parser.add_argument("step", choices=("prepare", "train", "export", "all"))
    parser.add_argument("--annotations", type=Path, required=True, help="scores, as `zoomiqa.evaluation` reads them")
    parser.add_argument("--image-root", type=Path, required=True, help="folder that the annotations' paths start from")
    parser.add_argument("--photos", type=Path, required=True, help="folder with Kodak24 and BSDS500")
    parser.add_argument("--work", type=Path, required=True, help="folder for cached maps and the trained weights")
    parser.add_argument("--out", type=Path, required=True, help="the ONNX file; its card is written beside it")
    parser.add_argument("--backbone", type=Path, help="ImageNet weights; those of the installed package by default")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the chains and the training (default: 0)")
    parser.add_argument("--epochs", type=int, help=f"default: {learning.Settings().epochs}")
    parser.add_argument("--invented", type=int, default=0, help="chains made by Real-ESRGAN, slow (default: none)")
    parser.add_argument("--unseen", type=int, default=48, help="photos for the report on known changes (default: 48)")
    parser.add_argument("--limit", type=int, default=0, help="use only this many scored photos")
    parser.add_argument("--short", action="store_true", help="a few steps, to see that all parts fit together")
    return parser
