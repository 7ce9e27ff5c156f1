"""The command of GRPO. It must not know how a run is carried out; its help needs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoomiqa.cli import common
from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import default_prompts, load_prompts

from ..sft.command import add_model_arguments, model_settings_from  # noqa: TID252 - in a wheel it is zoomiqa.training

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
    add = parser.add_argument
    add("--labels", type=Path, nargs="+", default=[], metavar="FILE", help="annotation files (JSON), scores of 1 to 5")
    add("--image-root", type=Path, metavar="DIR", help="what their paths are relative to (default: each file's folder)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the trained model")
    add("--resume", action="store_true", help="go on with the last whole checkpoint in DIR")
    add("--overwrite", action="store_true", help="replace an earlier run in DIR")
    add_model_arguments(parser)
    _add_rollouts(parser)
    _add_rewards(parser)
    _add_loss(parser)
    _add_run(parser)
    parser.set_defaults(command=run_grpo)
    return parser


def _add_rollouts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("rollouts").add_argument
    add("--prompts", type=Path, metavar="FILE", help="prompt set (default: our own)")
    add("--rounds", type=int, default=2, metavar="N", help="looks at a picture, at most (default: 2)")
    add(
        "--context",
        choices=("rewritten", "appended"),
        default="rewritten",
        help="how a closer look sees the first one (default: rewritten, as released)",
    )
    add("--samples", type=int, default=8, metavar="N", help="per picture (default: 8, the paper's)")
    add("--pictures", type=int, metavar="N", help="per rollout, over all processes (default: the fewest that fit)")
    add(
        "--batch", type=int, default=1, metavar="N", help="conversations per process and pass (default: 1, the paper's)"
    )
    add("--accumulation", type=int, default=2, metavar="N", help="passes per step (default: 2, the paper's)")
    add(
        "--iterations",
        type=int,
        metavar="N",
        help="times through a rollout (default: what makes 2 steps; in the first KL-Coverage is zero)",
    )
    add("--temperature", type=float, default=1.0, metavar="X", help="of sampling (default: 1)")
    add("--top-p", type=float, default=1.0, metavar="X", help="of sampling (default: 1, nothing cut off)")
    add("--top-k", type=int, default=0, metavar="N", help="of sampling (default: 0, nothing cut off)")
    add("--max-new-tokens", type=int, default=1024, metavar="N", help="of a reply (default: 1024)")
    add(
        "--engine", choices=("transformers", "vllm"), default="transformers", help="what writes (default: transformers)"
    )
    add("--slots", type=int, metavar="N", help="replies under way at once (default: by device)")
    add("--vllm-memory", type=float, default=0.3, metavar="SHARE", help="of each GPU, for vLLM (default: 0.3)")
    add("--vllm-max-length", type=int, metavar="N", help="tokens of prompt and reply in vLLM (default: the model's)")
    add("--no-vllm-sleep", action="store_true", help="let vLLM keep its memory while the model is trained")


def _add_rewards(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("rewards (weights; 0 leaves a reward out)").add_argument
    add("--format-weight", type=float, default=1.0, metavar="X", help="(default: 1, the paper's)")
    add("--score-weight", type=float, default=1.0, metavar="X", help="(default: 1, the paper's)")
    add("--rank-weight", type=float, default=2.0, metavar="X", help="(default: 2, the paper's)")
    add(
        "--sigma",
        type=float,
        default=0.35,
        metavar="X",
        help="of the score reward, points (default: 0.35, the paper's)",
    )
    add(
        "--attribute-weight",
        type=float,
        default=0.0,
        metavar="X",
        help="MG-IQA's rank reward of attributes (default: 0)",
    )
    add("--thinking-weight", type=float, default=0.0, metavar="X", help="Refine-IQA's reward of thinking (default: 0)")
    add("--lift", action="store_true", help="Refine-IQA's rule: no negative advantages beside a fully right sample")
    add("--perception", type=Path, nargs="+", default=[], metavar="FILE", help="perception tasks of training.synthesis")
    add("--perception-share", type=float, metavar="X", help="of the pictures of a rollout (default: 0.25 with tasks)")


def _add_loss(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("objective").add_argument
    add("--clip", type=float, default=0.2, metavar="X", help="range of the ratio (default: 0.2)")
    add("--clip-high", type=float, metavar="X", help="upwards, where it differs")
    add("--coverage-weight", type=float, default=0.04, metavar="X", help="of KL-Coverage (default: 0.04, the paper's)")
    add("--coverage-share", type=float, default=0.02, metavar="X", help="of the numbers (default: 0.02, the paper's)")
    add("--coverage-centring", choices=("numeric", "all"), default="numeric", help="means over (default: numeric)")
    add("--coverage-estimator", choices=("k3", "exact"), default="k3", help="of the KL (default: k3)")
    add(
        "--coverage-scope", choices=("global", "batch", "micro"), default="global", help="ranked over (default: global)"
    )
    add("--coverage-log-probs", choices=("current", "old"), default="current", help="in Eq. 1 (default: current)")
    add("--reference-weight", type=float, default=0.0, metavar="X", help="of a KL to the first model (default: 0)")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--lr", type=float, default=1e-6, metavar="X", help="learning rate (default: 1e-6, the paper's)")
    add("--schedule", choices=("linear", "cosine", "constant_with_warmup"), default="linear", help="(default: linear)")
    add("--warmup", type=float, default=0.0, metavar="SHARE", help="of the steps (default: 0)")
    add("--weight-decay", type=float, default=0.0, metavar="X", help="of AdamW (default: 0)")
    add("--clip-norm", type=float, default=1.0, metavar="X", help="longest gradient (default: 1)")
    add("--epochs", type=float, default=2.0, metavar="N", help="times through the labels, over all stages (default: 2)")
    add("--rollouts", type=int, metavar="N", help="rollouts instead of epochs")
    add("--stages", type=int, default=3, metavar="N", help="of re-sampling, to equal shares of scores (default: 3)")
    add("--seed", type=int, default=0, metavar="N", help="of order and samples (default: 0)")
    add("--save-every", type=int, default=20, metavar="N", help="rollouts between checkpoints (default: 20)")
    add("--keep", type=int, default=2, metavar="N", help="checkpoints kept (default: 2)")
    add("--log-every", type=int, default=1, metavar="N", help="steps between lines of the log (default: 1)")
    add("--show-every", type=int, default=10, metavar="N", help="rollouts between samples written out (default: 10)")
    add("--no-merge", action="store_true", help="with --lora: leave the adapter unmerged")


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
    from zoomiqa.types import Sampling

    from ..objectives.coverage import CoverageSettings  # noqa: TID252
    from ..resampling import Stages  # noqa: TID252
    from .loss import LossSettings
    from .plan import BatchSettings
    from .scoring import RewardSettings
    from .settings import EngineSettings, GRPOSettings, OptimizerSettings, Source

    if arguments.stages < 1:
        raise OptionInvalid("--stages must be at least 1", arguments.stages, "1 leaves the data as they are")
    share = arguments.perception_share
    if share is None:
        share = 0.25 if arguments.perception and arguments.labels else float(bool(arguments.perception))
    prompts = load_prompts(arguments.prompts) if arguments.prompts else default_prompts()
    return GRPOSettings(
        model=model_settings_from(arguments),
        labels=tuple(Source(path, arguments.image_root or path.parent) for path in arguments.labels),
        perception=tuple(Source(path, path.parent) for path in arguments.perception),
        perception_share=share,
        out=arguments.out,
        prompts=prompts.with_attributes() if arguments.attribute_weight > 0 else prompts,
        conversation=ConversationSettings(
            rounds=arguments.rounds,
            context=arguments.context,
            sampling=Sampling(
                temperature=arguments.temperature,
                top_p=arguments.top_p,
                top_k=arguments.top_k,
                max_new_tokens=arguments.max_new_tokens,
            ),
        ),
        batch=BatchSettings(
            batch_size=arguments.batch,
            accumulation_steps=arguments.accumulation,
            group_size=arguments.samples,
            pictures=arguments.pictures,
            iterations=arguments.iterations,
        ),
        rewards=RewardSettings(
            format=arguments.format_weight,
            score=arguments.score_weight,
            rank=arguments.rank_weight,
            thinking=arguments.thinking_weight,
            attributes=arguments.attribute_weight,
            sigma=arguments.sigma,
            lift=arguments.lift,
        ),
        loss=LossSettings(
            clip=arguments.clip,
            clip_high=arguments.clip_high,
            reference_weight=arguments.reference_weight,
            coverage=CoverageSettings(
                share=arguments.coverage_share,
                weight=arguments.coverage_weight,
                centring=arguments.coverage_centring,
                estimator=arguments.coverage_estimator,
            ),
            scope=arguments.coverage_scope,
            log_probs=arguments.coverage_log_probs,
        ),
        optimizer=OptimizerSettings(
            learning_rate=arguments.lr,
            schedule=arguments.schedule,
            warmup=arguments.warmup,
            weight_decay=arguments.weight_decay,
            max_gradient=arguments.clip_norm,
        ),
        engine=EngineSettings(
            engine=arguments.engine,
            slots=arguments.slots,
            vllm_memory=arguments.vllm_memory,
            vllm_sleep=not arguments.no_vllm_sleep,
            vllm_max_length=arguments.vllm_max_length,
        ),
        stages=Stages.rising(arguments.stages),
        epochs=arguments.epochs,
        rollouts=arguments.rollouts,
        seed=arguments.seed,
        log_every=arguments.log_every,
        save_every=arguments.save_every,
        keep=arguments.keep,
        show_every=arguments.show_every,
        merge=not arguments.no_merge,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
    )
