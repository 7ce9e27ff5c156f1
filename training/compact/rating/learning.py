"""Training of the heads on cached features: first the order of chains, then chains and human scores.

A step of the second part takes as many scored photos as `Settings.batch`, each as its viewing copy and as a part in
full resolution, and some chains. What a photo's two pictures say together is what the losses of rank and correlation
see, as the assessor looks twice; each alone is held to the score as well, so that a part is not rated lower for being
a part. Of a scored picture only some cells, drawn by chance, are seen in one step. The spread is not learned there:
`fit_spread` fits it to errors on photos that were held back. It must not know how the pictures were made.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..scored import Scored  # noqa: TID252 - in a wheel it is zoomiqa.training
from . import losses
from .cache import Floats, Half
from .corpus import AFFECTED, LINKS, Chain, mask_of
from .network import CELL, HIDDEN_INSIDE, HIDDEN_WHOLE, LOCAL, WHOLE, Heads, Outcome, Upper

REPORTED_EPOCHS = 8

CLEAN_ABOVE, CLEAN_ATTRIBUTES = 3.9, 4.5
"""Least rating of a clean photograph, and what its attributes are held to: nobody scored them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how fast."""

    seed: int = 0
    pretraining_steps: int = 60
    epochs: int = 24
    batch: int = 64
    chains: int = 4
    """Per step of the second part; the first part takes four times as many."""

    cells: int = 8
    """Of a scored picture, per step."""

    rate: float = 5e-4
    decay: float = 0.3
    averaging: float = 0.99
    """Of the exponential mean of the weights, which is what is kept."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Cached features of a row of pictures of one size."""

    features: Half
    """Local ones, ``N x LOCAL x h x w``."""

    measured: Floats
    """Hand-made ones, ``N x HANDMADE_COUNT``."""


