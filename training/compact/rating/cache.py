"""What the frozen trunk says of every training picture, kept in files so that training need not open pictures again.

The trunk's maps are made once, in half precision, and mapped into memory. Making them goes on where it was stopped. It
must not know how they are used.
"""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from . import corpus
from .network import CELL, LOCAL, STATISTICS, TRUNK_STRIDE, TRUNK_WIDTH, Trunk, Upper

BLOCK = 24
"""Pictures between two notes of how far it came."""

Half = NDArray[np.float16]
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

    buffer = io.BytesIO()
    axes = {"pixels": {0: "n", 1: "h", 2: "w"}} if "pixels" in examples else {name: {0: "n"} for name in examples}
    names = {"input_names": list(examples), "output_names": outputs, "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter of traced graphs speaks of its successor
        torch.onnx.export(module, tuple(examples.values()), buffer, dynamo=False, opset_version=17, **names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])


class _Store:
    def __init__(self, folder: Path, name: str, count: int, side: int, identity: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.note, self.identity = folder / f"{name}.json", json.loads(json.dumps(identity, default=str))
        self.done = 0
        if self.note.exists():
            known = json.loads(self.note.read_text("utf-8"))
            if known["identity"] == self.identity and known["count"] == count:
                self.done = int(known["done"])
        self.count = count
        mode = "r+" if self.done else "w+"
        if not self.done:
            (folder / f"{name}.features.npy").unlink(missing_ok=True)
        self.maps = _mapped(folder / f"{name}.maps.npy", mode, (count, TRUNK_WIDTH, *(2 * [side // TRUNK_STRIDE])))
        self.statistics = _mapped(folder / f"{name}.statistics.npy", mode, (count, STATISTICS, *(2 * [side // CELL])))

    def put(self, trunk: RunTrunk, pictures: Sequence[corpus.PixelArray]) -> None:
        """The next pictures."""
        rows = slice(self.done, self.done + len(pictures))
        self.maps[rows], self.statistics[rows] = trunk(np.stack(pictures))
        self.done += len(pictures)

    def keep(self) -> None:
        """Note how far it came."""
        self.maps.flush()
        self.statistics.flush()
        text = json.dumps({"identity": self.identity, "count": self.count, "done": self.done})
        self.note.write_text(text, "utf-8")


def _mapped(path: Path, mode: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    return np.lib.format.open_memmap(path, mode, np.float16, shape)


def cache_scored(trunk: RunTrunk, scored: Sequence[corpus.Scored], folder: Path, seed: int) -> tuple[Maps, Maps]:
    """Maps of the photos' viewing copies, and of a part of each in full resolution."""
    identity = [seed, *(photo.path.name for photo in scored)]
    views = _Store(folder, "views", len(scored), corpus.WINDOW, identity)
    crops = _Store(folder, "crops", len(scored), corpus.CROP, identity)
    started = time.monotonic()
    while views.done < len(scored):
        for number in range(views.done, min(views.done + BLOCK, len(scored))):
            pixels = corpus.open_scored(scored[number].path)
            crops.put(trunk, [corpus.crop_of(pixels, np.random.default_rng((seed, number)))])
            views.put(trunk, [corpus.view_of(pixels)])
        crops.keep()
        views.keep()
        _say("photos", views.done, len(scored), started)
    return Maps(views.maps, views.statistics), Maps(crops.maps, crops.statistics)


def cache_chains(trunk: RunTrunk, chains: Sequence[corpus.Chain], folder: Path, name: str = "chains") -> Maps:
    """Maps of the chains: rows 3 i, 3 i + 1 and 3 i + 2 are the pictures of chain i, the best first."""
    links = corpus.LINKS
    identity = [[chain.path.name, chain.operation, chain.levels, chain.seed] for chain in chains]
    store = _Store(folder, name, links * len(chains), corpus.WINDOW, identity)
    started = time.monotonic()
    while store.done < store.count:
        first = store.done // links
        for chain in chains[first : first + BLOCK]:
            store.put(trunk, corpus.render(chain))
        store.keep()
        _say(name, store.done // links, len(chains), started)
    return Maps(store.maps, store.statistics)


def _say(what: str, done: int, count: int, started: float) -> None:
    if done % (10 * BLOCK) == 0 or done == count:
        print(f"{what}: {done} of {count} after {time.monotonic() - started:.0f} s", flush=True)


def quiet() -> None:
    """One thread: the machine may have other work, and small products gain nothing from more."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
