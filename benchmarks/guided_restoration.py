"""Is a restorer better than `classical` when both are told the same, and does it matter what it is told?

    python benchmarks/guided_restoration.py PHOTOS [--every N] [--restorer compact] [--out rows.json] [--sheet FILE]

PHOTOS is a folder of clean photographs, of which the restorer's training holds back the first two of every 18; only
those are used. Each is spoiled in known ways (one flaw at random levels, and mixtures of two, in a camera's order) and
restored under guidance that was read from text: the right one, a wrong one (a flaw that is not there), a generic wish,
and everything at once. `classical` runs in the same process under the right one, as said and at each fixed strength.
Figures are against the untouched photo: PSNR, SSIM, and NLPD, the distance between normalised Laplacian pyramids
(Laparra et al. 2016; less is better), which follows what people see better than either. All draws are from `--seed`.
Last come the pace over one megapixel, called noisy, blurred and blocked and then shaken, and the most memory of the
process that did it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from restore_bridge.guidance import split_text
from restore_bridge.restorers import load_restorer
from restore_bridge.scoring import psnr, ssim
from training.compact.restorer.cases import Damage, Kind, spoil, statement, word_for
from training.compact.restorer.photos import split
from zoomiqa import open_picture, picture_from_array

FAMILIES: dict[str, Kind] = {
    kind.family: kind
    for kind in (
        Kind("color_cast", "cast", 0.15, 0.8, 1, ("colour cast",)),
        Kind("low_light", "light", 0.5, 0.06, 1, ("underexposure",)),
        Kind("gaussian_blur", "blur", 0.8, 3.0, 1, ("blur",)),
        Kind("motion_blur", "motion", 5, 21, 1, ("motion blur",)),
        Kind("gaussian_noise", "noise", 10, 50, 1, ("noise",)),
        Kind("jpeg", "jpeg", 50, 10, 1, ("compression blocking",)),
    )
}
"""In the order in which a camera makes them."""

GENERIC = "Improve the overall quality of this photo. Make it look better, professional and beautiful."
EVERYTHING = "Blur, motion blur, noise, compression blocking, underexposure and colour cast."
STRENGTHS = ("slight", "moderate", "severe")


def nlpd(first: np.ndarray, second: np.ndarray, scales: int = 5) -> float:
    """Normalised Laplacian pyramid distance of the luma of two pictures, 0 for equal ones."""

    def pyramid(pixels: np.ndarray) -> list[np.ndarray]:
        grey = (pixels.astype(np.float32) / 255) @ np.array([0.299, 0.587, 0.114], np.float32)
        levels = []
        for _ in range(scales):
            small = cv2.pyrDown(grey)
            band = grey - cv2.pyrUp(small, dstsize=(grey.shape[1], grey.shape[0]))
            levels.append(band / (0.17 + cv2.GaussianBlur(np.abs(band), (5, 5), 0)))
            grey = small
        return [*levels, grey / (4.86 + np.abs(grey))]

    pairs = zip(pyramid(first), pyramid(second), strict=True)
    return float(np.mean([np.sqrt(np.mean(np.square(a - b))) for a, b in pairs]))


def cases_of(name: str, seed: int, singles: int, mixtures: int) -> list[list[tuple[str, Damage, float]]]:
    """The ways in which the photo `name` is spoiled: (family, damage, level) in order."""
    rng = np.random.default_rng([seed, *name.encode()])
    order = list(FAMILIES)
    sets = [[family] for family in order for _ in range(singles)]
    sets += [sorted(rng.choice(order, 2, replace=False), key=order.index) for _ in range(mixtures)]
    made = []
    for families in sets:
        levels = [float(rng.random()) for _ in families]
        made.append(
            [
                (
                    str(family),
                    Damage(kind := FAMILIES[family], kind.parameter(level), int(rng.integers(2**31)), None),
                    level,
                )
                for family, level in zip(families, levels, strict=True)
            ]
        )
    return made


def hue_of(damage: Damage) -> str:
    """The hue that `color_cast` draws from the damage's seed."""
    from zoomiqa.imaging.distortions import DISTORTIONS

    return DISTORTIONS["color_cast"].operation(np.zeros((2, 2, 3), np.uint8), 0.1, np.random.default_rng(damage.seed))[
        1
    ]


