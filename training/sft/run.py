"""A run of supervised fine-tuning from its settings to a folder that inference reads.

It must not know how rows become tokens (`encoding`), or the command line.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from zoomiqa import __version__
from zoomiqa.errors import ExtraMissing, OptionInvalid
from zoomiqa.files import atomic_write_bytes, atomic_write_text

from ..models import (  # noqa: TID252 - in a wheel it is zoomiqa.training
    INSTALL,
    TrainingModel,
    load_model,
    quiet_libraries,
    save_model,
)
from ..pictures import Pictures  # noqa: TID252
from ..runs import (  # noqa: TID252
    CARD,
    CHECKPOINTS,
    LOGS,
    PAGE,
    claim,
    last_checkpoint,
    process_count,
    process_rank,
    say,
)
from ..trainers import OwnFolder, gathered_weights, refuse_no_number, tensorboard  # noqa: TID252
from .encoding import RowEncoder, batch_of
from .rows import Row, appended_rows, data_digest, describe, read_card, read_rows, split_rows
from .settings import SFTSettings

try:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer
except ImportError as missing:
    raise ExtraMissing("supervised fine-tuning needs trl and datasets", missing.name, INSTALL) from missing

WHOLE = ".whole"
"""Marks a checkpoint that was written to its end."""

_say = partial(say, "sft")


def train(settings: SFTSettings) -> Path:
    """Carry out a run, or go on with it; returns the folder of the model.

    Raises:
        OptionInvalid: the settings and the data leave nothing to train, or a row is too long where that is refused.
        PromptSetInvalid: the data were built for another prompt set.
        RecordCorrupt: the data are damaged.
        ImageError: a picture is missing or cannot be opened.
        OutputWouldOverwrite: the folder holds a run, and neither `resume` nor `overwrite` is set.
        RecordSettingsChanged: resumed with other settings or data.
    """
    began = time.perf_counter()
    is_main = process_rank() == 0
    rows = read_rows(settings.data, settings.prompts)
    if settings.context == "appended":
        rows = appended_rows(rows)
    identity = {**settings.to_dict(), "data": data_digest(settings.data), "version": __version__}
    if is_main:
        claim(settings.out, identity, resume=settings.resume, overwrite=settings.overwrite)
    set_seed(settings.seed)  # adapters begin at random
    loaded = load_model(settings.model)
    encoder = RowEncoder(loaded.processor, Pictures(settings.image_root, settings.open_options), settings.context)
    fitting, left_out = _fitting(rows, encoder, settings)
    training, validation = split_rows(fitting, settings.validation, settings.seed)
    if is_main:
        _say(_opening(loaded, training, validation, left_out))
    trainer = make_trainer(settings, loaded, encoder, training, validation)
    checkpoint = last_checkpoint(settings.out, WHOLE) if settings.resume else None
    trainer.accelerator.wait_for_everyone()
    if is_main and settings.resume:
        _say(f"going on from {checkpoint.name}" if checkpoint else "there is no whole checkpoint; beginning anew")
    with quiet_libraries():
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    measured = trainer.evaluate() if validation else {}
    weights = gathered_weights(trainer)
    if is_main:
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_model(model, loaded.processor, settings.model, settings.out, state_dict=weights, merge=settings.merge)
        card = {
            **_card(settings, identity, loaded, training, validation, left_out),
            "steps": trainer.state.global_step,
            "epochs": round(float(trainer.state.epoch or 0), 4),
            "processes": trainer.accelerator.num_processes,
            "loss": round(result.training_loss, 6),
            "validation_loss": round(measured["eval_loss"], 6) if measured else None,
            "seconds_of_this_session": round(time.perf_counter() - began, 1),
        }
        atomic_write_bytes(settings.out / CARD, json.dumps(card, indent=1).encode() + b"\n")
        atomic_write_text(settings.out / PAGE, _page(card))
        _say(f"{card['steps']} steps, loss {card['loss']:.4f}; the model is in {settings.out}")
    trainer.accelerator.wait_for_everyone()
    return settings.out


class _Trainer(OwnFolder, SFTTrainer):  # type: ignore[misc]  # trl is not typed
    """TRL's trainer, for whom all trained tokens of an optimizer step weigh the same."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Models say whether their own loss takes the step's number of tokens; Qwen2.5-VL's does not, and then
        # transformers does not count them. But the loss is TRL's, which does take it. Without, every micro-batch and
        # process would weigh the same, however few tokens it has.
        self.model_accepts_loss_kwargs = True


