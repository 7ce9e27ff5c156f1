"""The rows that the rating is fitted on: scored photos, and changed copies of some. It must not know how it is fitted.

A copy's score follows from its photo's and from the share of quality that the change leaves (`degrade`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoomiqa.assessors.compact.fisher import Codebook
from zoomiqa.imaging import open_picture

from ..scored import Scored  # noqa: TID252 - in a wheel it is zoomiqa.training
from . import degrade
from .looks import Books, Floats, Looks, both_looks, in_processes, some_patches

FLOOR = 1.4
"""What the score of a wholly spoiled copy approaches: the worst score in the data is about 1.5."""

BOOK_PHOTOS = 450
"""Photos that the codebooks are learnt from."""

Indices = NDArray[np.intp]
Change = tuple[Path, str, float, int]
"""A photo, the change's name (empty: none), its strength and the seed of its noise."""


@dataclass(frozen=True, slots=True)
class Table:
    """Features and scores, a row for each photo and then for each changed copy."""

    view: Floats
    """N x `FEATURE_COUNT`: the first look."""

    crop: Floats
    """N x `FEATURE_COUNT`: what the second look adds."""

    box: Floats
    """N x 4 fractions: the region of the second look."""

    score: Floats
    """1..5."""

    weight: Floats
    """How much each row counts."""

    source: Indices
    """Row of the photo that each row was made of, in the whole table."""

    subset: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.score)

    def rows(self, index: Indices) -> Table:
        """The rows of `index`; `source` still counts in the whole table."""
        return Table(*(getattr(self, name)[index] for name in FIELDS))


FIELDS = tuple(Table.__dataclass_fields__)
BOOK_FIELDS = tuple(Codebook.__dataclass_fields__)


def originals(table: Table) -> Indices:
    """The rows of a whole table that are photos as they were scored."""
    return np.flatnonzero(table.source == np.arange(len(table)))


def weighted(table: Table, copy_weight: float) -> Table:
    """A whole table whose changed copies count as given, or without them where that is 0."""
    photos = originals(table)
    if copy_weight <= 0:
        return table.rows(photos)
    weight = np.full(len(table), copy_weight)
    weight[photos] = 1.0
    return replace(table, weight=weight)


def gather(scored: Sequence[Scored], seed: int, copies: float, processes: int) -> tuple[Table, Books]:
    """The features of all photos and of changed copies, each row of weight 1, and the codebooks learnt for them.

    Args:
        scored: The photos.
        seed: Of what is drawn.
        copies: Changed copies, as a share of the photos.
        processes: How many work at once.
    """
    rng = np.random.default_rng(seed)
    paths = [photo.path for photo in scored]
    scores = np.array([photo.score for photo in scored])
    books = learn_books(paths, rng, processes)
    chosen = rng.permutation(len(paths))[: int(copies * len(paths))]
    work: list[Change] = [(path, "", 0.0, 0) for path in paths]
    work += [(paths[row], *degrade.draw(rng), int(row)) for row in chosen]
    found = in_processes(partial(_changed_looks, books), work, processes)
    source = np.concatenate([np.arange(len(paths)), chosen])
    share = np.array([kept for _, kept in found])
    table = Table(
        view=np.stack([looks.view for looks, _ in found]),
        crop=np.stack([looks.crop for looks, _ in found]),
        box=np.array([looks.box for looks, _ in found]),
        score=FLOOR + (scores[source] - FLOOR) * share,
        weight=np.ones(len(found)),
        source=source,
        subset=np.array([photo.subset for photo in scored])[source],
    )
    return table, books


def learn_books(paths: Sequence[Path], rng: np.random.Generator, processes: int) -> Books:
    """The two codebooks, learnt without scores from some of the photos; float32, as the features are."""
    sample = rng.permutation(len(paths))[:BOOK_PHOTOS]
    parts = in_processes(some_patches, [(paths[row], int(row)) for row in sample], processes)
    learnt = [Codebook.fit(np.concatenate([part[book] for part in parts]), rng) for book in (0, 1)]
    return tuple(Codebook(*(getattr(book, name).astype(np.float32) for name in BOOK_FIELDS)) for book in learnt)


def _changed_looks(books: Books, change: Change) -> tuple[Looks, float]:
    """Both looks at a changed photo, and the share of quality that it kept."""
    path, name, strength, seed = change
    rgb, share = open_picture(path).pixels, 1.0
    if name:
        rgb, share = degrade.apply(rgb, name, strength, np.random.default_rng(seed))
    return both_looks(rgb, books), share


def keep(path: Path, table: Table, books: Books) -> None:
    """Write what `gather` made to a file."""
    arrays = {name: getattr(table, name) for name in FIELDS}
    arrays |= {
        _book_key(number, name): getattr(book, name) for number, book in enumerate(books) for name in BOOK_FIELDS
    }
    np.savez(path, allow_pickle=False, **arrays)


def kept(path: Path) -> tuple[Table, Books]:
    """What `keep` wrote."""
    with np.load(path, allow_pickle=False) as held:
        table = Table(*(held[name] for name in FIELDS))
        books = tuple(Codebook(*(held[_book_key(number, name)] for name in BOOK_FIELDS)) for number in (0, 1))
    return table, books


def _book_key(number: int, name: str) -> str:
    return f"b{number}{name}"
