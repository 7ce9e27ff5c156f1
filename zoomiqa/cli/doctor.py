"""`zoomiqa doctor`, `plugins` and `schema`: what is here, what is missing, what a record looks like."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import re
from importlib import metadata
from typing import Any

from zoomiqa import __version__
from zoomiqa.cli import common
from zoomiqa.types import Choice

_DISTRIBUTION = "zoomiqa"
_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?(?P<bounds>[^;]*)(?:;(?P<marker>.*))?$")


def add_parser(commands: Any) -> None:
    doctor_parser = commands.add_parser(
        "doctor",
        help="check versions, optional parts and the device",
        description="Check what is installed against what is needed, and say what each optional part would add.",
    )
    doctor_parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    doctor_parser.set_defaults(command=doctor)
    plugins_parser = commands.add_parser("plugins", help="list assessors and plug-ins of other packages")
    plugins_parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    plugins_parser.set_defaults(command=plugins)
    schema_parser = commands.add_parser("schema", help="print the JSON schema of a record")
    schema_parser.set_defaults(command=schema)


def inspect() -> dict[str, Any]:
    """Versions against floors, optional parts and device; what is needed is known of an installed package only."""
    base: list[dict[str, Any]] = []
    extras: dict[str, list[dict[str, Any]]] = {}
    try:
        requirements = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        requirements = []
    for line in requirements:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        name, bounds, marker = match["name"], (match["bounds"] or "").strip(), match["marker"] or ""
        if name == _DISTRIBUTION:
            continue
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
        (extras.setdefault(extra[1], []) if extra else base).append(_check(name, bounds))
    device = _device()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "is_installed": bool(requirements),
        "base": base,
        "extras": extras,
        "device": device.to_dict(),
        "ok": bool(requirements) and all(item["ok"] for item in base),
    }


def _check(name: str, bounds: str) -> dict[str, Any]:
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return {"name": name, "needs": bounds, "installed": None, "ok": False}
    floor = re.search(r">=\s*([0-9.]+)", bounds)
    ok = floor is None or _numbers(installed) >= _numbers(floor[1])
    return {"name": name, "needs": bounds, "installed": installed, "ok": ok}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _device() -> Choice:
    if importlib.util.find_spec("torch") is None:
        return Choice("cpu", "torch is not installed; the embedded assessor and restorer need none")
    from zoomiqa.devices import choose_device

    return choose_device()


def doctor(arguments: argparse.Namespace) -> int:
    report = inspect()
    if arguments.json:
        common.print_json(report)
        return common.EXIT_OK if report["ok"] else common.EXIT_SOME_FAILED
    print(f"zoomiqa {report['version']}, Python {report['python']}, {report['platform']}")
    print(f"device: {report['device']['value']} ({report['device']['reason']})")
    if not report["is_installed"]:
        print("what is needed is not known: this is no installed package (pip install .)")
    _print_group("base", report["base"])
    for extra, items in sorted(report["extras"].items()):
        missing = [item["name"] for item in items if not item["ok"]]
        state = "ready" if not missing else f'lacks {", ".join(missing)}: pip install "zoomiqa[{extra}]"'
        print(f"extra {extra:<10} {state}")
    return common.EXIT_OK if report["ok"] else common.EXIT_SOME_FAILED


def _print_group(title: str, items: list[dict[str, Any]]) -> None:
    for item in items:
        state = "ok" if item["ok"] else "TOO OLD" if item["installed"] else "MISSING"
        print(f"{title} {item['name']:<24} {item['installed'] or '-':<12} {item['needs']:<10} {state}")


def list_plugins() -> dict[str, Any]:
    """Built-in names and foreign plug-ins, with what each says of itself."""
    from zoomiqa.assessors import builtin_assessors
    from zoomiqa.plugins import find_plugins, plugins_enabled

    result: dict[str, Any] = {
        "assessors": list(builtin_assessors()),
        "plugins": [plugin.to_dict() for plugin in find_plugins()],
        "plugins_enabled": plugins_enabled(),
    }
    return result


def plugins(arguments: argparse.Namespace) -> int:
    found = list_plugins()
    if arguments.json:
        common.print_json(found)
        return common.EXIT_OK
    print("assessors:", ", ".join(found["assessors"]))
    for plugin in found["plugins"]:
        print(f"{plugin['group']:<28} {plugin['name']:<20} {plugin['distribution']}")
    if not found["plugins"]:
        print("foreign plug-ins:", "none" if found["plugins_enabled"] else "switched off by ZOOMIQA_PLUGINS=0")
    return common.EXIT_OK


def schema(_: argparse.Namespace) -> int:
    from zoomiqa.records import schema as record_schema

    common.print_json(record_schema())
    return common.EXIT_OK
