"""From a rollout's rows to what the loss reads: rewards over the global batch, advantages, updates, KL-Coverage.

All of it happens on verl's single controller, which sees the whole rollout: the rank reward compares all pictures of
the batch without any gathering. A row is one look; rows of a trajectory share its advantage and its token count.

An update (verl's mini-batch, one optimizer step) takes a fixed number of **rows**: each process goes through its equal
share in order. So which rows meet in an update is known here, and KL-Coverage is ranked over exactly the rows of one
update, over all processes, **by π_old**: the same as by π at a rollout's first update, an approximation afterwards
(`training.objectives.coverage`; on one machine `log_probs="old"`). It must not know verl.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoomiqa.errors import OptionInvalid
from zoomiqa.rewards import Trajectory

from ..grpo.scoring import Outcome, Scored, score  # noqa: TID252
from ..objectives.coverage import collect, select  # noqa: TID252
from ..objectives.grpo import trajectory_share, trajectory_tokens  # noqa: TID252
from .data import truth_of
from .settings import ClusterSettings

Record = Mapping[str, Any]
"""What `looks` writes of each row, in plain types: `trajectory` and `group` (their names), `texts` (of all looks),
`rating`, `attributes` (names asked for), `item` (`data.row_of`), and `numeric` (a flag per token of this row's reply).
"""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Row tensors for the loss, and what was found on the way."""

    totals: Tensor
    """(rows,) total reward of the row's trajectory; 0 without one, and in verl's empty rows."""

    advantages: Tensor
    """(rows, T), 0 outside the reply."""

    numeric: Tensor
    """(rows, T) bool: numbers of answers."""

    selected: Tensor
    """(rows, T) bool: penalised by KL-Coverage."""

    tokens: Tensor
    """(rows,) integers: generated tokens of the row's trajectory, all its rows together."""

    trajectories: Tensor
    """(rows,) trajectories in the row's update."""

    selected_count: Tensor
    """(rows,) integers: selected tokens in the row's update."""

    outcomes: list[Outcome]
    scored: Scored


def update_numbers(rows: int, processes: int, rows_per_update: int) -> Tensor:
    """(rows,) the update each row belongs to: each process takes an equal, unbroken share and goes through it in order.

    Raises:
        OptionInvalid: the numbers do not divide each other.
    """
    if not rows or rows_per_update % processes or rows % rows_per_update:
        raise OptionInvalid(
            "rows must fill whole updates, and updates whole processes", (rows, rows_per_update, processes),
            "make actor.ppo_mini_batch_size x rollout.n a multiple of the processes",
        )  # fmt: skip
    share, part = rows // processes, rows_per_update // processes
    return torch.arange(rows) % share // part


def deal_padding(is_padding: Sequence[bool], processes: int, rows_per_update: int) -> list[int]:
    """An order in which each update of a process holds as many real rows as any other, or one more.

    verl fills the last update up with empty rows and leaves them at the end, where a step would be made from whatever
    few rows remain. Rows keep their process, and real ones their order.
    """
    updates = int(update_numbers(len(is_padding), processes, rows_per_update).max()) + 1
    share = len(is_padding) // processes
    order: list[int] = []
    for start in range(0, len(is_padding), share):
        real = [place for place in range(start, start + share) if not is_padding[place]]
        empty = [place for place in range(start, start + share) if is_padding[place]]
        for update in range(updates):
            begin, end = (len(real) * edge // updates for edge in (update, update + 1))
            missing = share // updates - (end - begin)
            order += [*real[begin:end], *empty[:missing]]
            del empty[:missing]
    return order


def prepare(
    records: Sequence[Record | None], old_log_probs: Tensor, valid: Tensor, updates: Tensor, settings: ClusterSettings
) -> Prepared:
    """Rewards, advantages and selection of a whole rollout.

    Args:
        records: One per row; `None` for verl's empty rows.
        old_log_probs: (rows, T) under the policy that is about to be trained.
        valid: (rows, T) 1 for generated tokens; all 0 in empty rows.
        updates: (rows,) from `update_numbers`.
        settings: Of the run.

    Raises:
        OptionInvalid: there is no trajectory, or flags do not fit the tokens.
    """
    first: dict[str, Record] = {}
    for record in records:
        if record is not None:
            first.setdefault(record["trajectory"], record)
    if not first:
        raise OptionInvalid("the rollout holds no trajectory", len(records), "see the agent loops' log for errors")
    groups = list(dict.fromkeys(record["group"] for record in first.values()))
    outcomes = [Outcome(groups.index(record["group"]), trajectory_of(record)) for record in first.values()]
    scored = score(outcomes, settings.rewards)

    # Empty rows belong to a trajectory of their own, without a token, a reward or an advantage.
    place_of = {name: place for place, name in enumerate(first)}
    place = torch.tensor([len(first) if record is None else place_of[record["trajectory"]] for record in records])
    valid = valid.bool()
    totals = torch.tensor([*(math.nan if total is None else total for total in scored.totals), 0.0]).nan_to_num(0.0)
    advantages = torch.tensor([*scored.advantages, 0.0], dtype=old_log_probs.dtype)[place][:, None] * valid
    tokens, numeric = trajectory_tokens(valid, place), numeric_flags(records, valid)
    selected, selected_count = torch.zeros_like(valid), torch.zeros(len(records), dtype=torch.int64)
    in_update = torch.zeros(len(records), dtype=torch.float64)
    for number in updates.unique():
        rows = updates == number
        # An update of empty rows has no loss, whatever it is divided by.
        in_update[rows] = trajectory_share(valid[rows], tokens[rows]) or 1.0
        if settings.loss.coverage.weight > 0:
            part = collect(old_log_probs[rows], advantages[rows], numeric[rows], valid[rows], settings.loss.coverage)
            selection = select([part], settings.loss.coverage)
            selected[rows], selected_count[rows] = selection.masks[0], selection.count
    return Prepared(
        totals[place], advantages, numeric, selected, tokens, in_update, selected_count, outcomes, scored
    )  # fmt: skip


def trajectory_of(record: Record) -> Trajectory:
    """The trajectory that a record tells of. A failed conversation has no rating, whatever its texts say."""
    item = record["item"]
    trajectory = Trajectory.from_texts(
        record["texts"],
        group=item["id"],
        truth=truth_of(item["truth"]),
        dataset=item["dataset"],
        attributes=record["attributes"],
    )
    return replace(trajectory, rating=record["rating"])


def numeric_flags(records: Sequence[Record | None], valid: Tensor) -> Tensor:
    """(rows, T) bool of the rows' numeric tokens, from the flags that `looks` wrote.

    Raises:
        OptionInvalid: a row has more or fewer flags than generated tokens.
    """
    flags = torch.zeros_like(valid, dtype=torch.bool)
    for row, record in enumerate(records):
        if record is None:
            continue
        if len(record["numeric"]) != int(valid[row].sum()):
            raise OptionInvalid(
                "every generated token needs its flag", (len(record["numeric"]), int(valid[row].sum())),
                "use the agent loop of this adapter",
            )  # fmt: skip
        flags[row, valid[row].bool()] = torch.tensor(record["numeric"], dtype=torch.bool, device=flags.device)
    return flags
