"""DreamClear's pre-pass as a part of its pipeline: SwinIR for general restoration, of the size it is given.

Sources: Liang et al., "SwinIR" (ICCVW 2021), section 3; the model is that of DiffBIR (Lin et al., ECCV 2024), section
3.1, which DreamClear takes over (`general_swinir_v1.ckpt`): width 180, 8 groups of 6 blocks with 6 heads, windows of 8;
pictures are folded by 8 first and unfolded by three doublings at the end. 15,792,587 parameters in 660 tensors, and 72
buffers.

    picture (1, 3, h, w) in 0..1, h and w multiples of 64  ─►  (1, 3, h, w)

The network is spandrel's; this class only lets it be saved, loaded and moved with a pipeline. Differs from the
original: numbers are 32-bit on every device, large pictures are cleaned in tiles (`restore_bridge.prepass.swinir`), and
the result is rounded to 8 bits.

It must not know latents, text or files other than through `restore_bridge.prepass.swinir`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from restore_bridge import weights
from zoomiqa.errors import ExtraMissing, WeightsUnsuitable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

PARAMETERS, NAMES = 15_792_587, 732
"""Of the released model; names include its buffers."""

FIRST = ("network.conv_first.", "conv_first.1.")
"""The one layer that is called otherwise in the released file: there the fold stands before it."""


class SwinIRModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A SwinIR that keeps the size.

    Args:
        img_size: Side in folded pixels that attention masks are stored for.
        in_chans: Colours.
        embed_dim: Width of a token.
        depths: Blocks of each group.
        num_heads: Heads of each group.
        window_size: Side of an attention window.
        mlp_ratio: Inner width of the feed-forward part over the width of a token.
        upscale: Factor of the doublings at the end.
        img_range: Of the pictures inside.
        upsampler: How the size grows.
        resi_connection: Convolution at the end of a group.
        start_unshuffle: Pixels of a side that are folded into one.
    """

    _keep_in_fp32_modules: ClassVar = ["network"]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        img_size: int = 64,
        in_chans: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6,) * 8,
        num_heads: Sequence[int] = (6,) * 8,
        window_size: int = 8,
        mlp_ratio: float = 2.0,
        upscale: int = 8,
        img_range: float = 1.0,
        upsampler: str = "nearest+conv",
        resi_connection: str = "1conv",
        start_unshuffle: int = 8,
    ) -> None:
        super().__init__()
        try:
            from spandrel.architectures.SwinIR import SwinIR
        except ImportError as error:
            raise ExtraMissing("DreamClear's pre-pass needs spandrel", error.name, weights.INSTALL) from None
        with warnings.catch_warnings():
            # spandrel's SwinIR builds its index grids as torch's default did.
            warnings.filterwarnings("ignore", message="torch.meshgrid", module="torch.functional")
            self.network = SwinIR(
                img_size=img_size,
                in_chans=in_chans,
                embed_dim=embed_dim,
                depths=list(depths),
                num_heads=list(num_heads),
                window_size=window_size,
                mlp_ratio=mlp_ratio,
                upscale=upscale,
                img_range=img_range,
                upsampler=upsampler,
                resi_connection=resi_connection,
                start_unshuffle=start_unshuffle,
            )

    def forward(self, picture: Tensor) -> Tensor:
        """(1, 3, h, w) in 0..1 → the same without its damage, held to 0..1."""
        cleaned: Tensor = self.network(picture)
        return cleaned.clamp(0, 1)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def clean(self, pixels: np.ndarray, *, device: Any = None, tile: int = 1024, overlap: int = 128) -> np.ndarray:
        """(h, w, 3) uint8 → the same without its damage.

        Args:
            pixels: Of any size.
            device: Where the network runs or is moved to when it is called.
            tile: Side in pixels that is cleaned at once, a multiple of 64.
            overlap: Pixels that neighbouring tiles share.

        Raises:
            BackendFailed: the network gave NaN or infinity.
            MemoryError: memory ran out.
        """
        from restore_bridge.prepass.swinir import clean_pixels

        def network(planes: Tensor) -> Tensor:
            result: Tensor = self(planes.to(device or self.device))
            return result.cpu()

        return clean_pixels(pixels, network, tile, overlap)


def read_cleaner(source: str | Path, *, allow_pickle: bool = False) -> SwinIRModel:
    """The pre-pass in a weights file of SwinIR, on the CPU.

    Args:
        source: File, or `owner/name:file` on the hub.
        allow_pickle: Whether it may be a pickle.

    Raises:
        WeightsMissing, WeightsRefused, WeightsDamaged, WeightsUnsuitable: as `restore_bridge.prepass.swinir.read_model`.
        WeightsUnsuitable: the model changes the size.
    """  # noqa: E501
    from accelerate import init_empty_weights

    from restore_bridge.prepass.swinir import read_model

    path = weights.resolve(source, allow_pickle=allow_pickle)
    found = read_model(path, allow_pickle=allow_pickle)
    if found.scale != 1:
        raise WeightsUnsuitable(
            f"this SwinIR model enlarges {found.scale} times", weights.shown(path), "give the general restoration model"
        )
    network: Any = found.model
    known: Mapping[str, Any] = network.hyperparameters
    names = [name for name in SwinIRModel._get_init_keys(SwinIRModel) if name in known]
    with init_empty_weights():
        model: Any = SwinIRModel(**{name: known[name] for name in names})
    model.network = network
    return cast("SwinIRModel", model.eval())


def to_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released names, from ours."""
    here, there = FIRST
    return {
        there + name.removeprefix(here) if name.startswith(here) else name.removeprefix("network."): tensor
        for name, tensor in tensors.items()
    }
