"""Parts by name: built in, or offered by other packages through entry points. It must not know what a part does.

Entry-point groups: `zoomiqa.backends`, and `restorers`, `prepasses` and `metrics` of `restore_bridge`. Setting the
environment variable `ZOOMIQA_PLUGINS=0` keeps to the built-in parts: no code of other packages is loaded. A built-in
name cannot be taken over.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Generic, TypeVar, cast

from zoomiqa.errors import BackendUnknown, OptionInvalid

GROUPS = ("zoomiqa.backends", "restore_bridge.restorers", "restore_bridge.prepasses", "restore_bridge.metrics")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One part offered by another package; nothing of it is imported until it is used."""

    group: str
    name: str
    target: str
    """`package.module:attribute`."""

    distribution: str

    def to_dict(self) -> dict[str, str]:
        return {"group": self.group, "name": self.name, "target": self.target, "distribution": self.distribution}


def plugins_enabled() -> bool:
    """Whether entry points of other packages are read."""
    return os.environ.get("ZOOMIQA_PLUGINS", "1").lower() not in ("0", "", "off", "false", "no")


def find_plugins(group: str | None = None) -> list[Plugin]:
    """Offered parts, sorted by group and name; none when switched off."""
    groups = GROUPS if group is None else (group,)
    found = [
        Plugin(name, point.name, point.value, point.dist.name if point.dist else "")
        for name in groups
        for point in _entry_points(name)
    ]
    return sorted(found, key=lambda plugin: (plugin.group, plugin.name))


class Registry(Generic[T]):
    """Names to values, resolved on first use.

    Args:
        kind: What a part is called in messages.
        group: Entry-point group of other packages' parts.
        built_in: Name to "module:attribute", imported on first use, or to the maker itself.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str | Callable[..., T]]) -> None:
        self.kind, self.group, self.built_in = kind, group, dict(built_in)

    def names(self) -> tuple[str, ...]:
        """Every name, built-in ones first."""
        offered = (plugin.name for plugin in find_plugins(self.group))
        return (*self.built_in, *(name for name in offered if name not in self.built_in))

    def find(self, name: str) -> Callable[..., T]:
        """What is called `name`: a class or function that makes the part.

        Raises:
            BackendUnknown: nothing is called so; the message lists the nearest names.
        """
        maker = self.built_in.get(name)
        if isinstance(maker, str):
            module, _, attribute = maker.partition(":")
            return cast("Callable[..., T]", getattr(importlib.import_module(module), attribute))
        if maker is not None:
            return maker
        for point in _entry_points(self.group):
            if point.name == name:
                return cast("Callable[..., T]", point.load())
        near = difflib.get_close_matches(name, self.names(), n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(self.names())}"
        raise BackendUnknown(f"there is no {self.kind} of that name", name, advice)

    def load(self, name: str, /, **options: Any) -> T:
        """Make the part called `name` with the given options.

        Raises:
            BackendUnknown: nothing is called so.
            OptionInvalid: the part has no such option, or lacks one that it needs.
        """
        maker = self.find(name)
        try:
            inspect.signature(maker).bind(**options)
        except TypeError as error:
            known = ", ".join(self.options(name)) or "none"
            raise OptionInvalid(
                f"the options do not fit the {self.kind} {name!r}: {error}", None, f"it has: {known}"
            ) from error
        return maker(**options)

    def options(self, name: str) -> tuple[str, ...]:
        """Names of the options that the part called `name` takes."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(self.find(name)).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind in kinds)


def _entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group)) if plugins_enabled() else ()
