"""Does the text name the right flaw first, and does it leave clean photos alone?

    python benchmarks/diagnosis.py FOLDER [FOLDER ...] [--every N] [--severities 2,3,4,5]

Every photo is assessed as it is (a stated flaw is a false accusation) and after one known operation of
`zoomiqa.imaging.distortions`. What counts is the text of the last look: the first flaw that its *Issues to Avoid*
names. The peer in the same run is the first look alone.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from zoomiqa import assess, find_pictures, open_picture
from zoomiqa.imaging.distortions import DISTORTIONS, distort
from zoomiqa.types import Assessment
from zoomiqa.vocabulary import find_flaws

OPERATIONS = ("gaussian_blur", "gaussian_noise", "jpeg", "low_light", "color_cast")


def first_flaw(text: str | None) -> str:
    """The first flaw that a text names, or "none"."""
    flaws = find_flaws(text or "")
    return str(flaws[0][0]) if flaws else "none"


def _named(assessment: Assessment) -> tuple[str, str]:
    first, last = assessment.rounds[0], assessment.rounds[-1]
    return first_flaw(first.sections.issues), first_flaw(last.sections.issues)


def examine(path: Path, severities: tuple[int, ...]) -> list[tuple[str, int, str, str]]:
    """(operation, severity, named by the first look, named by the last look) for one photo."""
    picture = open_picture(path)
    rows = [("clean", 0, *_named(assess(picture)))]
    for operation in OPERATIONS:
        for severity in severities:
            seed = sum(path.name.encode()) + severity
            spoiled = distort(picture.pixels, operation, severity, seed=seed).pixels
            rows.append((operation, severity, *_named(assess(spoiled))))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--every", type=int, default=1, help="take every N-th photo (default: 1)")
    parser.add_argument("--offset", type=int, default=0, help="start at this photo (default: 0)")
    parser.add_argument("--severities", default="2,3,4,5")
    arguments = parser.parse_args()
    severities = tuple(int(word) for word in arguments.severities.split(","))
    paths = find_pictures(arguments.folders)[arguments.offset :: arguments.every]
    with ProcessPoolExecutor(2) as pool:
        rows = [row for found in pool.map(examine, paths, [severities] * len(paths)) for row in found]

    clean = [row for row in rows if row[0] == "clean"]
    unaccused = sum(row[3] == "none" for row in clean)
    print(f"{len(paths)} photos; clean ones left unaccused: {unaccused}/{len(clean)} = {unaccused / len(clean):.1%}")
    accused = Counter(row[3] for row in clean if row[3] != "none")
    if accused:
        print("  accused of:", ", ".join(f"{flaw} x{count}" for flaw, count in accused.most_common()))
    print(f"{'operation':<16}{'severity':>9}{'first look':>12}{'last look':>11}   mistaken for")
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for operation in OPERATIONS:
        wanted = str(DISTORTIONS[operation].flaw)
        for severity in severities:
            chosen = [row for row in rows if row[0] == operation and row[1] == severity]
            right = [sum(row[column] == wanted for row in chosen) for column in (2, 3)]
            wrong = Counter(row[3] for row in chosen if row[3] != wanted)
            for name in (operation, "all"):
                totals[name] = [total + add for total, add in zip(totals[name], (*right, len(chosen)), strict=True)]
            mistaken = ", ".join(f"{flaw} x{count}" for flaw, count in wrong.most_common(3))
            shares = f"{right[0] / len(chosen):>12.0%}{right[1] / len(chosen):>11.0%}"
            print(f"{operation:<16}{severity:>9}{shares}   {mistaken}")
    for name, (first, last, count) in totals.items():
        print(f"{name:<25}{first / count:>12.1%}{last / count:>11.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
