"""Finds parts by name: built in, or offered by other packages through entry points. It must not know what a part does.

Setting the environment variable `ZOOMIQA_PLUGINS=0` keeps to the built-in parts: no code of other packages is loaded.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from zoomiqa.errors import BackendUnknown

T = TypeVar("T")


def plugins_enabled() -> bool:
    """Whether entry points of other packages are read."""
    return os.environ.get("ZOOMIQA_PLUGINS", "1") != "0"


class Registry(Generic[T]):
    """Names to factories, resolved on first use. A built-in name cannot be replaced by another package."""

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        """Args: kind: what a part is called in messages. group: entry-point group. built_in: name → "module:attribute"."""  # noqa: E501
        self.kind, self.group, self.built_in = kind, group, dict(built_in)

    def names(self) -> tuple[str, ...]:
        """Every name, built-in ones first."""
        return (*self.built_in, *sorted(self._offered()))

    def load(self, name: str) -> T:
        """Call the factory called `name`, without arguments.

        Raises:
            BackendUnknown: no such name.
        """
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            factory = cast("Callable[[], T]", getattr(importlib.import_module(module), attribute))
            return factory()
        offered = self._offered()
        if name in offered:
            return cast("Callable[[], T]", offered[name].load())()
        near = difflib.get_close_matches(name, self.names(), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(self.names())}"
        raise BackendUnknown(f"there is no {self.kind} of that name", name, hint)

    def _offered(self) -> dict[str, EntryPoint]:
        if not plugins_enabled():
            return {}
        return {point.name: point for point in entry_points(group=self.group) if point.name not in self.built_in}
