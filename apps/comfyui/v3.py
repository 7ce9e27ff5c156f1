"""The nodes as ComfyUI's third interface wants them: a schema for each, and an entry point."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import ComfyExtension, io

from .nodes import CATEGORY, NODES, Input, Node, Output

_KINDS = {
    "BOOLEAN": io.Boolean,
    "COMBO": io.Combo,
    "FLOAT": io.Float,
    "IMAGE": io.Image,
    "INT": io.Int,
    "MASK": io.Mask,
    "STRING": io.String,
}


def _kind(name: str) -> Any:
    return _KINDS.get(name) or io.Custom(name)


def _input(entry: Input) -> Any:
    return _kind(entry.kind).Input(entry.name, optional=entry.optional, tooltip=entry.tooltip, **entry.options)


def _output(entry: Output) -> Any:
    return _kind(entry.kind).Output(
        entry.name, display_name=entry.name, tooltip=entry.tooltip, is_output_list=entry.many
    )


def _class_of(node: Node) -> type:
    def define_schema(cls: type, /) -> Any:  # noqa: ARG001
        return io.Schema(
            node_id=node.id,
            display_name=node.title,
            category=CATEGORY,
            description=node.description,
            inputs=[_input(entry) for entry in node.inputs],
            outputs=[_output(entry) for entry in node.outputs],
        )

    def execute(cls: type, /, **values: Any) -> Any:  # noqa: ARG001
        return io.NodeOutput(*node.run(**values))

    methods = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    return type(node.id, (io.ComfyNode,), {"__doc__": node.description, "__module__": __name__, **methods})


class QualityNodes(ComfyExtension):  # type: ignore[misc, unused-ignore]
    """All nodes of this package."""

    async def get_node_list(self) -> list[type]:
        return [_class_of(node) for node in NODES]


async def comfy_entrypoint() -> QualityNodes:
    """What ComfyUI calls when it loads the folder."""
    return QualityNodes()
