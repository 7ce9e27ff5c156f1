"""From words to pictures: split a quality assessment into prompts, restore under their guidance, keep what is better.

    from restore_bridge import restore

    result = restore("photo.jpg")
    print(result.kept, result.reason, result.prompts.positive)

Importing this package brings neither numpy nor Pillow nor torch; each name below loads its room when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore_bridge.api import restore, score
    from restore_bridge.bridge import RestoreBridge
    from restore_bridge.comparison import Comparison
    from restore_bridge.guidance import Guidance, Phrase, split_guidance, split_text
    from restore_bridge.prompts import Prompts, compose
    from restore_bridge.report import write_report
    from restore_bridge.restorers import Restorer, RestoreSettings, load_restorer
    from restore_bridge.results import BridgeResult
    from restore_bridge.settings import BridgeSettings

_HOME = {
    "BridgeResult": "results",
    "BridgeSettings": "settings",
    "Comparison": "comparison",
    "Guidance": "guidance",
    "Phrase": "guidance",
    "Prompts": "prompts",
    "RestoreBridge": "bridge",
    "RestoreSettings": "restorers",
    "Restorer": "restorers",
    "compose": "prompts",
    "load_restorer": "restorers",
    "restore": "api",
    "score": "api",
    "split_guidance": "guidance",
    "split_text": "guidance",
    "write_report": "report",
}

__all__ = [
    "BridgeResult",
    "BridgeSettings",
    "Comparison",
    "Guidance",
    "Phrase",
    "Prompts",
    "RestoreBridge",
    "RestoreSettings",
    "Restorer",
    "compose",
    "load_restorer",
    "restore",
    "score",
    "split_guidance",
    "split_text",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
