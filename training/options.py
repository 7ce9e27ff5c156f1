"""Options of the command line that fill settings, and those on the model, alike for every stage.

An option names the setting that it fills, as `part.field`; one that is not given leaves the setting's own default, so
a default is written once. It must not know what settings do, and its help needs no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import ModelSettings

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
"""What is trained unless another model is named: the paper's base."""

SCHEDULES = ("linear", "cosine", "constant_with_warmup")
"""What becomes of the learning rate after the warm-up, in transformers' names."""


def filling(parser: argparse.ArgumentParser, title: str | None = None) -> Callable[..., None]:
    """What adds options to a parser, under a title.

    It takes a flag, the setting that it fills, what it says of itself, what is made of its value, and what else
    argparse knows. Whole numbers are shown as N, others as X, unless `metavar` says otherwise.
    """
    group = parser if title is None else parser.add_argument_group(title)

    def add(flag: str, setting: str, says: str, kind: Callable[[str], Any] | None = None, **how: Any) -> None:
        if kind is not None:
            how = {"type": kind, "metavar": "N" if kind is int else "X", **how}
        group.add_argument(flag, dest=setting, help=says, **{"default": argparse.SUPPRESS, **how})

    return add


def given(arguments: argparse.Namespace, part: str) -> dict[str, Any]:
    """The fields of a part that were given: those of `loss` are `loss.clip`, but not `loss.coverage.share`."""
    return {
        field: value
        for (owner, _, field), value in ((name.rpartition("."), value) for name, value in vars(arguments).items())
        if owner == part
    }


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Options on the folder of a run; they fill `run`."""
    add = filling(parser)
    add("--out", "run.out", "folder of the trained model", Path, required=True, metavar="DIR")
    add("--resume", "run.resume", "go on with the last whole checkpoint in DIR", action="store_true")
    add("--overwrite", "run.overwrite", "replace an earlier run in DIR", action="store_true")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Options on the model; `model_settings_from` reads them."""
    add = filling(parser, "model")
    add("--model", "model.model", "hub id or folder (default: the paper's)", default=MODEL, metavar="MODEL")
    add("--revision", "model.revision", "branch, tag or commit on the hub", metavar="NAME")
    add("--device", "model.device", "auto, cuda, mps or cpu (default: auto)", metavar="NAME")
    add("--dtype", "model.dtype", "of computing (default: by device)", choices=("auto", "bf16", "fp16", "fp32"))
    add("--weights", "model.weights", "of the weights in memory (default: auto)", choices=("auto", "bf16", "fp32"))
    add("--attention", "model.attention", "kernel (default: sdpa)", choices=("auto", "sdpa", "flash", "eager"))
    add("--max-pixels", "model.max_pixels", "of a picture as the model sees it (default: the model's limit)", int)
    add("--lora", "lora.rank", "train low-rank adapters of that rank instead of all weights", int, metavar="RANK")
    add("--lora-alpha", "lora.alpha", "their scale (default: twice the rank)", int, metavar="X")
    add("--lora-dropout", "lora.dropout", "(default: 0.05)", float, metavar="P")
    add("--lora-vision", "lora.vision", "adapters in the vision tower as well", action="store_true")
    add(
        "--freeze-vision",
        "model.freeze_vision",
        "keep the vision tower as it is (default: with --lora)",
        action=argparse.BooleanOptionalAction,
    )
    add(
        "--freeze-projector",
        "model.freeze_projector",
        "keep what joins it to the language layers (default: as the vision tower)",
        action=argparse.BooleanOptionalAction,
    )
    add(
        "--gradient-checkpointing",
        "model.gradient_checkpointing",
        "less memory, a third more work",
        action="store_true",
    )


def model_settings_from(arguments: argparse.Namespace) -> ModelSettings:
    """The model that the options of `add_model_arguments` describe."""
    from .models import Lora, ModelSettings

    adapters = given(arguments, "lora")
    lora = Lora(**{"alpha": 2 * adapters["rank"], **adapters}) if "rank" in adapters else None
    return ModelSettings(**given(arguments, "model"), lora=lora)
