"""Does the text name the right flaw first, how strong it is and where, and does it leave clean photos alone?

    python benchmarks/diagnosis.py FOLDER [FOLDER ...] [--every N] [--offset K] [--assessor compact]

Every photo is assessed as it is (a stated flaw is a false accusation), after one known operation of
`zoomiqa.imaging.distortions` everywhere, and after one in a box. What counts is the text of the last look: the first
flaw that its *Issues to Avoid* names. The peer in the same run is the first look alone. Levels: the rank correlation
of the stated strength (0 where the flaw is not stated) with the severity, within each photo. Places: intersection over
union of the box with the true one; a flaw that is not stated counts as 0, one of the whole frame as what that is worth.

Photographs with an odd number in Kodak24 and BSDS500 were fitted on (`training/compact/diagnosis`). Of the even ones
(`--every 2 --offset 1`), every third from the first (`--every 6 --offset 1`) was looked at while limits were chosen;
the others (`--every 6 --offset 3`, `--every 6 --offset 5`) were kept for measuring.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from zoomiqa import assess, find_pictures, open_picture
from zoomiqa.assessors.compact.diagnosis import overlap
from zoomiqa.imaging.distortions import DISTORTIONS, distort
from zoomiqa.types import Assessment, BoxFraction
from zoomiqa.vocabulary import find_flaws

OPERATIONS = (
    "gaussian_blur",
    "motion_blur",
    "gaussian_noise",
    "camera_noise",
    "jpeg",
    "low_light",
    "overexposure",
    "color_cast",
)
REPAIRED = ("gaussian_blur", "motion_blur", "gaussian_noise", "jpeg", "low_light", "color_cast")
"""Those of `benchmarks/restoration.py`."""

LOCAL_OPERATIONS = ("gaussian_blur", "gaussian_noise", "jpeg")
LOCAL_SEVERITIES = (3, 5)


def first_flaw(text: str | None) -> str:
    """The first flaw that a text names, or "none"."""
    flaws = find_flaws(text or "")
    return str(flaws[0][0]) if flaws else "none"


@dataclass(frozen=True, slots=True)
class Case:
    """One assessment of one photo, whole or changed."""

    photo: str
    operation: str
    severity: int
    named_first: str
    """By the first look."""

    named: str
    """By the last look."""

    strength: float
    """Of the flaw that the operation makes; 0 where it is not stated."""

    place: float
    """Overlap of its box with the true one."""


def _case(
    photo: str, operation: str, severity: int, assessment: Assessment, box: BoxFraction = (0.0, 0.0, 1.0, 1.0)
) -> Case:
    first, last = assessment.rounds[0], assessment.rounds[-1]
    names = first_flaw(first.sections.issues), first_flaw(last.sections.issues)
    wanted = DISTORTIONS[operation].flaw if operation in DISTORTIONS else None
    found = [finding for finding in last.findings if finding.flaw == wanted]
    strength = max((finding.strength for finding in found), default=0.0)
    place = max((overlap(finding.box_fraction, box) for finding in found), default=0.0)
    return Case(photo, operation, severity, *names, strength, place)


def examine(
    path: Path, severities: tuple[int, ...], assessor: str, is_clean_only: bool
) -> tuple[list[Case], list[Case]]:
    """The cases of one photo: changed everywhere (or not at all), and changed in a box."""
    picture = open_picture(path)
    everywhere = [_case(path.name, "clean", 0, assess(picture, assessor))]
    local: list[Case] = []
    if is_clean_only:
        return everywhere, local
    seed = sum(path.name.encode())
    for operation in OPERATIONS:
        for severity in severities:
            spoiled = distort(picture.pixels, operation, severity, seed=seed + severity).pixels
            everywhere.append(_case(path.name, operation, severity, assess(spoiled, assessor)))
    rng = np.random.default_rng(seed)
    width, height = rng.uniform(0.35, 0.6, 2)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    box = (float(x), float(y), float(x + width), float(y + height))
    for operation in LOCAL_OPERATIONS:
        for severity in LOCAL_SEVERITIES:
            spoiled = distort(picture.pixels, operation, severity, seed + severity, box).pixels
            local.append(_case(path.name, operation, severity, assess(spoiled, assessor), box))
    return everywhere, local


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--every", type=int, default=1, help="take every N-th photo (default: 1)")
    parser.add_argument("--offset", type=int, default=0, help="start at this photo (default: 0)")
    parser.add_argument("--severities", default="2,3,4,5")
    parser.add_argument("--assessor", default="compact")
    parser.add_argument("--clean-only", action="store_true", help="only the photos as they are")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    severities = tuple(int(word) for word in arguments.severities.split(","))
    paths = find_pictures(arguments.folders)[arguments.offset :: arguments.every]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        count = len(paths)
        settings = ([severities] * count, [arguments.assessor] * count, [arguments.clean_only] * count)
        found = list(pool.map(examine, paths, *settings))
    cases = [case for everywhere, _ in found for case in everywhere]
    print_clean([case for case in cases if case.operation == "clean"])
    if arguments.clean_only:
        return 0
    print_names(cases, severities)
    print_levels(cases)
    print_places([case for _, local in found for case in local])
    return 0


def print_clean(clean: Sequence[Case]) -> None:
    """How many clean photos are left alone."""
    unaccused = sum(case.named == "none" for case in clean)
    print(f"{len(clean)} photos; clean ones left unaccused: {unaccused}/{len(clean)} = {unaccused / len(clean):.1%}")
    accused = Counter(case.named for case in clean if case.named != "none")
    if accused:
        print("  accused of:", ", ".join(f"{flaw} x{count}" for flaw, count in accused.most_common()))
        print("  ", ", ".join(f"{case.photo} ({case.named})" for case in clean if case.named != "none"))


def print_names(cases: Sequence[Case], severities: Sequence[int]) -> None:
    """How often the right flaw is named first."""
    print(f"{'operation':<16}{'severity':>9}{'first look':>12}{'last look':>11}   mistaken for")
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for operation in OPERATIONS:
        wanted = str(DISTORTIONS[operation].flaw)
        for severity in severities:
            chosen = [case for case in cases if case.operation == operation and case.severity == severity]
            right = [sum(case.named_first == wanted for case in chosen), sum(case.named == wanted for case in chosen)]
            wrong = Counter(case.named for case in chosen if case.named != wanted)
            groups = ("all", "the six repaired") if operation in REPAIRED else ("all",)
            for name in (operation, *groups):
                totals[name] = [total + add for total, add in zip(totals[name], (*right, len(chosen)), strict=True)]
            mistaken = ", ".join(f"{flaw} x{count}" for flaw, count in wrong.most_common(3))
            shares = f"{right[0] / len(chosen):>12.0%}{right[1] / len(chosen):>11.0%}"
            print(f"{operation:<16}{severity:>9}{shares}   {mistaken}")
    for name, (first, last, count) in totals.items():
        print(f"{name:<25}{first / count:>12.1%}{last / count:>11.1%}")


def print_levels(cases: Sequence[Case]) -> None:
    """How well the stated strength follows the severity."""
    means = []
    for operation in OPERATIONS:
        series: dict[str, list[Case]] = defaultdict(list)
        for case in cases:
            if case.operation == operation:
                series[case.photo].append(case)
        found = [_level(each) for each in series.values()]
        means.append(float(np.mean(found)))
        print(f"level correlation {operation:<16}{means[-1]:>7.3f}")
    print(f"level correlation {'mean':<16}{np.mean(means):>7.3f}")


def _level(cases: Sequence[Case]) -> float:
    """Rank correlation of strength and severity, the untouched photo's strength of 0 included."""
    strengths = [0.0, *(case.strength for case in cases)]
    if len(set(strengths)) == 1:
        return 0.0
    return float(spearmanr([0, *(case.severity for case in cases)], strengths).statistic)


def print_places(local: Sequence[Case]) -> None:
    """How well the boxes of local flaws meet the true ones."""
    for operation in LOCAL_OPERATIONS:
        chosen = [case for case in local if case.operation == operation]
        stated = [case for case in chosen if case.strength > 0]
        share = len(stated) / max(len(chosen), 1)
        where = np.mean([case.place for case in stated]) if stated else 0.0
        mean = np.mean([case.place for case in chosen])
        print(f"box overlap {operation:<16} stated {share:>4.0%}, of those {where:.3f}, over all {mean:.3f}")
    print(f"box overlap {'mean':<16} {np.mean([case.place for case in local]):.3f}")


if __name__ == "__main__":
    sys.exit(main())
