"""A run: settings in; a trained model, its card, logs and readable samples out. It must not know how a step is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zoomiqa import __version__
from zoomiqa.errors import ExtraMissing, ImageNotFound, OptionInvalid

from ..models import (  # noqa: TID252
    INSTALL,
    TrainingModel,
    is_adapted,
    load_model,
    quiet_libraries,
    quiet_loading,
    save_model,
)
from ..objectives.coverage import refuse_inert  # noqa: TID252
from ..runs import (  # noqa: TID252
    CHECKPOINTS,
    LOGS,
    claim,
    last_checkpoint,
    process_count,
    process_rank,
    say,
    steps_of,
)
from ..trainers import gathered_weights, tensorboard  # noqa: TID252
from .card import write_card
from .items import Item, check_ids, items_digest, read_labels, read_tasks
from .order import draw_order, rollout_count
from .plan import Plan, make_plan
from .settings import GRPOSettings
from .showing import ROLLOUTS, forget_from

try:
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed
    from trl import GRPOConfig

    from .console import Console
    from .trainer import STATE, ConversationTrainer, Material
except ImportError as missing:
    raise ExtraMissing("GRPO needs torch, transformers, trl and datasets", missing.name, INSTALL) from missing

REFERENCE = "ref"
"""TRL's name for the copy of an adapter that a KL refers to."""

_say = partial(say, "grpo")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    out: Path
    """Folder of the model."""

    rollouts: int
    updates: int
    """Optimizer steps."""

    history: tuple[dict[str, float], ...]
    """What was logged, in order."""


def train(settings: GRPOSettings) -> Result:
    """Carry out a run, or go on with it, and write the result to `settings.out`.

    Raises:
        OptionInvalid: settings do not go together, KL-Coverage would never act, or there is too little to train on.
        OutputWouldOverwrite: the folder holds something, and neither `resume` nor `overwrite` is set.
        RecordSettingsChanged: resumed with other settings, data, or number of processes.
        ImageError: a picture is missing or cannot be opened.
        ExtraMissing: a part that is needed is not installed.
    """
    is_first = process_rank() == 0
    plan = make_plan(settings.batch, process_count(), settings.perception_share)
    refuse_inert(settings.loss.coverage, plan.updates)
    _check_attributes(settings)
    items = read_items(settings)
    rollouts = settings.rollouts or rollout_count(items, plan.pictures, settings.epochs, plan.tasks)
    order = draw_order(
        items, settings.stages, rollouts=rollouts, pictures=plan.pictures, tasks=plan.tasks, seed=settings.seed
    )
    identity = {
        **settings.to_dict(), "data": items_digest(items), "processes": plan.processes, "version": __version__,
    }  # fmt: skip
    if is_first:
        claim(settings.out, identity, resume=settings.resume, overwrite=settings.overwrite)
    set_seed(settings.seed)  # adapters begin at random
    loaded = load_model(settings.model)
    with quiet_libraries(), quiet_loading():
        trainer = make_trainer(settings, plan, loaded, Material(items, order, settings.prompts))
        trainer.accelerator.wait_for_everyone()
        checkpoint = last_checkpoint(settings.out, STATE) if settings.resume else None
        if is_first:
            _begin(trainer, settings, plan, loaded, rollouts, checkpoint)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        weights = gathered_weights(trainer)
        history = [dict(line) for line in trainer.state.log_history]
        if is_first:
            model = trainer.accelerator.unwrap_model(trainer.model)
            if is_adapted(model) and REFERENCE in model.peft_config:
                model.delete_adapter(REFERENCE)
            save_model(model, loaded.processor, settings.model, settings.out, state_dict=weights, merge=settings.merge)
            write_card(settings, plan, identity, items, rollouts, history)
            _say(f"{rollouts} rollouts, {rollouts * plan.updates} steps; the model is in {settings.out}")
        trainer.accelerator.wait_for_everyone()
    return Result(settings.out, rollouts, rollouts * plan.updates, tuple(history))