def make_trainer(
    settings: SFTSettings,
    loaded: TrainingModel,
    encoder: RowEncoder,
    training: Sequence[Row],
    validation: Sequence[Row] = (),
) -> SFTTrainer:
    """TRL's trainer for a run, ready to be started."""
    steps = _planned_steps(settings, len(training))
    every = settings.save_every or max(1, steps // 10)
    options: dict[str, Any] = dict(
        output_dir=str(settings.out / CHECKPOINTS),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_ratio,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch",
        seed=settings.seed,
        data_seed=settings.seed,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=settings.keep,
        eval_strategy="steps" if validation else "no",
        eval_steps=every,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        max_length=None,  # truncation would break pictures
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=loaded.device.value.startswith("cuda"),
        ddp_backend="gloo" if loaded.device.value == "cpu" and process_count() > 1 else None,
        **loaded.precision(),
    )

    def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        encoded = [encoder.encode(json.loads(example["row"])) for example in examples]
        return batch_of(encoded, loaded.processor.tokenizer.pad_token_id)

    callbacks: list[TrainerCallback] = [_Marking(), _Console()]
    if process_rank() == 0:
        callbacks.append(tensorboard(settings.out / LOGS))
    with quiet_libraries():
        trainer = _Trainer(
            model=loaded.model,
            args=SFTConfig(**options),
            data_collator=collate,
            train_dataset=_dataset(training),
            eval_dataset=_dataset(validation) if validation else None,
            processing_class=loaded.processor.processor,
            callbacks=callbacks,
        )
    for known in list(trainer.callback_handler.callbacks):
        if type(known).__name__ == "PrinterCallback":  # prints dictionaries to stdout
            trainer.remove_callback(type(known))
    return trainer


def _dataset(rows: Sequence[Row]) -> Dataset:
    """The rows as text, opened when their turn comes; `images` tells the trainer that they are not text only."""
    return Dataset.from_dict(
        {
            "row": [json.dumps(row, ensure_ascii=False) for row in rows],
            "images": [[image["path"] for image in row["images"]] for row in rows],
        }
    )


def _planned_steps(settings: SFTSettings, rows: int) -> int:
    if settings.max_steps is not None:
        return settings.max_steps
    per_step = settings.batch_size * settings.gradient_accumulation_steps * process_count()
    return max(1, round(settings.epochs * rows / per_step))


def _fitting(rows: Sequence[Row], encoder: RowEncoder, settings: SFTSettings) -> tuple[list[Row], list[dict[str, Any]]]:
    """The rows that fit, and what is left out with its length; every picture is opened once on the way."""
    longest = encoder.processor.longest_context
    most = settings.max_length or longest
    if settings.max_length is not None and longest is not None and settings.max_length > longest:
        raise OptionInvalid("max_length is beyond the model's context", settings.max_length, f"it takes {longest}")
    fitting: list[Row] = []
    left_out: list[dict[str, Any]] = []
    for row in rows:
        length = encoder.length(row)
        if most is None or length <= most:
            fitting.append(row)
        elif settings.too_long == "refuse":
            raise OptionInvalid(
                f"row {row['id']!r} has more tokens than {most}", length, "raise --max-length, or leave such rows out"
            )
        else:
            left_out.append({"id": row["id"], "tokens": length})
    if not fitting:
        raise OptionInvalid(f"all rows have more tokens than {most}", len(left_out), "raise --max-length")
    return fitting, left_out


class _Marking(TrainerCallback):  # type: ignore[misc]  # transformers is not typed for us
    """Marks checkpoints as whole."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 - transformers' names
        if state.is_world_process_zero:
            atomic_write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE, "")


class _Console(TrainerCallback):  # type: ignore[misc]
    """One line per log on stderr; a loss that is no number ends the run."""

    _TOLD = ("loss", "eval_loss", "learning_rate", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens")

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        told = [f"{name} {float(logs[name]):.4g}" for name in self._TOLD if logs and name in logs]
        if state.is_world_process_zero and told:
            _say(f"step {state.global_step}/{state.max_steps}: {', '.join(told)}")
        refuse_no_number((logs or {}).get("loss"))


def _opening(
    loaded: TrainingModel, training: Sequence[Row], validation: Sequence[Row], left_out: Sequence[Mapping[str, Any]]
) -> str:
    parts = [
        f"{len(training)} rows to train on, {len(validation)} to measure, {len(left_out)} too long",
        f"{loaded.trained / 1e6:.4g} of {loaded.size / 1e6:.4g} million weights",
        f"on {loaded.device.value} ({loaded.device.reason})",
        f"in {loaded.dtype.value} ({loaded.dtype.reason}), weights in {loaded.weights.value} ({loaded.weights.reason})",
    ]
    return "; ".join(parts)


def _card(
    settings: SFTSettings,
    identity: Mapping[str, Any],
    loaded: TrainingModel,
    training: Sequence[Row],
    validation: Sequence[Row],
    left_out: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
    return {
        "stage": "sft",
        "settings": dict(identity),
        "operation": settings.operation(),
        "data": {
            "name": settings.data.name,
            "card": read_card(settings.data),
            "training": describe(training),
            "validation": describe(validation),
            "left_out_too_long": list(left_out),
        },
        "weights": {"trained": loaded.trained, "all": loaded.size},
        "device": loaded.device.to_dict(),
        "dtype": loaded.dtype.to_dict(),
        "weights_dtype": loaded.weights.to_dict(),
        "packages": {name: _version(name) for name in packages},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _page(card: Mapping[str, Any]) -> str:
    settings, data = card["settings"], card["data"]
    prompts = settings["prompts"]
    held = f", {card['validation_loss']:.4f} on held-out rows" if card["validation_loss"] is not None else ""
    return f"""# A model for image quality assessment, fine-tuned on grounded rationales

Base: `{settings["model"]["model"]}`. {card["steps"]} steps over {data["training"]["rows"]} rows
({data["training"]["trajectories"]} trajectories, data {settings["data"]}), loss {card["loss"]:.4f}{held}.
Prompt set {prompts["name"]} ({prompts["hash"]}); ask it with the same one. {len(data["left_out_too_long"])} rows were
too long and left out. Everything else is in `{CARD}`.

Ratings are estimates. The texts it was trained on were written by a model or by prepared phrases, not by people.
"""
