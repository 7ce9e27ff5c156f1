"""Labelled pictures and perception tasks for verl's `data.custom_cls`, laid out over the whole training.

The data set *is* the order of `training.grpo.order`, rollout after rollout through all stages of re-sampling: verl's
sequential sampler goes through it once (`trainer.total_epochs: 1`), and its checkpoints keep the place, so that a
resumed run reads on where it stopped. Pictures for validation come once each, in the order of their file. It must not
know models, rewards, or how a picture is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from zoomiqa.errors import OptionInvalid
from zoomiqa.rewards import Truth

from ..grpo.items import Item, check_ids, read_labels, read_tasks  # noqa: TID252
from ..grpo.order import draw_order, rollout_count  # noqa: TID252
from ..grpo.plan import task_count  # noqa: TID252
from ..resampling import Stages  # noqa: TID252
from .settings import files

AGENT = "zoomiqa"
"""Name of the agent loop in `looks`."""


class LaidOutPictures(Dataset[dict[str, Any]]):  # type: ignore[misc]  # torch is not followed
    """Annotation files (`zoomiqa.evaluation.annotations`) as verl's rows.

    Args:
        data_files: One or several of `data.train_files` or `data.val_files`.
        tokenizer: verl's; not needed, as the agent loop writes the prompts.
        config: verl's `data`, and in it `image_root`; `gammas`, of each stage; `epochs`, how often as many pictures are
            drawn as there are rated ones; `seed`; `task_files`, `task_root` and `task_share` for perception tasks.
        processor: As `tokenizer`.
        max_samples: Pictures at most, the first ones; below 0: all.

    Raises:
        OptionInvalid: a file cannot be read, two pictures have one id, or there are too few for a rollout.
    """

    def __init__(
        self,
        data_files: Any,
        tokenizer: Any,  # noqa: ARG002
        config: Mapping[str, Any],
        processor: Any = None,  # noqa: ARG002
        max_samples: int = -1,
    ) -> None:
        root = Path(config["image_root"])
        items = [item for file in files(data_files) for item in read_labels(Path(file), root)]
        self.items = items if max_samples < 0 else items[:max_samples]
        self.pictures = int(config["train_batch_size"])
        if files(data_files) == files(config["val_files"]):
            self.order = list(range(len(self.items)))
        else:
            self.order = self._laid_out(config)
        check_ids(self.items)

    def _laid_out(self, config: Mapping[str, Any]) -> list[int]:
        tasks = task_count(float(config["task_share"]), self.pictures)
        for number, file in enumerate(files(config["task_files"]) if tasks else (), start=1):
            self.items += read_tasks(Path(file), Path(config["task_root"]), number)
        stages = Stages(tuple(float(gamma) for gamma in config["gammas"]))
        rollouts = rollout_count(self.items, self.pictures, float(config["epochs"]), tasks)
        if rollouts < len(stages.gammas):
            raise OptionInvalid("every stage needs a rollout", rollouts, "raise data.epochs, or leave out stages")
        order = draw_order(
            self.items, stages, rollouts=rollouts, pictures=self.pictures, tasks=tasks, seed=int(config["seed"] or 0)
        )
        return [place for rollout in order for place in rollout]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> dict[str, Any]:
        item = self.items[self.order[place]]
        return {
            "agent_name": AGENT,
            "item": row_of(item),
            "rollout": place // self.pictures,
            "group": place % self.pictures,
            # What verl itself reads.
            "index": place,
            "data_source": item.dataset,
            "reward_model": {"style": "rule", "ground_truth": item.truth.rating},
            "raw_prompt": [{"role": "user", "content": item.question or ""}],
            "dummy_tensor": torch.zeros(1, dtype=torch.uint8),
        }


def row_of(item: Item) -> dict[str, Any]:
    """An item in plain types, which is what survives verl's transport."""
    return {
        "id": item.id,
        "root": str(item.root),
        "path": item.path,
        "truth": {**asdict(item.truth), "attributes": dict(item.truth.attributes)},
        "dataset": item.dataset,
        "question": item.question,
    }


def item_of(row: Mapping[str, Any]) -> Item:
    """The way back."""
    return Item(row["id"], Path(row["root"]), row["path"], truth_of(row["truth"]), row["dataset"], row["question"])


def truth_of(known: Mapping[str, Any]) -> Truth:
    """What is true of a picture, from plain types."""
    box: Sequence[float] | None = known["box_fraction"]
    return Truth(**{**known, "box_fraction": None if box is None else tuple(box)})
