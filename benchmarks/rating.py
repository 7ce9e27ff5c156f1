"""How well the ratings agree with people, first look against last, whole set and each subset.

    python benchmarks/rating.py ANNOTATIONS.json --image-root DIR [--assessor compact] [--limit N] [--json FILE]

The annotation format is that of `zoomiqa.evaluation.load_annotations`. Failures are counted and shown, never dropped
silently. The peer in the same run is the assessor's own first look.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from zoomiqa.assessors import AssessorSpec, create_assessor
from zoomiqa.batch import assess_files, choose_jobs
from zoomiqa.evaluation import agreement, load_annotations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--image-root", type=Path, required=True)
    parser.add_argument("--assessor", default="compact")
    parser.add_argument("--limit", type=int, help="a random sample of so many pictures (seed 0)")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--json", type=Path, help="write ratings and figures to this file")
    arguments = parser.parse_args()

    labelled = load_annotations(arguments.annotations, arguments.image_root)
    if arguments.limit and arguments.limit < len(labelled):
        labelled = random.Random(0).sample(labelled, arguments.limit)  # noqa: S311 - a reproducible sample
    spec = AssessorSpec(name=arguments.assessor)
    jobs = choose_jobs(arguments.jobs, len(labelled), create_assessor(spec))
    start = time.perf_counter()
    results = list(assess_files([item.path for item in labelled], spec, jobs=int(jobs.value)))
    seconds = time.perf_counter() - start

    rows, failures = [], 0
    for item, result in zip(labelled, results, strict=True):
        if result.rating is None:
            failures += 1
            continue
        rows.append((item.subset or "", item.gt_score, result.rounds[0].rating, result.rating, result.spread))
    print(f"{len(labelled)} pictures, {failures} failures, {len(labelled) / seconds:.1f} pictures/s, {jobs.value} jobs")
    print(f"{'subset':<10}{'count':>6}  {'look':<6}{'SRCC':>7}{'PLCC':>7}{'KRCC':>7}{'RMSE':>7}")
    figures = {}
    for subset in ["all", *sorted({row[0] for row in rows if row[0]})]:
        chosen = [row for row in rows if subset in ("all", row[0])]
        if len(chosen) < 3:
            continue
        for look, column in (("first", 2), ("last", 3)):
            found = agreement([row[column] for row in chosen], [row[1] for row in chosen])
            figures[f"{subset}/{look}"] = {
                "srcc": found.srcc,
                "plcc": found.plcc,
                "krcc": found.krcc,
                "rmse": found.rmse,
            }
            print(
                f"{subset:<10}{found.count:>6}  {look:<6}"
                f"{found.srcc:>7.3f}{found.plcc:>7.3f}{found.krcc:>7.3f}{found.rmse:>7.3f}"
            )
    two_looks = sum(len(result.rounds) > 1 for result in results)
    print(f"second looks taken: {two_looks} of {len(results)}")
    spreads = [(row[4], abs(row[3] - row[1])) for row in rows if row[4] is not None]
    if len(spreads) > 2:
        found = agreement([pair[0] for pair in spreads], [pair[1] for pair in spreads])
        print(f"stated spread against absolute error: SRCC {found.srcc:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"figures": figures, "failures": failures, "seconds": seconds}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
