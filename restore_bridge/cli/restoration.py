"""Options on how to restore, alike in `run`, `plan` and `watch`; `ablate` shares those of one restoration."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from restore_bridge.cli.assessor import add_assessor_options, assessor_from
from restore_bridge.cli.numbers import decimals, integers
from restore_bridge.cli.restorer import add_restorer_options, restorer_options
from restore_bridge.color import COLOR_FIX_CHOICES

if TYPE_CHECKING:
    from restore_bridge.bridge import RestoreBridge
    from restore_bridge.settings import BridgeSettings
    from zoomiqa.limits import Limits


def add_restoration_options(parser: argparse.ArgumentParser) -> None:
    """Options on the assessor, the pre-pass, the restorer, and what is kept."""
    add_assessor_options(parser)
    how = parser.add_argument_group("restoration")
    add_method_options(how)
    amount = how.add_mutually_exclusive_group()
    amount.add_argument(
        "--candidates",
        type=int,
        default=2,
        metavar="N",
        help="restorations tried in a round, 1 to 16; with --strengths, the number of seeds (default: 2)",
    )
    amount.add_argument(
        "--seeds", type=integers, metavar="LIST", help="seeds to try, each with every strength, such as 0,1,2"
    )
    how.add_argument(
        "--strengths",
        type=decimals,
        metavar="LIST",
        help="strengths to try, each with every seed, such as 0.5,1 (default: 1 with --seeds, else 1, 0.6, 0.35,"
        " 0.8 in turn)",
    )
    how.add_argument(
        "--strength", type=float, default=1.0, help="multiplies what the guidance asks for, above 0 to 1 (default: 1)"
    )
    how.add_argument(
        "--loop",
        type=int,
        default=1,
        metavar="K",
        help="rounds at most, 1 to 8: each goes on from the best picture so far under guidance from its own assessment,"
        " and ends the loop when nothing is better (default: 1)",
    )
    how.add_argument("--seed", type=int, default=42, help="first seed, where no --seeds are given (default: 42)")
    how.add_argument("--prompt", help="your own words on the wanted picture; they come first and are never dropped")
    how.add_argument("--negative", help="your own words on what to avoid; likewise")
    how.add_argument(
        "--keep-loaded",
        action="store_true",
        help="keep the models of assessor and restorer in memory together, where both are on this machine",
    )
    how.add_argument(
        "--min-gain", type=float, default=0.0, help="rating points a candidate must gain to be kept (default: 0)"
    )
    how.add_argument(
        "--min-consistency", type=float, default=0.8, help="least agreement with the input, 0 to 1 (default: 0.8)"
    )
    how.add_argument(
        "--max-change",
        type=float,
        default=40.0,
        metavar="LEVELS",
        help="most that a candidate may leave the input where no change of tone was asked for, 0 to 255 (default: 40)",
    )
    add_restorer_options(parser)


def add_method_options(how: Any) -> None:
    """Options on how one restoration is made, alike wherever one is."""
    how.add_argument(
        "--prepass", default="none", help="what runs before the restorer: none, classical or swinir (default: none)"
    )
    how.add_argument(
        "--prepass-weights",
        metavar="FILE|HUB_ID",
        help="model of the pre-pass: a file, or owner/name:file on the hub (swinir has no default)",
    )
    how.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read weights that are a pickle (.pth, .ckpt); better: `restore-bridge weights convert`",
    )
    how.add_argument("--scale", type=int, default=1, help="enlargement, 1 to 4 (default: 1)")
    how.add_argument(
        "--color-fix",
        choices=COLOR_FIX_CHOICES,
        default="auto",
        help="hold the colour to the picture after the pre-pass (default: auto, which is wavelet for restorers that"
        " invent detail, unless a change of tone is asked for)",
    )


def bridge_from(arguments: argparse.Namespace, limits: Limits) -> RestoreBridge:
    """The bridge that the options describe."""
    from restore_bridge.bridge import RestoreBridge
    from zoomiqa.assessors import create_assessor

    return RestoreBridge(create_assessor(assessor_from(arguments, limits)), settings_from(arguments), limits=limits)


def settings_from(arguments: argparse.Namespace) -> BridgeSettings:
    """What the options ask for."""
    from restore_bridge.settings import BridgeSettings

    return BridgeSettings(
        restorer=arguments.restorer,
        restorer_options=restorer_options(arguments),
        prepass=arguments.prepass,
        prepass_weights=arguments.prepass_weights,
        allow_pickle=arguments.allow_pickle,
        candidates=arguments.candidates,
        seed=arguments.seed,
        seeds=arguments.seeds,
        strength=arguments.strength,
        strengths=arguments.strengths,
        loop=arguments.loop,
        scale=arguments.scale,
        color_fix=arguments.color_fix,
        keep_loaded=arguments.keep_loaded,
        prompt=arguments.prompt,
        negative=arguments.negative,
        min_gain=arguments.min_gain,
        min_consistency=arguments.min_consistency,
        max_change=arguments.max_change,
    )