def say(case: Sequence[tuple[str, Damage, float]], word: str | None = "measured") -> str:
    """What is right to say of a case; `word` replaces the words of strength."""
    said = []
    for family, damage, level in case:
        name = damage.kind.names[0]
        if family == "cast":
            name = f"{hue_of(damage)} {name.replace('colour ', '')}"
        said.append(statement(name, word_for(level) if word == "measured" else word))
    return ". ".join(said)


def examine(path: Path, options: argparse.Namespace) -> list[dict[str, object]]:
    """One row per case of one photo."""
    clean = open_picture(path).pixels
    restorer, classical = load_restorer(options.restorer), load_restorer("classical")
    rows, strips = [], []
    for number, case in enumerate(cases_of(path.name, options.seed, options.singles, options.mixtures)):
        spoiled = picture_from_array(spoil(clean, [damage for _, damage, _ in case]))
        present = {family for family, _, _ in case}
        rng = np.random.default_rng([options.seed, number, *path.name.encode()])
        absent = [kind for family, kind in FAMILIES.items() if family not in present]
        wrong = statement(absent[int(rng.integers(len(absent)))].names[0], "moderate")
        told = {"right": say(case), "plain": say(case, None), "wrong": wrong, "everything": EVERYTHING}
        tried = {f"own {name}": (restorer, split_text(None, text)) for name, text in told.items()}
        tried["own generic"] = (restorer, split_text(GENERIC, None))
        tried["own nothing"] = (restorer, split_text(None, None))
        tried["classical right"] = (classical, split_text(None, say(case)))
        for word in STRENGTHS:
            tried[f"classical {word}"] = (classical, split_text(None, say(case, word)))
        row: dict[str, object] = {
            "photo": path.name,
            "family": case[0][0] if len(case) == 1 else "mixture",
            "flaws": "+".join(f"{family} {damage.parameter:.3g}" for family, damage, _ in case),
            "wrong": wrong,
        }
        pictures = {"input": spoiled.pixels}
        for name, (one, guidance) in tried.items():
            began = time.perf_counter()
            pictures[name] = one.restore(spoiled, guidance).picture.pixels
            row[f"seconds {name}"] = time.perf_counter() - began
        row["kept"] = min(psnr(pictures["own nothing"], spoiled.pixels), 100.0)
        for name, pixels in pictures.items():
            row[name] = (min(psnr(pixels, clean), 100.0),)
            if name in ("input", "own right") or name.startswith("classical"):
                row[name] = (min(psnr(pixels, clean), 100.0), ssim(pixels, clean), nlpd(pixels, clean))
        rows.append(row)
        if options.sheet:
            strips.append(
                np.hstack(
                    [
                        _crop(pixels)
                        for pixels in (clean, spoiled.pixels, pictures["own right"], pictures["classical right"])
                    ]
                )
            )
    if options.sheet:
        folder = Path(options.sheet)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.vstack(strips)).save(folder / f"{path.stem}.png")
    return rows


def _crop(pixels: np.ndarray, side: int = 224) -> np.ndarray:
    y, x = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[y : y + side, x : x + side]


def _mean(rows: Sequence[dict[str, object]], name: str) -> np.ndarray:
    return np.mean([row[name] for row in rows], axis=0)  # type: ignore[arg-type, return-value, call-overload]


