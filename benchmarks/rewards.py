"""Time of the rank reward on a batch, against Eq. 5 written plainly as loops over samples and pictures.

python benchmarks/rewards.py [--groups 64] [--samples 8]
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable

from zoomiqa.rewards import rank_rewards
from zoomiqa.rewards.rank import EPSILON

Batch = tuple[list[float], list[float], list[int]]


def draw(groups: int, samples: int) -> Batch:
    """Ratings, true ratings and group of every sample."""
    rng = random.Random(0)  # noqa: S311 - a reproducible draw, not a secret
    truths = [rng.uniform(1, 5) for _ in range(groups)]
    rows = [(rng.gauss(truth, 0.4), truth, group) for group, truth in enumerate(truths) for _ in range(samples)]
    ratings, true, names = map(list, zip(*rows, strict=True))
    return ratings, true, names


def plainly(ratings: list[float], truths: list[float], groups: list[int]) -> list[float]:
    """The peer."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    mean = {group: statistics.fmean(ratings[row] for row in rows) for group, rows in members.items()}
    variance = {group: statistics.variance(ratings[row] for row in rows) for group, rows in members.items()}
    rewards = []
    for rating, truth, group in zip(ratings, truths, groups, strict=True):
        total = 0.0
        for other, rows in members.items():
            if other == group:
                continue
            z = (rating - mean[other]) / math.sqrt(variance[group] + variance[other] + EPSILON)
            guess = 0.5 * (1 + math.erf(z / math.sqrt(2)))
            lead = truth - truths[rows[0]]
            true = 1.0 if lead > 0 else 0.5 if lead == 0 else 0.0
            total += math.sqrt(guess * true + EPSILON) + math.sqrt((1 - guess) * (1 - true) + EPSILON)
        rewards.append(total / (len(members) - 1))
    return rewards


def milliseconds(work: Callable[[], object], times: int = 15) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    arguments = parser.parse_args()
    ratings, truths, groups = draw(arguments.groups, arguments.samples)
    ours = [reward or 0.0 for reward in rank_rewards(ratings, truths, groups)]
    difference = max(abs(one - other) for one, other in zip(ours, plainly(ratings, truths, groups), strict=True))
    if difference > 1e-9:
        raise SystemExit(f"the two sides differ by {difference:.1e}")
    mine = milliseconds(lambda: rank_rewards(ratings, truths, groups))
    peer = milliseconds(lambda: plainly(ratings, truths, groups))
    size = f"{arguments.groups} groups of {arguments.samples}"
    print(f"{size}: ours {mine:.2f} ms, loops {peer:.1f} ms, ratio {mine / peer:.3f}")


if __name__ == "__main__":
    main()
