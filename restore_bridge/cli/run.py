"""`restore-bridge run` and `plan`: restore files, folders and patterns, or say what would be done."""

from __future__ import annotations

import argparse
from typing import Any

from restore_bridge.cli.folder import OutputFolder, add_output_options
from restore_bridge.cli.names import find_inputs
from restore_bridge.cli.restoration import add_restoration_options, bridge_from
from zoomiqa.cli import common
from zoomiqa.cli.engine import add_engine_options

_EXAMPLES = """
examples:
  restore-bridge run photo.jpg --out restored
  restore-bridge run photos/ --out restored --candidates 4
  restore-bridge run photo.jpg --out restored --seeds 0,1,2 --strengths 0.5,1 --loop 3
  restore-bridge run old/*.jpg --out restored --restorer realesrgan --scale 2 --prompt "family portrait"
  restore-bridge run photo.jpg --out restored --restorer sdxl-tile --preset fidelity --color-fix wavelet
"""


def add_parsers(commands: Any) -> None:
    run_parser = commands.add_parser(
        "run",
        help="assess, restore, assess again, keep the better picture",
        epilog=_EXAMPLES,
        description="Restore pictures under the guidance of their assessment and keep the better of input and result.",
    )
    _add_paths(run_parser)
    add_restoration_options(run_parser)
    output = add_output_options(run_parser)
    output.add_argument(
        "--overwrite", action="store_true", help="do everything anew; without it, finished pictures are skipped"
    )
    add_engine_options(run_parser)
    common.add_limit_options(run_parser)
    run_parser.set_defaults(command=run)

    plan_parser = commands.add_parser(
        "plan",
        help="say what `run` would do, without restoring",
        description="Assess pictures and show prompts, actions and sizes; nothing is restored or written.",
    )
    _add_paths(plan_parser)
    add_restoration_options(plan_parser)
    common.add_limit_options(plan_parser)
    plan_parser.set_defaults(command=plan)


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="picture files, folders (searched through), or patterns"
    )


def run(arguments: argparse.Namespace) -> int:
    inputs = find_inputs(arguments.paths, arguments.out)
    folder = OutputFolder(arguments, arguments.paths)
    progress = folder.add(inputs, overwrite=arguments.overwrite)
    common.complain("restore-bridge", progress.summary())
    if not arguments.no_report:
        common.print_path(folder.write_report())
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


def plan(arguments: argparse.Namespace) -> int:
    from restore_bridge.restorers.base import check_factor
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.imaging import open_picture

    limits = common.limits_from(arguments)
    bridge = bridge_from(arguments, limits)
    check_factor(bridge.restorer.capabilities, bridge.settings.scale)  # weights need not be there yet
    plans: list[dict[str, Any]] = []
    for path in common.find_inputs(arguments.paths):
        try:
            picture = open_picture(path, limits=limits, allow_truncated=arguments.allow_truncated)
            before = next(iter(bridge.assessor.assess([picture])))
            outcome = {"error": dict(before.error)} if before.error else bridge.plan(picture, before).to_dict()
        except ZoomIQAError as error:
            outcome = {"error": error.to_dict()}
        plans.append({"path": str(path), **outcome})
    common.print_json(plans if len(plans) != 1 else plans[0])
    return common.EXIT_SOME_FAILED if any("error" in item for item in plans) else common.EXIT_OK