def make_trainer(settings: GRPOSettings, plan: Plan, loaded: TrainingModel, material: Material) -> ConversationTrainer:
    """The trainer of a run, ready to be started."""
    trainer = ConversationTrainer(
        settings,
        plan,
        loaded,
        material,
        args=training_arguments(settings, plan, loaded, len(material.order)),
        # TRL goes through numbers of items; what they stand for never leaves this package.
        train_dataset=Dataset.from_dict(
            {"prompt": [""] * len(material.items), "item": list(range(len(material.items)))}
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def read_items(settings: GRPOSettings) -> list[Item]:
    """All that is trained on.

    Raises:
        OptionInvalid: a file cannot be read, or two pictures of a data set have one id.
        ImageNotFound: a picture is missing; better told now than after hours.
    """
    items = [item for source in settings.labels for item in read_labels(source.path, source.image_root)]
    for number, source in enumerate(settings.perception, start=1):
        items += read_tasks(source.path, source.image_root, number)
    check_ids(items)
    for item in items:
        if not (item.root / item.path).is_file():
            raise ImageNotFound("there is no such picture", item.root / item.path, "check the image root")
    return items


def training_arguments(settings: GRPOSettings, plan: Plan, loaded: TrainingModel, rollouts: int) -> GRPOConfig:
    """TRL's configuration of a run."""
    sampling, engine, optimizer = settings.conversation.sampling, settings.engine, settings.optimizer
    updates = rollouts * plan.updates
    return GRPOConfig(
        output_dir=str(settings.out / CHECKPOINTS),
        per_device_train_batch_size=plan.batch_size,
        gradient_accumulation_steps=plan.gradient_accumulation_steps,
        steps_per_generation=plan.micro_batches,
        num_generations=plan.group_size,
        num_iterations=plan.iterations,
        max_steps=updates,
        max_completion_length=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        beta=settings.loss.reference_weight,
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type=optimizer.schedule,
        warmup_steps=round(optimizer.warmup_ratio * updates),
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        optim="adamw_torch",
        # The ratio of new to old probabilities must measure the policy's drift, not the noise of dropped units.
        disable_dropout=True,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=settings.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_every * plan.updates,
        save_total_limit=settings.keep,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        # Every micro-batch shows a picture, so every trained weight takes part in every pass.
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if plan.processes > 1 and loaded.device.value == "cpu" else None,
        use_vllm=engine.engine == "vllm",
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=engine.vllm_memory,
        vllm_enable_sleep_mode=engine.vllm_sleep,
        vllm_max_model_length=engine.vllm_max_length,
        **loaded.precision(),
    )


def _begin(
    trainer: ConversationTrainer,
    settings: GRPOSettings,
    plan: Plan,
    loaded: TrainingModel,
    rollouts: int,
    checkpoint: Path | None,
) -> None:
    """Where the first process tells what goes on, and that it does."""
    trainer.add_callback(Console(trainer.warnings, plan, rollouts, _say))
    trainer.add_callback(tensorboard(settings.out / LOGS))
    for sentence in _opening(plan, loaded, rollouts, trainer.material.items):
        _say(sentence)
    done = 0 if checkpoint is None else steps_of(checkpoint) // plan.updates
    if settings.resume:
        _say(f"going on after rollout {done}" if checkpoint else "there is no whole checkpoint; beginning anew")
    forget_from(settings.out / ROLLOUTS, done)


def _opening(plan: Plan, loaded: TrainingModel, rollouts: int, items: Sequence[Item]) -> list[str]:
    return [
        f"{len(items)} pictures and tasks; {rollouts} rollouts of {plan.pictures} with {plan.group_size} samples each,"
        f" {plan.updates} steps per rollout, {plan.processes} processes",
        f"{loaded.trained / 1e6:.4g} of {loaded.size / 1e6:.4g} million weights on {loaded.device.value}"
        f" ({loaded.device.reason}), in {loaded.dtype.value} ({loaded.dtype.reason})",
    ]


def _check_attributes(settings: GRPOSettings) -> None:
    wanted = {name for name, weight in settings.rewards.attribute_weights.items() if weight > 0}
    if settings.rewards.attributes > 0 and not wanted & set(settings.prompts.attributes):
        raise OptionInvalid(
            "the attribute reward needs prompts that ask for attributes", settings.prompts.name, "choose another set"
        )