@dataclass(frozen=True, slots=True)
class Described:
    """Pictures as the heads see them."""

    cells: Tensor
    """N x cells x LOCAL, half precision."""

    whole: Tensor
    """N x WHOLE."""

    def some(self, rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Some cells of each of some pictures, drawn anew for each."""
        drawn = rng.random((len(rows), self.cells.shape[1])).argsort(1)[:, :count]
        return self.cells[rows[:, None], drawn].float(), self.whole[rows]

    def all(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """All cells of some pictures."""
        return self.cells[rows].float(), self.whole[rows]


@dataclass(frozen=True, slots=True)
class Material:
    """What is learned from, as the heads see it, with what is known of it."""

    scored: Sequence[Scored]
    views: Described
    crops: Described
    chains: Sequence[Chain]
    links: Described

    @property
    def scores(self) -> NDArray[np.float32]:
        """Human scores of the photos."""
        return np.array([photo.score for photo in self.scored], np.float32)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Numbers of the photos' subsets."""
        return np.unique([photo.subset for photo in self.scored], return_inverse=True)[1].astype(np.int64)


def fit_scale(heads: Heads, *pictures: Pictures, count: int = 400) -> None:
    """Set the heads' standardisation from about `count` of each row of scored pictures; no score is looked at."""
    with torch.inference_mode():
        chosen = [slice(None, None, max(1, len(each.features) // count)) for each in pictures]
        parts = [
            torch.from_numpy(each.features[rows].astype(np.float32))
            for each, rows in zip(pictures, chosen, strict=True)
        ]
        values = torch.cat([part.permute(0, 2, 3, 1).reshape(-1, LOCAL) for part in parts])
        heads.mean.copy_(values.mean(0))
        heads.scale.copy_(values.std(0) + 1e-3)
        whole = torch.cat(
            [
                heads.gather(heads.standardise(part), torch.from_numpy(each.measured[rows]))
                for part, each, rows in zip(parts, pictures, chosen, strict=True)
            ]
        )
        heads.whole_mean.copy_(whole.mean(0))
        heads.whole_scale.copy_(whole.std(0) + 1e-3)


def describe(heads: Heads, pictures: Pictures) -> Described:
    """Pictures as the heads see them."""
    count, _, height, width = pictures.features.shape
    cells, whole = torch.empty(count, height * width, LOCAL, dtype=torch.half), torch.empty(count, WHOLE)
    with torch.no_grad():
        for start in range(0, count, 64):
            rows = slice(start, start + 64)
            features = torch.from_numpy(pictures.features[rows].astype(np.float32))
            cells[rows], whole[rows] = heads.describe(features, torch.from_numpy(pictures.measured[rows]))
    return Described(cells, whole)


def chain_loss(out: Outcome, chains: Sequence[Chain], scores: NDArray[np.float32]) -> Tensor:
    """Loss of ``LINKS * len(chains)`` pictures: order, size of the fall, attributes and place."""
    rating = out.rating.reshape(-1, LINKS)
    share = torch.tensor([chain.share for chain in chains])
    total = losses.order(rating[:, 0], rating[:, 1], 0.95) + losses.order(rating[:, 1], rating[:, 2])
    total = total + losses.order(rating[:, 0], rating[:, 2], 0.98)
    for link in (1, 2):
        total = total + 0.5 * losses.lowered(rating[:, link], rating[:, 0], share[:, link - 1])
    is_scored = torch.tensor([chain.source >= 0 for chain in chains])
    known = torch.tensor([float(scores[chain.source]) if chain.source >= 0 else CLEAN_ABOVE for chain in chains])
    held = torch.where(is_scored, rating[:, 0] - known, torch.relu(known - rating[:, 0]))
    total = total + losses.regression(held, torch.zeros_like(held))

    attributes = out.attributes.reshape(len(chains), LINKS, -1)
    affected = torch.tensor([AFFECTED[chain.operation] for chain in chains])
    is_affected = torch.nn.functional.one_hot(affected, attributes.shape[2]).bool()
    for link in (1, 2):
        left = torch.where(is_affected, share[:, link - 1, None] ** 1.5, 1.0)
        total = total + losses.lowered(attributes[:, link], attributes[:, 0], left).mean(1)
    lack = losses.regression(attributes[:, 0], torch.full_like(attributes[:, 0], CLEAN_ATTRIBUTES)).mean(1)
    total = total + 0.5 * torch.where(is_scored, 0.0, lack)

    cells = math.isqrt(out.quality.shape[1])
    masks = torch.from_numpy(np.stack([mask_of(chain, cells) for chain in chains]))
    is_local = torch.tensor([chain.box is not None for chain in chains])
    if is_local.any():
        quality = out.quality.reshape(len(chains), LINKS, cells, cells)
        for link in (1, 2):
            total[is_local] = total[is_local] + 0.5 * losses.inside_worse(
                quality[is_local, 0], quality[is_local, link], masks[is_local]
            )
    return total.mean()


def score_loss(out: Outcome, score: Tensor, group: Tensor) -> Tensor:
    """Loss of the viewing copies (first half) and windows (second half) of scored photos."""
    count = len(score)
    both = 0.5 * (out.rating[:count] + out.rating[count:])
    twice = score.repeat(2)
    total = losses.regression(both, score).mean() + 0.7 * losses.regression(out.rating, twice).mean()
    total = total + losses.ranking(both, score, group, other_groups=0.5) + losses.disagreement(both, score)
    return total + 0.1 * losses.regression(out.attributes.mean(1), twice).mean()


def train(upper: Upper, material: Material, fit: NDArray[np.int64], settings: Settings) -> Upper:
    """Train on the photos `fit` and the chains that come from them or from clean photographs.

    Returns:
        The mean of the weights over the last steps; `upper` itself is left as it ended.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    scores, groups = torch.from_numpy(material.scores), torch.from_numpy(material.groups)
    known = {-1, *fit.tolist()}
    usable = np.array([number for number, chain in enumerate(material.chains) if chain.source in known])
    trained = [parameter for parameter in upper.heads.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, settings.rate, weight_decay=settings.decay)
    per_epoch = max(1, len(fit) // settings.batch)
    total = settings.pretraining_steps + settings.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    kept: Upper = copy.deepcopy(upper).eval()
    step, started = 0, time.monotonic()
    upper.train()
    for number in range(settings.epochs + 1):
        order, sums = rng.permutation(fit), []
        for index in range(per_epoch if number else settings.pretraining_steps):
            count = min(settings.chains * (1 if number else 4), len(usable))
            chosen = rng.choice(usable, count, replace=False)
            out = upper.heads.judge(*material.links.all((LINKS * chosen[:, None] + np.arange(LINKS)).ravel()))
            loss = by_chains = chain_loss(out, [material.chains[i] for i in chosen], material.scores)
            if number:
                rows = order[index * settings.batch : (index + 1) * settings.batch]
                looks = (part.some(rows, settings.cells, rng) for part in (material.views, material.crops))
                out = upper.heads.judge(*(torch.cat(parts) for parts in zip(*looks, strict=True)))
                loss = score_loss(out, scores[rows], groups[rows]) + 0.25 * by_chains
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, 3.0)
            optimizer.step()
            schedule.step()
            step += 1
            _average(kept, upper, min(settings.averaging, step / (step + 10)))
            sums.append((float(by_chains.detach()), float(loss.detach())))
        if number % REPORTED_EPOCHS == 0 or number == settings.epochs:
            by_chains_mean, loss_mean = np.mean(sums, 0)
            took = time.monotonic() - started
            print(f"  epoch {number}: loss {loss_mean:.4f}, chains {by_chains_mean:.4f}, {took:.0f} s", flush=True)
    return kept


def _rate(step: int, total: int) -> float:
    warm = max(1, total // 20)
    return step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _average(kept: Upper, current: Upper, share: float) -> None:
    with torch.no_grad():
        for mean, value in zip(kept.heads.parameters(), current.heads.parameters(), strict=True):
            mean.lerp_(value, 1 - share)
        for mean, value in zip(kept.heads.buffers(), current.heads.buffers(), strict=True):
            mean.copy_(value)


def look(upper: Upper, pictures: Described, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Ratings, spreads and doubts of some rows."""
    upper.eval()
    parts = np.array_split(rows, max(1, len(rows) // 64))
    with torch.inference_mode():
        found = [upper.heads.judge(*pictures.all(part)) for part in parts]
    return {name: torch.cat([getattr(out, name) for out in found]).numpy() for name in ("rating", "spread", "doubts")}


def fit_spread(heads: Heads, doubts: NDArray[np.float32], error: NDArray[np.float32]) -> None:
    """Fit the spread to the absolute errors of ratings that were held back.

    Args:
        heads: Changed in place.
        doubts: ``N x DOUBTS``.
        error: N absolute errors.
    """
    given, truth = torch.from_numpy(doubts), torch.from_numpy(error)
    heads.error.requires_grad_(True)
    optimizer = torch.optim.LBFGS(heads.error.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = losses.likelihood(heads.spread(given), truth).mean() + 1e-3 * (heads.error.weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    heads.error.requires_grad_(False)


def described(settings: Settings) -> dict[str, Any]:
    """The settings for a model card."""
    return {**asdict(settings), "cell_px": CELL, "dropout": [HIDDEN_WHOLE, HIDDEN_INSIDE]}
