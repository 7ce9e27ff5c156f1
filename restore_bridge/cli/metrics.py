"""The option that names metrics. It must not know what they measure."""

from __future__ import annotations

import argparse


def add_metric_option(parser: argparse.ArgumentParser) -> None:
    """Which metrics are taken."""
    parser.add_argument(
        "--metric",
        "--metrics",
        dest="metrics",
        action="append",
        metavar="NAMES",
        help="metrics, comma-separated or repeated; pyiqa:NAME for one of pyiqa (default: the basic ones)",
    )


def metric_names(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    """The names given by --metric, each once; `None` without it."""
    if arguments.metrics is None:
        return None
    return tuple(dict.fromkeys(name.strip() for words in arguments.metrics for name in words.split(",")))


def load_metrics(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    """The names given by --metric, each loaded: one that cannot be had is said once, before the first picture."""
    from restore_bridge.scoring import load_metric

    names = metric_names(arguments)
    for name in names or ():
        load_metric(name)
    return names
