"""Does restoring bring a spoiled photo closer to the untouched one, and is what is returned ever worse than what came?

    python benchmarks/restoration.py FOLDER [FOLDER ...] [--every N] [--severities 2,3,4]

Each photo is spoiled by one known operation and goes through the whole pipeline with its defaults; PSNR and SSIM are
taken against the untouched photo. The peer in the same run is the guidance-free `classical` pre-pass alone.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from restore_bridge import BridgeSettings, RestoreBridge
from restore_bridge.prepass import load_prepass
from restore_bridge.scoring import psnr, ssim
from restore_bridge.selection import standing
from zoomiqa import find_pictures, open_picture, picture_from_array
from zoomiqa.imaging.distortions import distort

OPERATIONS = ("gaussian_blur", "motion_blur", "gaussian_noise", "jpeg", "low_light", "color_cast")


def examine(path: Path, severities: tuple[int, ...], candidates: int) -> list[tuple[object, ...]]:
    """One row per operation and severity of one photo."""
    pristine = open_picture(path)
    bridge = RestoreBridge(settings=BridgeSettings(candidates=candidates))
    rows: list[tuple[object, ...]] = []
    for operation in OPERATIONS:
        for severity in severities:
            seed = sum(path.name.encode()) + severity
            spoiled = picture_from_array(distort(pristine.pixels, operation, severity, seed=seed).pixels)
            result = bridge.run(spoiled)
            peer = load_prepass("classical").clean(spoiled)
            after = result.after if result.kept == "restored" and result.after else result.before
            figures = [
                value
                for pixels in (spoiled.pixels, result.picture.pixels, peer.pixels)
                for value in (psnr(pixels, pristine.pixels), ssim(pixels, pristine.pixels))
            ]
            gain = standing(after) - standing(result.before)
            rows.append((operation, severity, result.kept == "restored", gain, *figures))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--severities", default="2,3,4")
    parser.add_argument("--candidates", type=int, default=2)
    arguments = parser.parse_args()
    severities = tuple(int(word) for word in arguments.severities.split(","))
    paths = find_pictures(arguments.folders)[arguments.offset :: arguments.every]
    with ProcessPoolExecutor(2) as pool:
        work = (paths, [severities] * len(paths), [arguments.candidates] * len(paths))
        rows = [row for found in pool.map(examine, *work) for row in found]

    print(f"{len(paths)} photos, {len(rows)} restorations")
    print(
        f"{'operation':<15}{'sev':>4}{'kept':>6}{'PSNR in':>9}{'out':>7}{'peer':>7}{'SSIM in':>9}{'out':>7}{'peer':>7}"
    )
    for operation in OPERATIONS:
        for severity in (*severities, None):
            chosen = [row for row in rows if row[0] == operation and severity in (row[1], None)]
            kept = np.mean([bool(row[2]) for row in chosen])
            figures = np.mean([[float(value) for value in row[4:]] for row in chosen], axis=0)  # type: ignore[arg-type]
            shown = "all" if severity is None else severity
            print(
                f"{operation:<15}{shown:>4}{kept:>6.0%}{figures[0]:>9.2f}{figures[2]:>7.2f}{figures[4]:>7.2f}"
                f"{figures[1]:>9.3f}{figures[3]:>7.3f}{figures[5]:>7.3f}"
            )
    worse = sum(float(row[3]) < 0 for row in rows)  # type: ignore[arg-type]
    print(f"returned with a lower standing than the input: {worse} of {len(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
