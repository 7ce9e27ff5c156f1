"""The main job on real photographs, from nothing but this checkout: `make demo`.

Photographs come with scikit-image (public domain or CC0). Two are taken as they are; the others are spoiled by one
known operation each, so that the restored picture can also be scored against the untouched one.
Everything is then done by the ordinary command:

    restore-bridge run demo-output/photos --out demo-output --reference demo-output/untouched
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from restore_bridge.cli import main as restore_bridge
from zoomiqa import save_picture
from zoomiqa.imaging.distortions import distort

AS_THEY_ARE = ("rocket", "camera")
SPOILED = {"astronaut": "gaussian_noise", "coffee": "gaussian_blur", "chelsea": "jpeg", "motorcycle": "low_light"}
SEVERITY = 3


def load(name: str) -> np.ndarray:
    """One bundled photograph as HxWx3 uint8."""
    from skimage import data
    from skimage.util import img_as_ubyte

    if name == "motorcycle":
        return np.ascontiguousarray(data.stereo_motorcycle()[0][..., :3])
    pixels = img_as_ubyte(getattr(data, name)())
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    out = parser.parse_args().out
    photos, untouched = out / "photos", out / "untouched"
    for folder in (photos, untouched):
        folder.mkdir(parents=True, exist_ok=True)
    for name in AS_THEY_ARE:
        save_picture(load(name), photos / f"{name}.png", overwrite=True)
    for name, operation in SPOILED.items():
        pristine = load(name)
        spoiled = distort(pristine, operation, SEVERITY, seed=1).pixels
        save_picture(spoiled, photos / f"{name}-{operation}.png", overwrite=True)
        save_picture(pristine, untouched / f"{name}-{operation}.png", overwrite=True)
    start = time.perf_counter()
    code = restore_bridge(
        ["run", str(photos), "--out", str(out), "--reference", str(untouched), "--overwrite", "--progress", "plain"]
    )
    print(f"\n{time.perf_counter() - start:.0f} s. Open the report in a browser: {(out / 'report.html').resolve()}")
    return code


if __name__ == "__main__":
    sys.exit(main())
