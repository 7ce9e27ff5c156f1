"""TRL's `GRPOTrainer` with whole conversations in it: rollouts, rewards and loss of this package.

Kept from TRL: configuration, devices and processes (accelerate, DeepSpeed, FSDP), the fused output head
(log-probabilities without the logits of a whole vocabulary), the reference model, vLLM's engine and its weights, logs,
checkpoints.
Replaced, each at TRL's own hook:

- `_get_train_sampler`: the order of pictures, with re-sampling.
- `_generate_and_score_completions`: conversations over an engine, rewards over the global batch, training rows.
- `_prepare_inputs`: whole trajectories per micro-batch; what an optimizer step shares is settled before it.
- `_compute_loss`: `loss`. Processes' gradients are averaged, so each part is multiplied by their number.

A checkpoint is made only where one rollout ends and the next begins, so nothing of a rollout has to be kept; seeds of
samples follow from the run's seed and the rollout's number. A resumed run therefore equals an uninterrupted one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Sampler
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import use_adapter

from zoomiqa.files import atomic_write_text
from zoomiqa.imaging import Picture
from zoomiqa.protocol import PromptSet

from ..models import TrainingModel, is_adapted  # noqa: TID252
from ..objectives.gathering import gather_ragged, own_rank  # noqa: TID252
from ..objectives.tokens import numeric_vocabulary, token_pieces  # noqa: TID252
from ..pictures import Pictures  # noqa: TID252
from ..trainers import OwnFolder  # noqa: TID252
from .items import Item
from .loss import Update, begin_update, part_of_loss
from .plan import Plan
from .policy import PolicyBackend
from .reporting import Reporting
from .rollout import Draw, Sample, sample_all, seed_of, talks_of
from .rows import MicroBatch, Row, make_batch, rows_of, silent
from .scoring import Outcome, score
from .settings import GRPOSettings, refuse_spread
from .thinking import probes

if TYPE_CHECKING:
    from .vllm_policy import ColocatedEngine

STATE = "grpo.json"
"""In a checkpoint: what transformers' own files do not hold. Written last, so it marks a whole checkpoint."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on, and in what order."""

    items: Sequence[Item]
    order: Sequence[Sequence[int]]
    """For each rollout, places in `items`."""

    prompts: PromptSet


class RolloutSampler(Sampler[int]):  # type: ignore[misc]  # torch is not typed for us
    """Every rollout's pictures, each as often as it has samples, as often as there are passes over the rollout.

    TRL's loader asks for the whole rollout before each pass; only the first asking is used.
    """

    def __init__(self, order: Sequence[Sequence[int]], plan: Plan) -> None:
        self._order, self._plan = order, plan

    def __len__(self) -> int:
        return len(self._order) * self._plan.steps * self._plan.trajectories

    def __iter__(self) -> Iterator[int]:
        for places in self._order:
            for _ in range(self._plan.steps):
                for place in places:
                    yield from [place] * self._plan.group_size


