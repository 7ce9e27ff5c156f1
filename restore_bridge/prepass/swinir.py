"""SwinIR as the pre-pass, read by spandrel: damage out, content left for the restorer.

Source: Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (ICCVW 2021). The general restoration model of
DiffBIR (Lin et al., ECCV 2024), which DreamClear uses as well, works at an eighth of the size inside and gives the
size it was given; the official models also enlarge 2 or 4 times (real-world super-resolution).

The size stays, as in every pre-pass: what an enlarging model gives is averaged over squares of 2×2 or 4×4 pixels, tile
by tile, so that no enlarged picture is ever held. Enlarging is the restorer's part.

Tiles share 128 pixels and count nothing of the outer 32. With the general model's structure at full size and random
weights, tiles of 512 and of 256 pixels then differed from the untiled picture by at most 1/255 on a 768×512 photo; the
released weights were not at hand.

Numbers are 32-bit floats on every device. SwinIR does not work in half precision (spandrel refuses it), and in bfloat16
it fails on every picture whose size is not the one its attention masks are stored for.

It must not know restorers, prompts or files other than through `restore_bridge.weights`.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge import weights as weight_files
from zoomiqa.devices import choose_device, memory_errors
from zoomiqa.errors import BackendFailed, ExtraMissing, OptionInvalid, WeightsMissing, WeightsUnsuitable
from zoomiqa.files import printable
from zoomiqa.types import Choice

if TYPE_CHECKING:
    import numpy as np
    import torch
    from spandrel import ImageModelDescriptor

    from zoomiqa.imaging.picture import Picture

    Network = Callable[[torch.Tensor], torch.Tensor]

GRID = 64
"""Pixels: 8 (the general model's own reduction) × 8 (side of an attention window). Pictures are continued by mirroring
to multiples of it, and tiles start at multiples of it, so that windows lie alike in every tile."""

GENERAL_MODEL = "lxq007/DiffBIR:general_swinir_v1.ckpt"
"""The general restoration model on the hub (Apache-2.0); a pickle of 63 MB."""


class SwinIRPrepass:
    """Cleans pictures with a SwinIR model.

    The model is loaded once, when it is first needed, and may be used from several threads.

    Args:
        weights: File or hub id (see `restore_bridge.weights.resolve`) of a SwinIR model for colour pictures.
        allow_pickle: Whether the weights may be a pickle.
        tile_px: Side of a tile, a multiple of 64.
        overlap_px: Pixels that neighbouring tiles share at least; a quarter of it at each edge counts for nothing.
        device: As torch names it; chosen, with the reason, when not given.

    Raises:
        WeightsMissing: no weights are given, or no such file is there; the message says how to get the general model.
        WeightsRefused, WeightsDamaged: as `restore_bridge.weights.resolve`, for a local file.
        OptionInvalid: tile and overlap do not fit the model's grid.
    """

    name = "swinir"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        allow_pickle: bool = False,
        tile_px: int = 512,
        overlap_px: int = 128,
        device: str | None = None,
    ) -> None:
        if weights is None:
            own = Path(GENERAL_MODEL.rpartition(":")[2]).with_suffix(weight_files.SAFE_SUFFIX).name
            raise WeightsMissing(
                "pre-pass 'swinir' needs weights",
                None,
                f"get the general model once: restore-bridge weights convert {GENERAL_MODEL} {own} --allow-pickle"
                f" (or convert a copy of that file in the same way), then use it: --prepass-weights {own}",
            )
        if tile_px < GRID or tile_px % GRID:
            raise OptionInvalid(f"SwinIR's tiles must be multiples of {GRID} pixels", tile_px, "choose 256 or 512")
        if not 0 <= overlap_px <= tile_px - GRID:
            raise OptionInvalid(
                f"SwinIR's overlap must be at least 0 and {GRID} less than the tile", overlap_px, "choose a smaller one"
            )
        if weight_files.hub_id(weights) is None:  # a hub file may have to be downloaded, so that waits until it is used
            weight_files.resolve(weights, allow_pickle=allow_pickle)
        self.weights, self.allow_pickle = weights, allow_pickle
        self.tile_px, self.overlap_px = tile_px, overlap_px
        self._requested = device
        self._loading = threading.Lock()
        self._model: _Loaded | None = None

    def clean(self, picture: Picture) -> Picture:
        """The picture without its damage, in its own size; alpha stays as it is.

        When memory runs out it is done once more in tiles of half the side, with a note on the result.

        Raises:
            WeightsMissing, WeightsRefused, WeightsDamaged, WeightsUnsuitable: the weights cannot be used.
            BackendFailed: memory ran out twice, or the model gave no colours.
            ExtraMissing: spandrel or torch is not installed.
        """
        from restore_bridge.tiling import halving_on_memory_error

        network = self._loaded().network
        work = partial(clean_pixels, picture.pixels, network)
        try:
            pixels, notes = halving_on_memory_error(work, self.tile_px, self.overlap_px, least=GRID)
        except MemoryError as error:
            raise BackendFailed(
                "memory ran out in the pre-pass 'swinir', in smaller tiles as well",
                error,
                "free some memory or choose a smaller tile",
            ) from error
        cleaned = picture.with_pixels(pixels)
        return replace(cleaned, notes=(*cleaned.notes, *notes)) if notes else cleaned

    def describe(self) -> dict[str, Any]:
        """For the record: which model, from which file, on which device, in which tiles. Loads the model.

        Raises:
            As `clean`, on weights and extras.
        """
        loaded = self._loaded()
        return {
            "architecture": loaded.architecture,
            "model_scale": loaded.scale,
            "weights": {"file": loaded.path.name, "sha256": loaded.sha256},
            "tile_px": self.tile_px,
            "overlap_px": self.overlap_px,
            "device": loaded.device.to_dict(),
            "dtype": "float32",
        }

    def unload(self) -> None:
        """Give the model's memory back; the next call loads it again."""
        import torch

        with self._loading:
            self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _loaded(self) -> _Loaded:
        with self._loading:
            if self._model is None:
                self._model = _Loaded(self.weights, self.allow_pickle, self._requested)
            return self._model


class _Loaded:
    """A model on its device, with what a record says of it."""

    def __init__(self, source: str | Path, allow_pickle: bool, requested: str | None) -> None:
        self.path = weight_files.resolve(source, allow_pickle=allow_pickle)
        model = read_model(self.path, allow_pickle=allow_pickle)
        self.device: Choice = choose_device(requested)
        self.sha256 = weight_files.sha256_of(self.path)
        self.scale, self.architecture = model.scale, " ".join([model.architecture.name, *model.tags])
        with memory_errors():
            model.to(device=self.device.value)
        self.network: Network = partial(_run, model, self.device.value)


def read_model(path: Path, *, allow_pickle: bool = False) -> ImageModelDescriptor[Any]:
    """The SwinIR model in a weights file: on the CPU, in float32, for inference.

    Raises:
        WeightsMissing, WeightsRefused, WeightsDamaged: as `restore_bridge.weights.load_state_dict`.
        WeightsUnsuitable: another architecture, tensors that do not fit together, or a model for grey pictures.
        ExtraMissing: spandrel or torch is not installed.
    """
    try:
        from spandrel import ModelLoader, UnsupportedModelError
    except ImportError as error:
        raise ExtraMissing("pre-pass 'swinir' needs spandrel and torch", error.name, weight_files.INSTALL) from None
    tensors = weight_files.load_state_dict(path, allow_pickle=allow_pickle)
    shown, advice = weight_files.shown(path), "give the weights of a SwinIR model for colour pictures"
    try:
        with warnings.catch_warnings():
            # spandrel's SwinIR builds its index grids as torch's default did; the stored ones replace them anyway.
            warnings.filterwarnings("ignore", message="torch.meshgrid", module="torch.functional")
            model = ModelLoader("cpu").load_from_state_dict(tensors)
    except UnsupportedModelError:
        what = f"{len(tensors)} tensors ({printable(min(tensors))} and others) belong to no model that spandrel knows"
        raise WeightsUnsuitable(what, shown, advice) from None
    except Exception as error:  # spandrel computes a model's form from the tensors; wrong ones may raise anything
        what = f"the tensors do not fit together ({type(error).__name__})"
        raise WeightsUnsuitable(what, shown, advice) from error
    if model.architecture.id != "SwinIR":
        what = f"these are weights of {model.architecture.name} ({model.purpose}, x{model.scale}), not of SwinIR"
        raise WeightsUnsuitable(what, shown, advice)
    if (model.input_channels, model.output_channels) != (3, 3):
        what = f"this SwinIR model takes {model.input_channels} and gives {model.output_channels} channels, not 3"
        raise WeightsUnsuitable(what, shown, advice)
    return model.float().eval()


def clean_pixels(pixels: np.ndarray, network: Network, tile: int, overlap: int) -> np.ndarray:
    """Run a network over a picture in tiles and bring what it gives back to the picture's size.

    Args:
        pixels: H×W×3 uint8.
        network: (1, 3, h, w) float32 0..1, h and w multiples of 64 → (1, 3, s·h, s·w) float32 on the CPU, s = 1, 2, ...
        tile: Side of a tile, a multiple of 64.
        overlap: Pixels that neighbours share at least.

    Returns:
        H×W×3 uint8. Where the network looks no further than `overlap / 4` pixels around each, tiles make no
        difference beyond rounding.

    Raises:
        BackendFailed: the network gave NaN or infinity.
        MemoryError: memory ran out.
    """
    from restore_bridge.tiling import pad_to_multiple, run_tiled

    padded = pad_to_multiple(pixels, GRID)
    work = partial(_clean_tile, network)
    result = run_tiled(padded, work, tile=tile, overlap=overlap, margin=overlap // 4, align=GRID)
    return result[: pixels.shape[0], : pixels.shape[1]]


def _clean_tile(network: Network, tile: np.ndarray) -> np.ndarray:
    """Tile (h, w, 3) uint8 → (h, w, 3) float32 0..255."""
    import numpy as np
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1), np.float32) / np.float32(255))
    with torch.inference_mode(), memory_errors():
        result = network(planes[None])
        scale = result.shape[-1] // planes.shape[-1]
        if scale > 1:
            result = torch.nn.functional.avg_pool2d(result, scale)
    if not torch.isfinite(result).all():
        raise BackendFailed("the SwinIR model gave NaN or infinity", None, "check the weights file")
    values: np.ndarray = (result[0].permute(1, 2, 0) * 255).numpy()
    return values


def _run(model: ImageModelDescriptor[Any], device: str, planes: torch.Tensor) -> torch.Tensor:
    """One tile through the model on its device, and back to the CPU."""
    result: torch.Tensor = model(planes.to(device))
    return result.cpu()
