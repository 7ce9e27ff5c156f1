"""The command `zoomiqa`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from collections.abc import Sequence

from zoomiqa import __version__
from zoomiqa.cli import assess, card, common, datasets, doctor, evaluate, fidelity, judge


def build_parser() -> common.Parser:
    """The whole command-line grammar; the documentation is generated from it."""
    parser = common.Parser(
        prog="zoomiqa",
        description="Say what is wrong with a photograph, where, and how good it is.",
        epilog="exit codes: 0 all done, 1 some pictures failed, 2 wrong usage, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"zoomiqa {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=common.Parser)
    assess.add_parser(commands)
    card.add_parser(commands)
    evaluate.add_parser(commands)
    fidelity.add_parser(commands)
    judge.add_parser(commands)
    datasets.add_parser(commands)
    doctor.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    return common.run(arguments.command, arguments, "zoomiqa")
