"""The command `restore-bridge`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from collections.abc import Sequence

from restore_bridge.cli import ablate, app, plugins, prompts, report, run, score, sheets, watch, weights
from zoomiqa import __version__
from zoomiqa.cli import common


def build_parser() -> common.Parser:
    """The whole command-line grammar; the documentation is generated from it."""
    parser = common.Parser(
        prog="restore-bridge",
        description="Restore photographs under the guidance of their written assessment, and keep the better picture.",
        epilog="exit codes: 0 all done, 1 some pictures failed, 2 wrong usage, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"restore-bridge {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=common.Parser)
    run.add_parsers(commands)
    app.add_parser(commands)
    watch.add_parser(commands)
    prompts.add_parser(commands)
    score.add_parser(commands)
    ablate.add_parser(commands)
    report.add_parser(commands)
    sheets.add_parser(commands)
    plugins.add_parser(commands)
    weights.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    return common.run(arguments.command, arguments, "restore-bridge")
