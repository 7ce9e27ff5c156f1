"""Total reward, Zoom-IQA Eq. 6: R_format + α·R_score + β·R_rank with α = 1 and β = 2 (Sec. 10.1).

Further rewards join the sum under their own weights. One that does not apply adds nothing; a sample to which none
applies has no total. It must not know how a reward comes about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from zoomiqa.errors import OptionInvalid

PAPER_WEIGHTS: Mapping[str, float] = {"format": 1.0, "score": 1.0, "rank": 2.0}


def total_reward(
    parts: Mapping[str, Sequence[float | None]], weights: Mapping[str, float] = PAPER_WEIGHTS
) -> list[float | None]:
    """The weighted sum for each sample.

    Args:
        parts: Rewards by name, all of one length.
        weights: One for each part, no more and no fewer: a reward that is computed but not weighed, or the other way
            round, is a mistake.

    Raises:
        OptionInvalid: parts and weights differ in names, parts differ in length, or a number is not finite.
    """
    if parts.keys() != weights.keys():
        raise OptionInvalid(
            "every reward needs a weight and every weight a reward", sorted(parts.keys() ^ weights.keys()),
            "give both the same names",
        )  # fmt: skip
    if len({len(values) for values in parts.values()}) > 1:
        lengths = {name: len(values) for name, values in parts.items()}
        raise OptionInvalid("rewards must cover the same samples", lengths, "compute all of them on one batch")
    columns = [[None if value is None else weights[name] * value for value in parts[name]] for name in parts]
    totals: list[float | None] = []
    for row in zip(*columns, strict=True):
        earned = [value for value in row if value is not None]
        if not all(map(math.isfinite, earned)):
            raise OptionInvalid("a reward or weight is not finite", dict(zip(parts, row, strict=True)), "look at it")
        totals.append(math.fsum(earned) if earned else None)
    return totals
