"""Finding plug-ins by name through entry points. It must not know what a plug-in does.

Three groups: `zoomiqa.backends`, `restore_bridge.restorers`, `restore_bridge.metrics`. Setting the environment variable
`ZOOMIQA_PLUGINS=0` switches foreign plug-ins off; a built-in name cannot be taken over by one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from zoomiqa.errors import BackendUnknown, ExtraMissing

GROUPS = ("zoomiqa.backends", "restore_bridge.restorers", "restore_bridge.metrics")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One registered plug-in; nothing of it is imported until `load` is called."""

    group: str
    name: str
    target: str
    """`package.module:attribute`."""

    distribution: str

    def to_dict(self) -> dict[str, str]:
        return {
            "group": self.group,
            "name": self.name,
            "target": self.target,
            "distribution": self.distribution,
        }


def plugins_enabled() -> bool:
    """Whether foreign plug-ins may be loaded."""
    return os.environ.get("ZOOMIQA_PLUGINS", "1").lower() not in ("0", "", "off", "false", "no")


def find_plugins(group: str | None = None) -> list[Plugin]:
    """Registered plug-ins, sorted by group and name; empty when switched off."""
    if not plugins_enabled():
        return []
    groups = GROUPS if group is None else (group,)
    return sorted(
        (
            Plugin(name, point.name, point.value, point.dist.name if point.dist else "")
            for name in groups
            for point in metadata.entry_points(group=name)
        ),
        key=lambda plugin: (plugin.group, plugin.name),
    )


def load_plugin(group: str, name: str, *, builtin: Iterable[str] = ()) -> Any:
    """Load the plug-in `name` of `group`.

    Raises:
        BackendUnknown: no such plug-in; the message lists near matches among plug-ins and `builtin` names.
    """
    for point in metadata.entry_points(group=group) if plugins_enabled() else ():
        if point.name == name:
            return point.load()
    raise unknown_name(group, name, [*builtin, *(plugin.name for plugin in find_plugins(group))])


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BackendUnknown:
    """The error for a name nobody has, with the nearest names that exist."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(names) or 'none'}"
    return BackendUnknown(f"no {kind} plug-in is called that", name, advice)


def missing_extra(extra: str, package: str, purpose: str) -> ExtraMissing:
    """The error for an optional part that is not installed."""
    return ExtraMissing(f"{purpose} needs the package {package}", None, f'run: pip install "zoomiqa[{extra}]"')