class ConversationTrainer(Reporting, OwnFolder, GRPOTrainer):  # type: ignore[misc]  # trl is not typed
    """GRPO over conversations.

    Args:
        settings: Of the run.
        plan: Sizes that follow for this number of processes.
        loaded: The model.
        material: Pictures and their order.
        **others: `GRPOTrainer`'s own; `args` must agree with `plan` (`run.training_arguments`).
    """

    def __init__(
        self, settings: GRPOSettings, plan: Plan, loaded: TrainingModel, material: Material, **others: Any
    ) -> None:
        self.settings, self.plan, self.material = settings, plan, material
        self.begin_reporting()
        self._loaded = loaded
        tokenizer = loaded.processor.tokenizer
        self._pieces = token_pieces(tokenizer)
        self._numbers = numeric_vocabulary(tokenizer)
        self._rollout: list[MicroBatch] = []
        self._place = 0
        self._update: Update | None = None
        self._hidden: Tensor | None = None
        self._folders: dict[Path, Pictures] = {}
        super().__init__(
            model=loaded.model, processing_class=loaded.processor.processor, reward_funcs=[_reward], **others
        )
        refuse_spread(settings, zero3=is_deepspeed_zero3_enabled(), fsdp=bool(self.is_fsdp_enabled))
        self._backend: PolicyBackend | None = None
        self._colocated: ColocatedEngine | None = None
        if settings.loss.coverage.estimator == "exact" and settings.loss.coverage.weight > 0:
            self._backbone().register_forward_hook(self._keep_hidden)

    # What is drawn

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:  # noqa: ARG002 - TRL's signature
        return RolloutSampler(self.material.order, self.plan)

    def _prepare_inputs(self, generation_batch: Any) -> MicroBatch:
        position = self._step % self.plan.steps
        if position == 0:
            self._rollout = self._generate_and_score_completions(generation_batch)
        self._place = position % self.plan.micro_batches
        if self._place % self.plan.gradient_accumulation_steps == 0:
            self._begin_update(is_first=position < self.plan.gradient_accumulation_steps)
        return self._rollout[self._place].to(self.accelerator.device)

    def _generate_and_score_completions(self, inputs: Sequence[dict[str, Any]]) -> list[MicroBatch]:
        """A rollout: this process's samples, everyone's rewards, this process's micro-batches."""
        started = time.perf_counter()
        first = own_rank() * self.plan.local_trajectories
        draws = [
            Draw(self.material.items[row["item"]], *divmod(first + place, self.plan.group_size))
            for place, row in enumerate(inputs)
        ]
        samples = self._generate(draws)
        sampled = time.perf_counter()
        chances = self._thinking_chances(samples)
        outcomes = gather_object(
            [
                Outcome(sample.draw.group, sample.trajectory, sample.error is not None, *chance)
                for sample, chance in zip(samples, chances, strict=True)
            ]
        )
        scored = score(outcomes, self.settings.rewards)
        batches = self._make_batches(samples, scored.advantages[first : first + len(samples)])
        with torch.no_grad():
            for place, batch in enumerate(batches):
                if place >= self.plan.gradient_accumulation_steps:
                    self._remember_old(batch, *self._read(self.model, batch)[::2])
            if self.settings.loss.reference_weight > 0:
                self._read_reference(batches)
        self.tell_rollout(samples, outcomes, scored, sampled - started, time.perf_counter() - sampled)
        return batches

    def _generate(self, draws: Sequence[Draw]) -> list[Sample]:
        """The samples of `draws`, in order."""
        talks = talks_of(
            draws,
            [self._picture(draw.item) for draw in draws],
            self.settings.conversation,
            self.material.prompts,
            seed=self.settings.seed,
            rollout=self.rollout_number,
        )
        with self._engine() as session:
            return sample_all(session, talks)

    @contextmanager
    def _engine(self) -> Iterator[Any]:
        """A session that answers with the present weights."""
        device, slots = str(self.accelerator.device), self.settings.engine.slots
        if self.use_vllm:
            if self._colocated is None:
                from .vllm_policy import ColocatedEngine

                self._colocated = ColocatedEngine(self.vllm_generation, self._loaded, device, slots)
            with self._colocated.session() as session:
                yield session
            return
        if self._backend is None:
            self._backend = PolicyBackend(self.settings.model, device, slots)
        was_training = self.model.training
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            self.accelerator.autocast(),
        ):
            self._backend.use(model.eval())
            try:
                yield self._backend.open_session()
            finally:
                self._backend.use(None)
                self.model.train(was_training)

    def _picture(self, item: Item) -> Picture:
        if item.root not in self._folders:
            self._folders[item.root] = Pictures(item.root)
        return self._folders[item.root].open(item.path, row=item.id)

    def _thinking_chances(self, samples: Sequence[Sample]) -> list[tuple[float | None, float | None]]:
        """For each sample, the probability of the true digit with and without its thinking, where it is paid for."""
        found: list[tuple[float | None, float | None]] = [(None, None)] * len(samples)
        if not self.settings.rewards.thinking:
            return found
        asked: dict[int, Sequence[Row]] = {}
        for place, sample in enumerate(samples):
            trajectory = sample.trajectory
            if trajectory is None or sample.error or trajectory.truth.rating is None or trajectory.rating is None:
                continue
            rows = probes(sample.looks[-1], trajectory.truth.rating, self._loaded.processor.tokenizer)
            if rows is not None:
                asked[place] = rows
        with torch.no_grad():
            for place, rows in asked.items():
                batch = self._batch([(0, 0.0, rows)])
                log_probs, _, _ = self._read(self.model, batch)
                own, empty = log_probs[batch.valid.to(log_probs.device)].exp().clamp(max=1).tolist()
                found[place] = (own, empty)
            # Where weights are shared out, nobody can read the model while another does not.
            idle = self._batch([(-1, 0.0, [_spare_row([rows_of(sample.looks) for sample in samples])])])
            for _ in range(self._most(len(asked)) - len(asked)):
                self._read(self.model, idle)
        return found

    def _most(self, count: int) -> int:
        """The greatest of all processes' counts."""
        return max(int(other) for other in self._gather(torch.tensor([count])))

    def _make_batches(self, samples: Sequence[Sample], advantages: Sequence[float]) -> list[MicroBatch]:
        """Whole trajectories dealt to micro-batches in an order that follows from seed and rollout."""
        rows = [rows_of(sample.looks) for sample in samples]
        spare = _spare_row(rows)
        generator = torch.Generator().manual_seed(seed_of(self.settings.seed, self.rollout_number, own_rank(), "deal"))
        order = torch.randperm(len(samples), generator=generator).tolist()
        size = self.plan.batch_size
        batches = []
        for start in range(0, len(order), size):
            dealt = [(place, advantages[place], rows[place]) for place in order[start : start + size]]
            if not any(own for _, _, own in dealt):
                dealt = [(-1, 0.0, [spare])]
            batches.append(self._batch(dealt))
        return batches

    def _batch(self, trajectories: Sequence[tuple[int, float, Sequence[Row]]]) -> MicroBatch:
        return make_batch(trajectories, self._pieces, padding=self._tokenizer.pad_token_id)

    # What is learned

    def _begin_update(self, *, is_first: bool) -> None:
        """Settle what the micro-batches of the coming optimizer step share."""
        batches = self._rollout[self._place : self._place + self.plan.gradient_accumulation_steps]
        log_probs: list[Tensor] | None = None
        # In the first step of a rollout the policy is the one that drew it: KL-Coverage is zero, whatever is selected.
        if not is_first and self.settings.loss.coverage.weight > 0:
            if self.settings.loss.log_probs == "current":
                with torch.no_grad():
                    log_probs = [self._read(self.model, batch)[0] for batch in batches]
            else:
                log_probs = [_known(batch.old) for batch in batches]
            log_probs = [values.cpu() for values in log_probs]
        self._update = begin_update(
            batches, self.settings.loss, log_probs, gather=self._gather, rank=self.accelerator.process_index
        )

    def _gather(self, values: Tensor) -> list[Tensor]:
        return [vector.cpu() for vector in gather_ragged(values.to(self.accelerator.device))]

    def _compute_loss(self, model: Any, inputs: MicroBatch) -> Tensor:
        log_probs, entropies, scores = self._read(model, inputs)
        if inputs.old is None:
            stored = self._rollout[self._place]
            self._remember_old(stored, log_probs, scores)
            inputs.old, inputs.weights = log_probs.detach(), stored.weights
            inputs.old_scores = None if scores is None else scores.detach()
        update = _known(self._update)
        place = self._place % self.plan.gradient_accumulation_steps
        part = part_of_loss(log_probs, inputs, update, place, self.settings.loss, scores)
        is_first = self._step % self.plan.steps < self.plan.gradient_accumulation_steps
        self.tell_part(part, entropies[inputs.numeric] if is_first else None)
        if place + 1 == self.plan.gradient_accumulation_steps:
            self.tell_update(update)
        return part.loss * self.accelerator.num_processes

    def _read(self, model: Any, batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """(rows, T) log-probabilities and entropies at the written tokens; (numeric, V) scores, where needed."""
        batch = batch.to(self.accelerator.device)
        with self.accelerator.autocast():
            output = model(**batch.inputs, labels=batch.labels, fused_lm_head=True)
        scores = None
        if self._hidden is not None:
            hidden, self._hidden = self._hidden[:, :-1][batch.numeric], None
            scores = self._sub_vocabulary(hidden)
        return output.log_probs, output.entropy, scores

    def _sub_vocabulary(self, hidden: Tensor) -> Tensor:
        """Logits (n, V) of the numeric tokens of the vocabulary, at the sampling temperature."""
        head = self._whole_model().get_output_embeddings()
        weight = head.weight.full_tensor() if hasattr(head.weight, "full_tensor") else head.weight
        logits = hidden.float() @ weight[self._numbers.to(weight.device)].float().T
        return logits / self.temperature

    def _remember_old(self, batch: MicroBatch, log_probs: Tensor, scores: Tensor | None) -> None:
        """Keep what the policy that drew the rollout says of its tokens."""
        batch.old = log_probs.detach().cpu()
        batch.old_scores = None if scores is None else scores.detach().cpu()
        cap = self.settings.engine.importance_cap
        if batch.drawn is not None and cap is not None:
            # A token that the engine could not score (NaN) is not weighted.
            batch.weights = (batch.old - batch.drawn).exp().clamp(max=cap).nan_to_num(nan=1.0)

    def _read_reference(self, batches: Sequence[MicroBatch]) -> None:
        for batch in batches:
            if self.ref_model is not None:
                output = self._read(self.ref_model, batch)
            else:
                model = self.accelerator.unwrap_model(self.model)
                with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
                    output = self._read(self.model, batch)
            batch.reference = output[0].cpu()

    def _whole_model(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if is_adapted(model) else model

    def _backbone(self) -> Any:
        model = self.model.get_base_model() if is_adapted(self.model) else self.model
        return model.base_model

    def _keep_hidden(self, module: Any, arguments: Any, output: Any) -> None:  # noqa: ARG002 - torch's signature
        if module.training:
            self._hidden = output.last_hidden_state

    # What is kept

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            atomic_write_text(folder / STATE, json.dumps({"warnings": self.warnings.state()}))

    def restore(self, checkpoint: Path) -> None:
        """Take up what a checkpoint holds beyond transformers' own files; to be called before training goes on."""
        self.warnings.restore(json.loads((checkpoint / STATE).read_text("utf-8"))["warnings"])


def _reward(**_: Any) -> list[float]:
    """TRL wants a function of rewards to be named; its place in the rollout is taken by `scoring`."""
    raise AssertionError("rewards are computed in _generate_and_score_completions")


def _spare_row(rows: Sequence[Sequence[Row]]) -> Row:
    """A row to read where there is nothing to learn: `sample_all` sees that some conversation came about."""
    return silent(next(own[0] for own in rows if own))


def _known(value: Any) -> Any:
    """What must have been set by an earlier step."""
    if value is None:
        raise AssertionError("a micro-batch is trained on before its rollout")
    return value
