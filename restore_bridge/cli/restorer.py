"""The options of `run` and `plan` that choose a restorer and go to it. It must not know what a restorer does."""

from __future__ import annotations

import argparse
from typing import Any

from restore_bridge.restorers import DEFAULT_RESTORER
from zoomiqa.cli import common
from zoomiqa.errors import OptionInvalid

_NAMED = ("preset", "weights", "steps", "device", "dtype", "offload")
"""Options of restorers that have a flag of their own."""


def add_restorer_options(parser: argparse.ArgumentParser) -> None:
    """Who restores, and with what."""
    group = parser.add_argument_group("restorer")
    group.add_argument(
        "--restorer",
        default=DEFAULT_RESTORER,
        metavar="NAME",
        help="who restores; see `restore-bridge plugins` (default: %(default)s)",
    )
    group.add_argument("--preset", help="of a diffusion restorer: quality or fidelity (default: quality)")
    group.add_argument(
        "--weights",
        metavar="FOLDER|FILE|HUB_ID",
        help="of a diffusion restorer: a saved pipeline, owner/name[@commit], or a released checkpoint (supir,"
        " dreamclear)",
    )
    group.add_argument("--steps", type=int, metavar="N", help="of the whole schedule (default: the preset's)")
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: chosen, with the reason)")
    group.add_argument("--dtype", help="bf16, fp16 or fp32 (default: bf16 on a GPU, fp32 elsewhere)")
    group.add_argument(
        "--offload", help="what waits in the machine's memory: none, model or sequential (default: by free memory)"
    )
    group.add_argument(
        "--restorer-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other option of the restorer (repeatable)",
    )


def restorer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given, by the restorer's own names.

    Raises:
        OptionInvalid: a pair without `=`, or one that a flag gives as well.
    """
    given = {name: getattr(arguments, name) for name in _NAMED}
    options = {name: value for name, value in given.items() if value is not None}
    others = common.read_pairs("--restorer-option", arguments.restorer_option)
    if twice := sorted(options.keys() & others.keys()):
        raise OptionInvalid("a restorer's option is given twice", twice[0], "leave one of them out")
    return {**options, **others}
