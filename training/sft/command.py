"""The command of supervised fine-tuning. It must not know how a run is carried out; its help needs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoomiqa.batch import OpenOptions
from zoomiqa.cli import common
from zoomiqa.protocol import default_prompts, load_prompts

from ..options import (  # noqa: TID252 - in a wheel it is zoomiqa.training
    SCHEDULES,
    add_folder_arguments,
    add_model_arguments,
    filling,
    given,
    model_settings_from,
)
from .settings import SFTSettings

PROG = "sft"


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(
        prog=f"python -m {__package__}",
        description="Fine-tune a vision-language model on curated trajectories (the cold start).",
    )
    add = filling(parser)
    add("--data", "run.data", "what `curation build` wrote", Path, required=True, metavar="DIR")
    add("--image-root", "run.image_root", "what its paths are relative to", Path, required=True, metavar="DIR")
    add_folder_arguments(parser)
    add_model_arguments(parser)
    add = filling(parser, "rows")
    add("--prompts", "prompts", "prompt set of the data (default: our own)", Path, default=None, metavar="FILE")
    add(
        "--context",
        "run.context",
        "two rows per trajectory of two looks, as released, or one with both replies trained (default: rewritten)",
        choices=("rewritten", "appended"),
    )
    add("--max-length", "run.max_length", "tokens of a row (default: the model's context)", int)
    add(
        "--too-long",
        "run.too_long",
        "what is done with longer rows; none is ever cut (default: leave-out)",
        choices=("leave-out", "refuse"),
    )
    add(
        "--validation",
        "run.validation",
        "share of the pictures whose loss is only measured (default: 0)",
        float,
        metavar="SHARE",
    )
    add = filling(parser, "optimisation")
    add("--lr", "run.learning_rate", "learning rate (default: 2.5e-6, the paper's)", float)
    add("--batch", "run.batch_size", "rows per process and pass (default: 2, the paper's)", int)
    add("--accumulation", "run.gradient_accumulation_steps", "passes per step (default: 8, the paper's)", int)
    add("--warmup", "run.warmup_ratio", "of the steps (default: 0.3, the paper's)", float, metavar="SHARE")
    add("--schedule", "run.schedule", "after the warm-up", choices=SCHEDULES)
    add("--epochs", "run.epochs", "times through the data (default: 1)", float, metavar="N")
    add("--max-steps", "run.max_steps", "steps instead of epochs", int)
    add("--weight-decay", "run.weight_decay", "of AdamW (default: 0)", float)
    add("--clip-norm", "run.max_grad_norm", "longest gradient (default: 1)", float)
    add("--seed", "run.seed", "of order, dropout and split (default: 42)", int)
    add = filling(parser, "run")
    add("--save-every", "run.save_every", "steps between checkpoints (default: a tenth of the run)", int)
    add("--keep", "run.keep", "checkpoints kept (default: 2)", int)
    add("--log-every", "run.log_every", "steps between lines of the log (default: 1)", int)
    add("--workers", "run.workers", "processes that prepare rows ahead (default: 0)", int)
    add("--no-merge", "run.merge", "with --lora: leave the adapter unmerged", action="store_false")
    common.add_limit_options(parser)
    parser.set_defaults(command=run_sft)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    return common.run(arguments.command, arguments, PROG)


def run_sft(arguments: argparse.Namespace) -> int:
    """Train."""
    settings = settings_from(arguments)
    from ..models import silence_libraries  # noqa: TID252
    from .run import train

    silence_libraries()
    train(settings)
    return common.EXIT_OK


def settings_from(arguments: argparse.Namespace) -> SFTSettings:
    """The run that the options describe."""
    return SFTSettings(
        model=model_settings_from(arguments),
        prompts=load_prompts(arguments.prompts) if arguments.prompts else default_prompts(),
        open_options=OpenOptions(common.limits_from(arguments), arguments.allow_truncated),
        **given(arguments, "run"),
    )
