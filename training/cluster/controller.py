"""verl's trainer and task runner, with this project's rewards, advantages, selection and loss in their places.

`ZoomTrainer` is the synchronous trainer with three methods changed: workers are given `loss.verl_loss`, empty rows are
dealt evenly over the updates, and `_compute_advantage` does what `updates` says. `ZoomTaskRunner` is verl's with that
trainer in its registry. It must not know how any of it is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.utils.padding import response_to_nested

from ..grpo.figures import Warnings, reward_figures  # noqa: TID252
from . import loss
from .looks import RECORD
from .settings import ClusterSettings, check
from .updates import Prepared, deal_padding, prepare, update_numbers

logger = logging.getLogger(__name__)


class ZoomTrainer(PPOTrainerSync):  # type: ignore[misc]  # verl is not typed
    """verl's synchronous trainer for conversations of several looks.

    Raises:
        OptionInvalid: see `settings.check`.
    """

    def __init__(self, config: Any) -> None:
        self.settings: ClusterSettings = check(config)
        self.warnings = Warnings()
        super().__init__(config)

    def _setup(self) -> None:
        super()._setup()
        self.actor_rollout_wg.set_loss_fn(partial(loss.verl_loss, settings=self.settings.loss))

    @property
    def _rows_per_update(self) -> int:
        model = self.config.actor_rollout_ref
        return int(model.actor.ppo_mini_batch_size * model.rollout.n)

    @property
    def _processes(self) -> int:
        """Data-parallel ones; known once `_balance_batch` has asked the workers."""
        return int(max(self.actor_rollout_wg._dispatch_info["actor"])) + 1

    def _balance_batch(self, batch: KVBatchMeta, *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch = super()._balance_batch(batch, *args, **kwargs)
        batch.reorder(deal_padding([_is_padding(tag) for tag in batch.tags], self._processes, self._rows_per_update))
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Replaces verl's: total rewards of the global batch, group advantages, KL-Coverage's choice."""
        wanted = ["response_mask", "old_log_probs", "entropy", "extra_fields"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=wanted)
        response_mask = _jagged(data["response_mask"])
        valid = response_mask.to_padded_tensor(0).bool()
        old = _jagged(data["old_log_probs"]).to_padded_tensor(0.0)
        records = [
            None if _is_padding(tag) else fields[RECORD]
            for tag, fields in zip(batch.tags, list(data["extra_fields"]), strict=True)
        ]
        numbers = update_numbers(len(batch), self._processes, self._rows_per_update)
        prepared = prepare(records, old, valid, numbers, self.settings)

        rewards = torch.zeros_like(old)
        last = (response_mask.offsets().diff() - 1)[:, None]
        rewards.scatter_(1, last, prepared.totals.to(old.dtype)[:, None])
        columns = {
            "rm_scores": rewards,
            "advantages": prepared.advantages,
            "returns": prepared.advantages,
            loss.SELECTED: prepared.selected.long(),
        }
        fields = {name: response_to_nested(values, response_mask) for name, values in columns.items()}
        fields |= {
            loss.TOKENS: prepared.tokens,
            loss.TRAJECTORIES: prepared.trajectories,
            loss.COUNT: prepared.selected_count,
        }
        entropies = _jagged(data["entropy"]).to_padded_tensor(0.0)[prepared.numeric] if "entropy" in data else None
        metrics.update(self._figures(prepared, entropies, int(numbers.max()) + 1))
        return tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
        )

    def _figures(self, prepared: Prepared, entropies: torch.Tensor | None, updates: int) -> dict[str, float]:
        """For the log, with early warnings in its words."""
        self.warnings.add(prepared.outcomes, prepared.scored)
        if entropies is not None:
            self.warnings.add_entropies(entropies.tolist())
        for alarm in self.warnings.alarms():
            logger.warning("%s", alarm)
        window = {f"window/{name}": value for name, value in self.warnings.figures().items() if value is not None}
        figures = {**reward_figures(prepared.outcomes, prepared.scored), **window}
        figures |= {
            "updates": updates * int(self.config.actor_rollout_ref.actor.ppo_epochs),
            "coverage/numeric_tokens": int(prepared.numeric.sum()),
            "coverage/selected_tokens": int(prepared.selected.sum()),
        }
        return {f"zoomiqa/{name}": float(value) for name, value in figures.items()}


class ZoomTaskRunner(TaskRunnerV1.__ray_metadata__.modified_class):  # type: ignore[misc]
    """verl's task runner; its trainer is `ZoomTrainer`."""

    def run(self, config: Any) -> None:
        TRAINER_REGISTRY["sync"] = ZoomTrainer
        super().run(config)


def train(config: Any) -> None:
    """Start Ray, or join it, and train. Blocks until the end.

    Args:
        config: As `configuration.compose` gives it.
    """
    run_ppo(config, task_runner_class=ray.remote(num_cpus=1)(ZoomTaskRunner))


def _is_padding(tag: Mapping[str, Any]) -> bool:
    return bool(tag.get("is_padding", False))


def _jagged(values: torch.Tensor) -> torch.Tensor:
    """Rows without padding; where all are equally long, the queue hands out an ordinary tensor."""
    return values if values.is_nested else torch.nested.as_nested_tensor(list(values), layout=torch.jagged)
