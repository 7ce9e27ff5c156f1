"""Training of the heads on cached features: first the order of chains, then chains and human scores.

A step of the second part takes as many scored photos as `Settings.batch`, each as its viewing copy and as a part in
full resolution, and some chains. What a photo's two pictures say together is what the losses of rank and correlation
see, as the assessor looks twice; each alone is held to the score as well, so that a part is not rated lower for being
a part. Of a scored picture only some cells, drawn by chance, are seen in one step. It must not know how the pictures
were made.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import losses
from .cache import Half
from .corpus import AFFECTED, LINKS, Chain, Scored, mask_of
from .network import CELL, LOCAL, Outcome, Upper

CLEAN_ABOVE, CLEAN_ATTRIBUTES = 3.9, 4.5
"""Least rating of a clean photograph, and what its attributes are held to: nobody scored them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how fast."""

    seed: int = 0
    pretraining_steps: int = 60
    epochs: int = 24
    batch: int = 48
    chains: int = 8
    """Per step of the second part; the first part takes thrice as many."""

    cells: int = 24
    """Of a scored picture, per step."""

    rate: float = 1e-3
    decay: float = 0.05
    averaging: float = 0.99
    """Of the exponential mean of the weights, which is what is kept."""


@dataclass(frozen=True, slots=True)
class Material:
    """Cached features with what is known of them."""

    scored: Sequence[Scored]
    views: Half
    """Local features, ``N x LOCAL x h x w``."""

    crops: Half
    chains: Sequence[Chain]
    links: Half

    @property
    def scores(self) -> NDArray[np.float32]:
        """Human scores of the photos."""
        return np.array([photo.score for photo in self.scored], np.float32)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Numbers of the photos' subsets."""
        return np.unique([photo.subset for photo in self.scored], return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Described:
    """Pictures as the heads see them."""

    cells: Tensor
    """N x cells x LOCAL, half precision."""

    whole: Tensor
    """N x 2 LOCAL."""

    def some(self, rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Some cells of each of some pictures, drawn anew for each."""
        drawn = rng.random((len(rows), self.cells.shape[1])).argsort(1)[:, :count]
        return self.cells[rows[:, None], drawn].float(), self.whole[rows]

    def all(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """All cells of some pictures."""
        return self.cells[rows].float(), self.whole[rows]


def fit_scale(upper: Upper, *features: Half) -> None:
    """Set the heads' standardisation from features of scored photos."""
    values = torch.cat(
        [torch.from_numpy(part.astype(np.float32)).permute(0, 2, 3, 1).reshape(-1, LOCAL) for part in features]
    )
    upper.heads.mean.copy_(values.mean(0))
    upper.heads.scale.copy_(values.std(0) + 1e-3)


def describe(upper: Upper, features: Half) -> Described:
    """Pictures as the heads see them."""
    cells, whole = [], []
    with torch.inference_mode():
        for start in range(0, len(features), 64):
            part = torch.from_numpy(features[start : start + 64].astype(np.float32))
            each, both = upper.heads.describe(part)
            cells.append(each.half())
            whole.append(both)
    return Described(torch.cat(cells).clone(), torch.cat(whole).clone())


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
    total = total + 0.1 * losses.likelihood(out.rating, out.spread, twice).mean()
    return total + 0.1 * losses.regression(out.attributes.mean(1), twice).mean()


def train(
    upper: Upper,
    material: Material,
    fit: NDArray[np.int64],
    settings: Settings,
    after_epoch: Callable[[int, Upper, Described, Described], None] | None = None,
) -> Upper:
    """Train in place and return the mean of the weights over the last steps."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    some = np.sort(rng.permutation(fit)[:400])
    fit_scale(upper, material.views[some], material.crops[some])
    views, crops, links = (describe(upper, part) for part in (material.views, material.crops, material.links))
    scores, groups = torch.from_numpy(material.scores), torch.from_numpy(material.groups)
    optimizer = torch.optim.AdamW(upper.heads.parameters(), settings.rate, weight_decay=settings.decay)
    per_epoch = max(1, len(fit) // settings.batch)
    total = settings.pretraining_steps + settings.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    kept, step, started = copy.deepcopy(upper).eval(), 0, time.monotonic()
    for number in range(settings.epochs + 1):
        order, sums = rng.permutation(fit), []
        for index in range(per_epoch if number else settings.pretraining_steps):
            upper.train()
            count = min(settings.chains * (1 if number else 3), len(material.chains))
            chosen = rng.choice(len(material.chains), count, replace=False)
            out = upper.heads.judge(*links.all((LINKS * chosen[:, None] + np.arange(LINKS)).ravel()))
            loss = by_chains = chain_loss(out, [material.chains[i] for i in chosen], material.scores)
            if number:
                rows = order[index * settings.batch : (index + 1) * settings.batch]
                seen = zip(*(part.some(rows, settings.cells, rng) for part in (views, crops)), strict=True)
                out = upper.heads.judge(*(torch.cat(parts) for parts in seen))
                loss = score_loss(out, scores[rows], groups[rows]) + 0.25 * by_chains
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(upper.heads.parameters(), 3.0)
            optimizer.step()
            schedule.step()
            step += 1
            _average(kept, upper, min(settings.averaging, step / (step + 10)))
            sums.append((float(by_chains.detach()), float(loss.detach())))
        by_chains_mean, loss_mean = np.mean(sums, 0) if sums else (math.nan, math.nan)
        took = time.monotonic() - started
        print(f"epoch {number}: loss {loss_mean:.4f}, chains {by_chains_mean:.4f}, {took:.0f} s", flush=True)
        if after_epoch:
            after_epoch(number, kept, views, crops)
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
    """Ratings, spreads and attributes of some rows."""
    upper.eval()
    parts = np.array_split(rows, max(1, len(rows) // 64))
    with torch.inference_mode():
        found = [upper.heads.judge(*pictures.all(part)) for part in parts]
    return {
        name: torch.cat([getattr(out, name) for out in found]).numpy() for name in ("rating", "spread", "attributes")
    }


def described(settings: Settings) -> dict[str, Any]:
    """The settings for a model card."""
    return {**asdict(settings), "cell_px": CELL}
