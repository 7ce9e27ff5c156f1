"""`restore-bridge plugins`: what can restore, clean beforehand, and score, with what each says of itself."""

from __future__ import annotations

import argparse
from typing import Any

from zoomiqa.cli import common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "plugins",
        help="list restorers, pre-passes and metrics",
        description="List restorers with their capabilities, pre-passes, and metrics with direction and range.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.set_defaults(command=plugins)


def list_parts() -> dict[str, Any]:
    """Every restorer, pre-pass and metric; a foreign one that fails to load is listed with its error."""
    from restore_bridge import pyiqa_metrics
    from restore_bridge.prepass import prepass_names
    from restore_bridge.restorers import REGISTRY
    from restore_bridge.scoring import METRICS

    restorers: list[dict[str, Any]] = []
    for name in REGISTRY.names():
        try:
            restorers.append(REGISTRY.find(name).capabilities.to_dict())  # type: ignore[attr-defined]
        except Exception as error:
            restorers.append({"name": name, "error": f"{type(error).__name__}: {error}"})
    metrics = [METRICS.load(name).to_dict() for name in METRICS.built_in]
    optional: dict[str, Any] = {"name": "pyiqa:NAME", "is_installed": pyiqa_metrics.is_installed(), "extra": "metrics"}
    optional["licence"] = pyiqa_metrics.LICENCE
    return {
        "restorers": restorers,
        "prepasses": list(prepass_names()),
        "metrics": metrics,
        "optional_metrics": [optional],
    }


def plugins(arguments: argparse.Namespace) -> int:
    parts = list_parts()
    if arguments.json:
        common.print_json(parts)
        return common.EXIT_OK
    for item in parts["restorers"]:
        if "error" in item:
            print(f"restorer  {item['name']:<12} cannot be loaded: {item['error']}")
            continue
        extra = f' (pip install "zoomiqa[{item["extra"]}]")' if item["extra"] else ""
        print(f"restorer  {item['name']:<12} {item['description']}{extra}; {item['licence']}")
    print(f"pre-pass  {', '.join(parts['prepasses'])}")
    for item in parts["metrics"]:
        better = "higher is better" if item["higher_is_better"] else "lower is better"
        print(f"metric    {item['name']:<12} {item['description']} ({item['kind']}, {better})")
    for item in parts["optional_metrics"]:
        state = "installed" if item["is_installed"] else f'pip install "zoomiqa[{item["extra"]}]"'
        print(f"metric    {item['name']:<12} any metric of pyiqa ({state}); {item['licence']}")
    return common.EXIT_OK
