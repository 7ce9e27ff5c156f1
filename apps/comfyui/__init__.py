"""Nodes for ComfyUI: assess, split prompts, restore, score, load assessor.

Put this folder, or a file that says `from restore_bridge.apps.comfyui import *`, into `ComfyUI/custom_nodes`, and
install zoomiqa into ComfyUI's Python (see `docs/editors.md`). What a node does stands in `nodes`; `v3` and `v1` hand
the same nodes to ComfyUI's present interface and to the one before it, with the same names.
"""

from importlib.util import find_spec

if find_spec("comfy_api") is not None:
    from .v3 import comfy_entrypoint

    __all__ = ["comfy_entrypoint"]
else:
    from .v1 import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    __all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
