"""The nodes as ComfyUI's first interface wants them: a class with attributes for each, and two mappings."""

from __future__ import annotations

from typing import Any

from .nodes import CATEGORY, NODES, Input, Node


def _declared(entry: Input) -> tuple[Any, dict[str, Any]]:
    details = {"tooltip": entry.tooltip, **entry.options}
    # A choice is its list of options, in the place of a kind.
    return (details.pop("options") if entry.kind == "COMBO" else entry.kind, details)


def _class_of(node: Node) -> type:
    inputs: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for entry in node.inputs:
        inputs["optional" if entry.optional else "required"][entry.name] = _declared(entry)

    def run(self: object, **values: Any) -> tuple[Any, ...]:  # noqa: ARG001
        return node.run(**values)

    return type(
        node.id,
        (),
        {
            "__doc__": node.description,
            "INPUT_TYPES": classmethod(lambda cls: inputs),  # noqa: ARG005
            "RETURN_TYPES": tuple(entry.kind for entry in node.outputs),
            "RETURN_NAMES": tuple(entry.name for entry in node.outputs),
            "OUTPUT_TOOLTIPS": tuple(entry.tooltip for entry in node.outputs),
            "OUTPUT_IS_LIST": tuple(entry.many for entry in node.outputs),
            "FUNCTION": "run",
            "CATEGORY": CATEGORY,
            "DESCRIPTION": node.description,
            "run": run,
        },
    )


NODE_CLASS_MAPPINGS = {node.id: _class_of(node) for node in NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.id: node.title for node in NODES}
