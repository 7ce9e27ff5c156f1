"""The command of GRPO. It must not know how a run is carried out; its help needs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoomiqa.cli import common
from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import default_prompts, load_prompts

from ..options import (  # noqa: TID252 - in a wheel it is zoomiqa.training
    SCHEDULES,
    add_folder_arguments,
    add_model_arguments,
    filling,
    given,
    model_settings_from,
)

if TYPE_CHECKING:
    from .settings import GRPOSettings

PROG = "grpo"


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(
        prog=f"python -m {__package__}",
        description="Train a fine-tuned model on rated pictures by reinforcement (GRPO with KL-Coverage).",
        epilog="On several GPUs: accelerate launch [its options] -m training.grpo [these].",
    )
    own = parser.add_argument
    own("--labels", type=Path, nargs="+", default=[], metavar="FILE", help="annotation files (JSON), scores of 1 to 5")
    own("--image-root", type=Path, metavar="DIR", help="what their paths are relative to (default: each file's folder)")
    add_folder_arguments(parser)
    add_model_arguments(parser)
    _add_rollouts(parser)
    _add_rewards(parser)
    _add_loss(parser)
    _add_run(parser)
    parser.set_defaults(command=run_grpo)
    return parser


def _add_rollouts(parser: argparse.ArgumentParser) -> None:
    add = filling(parser, "rollouts")
    add("--prompts", "prompts", "prompt set (default: our own)", Path, default=None, metavar="FILE")
    add("--rounds", "conversation.rounds", "looks at a picture, at most (default: 2)", int)
    add(
        "--context",
        "conversation.context",
        "how a closer look sees the first one (default: rewritten, as released)",
        choices=("rewritten", "appended"),
    )
    add("--samples", "batch.group_size", "per picture (default: 8, the paper's)", int)
    add("--pictures", "batch.pictures", "per rollout, over all processes (default: the fewest that fit)", int)
    add("--batch", "batch.batch_size", "conversations per process and pass (default: 1, the paper's)", int)
    add("--accumulation", "batch.gradient_accumulation_steps", "passes per step (default: 2, the paper's)", int)
    add(
        "--iterations",
        "batch.iterations",
        "times through a rollout (default: what makes 2 steps; in the first KL-Coverage is zero)",
        int,
    )
    add("--temperature", "sampling.temperature", "of sampling (default: 1)", float)
    add("--top-p", "sampling.top_p", "of sampling (default: 1, nothing cut off)", float)
    add("--top-k", "sampling.top_k", "of sampling (default: 0, nothing cut off)", int)
    add("--max-new-tokens", "sampling.max_new_tokens", "of a reply (default: 1024)", int)
    add("--engine", "engine.engine", "what writes (default: transformers)", choices=("transformers", "vllm"))
    add("--slots", "engine.slots", "replies under way at once (default: by device)", int)
    add("--vllm-memory", "engine.vllm_memory", "of each GPU, for vLLM (default: 0.3)", float, metavar="SHARE")
    add("--vllm-max-length", "engine.vllm_max_length", "tokens of prompt and reply in vLLM (default: the model's)", int)
    add(
        "--no-vllm-sleep",
        "engine.vllm_sleep",
        "let vLLM keep its memory while the model is trained",
        action="store_false",
    )


def _add_rewards(parser: argparse.ArgumentParser) -> None:
    add = filling(parser, "rewards (weights; 0 leaves a reward out)")
    add("--format-weight", "rewards.format", "(default: 1, the paper's)", float)
    add("--score-weight", "rewards.score", "(default: 1, the paper's)", float)
    add("--rank-weight", "rewards.rank", "(default: 2, the paper's)", float)
    add("--sigma", "rewards.sigma", "of the score reward, points (default: 0.35, the paper's)", float)
    add("--attribute-weight", "rewards.attributes", "MG-IQA's rank reward of attributes (default: 0)", float)
    add("--thinking-weight", "rewards.thinking", "Refine-IQA's reward of thinking (default: 0)", float)
    add(
        "--lift",
        "rewards.lift",
        "Refine-IQA's rule: no negative advantages beside a fully right sample",
        action="store_true",
    )
    add(
        "--perception",
        "perception",
        "perception tasks of training.synthesis",
        Path,
        nargs="+",
        default=[],
        metavar="FILE",
    )
    add(
        "--perception-share",
        "perception_share",
        "of the pictures of a rollout (default: 0.25 with tasks)",
        float,
        default=None,
    )


def _add_loss(parser: argparse.ArgumentParser) -> None:
    add = filling(parser, "objective")
    add("--clip", "loss.clip", "range of the ratio (default: 0.2)", float)
    add("--clip-high", "loss.clip_high", "upwards, where it differs", float)
    add("--coverage-weight", "loss.coverage.weight", "of KL-Coverage (default: 0.04, the paper's)", float)
    add("--coverage-share", "loss.coverage.share", "of the numbers (default: 0.02, the paper's)", float)
    add("--coverage-centring", "loss.coverage.centring", "means over (default: numeric)", choices=("numeric", "all"))
    add("--coverage-estimator", "loss.coverage.estimator", "of the KL (default: k3)", choices=("k3", "exact"))
    add("--coverage-scope", "loss.scope", "ranked over (default: global)", choices=("global", "batch", "micro"))
    add("--coverage-log-probs", "loss.log_probs", "in Eq. 1 (default: current)", choices=("current", "old"))
    add("--reference-weight", "loss.reference_weight", "of a KL to the first model (default: 0)", float)


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = filling(parser, "run")
    add("--lr", "optimizer.learning_rate", "learning rate (default: 1e-6, the paper's)", float)
    add("--schedule", "optimizer.schedule", "(default: linear)", choices=SCHEDULES)
    add("--warmup", "optimizer.warmup_ratio", "of the steps (default: 0)", float, metavar="SHARE")
    add("--weight-decay", "optimizer.weight_decay", "of AdamW (default: 0)", float)
    add("--clip-norm", "optimizer.max_grad_norm", "longest gradient (default: 1)", float)
    add("--epochs", "run.epochs", "times through the labels, over all stages (default: 2)", float, metavar="N")
    add("--rollouts", "run.rollouts", "rollouts instead of epochs", int)
    add("--stages", "stages", "of re-sampling, to equal shares of scores (default: 3)", int, default=3)
    add("--seed", "run.seed", "of order and samples (default: 0)", int)
    add("--save-every", "run.save_every", "rollouts between checkpoints (default: 20)", int)
    add("--keep", "run.keep", "checkpoints kept (default: 2)", int)
    add("--log-every", "run.log_every", "steps between lines of the log (default: 1)", int)
    add("--show-every", "run.show_every", "rollouts between samples written out (default: 10)", int)
    add("--no-merge", "run.merge", "with --lora: leave the adapter unmerged", action="store_false")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    return common.run(arguments.command, arguments, PROG)


def run_grpo(arguments: argparse.Namespace) -> int:
    """Train."""
    from ..models import silence_libraries  # noqa: TID252
    from .run import train

    silence_libraries()
    train(settings_from(arguments))
    return common.EXIT_OK


def settings_from(arguments: argparse.Namespace) -> GRPOSettings:
    """The run that the options describe."""
    from zoomiqa.protocol import ConversationSettings

    from ..objectives.coverage import CoverageSettings  # noqa: TID252
    from ..resampling import Stages  # noqa: TID252
    from .loss import LossSettings
    from .plan import BatchSettings
    from .scoring import RewardSettings
    from .settings import SAMPLING, EngineSettings, GRPOSettings, OptimizerSettings, Source

    if arguments.stages < 1:
        raise OptionInvalid("--stages must be at least 1", arguments.stages, "1 leaves the data as they are")
    share = arguments.perception_share
    if share is None:
        share = 0.25 if arguments.perception and arguments.labels else float(bool(arguments.perception))
    prompts = load_prompts(arguments.prompts) if arguments.prompts else default_prompts()
    rewards = RewardSettings(**given(arguments, "rewards"))
    sampling = replace(SAMPLING, **given(arguments, "sampling"))
    coverage = CoverageSettings(**given(arguments, "loss.coverage"))
    return GRPOSettings(
        model=model_settings_from(arguments),
        labels=tuple(Source(path, arguments.image_root or path.parent) for path in arguments.labels),
        perception=tuple(Source(path, path.parent) for path in arguments.perception),
        perception_share=share,
        prompts=prompts.with_attributes() if rewards.attributes > 0 else prompts,
        conversation=ConversationSettings(sampling=sampling, **given(arguments, "conversation")),
        batch=BatchSettings(**given(arguments, "batch")),
        rewards=rewards,
        loss=LossSettings(coverage=coverage, **given(arguments, "loss")),
        optimizer=OptimizerSettings(**given(arguments, "optimizer")),
        engine=EngineSettings(**given(arguments, "engine")),
        stages=Stages.rising(arguments.stages),
        **given(arguments, "run"),
    )
