"""A stand-in for ComfyUI's `comfy_api.v0_0_2`, which no registry carries: the names and signatures that our nodes use.

Written from the public interface (ComfyUI, `comfy_api/latest/_io.py`, 2026). What the real one would refuse as an
unknown argument, this one refuses too.
"""

import sys
import types
from dataclasses import dataclass, field


@dataclass
class Input:
    id: str
    io_type: str
    optional: bool = False
    tooltip: str | None = None
    details: dict = field(default_factory=dict)


@dataclass
class Output:
    id: str
    io_type: str
    display_name: str | None = None
    tooltip: str | None = None
    is_output_list: bool = False


_WIDGET = {"default"}
_ALLOWED = {
    "BOOLEAN": _WIDGET,
    "COMBO": _WIDGET | {"options"},
    "FLOAT": _WIDGET | {"min", "max", "step"},
    "INT": _WIDGET | {"min", "max", "step"},
    "STRING": _WIDGET | {"multiline", "placeholder"},
}


def _kind(io_type):
    def make_input(name, *, optional=False, tooltip=None, **details):
        unknown = set(details) - _ALLOWED.get(io_type, set())
        if unknown:
            raise TypeError(f"{io_type}.Input() got unexpected arguments {sorted(unknown)}")
        return Input(name, io_type, optional, tooltip, details)

    def make_output(name=None, *, display_name=None, tooltip=None, is_output_list=False):
        return Output(name, io_type, display_name, tooltip, is_output_list)

    return types.SimpleNamespace(io_type=io_type, Input=make_input, Output=make_output)


@dataclass
class Schema:
    node_id: str
    category: str
    display_name: str | None = None
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    description: str = ""


class ComfyNode:
    @classmethod
    def define_schema(cls):
        raise TypeError("a node must define its schema")

    @classmethod
    def execute(cls, **values):
        raise TypeError("a node must execute")


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args = args


class ComfyExtension:
    async def get_node_list(self):
        raise TypeError("an extension must list its nodes")


def install(monkeypatch):
    """Put the stand-in where `import comfy_api.v0_0_2` finds it."""
    kinds = {name.capitalize(): _kind(name) for name in ("BOOLEAN", "COMBO", "FLOAT", "IMAGE", "INT", "MASK", "STRING")}
    io = types.SimpleNamespace(Custom=_kind, Schema=Schema, ComfyNode=ComfyNode, NodeOutput=NodeOutput, **kinds)
    package, version = types.ModuleType("comfy_api"), types.ModuleType("comfy_api.v0_0_2")
    version.io, version.ComfyExtension = io, ComfyExtension
    monkeypatch.setitem(sys.modules, "comfy_api", package)
    monkeypatch.setitem(sys.modules, "comfy_api.v0_0_2", version)
