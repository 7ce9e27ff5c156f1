"""The command of supervised fine-tuning. It must not know how a run is carried out; its help needs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoomiqa.batch import OpenOptions
from zoomiqa.cli import common
from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import default_prompts, load_prompts

if TYPE_CHECKING:
    from ..models import ModelSettings  # noqa: TID252 - in a wheel it is zoomiqa.training

PROG = "sft"


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(
        prog=f"python -m {__package__}",
        description="Fine-tune a vision-language model on curated trajectories (the cold start).",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what `curation build` wrote")
    parser.add_argument("--image-root", type=Path, required=True, metavar="DIR", help="what its paths are relative to")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the trained model")
    parser.add_argument("--resume", action="store_true", help="go on with the last whole checkpoint in DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in DIR")
    add_model_arguments(parser)
    group = parser.add_argument_group("rows")
    group.add_argument("--prompts", type=Path, metavar="FILE", help="prompt set of the data (default: our own)")
    group.add_argument(
        "--context",
        choices=("rewritten", "appended"),
        default="rewritten",
        help="two rows per trajectory of two looks, as released, or one with both replies trained (default: rewritten)",
    )
    group.add_argument("--max-length", type=int, metavar="N", help="tokens of a row (default: the model's context)")
    group.add_argument(
        "--too-long",
        choices=("leave-out", "refuse"),
        default="leave-out",
        help="what is done with longer rows; none is ever cut (default: leave-out)",
    )
    group.add_argument(
        "--validation",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the pictures whose loss is only measured (default: 0)",
    )
    group = parser.add_argument_group("optimisation")
    add = group.add_argument
    add("--lr", type=float, default=2.5e-6, metavar="X", help="learning rate (default: 2.5e-6, the paper's)")
    add("--batch", type=int, default=2, metavar="N", help="rows per process and pass (default: 2, the paper's)")
    add("--accumulation", type=int, default=8, metavar="N", help="passes per step (default: 8, the paper's)")
    add("--warmup", type=float, default=0.3, metavar="SHARE", help="of the steps (default: 0.3, the paper's)")
    add("--schedule", choices=("linear", "cosine", "constant_with_warmup"), default="linear", help="after the warm-up")
    add("--epochs", type=float, default=1.0, metavar="N", help="times through the data (default: 1)")
    add("--max-steps", type=int, metavar="N", help="steps instead of epochs")
    add("--weight-decay", type=float, default=0.0, metavar="X", help="of AdamW (default: 0)")
    add("--clip-norm", type=float, default=1.0, metavar="X", help="longest gradient (default: 1)")
    add("--seed", type=int, default=42, metavar="N", help="of order, dropout and split (default: 42)")
    group = parser.add_argument_group("run")
    add = group.add_argument
    add("--save-every", type=int, metavar="N", help="steps between checkpoints (default: a tenth of the run)")
    add("--keep", type=int, default=2, metavar="N", help="checkpoints kept (default: 2)")
    add("--log-every", type=int, default=1, metavar="N", help="steps between lines of the log (default: 1)")
    add("--workers", type=int, default=0, metavar="N", help="processes that prepare rows ahead (default: 0)")
    add("--no-merge", action="store_true", help="with --lora: leave the adapter unmerged")
    common.add_limit_options(parser)
    parser.set_defaults(command=run_sft)
    return parser


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Options on the model, alike for every stage of training."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--model",
        default="Qwen/Qwen2.5-VL-7B-Instruct",
        metavar="MODEL",
        help="hub id or folder (default: the paper's)",
    )
    add("--revision", metavar="NAME", help="branch, tag or commit on the hub")
    add("--device", default="auto", metavar="NAME", help="auto, cuda, mps or cpu (default: auto)")
    add("--dtype", choices=("auto", "bf16", "fp16", "fp32"), default="auto", help="of computing (default: by device)")
    add("--weights", choices=("auto", "bf16", "fp32"), default="auto", help="of the weights in memory (default: auto)")
    add("--attention", choices=("auto", "sdpa", "flash", "eager"), default="auto", help="kernel (default: sdpa)")
    add("--max-pixels", type=int, metavar="N", help="of a picture as the model sees it (default: the model's limit)")
    add("--lora", type=int, metavar="RANK", help="train low-rank adapters of that rank instead of all weights")
    add("--lora-alpha", type=int, metavar="X", help="their scale (default: twice the rank)")
    add("--lora-dropout", type=float, default=0.05, metavar="P", help="(default: 0.05)")
    add("--lora-vision", action="store_true", help="adapters in the vision tower as well")
    add(
        "--freeze-vision",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep the vision tower as it is (default: with --lora)",
    )
    add(
        "--freeze-projector",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep what joins it to the language layers (default: as the vision tower)",
    )
    add("--gradient-checkpointing", action="store_true", help="less memory, a third more work")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    return common.run(arguments.command, arguments, PROG)


def run_sft(arguments: argparse.Namespace) -> int:
    """Train."""
    if arguments.resume and arguments.overwrite:
        raise OptionInvalid("--resume and --overwrite exclude each other", None, "leave one of them out")
    from ..models import silence_libraries  # noqa: TID252
    from .run import train
    from .settings import SFTSettings

    silence_libraries()
    train(
        SFTSettings(
            model=model_settings_from(arguments),
            data=arguments.data,
            image_root=arguments.image_root,
            out=arguments.out,
            prompts=load_prompts(arguments.prompts) if arguments.prompts else default_prompts(),
            context=arguments.context,
            learning_rate=arguments.lr,
            batch_size=arguments.batch,
            accumulation=arguments.accumulation,
            warmup_ratio=arguments.warmup,
            schedule=arguments.schedule,
            epochs=arguments.epochs,
            max_steps=arguments.max_steps,
            weight_decay=arguments.weight_decay,
            clip_norm=arguments.clip_norm,
            seed=arguments.seed,
            max_length=arguments.max_length,
            too_long=arguments.too_long,
            validation=arguments.validation,
            save_every=arguments.save_every,
            keep=arguments.keep,
            log_every=arguments.log_every,
            workers=arguments.workers,
            merge=not arguments.no_merge,
            open_options=OpenOptions(common.limits_from(arguments), arguments.allow_truncated),
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )
    )
    return common.EXIT_OK


def model_settings_from(arguments: argparse.Namespace) -> ModelSettings:
    """The model that the options of `add_model_arguments` describe."""
    from ..models import Lora, ModelSettings  # noqa: TID252

    lora = None
    if arguments.lora is not None:
        alpha = 2 * arguments.lora if arguments.lora_alpha is None else arguments.lora_alpha
        lora = Lora(arguments.lora, alpha, arguments.lora_dropout, arguments.lora_vision)
    return ModelSettings(
        model=arguments.model,
        revision=arguments.revision,
        device=arguments.device,
        dtype=arguments.dtype,
        weights=arguments.weights,
        attention=arguments.attention,
        max_pixels=arguments.max_pixels,
        lora=lora,
        freeze_vision=arguments.freeze_vision,
        freeze_projector=arguments.freeze_projector,
        gradient_checkpointing=arguments.gradient_checkpointing,
    )
