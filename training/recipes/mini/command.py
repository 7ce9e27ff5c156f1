"""The command of the replication. It must not know what a stage does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoomiqa.cli import common
from zoomiqa.errors import OptionInvalid

from .forms import ARMS, FORMS, Form

if TYPE_CHECKING:
    import argparse

PROG = "mini"


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(
        prog=f"python -m {__package__}",
        description="Replicate the paper's ablation in miniature from photos with human scores. Run again, it goes on.",
    )
    parser.add_argument(
        "--photos", type=Path, required=True, metavar="DIR", help="what the labels' paths are relative to"
    )
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="FILE", help="annotation file (JSON), scores 1..5"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of everything made")
    parser.add_argument(
        "--form",
        choices=tuple(FORMS),
        default="short",
        help="for tests, for one core of a processor, or for one GPU (default: short)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"change the form: {', '.join(_numbers(next(iter(FORMS.values()))))}",
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=[arm.name for arm in ARMS],
        default=[arm.name for arm in ARMS],
        metavar="ARM",
        help=f"rows of the table: {', '.join(arm.name for arm in ARMS)} (default: all)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="the report, with plots beside it (default: report.md in DIR)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of split, data, weights, draws (default: 0)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cuda or cpu (default: auto)")
    parser.set_defaults(command=replicate)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    return common.run(arguments.command, arguments, PROG)


def replicate(arguments: argparse.Namespace) -> int:
    """Do what is not done yet, and write the report."""
    if arguments.seed < 0:
        raise OptionInvalid("--seed must be 0 or more", arguments.seed, "choose another seed")
    form = change(FORMS[arguments.form], common.read_pairs("--set", arguments.set))
    from ...models import silence_libraries  # noqa: TID252 - in a wheel it is zoomiqa.training
    from .report import write_report
    from .stages import Mini, run

    silence_libraries()
    arms = tuple(arm for arm in ARMS if arm.name in arguments.arms)
    mini = Mini(arguments.photos, arguments.labels, arguments.out, form, arms, arguments.seed, arguments.device)
    run(mini)
    common.complain(PROG, f"the report is {write_report(mini, arguments.report)}")
    return common.EXIT_OK


def _numbers(form: Form) -> list[str]:
    return [field.name for field in fields(form) if field.name != "shape"]


def change(form: Form, values: dict[str, object]) -> Form:
    """The form with some of its numbers changed.

    Raises:
        OptionInvalid: there is no such number, or it is out of range.
    """
    for name, value in values.items():
        if name not in _numbers(form):
            raise OptionInvalid("the form has no such number", name, f"choose of {', '.join(_numbers(form))}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise OptionInvalid(f"{name} must be a number above 0", value, "leave it as it is")
    return replace(form, **values)  # type: ignore[arg-type]