def report(rows: Sequence[dict[str, object]]) -> None:
    fixed = [f"classical {word}" for word in ("right", *STRENGTHS)]
    print("gain: mean PSNR over the fixed classical setting that is best for the family (named last); each: the best")
    print(
        "setting for every single case, which nobody knows; won: share of cases in which the right guidance is closer"
    )
    print(
        f"{'':<10}{'cases':>6}{'PSNR in':>9}{'own':>7}{'class.':>8}{'best':>7}{'each':>7}{'gain':>7}"
        f"{'SSIM in':>9}{'own':>7}{'best':>7}{'NLPD in':>9}{'own':>7}{'best':>7}"
        f"{'won: wrong':>12}{'generic':>9}{'all':>6}"
    )
    for family in (*FAMILIES, "mixture", None):
        chosen = [row for row in rows if family in (row["family"], None)]
        if not chosen:
            continue
        best_name = max(fixed, key=lambda name: _mean(chosen, name)[0])
        own, before, best = (_mean(chosen, name) for name in ("own right", "input", best_name))
        each = np.mean([max(_psnr(row, name) for name in (*fixed, "input")) for row in chosen])
        won = [
            np.mean([_psnr(row, "own right") > _psnr(row, f"own {other}") for row in chosen])
            for other in ("wrong", "generic", "everything")
        ]
        print(
            f"{family or 'all':<10}{len(chosen):>6}{before[0]:>9.2f}{own[0]:>7.2f}"
            f"{_mean(chosen, 'classical right')[0]:>8.2f}{best[0]:>7.2f}{each:>7.2f}{own[0] - best[0]:>+7.2f}"
            f"{before[1]:>9.3f}{own[1]:>7.3f}{best[1]:>7.3f}{before[2]:>9.3f}{own[2]:>7.3f}{best[2]:>7.3f}"
            f"{won[0]:>12.0%}{won[1]:>9.0%}{won[2]:>6.0%}  {best_name}"
        )
    words = _mean(rows, "own right")[0] - _mean(rows, "own plain")[0]
    kept = min(float(str(row["kept"])) for row in rows)
    print(f"words of strength add {words:+.2f} dB; told nothing, the output agrees with the input to {kept:.1f} dB")
    ratio = float(_mean(rows, "seconds own right") / _mean(rows, "seconds classical right"))
    print(f"time against classical: {ratio:.2f}")


PACED = {"detail": "Severe noise, blur and compression blocking.", "motion": "Severe motion blur."}


def pace(name: str, photo: Path, said: str, runs: int = 3) -> float:
    """Least seconds a megapixel over some runs, of a shaken picture of one megapixel of which `said` is said."""
    pixels = cv2.resize(open_picture(photo).pixels, (1152, 868), interpolation=cv2.INTER_CUBIC)
    pixels = spoil(pixels, [Damage(FAMILIES["motion"], 11.0, 0, None)])
    picture, guidance = picture_from_array(pixels), split_text(None, said)
    restorer, seconds = load_restorer(name), []
    for _ in range(runs):
        began = time.perf_counter()
        restorer.restore(picture, guidance)
        seconds.append(time.perf_counter() - began)
    return min(seconds) / (pixels.shape[0] * pixels.shape[1] / 1e6)


def _psnr(row: dict[str, object], name: str) -> float:
    return float(row[name][0])  # type: ignore[index]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--part", default="test", choices=("test", "choose"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--singles", type=int, default=2, help="levels of each flaw for each photo")
    parser.add_argument("--mixtures", type=int, default=6, help="mixtures of two for each photo")
    parser.add_argument("--restorer", default="compact")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file for the rows")
    parser.add_argument("--sheet", help="folder for before-and-after sheets: clean, spoiled, own, classical")
    options = parser.parse_args()
    paths = split(options.photos, options.part)[:: options.every]
    with ProcessPoolExecutor(options.jobs) as pool:
        rows = [row for found in pool.map(examine, paths, [options] * len(paths)) for row in found]
    if options.out:
        options.out.write_text(json.dumps(rows))
    print(f"{len(paths)} photos, {len(rows)} cases, seed {options.seed}")
    report(rows)
    for flaws, said in PACED.items():
        paces = {name: pace(name, paths[0], said) for name in (options.restorer, "classical")}
        shown = ", ".join(f"{name} {value:.2f}" for name, value in paces.items())
        print(f"seconds a megapixel, {flaws}: {shown}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"most memory of this process: {memory:.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
