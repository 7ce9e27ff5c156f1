"""Options that say where the work is done, alike in every command that goes through many files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from zoomiqa.cli import common

if TYPE_CHECKING:
    from zoomiqa.scale import Engine
    from zoomiqa.types import Choice


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Here, or on the workers of a Ray cluster."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="local: this machine; ray: the workers of a Ray cluster, which open the files themselves (default: local)",
    )
    group.add_argument(
        "--workers", type=int, metavar="N", help="with ray: worker processes (default: as many as the cluster holds)"
    )
    group.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of a running cluster, or auto (default: RAY_ADDRESS; without it, one is started on this machine)",
    )
    group.add_argument(
        "--worker-gpus",
        type=float,
        metavar="N",
        help="with ray: GPUs that each worker takes (default: one for a model, where the cluster has any)",
    )


def engine_from(arguments: argparse.Namespace) -> Engine:
    """What the options describe, found to be usable.

    Raises:
        OptionInvalid: an option is out of range or does not apply, or nothing answers at the cluster's address.
        ExtraMissing: Ray is not installed.
    """
    from zoomiqa.errors import OptionInvalid
    from zoomiqa.scale import Engine, check_engine

    engine = Engine(arguments.engine, arguments.workers, arguments.ray_address, arguments.worker_gpus)
    if engine.name == "local":
        given = {"--workers": engine.workers, "--ray-address": engine.address, "--worker-gpus": engine.gpus}
        for option, value in given.items():
            if value is not None:
                raise OptionInvalid(f"{option} goes with --engine ray", value, "add it, or leave this out")
    elif getattr(arguments, "jobs", None) is not None:
        raise OptionInvalid("--jobs does not go with --engine ray", arguments.jobs, "pass --workers")
    check_engine(engine)
    return engine


def say_jobs(engine: Engine, jobs: Choice, requested: int | None, files: int) -> None:
    """Say how many processes work here and why, where there are several or were to be."""
    if engine.name == "local" and files > 1 and (int(jobs.value) > 1 or (requested or 1) > 1):
        noun = "process" if jobs.value == "1" else "processes"
        common.complain("zoomiqa", f"{jobs.value} worker {noun}: {jobs.reason}")
