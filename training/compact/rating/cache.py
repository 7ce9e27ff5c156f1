"""What the frozen trunk and the hand-made features say of every training picture, kept in files.

Training then need not open pictures again. The trunk's maps are made once, in half precision, and mapped into memory.
Making them goes on where it was stopped. It must not know how they are used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zoomiqa.assessors.compact.features import HANDMADE_COUNT, measured_features

from ..files import traced  # noqa: TID252 - in a wheel it is zoomiqa.training
from ..scored import Scored  # noqa: TID252
from . import corpus
from .network import CELL, LOCAL, STATISTICS, TRUNK_STRIDE, TRUNK_WIDTH, Trunk, Upper

BLOCK = 24
"""Pictures between two notes of how far it came."""

Half = NDArray[np.float16]
Floats = NDArray[np.float32]
PicturesOf = Callable[[int], Sequence[corpus.PixelArray]]
RunTrunk = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Maps:
    """The trunk's maps of a row of pictures of one size."""

    maps: Half
    """N x 112 x H/16 x W/16."""

    statistics: Half
    """N x 544 x H/32 x W/32."""


def fast_trunk(trunk: Trunk) -> RunTrunk:
    """The trunk run by onnxruntime: the kernels that the shipped network runs on, and twice as fast."""
    pixels = torch.zeros(1, corpus.WINDOW, corpus.WINDOW, 3, dtype=torch.uint8)
    session = _session(trunk, {"pixels": pixels}, ["maps", "statistics"])
    return lambda pixels: tuple(session.run(None, {"pixels": pixels}))


class _Features(nn.Module):
    def __init__(self, upper: Upper) -> None:
        super().__init__()
        self.upper = upper

    def forward(self, maps: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
        return self.upper.features(maps, statistics)


def cache_features(upper: Upper, maps: Maps, folder: Path, name: str) -> Half:
    """Local features of the rows of `maps`, ``N x LOCAL x h x w``; nothing where that was done."""
    path = folder / f"{name}.features.npy"
    if path.exists():
        return np.asarray(np.load(path, mmap_mode="r"))
    examples = {key: torch.zeros(1, *getattr(maps, key).shape[1:]) for key in ("maps", "statistics")}
    session = _session(_Features(upper), examples, ["features"])
    found = np.empty((len(maps.maps), LOCAL, *maps.statistics.shape[2:]), np.float16)
    for row in range(len(found)):
        each = {key: np.asarray(getattr(maps, key)[row : row + 1], np.float32) for key in examples}
        found[row] = session.run(None, each)[0][0]
    part = path.with_suffix(".part.npy")
    np.save(part, found)
    part.replace(path)
    return found


def _session(module: nn.Module, examples: dict[str, torch.Tensor], outputs: list[str]) -> Any:
    import onnxruntime

    free = {"pixels": {0: "n", 1: "h", 2: "w"}} if "pixels" in examples else {name: {0: "n"} for name in examples}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        traced(module, examples, outputs, free), options, providers=["CPUExecutionProvider"]
    )


class _Store:
    """Rows of named arrays in files, filled in order, with a note of how far it came."""

    def __init__(
        self, folder: Path, name: str, count: int, identity: Any, shapes: Mapping[str, tuple[int, ...]], kind: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.note, self.identity = folder / f"{name}.json", json.loads(json.dumps(identity, default=str))
        self.done, self.count = 0, count
        if self.note.exists():
            known = json.loads(self.note.read_text("utf-8"))
            if known["identity"] == self.identity and known["count"] == count:
                self.done = int(known["done"])
        mode: Any = "r+" if self.done else "w+"
        self.arrays = {
            key: np.lib.format.open_memmap(folder / f"{name}.{key}.npy", mode, kind, (count, *shape))
            for key, shape in shapes.items()
        }

    def put(self, **rows: NDArray[np.floating]) -> None:
        """The next rows."""
        size = len(next(iter(rows.values())))
        for key, values in rows.items():
            self.arrays[key][self.done : self.done + size] = values
        self.done += size

    def keep(self) -> None:
        """Note how far it came."""
        for array in self.arrays.values():
            array.flush()
        text = json.dumps({"identity": self.identity, "count": self.count, "done": self.done})
        self.note.write_text(text, "utf-8")


def _trunk_store(folder: Path, name: str, count: int, side: int, identity: Any) -> _Store:
    shapes = {"maps": (TRUNK_WIDTH, *(2 * [side // TRUNK_STRIDE])), "statistics": (STATISTICS, *(2 * [side // CELL]))}
    store = _Store(folder, name, count, identity, shapes, np.float16)
    if not store.done:
        (folder / f"{name}.features.npy").unlink(missing_ok=True)
    return store


def _look(trunk: RunTrunk, pictures: Sequence[corpus.PixelArray]) -> dict[str, NDArray[np.float32]]:
    return dict(zip(("maps", "statistics"), trunk(np.stack(pictures)), strict=True))


def cache_scored(trunk: RunTrunk, scored: Sequence[Scored], folder: Path, seed: int) -> tuple[Maps, Maps]:
    """Maps of the photos' viewing copies, and of a part of each in full resolution."""
    identity = identity_of(scored, seed)
    views = _trunk_store(folder, "views", len(scored), corpus.WINDOW, identity)
    crops = _trunk_store(folder, "crops", len(scored), corpus.CROP, identity)
    started = time.monotonic()
    while views.done < len(scored):
        for number in range(views.done, min(views.done + BLOCK, len(scored))):
            view, crop = corpus.looks_of(scored[number], number, seed)
            crops.put(**_look(trunk, [crop]))
            views.put(**_look(trunk, [view]))
        crops.keep()
        views.keep()
        _say("photos", views.done, len(scored), started)
    return Maps(**views.arrays), Maps(**crops.arrays)


def cache_chains(trunk: RunTrunk, chains: Sequence[corpus.Chain], folder: Path, name: str = "chains") -> Maps:
    """Maps of the chains: rows 3 i, 3 i + 1 and 3 i + 2 are the pictures of chain i, the best first."""
    links = corpus.LINKS
    store = _trunk_store(folder, name, links * len(chains), corpus.WINDOW, [chain.identity for chain in chains])
    started = time.monotonic()
    while store.done < store.count:
        first = store.done // links
        for chain in chains[first : first + BLOCK]:
            store.put(**_look(trunk, corpus.render(chain)))
        store.keep()
        _say(name, store.done // links, len(chains), started)
    return Maps(**store.arrays)


def identity_of(scored: Sequence[Scored], seed: int) -> list[int | str]:
    """What the looks at scored photos depend on: their pictures, not their scores."""
    return [seed, *(photo.digest for photo in scored)]


def cache_measured(pictures_of: PicturesOf, count: int, each: int, folder: Path, name: str, identity: Any) -> Floats:
    """Hand-made features of `each` pictures for every one of `count` numbers: ``count x each x HANDMADE_COUNT``."""
    store = _Store(folder, name, count, identity, {"measured": (each, HANDMADE_COUNT)}, np.float32)
    started = time.monotonic()
    while store.done < count:
        for number in range(store.done, min(store.done + BLOCK, count)):
            store.put(measured=np.stack([measured_features(picture) for picture in pictures_of(number)])[None])
        store.keep()
        _say(f"{name} measured", store.done, count, started)
    return np.asarray(store.arrays["measured"])


def _say(what: str, done: int, count: int, started: float) -> None:
    if done % (10 * BLOCK) == 0 or done == count:
        print(f"{what}: {done} of {count} after {time.monotonic() - started:.0f} s", flush=True)


def quiet() -> None:
    """One thread: the machine may have other work, and small products gain nothing from more."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
