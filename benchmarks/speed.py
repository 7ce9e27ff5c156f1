"""Time and memory of the whole command, as a user feels them.

    python benchmarks/speed.py [--photos DIR]

Three figures: `import zoomiqa`; `zoomiqa assess` on a 12-megapixel JPEG (made from a bundled photo); a folder of
512x384 photos. The peer in the same run is scikit-image's `blur_effect` alone on the same 12-megapixel file: one
signal of a known library, against the whole assessment. Every command is run afresh several times; medians are shown.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = (
    "import sys, numpy, PIL.Image, skimage.measure;"
    "print(skimage.measure.blur_effect(numpy.asarray(PIL.Image.open(sys.argv[1]).convert('L'))))"
)


def run(command: list[str], times: int = 5) -> tuple[float, float]:
    """Median wall seconds and largest memory (MiB) of a command over `times` runs."""
    seconds, peaks = [], []
    for _ in range(times):
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = wait4(child.pid)
        seconds.append(time.perf_counter() - start)
        child.returncode = status
        if status:
            raise SystemExit(f"{command[:4]} failed")
        peaks.append(usage.ru_maxrss / 1024)
    return statistics.median(seconds), max(peaks)


def wait4(pid: int) -> tuple[int, int, resource.struct_rusage]:
    return os.wait4(pid, 0)


def large_photo(path: Path) -> None:
    """A 12-megapixel JPEG with natural content: a bundled photo enlarged, with fine grain so that it is not empty."""
    import numpy as np
    from PIL import Image
    from skimage import data

    small = Image.fromarray(data.astronaut()).resize((4000, 3000), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 4, (3000, 4000, 1))
    Image.fromarray(np.clip(np.asarray(small) + grain, 0, 255).astype(np.uint8)).save(path, quality=92)


def make_photos(folder: Path, photos: Path | None, count: int) -> None:
    """The large photo and a folder of `count` small ones cut from `photos`, or from the large one."""
    from PIL import Image

    large_photo(folder / "large.jpg")
    sources = sorted(photos.iterdir()) if photos else [folder / "large.jpg"]
    for index in range(count):
        picture = Image.open(sources[index % len(sources)]).convert("RGB")
        grow = 8 * (index % 7)
        small = picture.resize((512 + grow, 384 + grow)).crop((0, 0, 512, 384))
        small.save(folder / "many" / f"{index:04}.jpg", quality=90)


def _passed_on(arguments: argparse.Namespace) -> list[str]:
    photos = ["--photos", str(arguments.photos)] if arguments.photos else []
    return ["--count", str(arguments.count), *photos]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", type=Path, help="folder of photos for the folder run (default: made from bundled ones)"
    )
    parser.add_argument("--count", type=int, default=120, help="photos in the folder run")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_photos(arguments.make, arguments.photos, arguments.count)
        return 0
    zoomiqa = str(Path(sys.executable).with_name("zoomiqa"))
    with tempfile.TemporaryDirectory() as folder:
        photo, many = Path(folder, "large.jpg"), Path(folder, "many")
        many.mkdir()
        # In a process of its own: the peak memory of a child counts from its parent's.
        subprocess.run([sys.executable, __file__, "--make", folder, *_passed_on(arguments)], check=True)
        bare, _ = run([sys.executable, "-c", "pass"])
        imported, _ = run([sys.executable, "-c", "import zoomiqa"])
        print(f"import zoomiqa: {1000 * (imported - bare):.0f} ms over bare Python")
        ours, ours_mib = run([zoomiqa, "assess", str(photo), "--format", "json"])
        peer, peer_mib = run([sys.executable, "-c", PEER, str(photo)])
        print(f"12-megapixel JPEG, whole command: {ours:.2f} s, {ours_mib:.0f} MiB")
        print(f"peer, skimage blur_effect alone:  {peer:.2f} s, {peer_mib:.0f} MiB; ratio of time {ours / peer:.2f}")
        folder_s, _ = run([zoomiqa, "assess", str(many), "--out", str(Path(folder, "r.jsonl")), "--overwrite"], times=3)
        print(f"{arguments.count} photos of 512x384, whole command: {arguments.count / folder_s:.1f} photos/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
