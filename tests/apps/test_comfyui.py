"""The ComfyUI nodes, driven as ComfyUI drives them: through the mappings, and through the classes of its interface."""

import asyncio
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apps.comfyui.nodes import NODES, to_pictures, to_tensor
from apps.comfyui.v1 import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from tests import fake_comfy
from zoomiqa import assess
from zoomiqa.errors import ImageShapeRefused
from zoomiqa.types import Assessment, Box, ImageInfo, Round, Sections

FOLDER = Path(__file__).parents[2] / "apps" / "comfyui"
WORKFLOW = FOLDER / "example_workflows" / "restore_under_quality_guidance.json"


@pytest.fixture(scope="module")
def batch(photos: Path) -> torch.Tensor:
    """Two photographs of one size, the second one noisy."""
    with Image.open(photos / "coffee.png") as image:
        clean = np.asarray(image.convert("RGB"), np.float32) / 255
    noise = np.random.default_rng(5).normal(0, 0.11, clean.shape)
    return torch.from_numpy(np.stack([clean, np.clip(clean + noise, 0, 1)]).astype(np.float32))


def call(node_id: str, **inputs):
    """What ComfyUI's executor does with a first-interface node: fill defaults, call, check the outputs."""
    node = NODE_CLASS_MAPPINGS[node_id]
    declared = node.INPUT_TYPES()
    for name, (kind, details) in declared["required"].items():
        if name not in inputs:
            inputs[name] = details["default"]
        if isinstance(kind, list):
            assert inputs[name] in kind
    assert set(inputs) <= {*declared["required"], *declared["optional"]}
    outputs = getattr(node(), node.FUNCTION)(**inputs)
    assert len(outputs) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_IS_LIST)
    for value, many in zip(outputs, node.OUTPUT_IS_LIST, strict=True):
        assert isinstance(value, list) == many
    return dict(zip(node.RETURN_NAMES, outputs, strict=True))


def test_ids_are_those_of_saved_workflows() -> None:
    assert set(NODE_CLASS_MAPPINGS) == set(NODE_DISPLAY_NAME_MAPPINGS) == {
        "ZoomIQA_LoadAssessor", "ZoomIQA_Assess", "ZoomIQA_SplitPrompts", "ZoomIQA_Restore", "ZoomIQA_Score",
    }  # fmt: skip


def test_pictures_there_and_back(batch: torch.Tensor) -> None:
    again = to_tensor(to_pictures(batch))
    assert again.shape == batch.shape
    assert (again - batch).abs().max() <= 0.5 / 255 + 1e-6
    grey, clear = to_pictures(torch.rand(1, 8, 8, 1)), to_pictures(torch.rand(1, 8, 8, 4))
    assert grey[0].size == clear[0].size == (8, 8)
    for wrong in (torch.rand(8, 8, 3), torch.rand(1, 3, 8, 8)):
        with pytest.raises(ImageShapeRefused):
            to_pictures(wrong)


def test_the_one_prompt_holds_what_was_said_of_parts() -> None:
    looks = (
        Round(0, "", Sections(issues="Slight blur."), 3.0, "crop", box=Box(0, 0, 50, 50)),
        Round(1, "", Sections(issues="Severe noise."), 2.0, "final", shown_box=Box(0, 0, 50, 50)),
    )
    seen = Assessment(looks, 2.0, image=ImageInfo(None, None, 100, 100))
    assert call("ZoomIQA_SplitPrompts", assessment=seen, encoder="clip")["negative"].startswith(
        "severe noise, slight blur"
    )


def test_assess_then_split(batch: torch.Tensor) -> None:
    judge = call("ZoomIQA_LoadAssessor")["assessor"]
    seen = call("ZoomIQA_Assess", image=batch, assessor=judge)
    direct = [assess(picture) for picture in to_pictures(batch)]
    assert seen["rating"] == [each.rating for each in direct]
    assert "noise" in seen["negative"][1].lower()
    assert "Decision and rationale" in seen["reasoning"][0]
    for mask, each in zip(seen["region"], direct, strict=True):
        assert mask.shape == (1, *batch.shape[1:3])
        assert mask.sum() == (each.box.area if each.box else 0)
    words = call("ZoomIQA_SplitPrompts", assessment=seen["assessment"][1], encoder="clip", prompt="a cup of coffee")
    assert words["positive"].startswith("a cup of coffee")
    assert "noise" in words["negative"]


def test_restore_then_score(batch: torch.Tensor) -> None:
    done = call("ZoomIQA_Restore", image=batch, restorer="classical", candidates=1)
    assert done["image"].shape == batch.shape
    assert done["image"].dtype == torch.float32
    records = json.loads(done["record"])
    assert len(records) == 2
    assert records[1]["kept"] == "restored"
    assert done["kept"][1].startswith("kept the restored picture")
    scores = call("ZoomIQA_Score", before=batch, after=done["image"])
    assert scores["rating_after"][1] > scores["rating_before"][1]
    assert "picture 2" in scores["table"]
    with pytest.raises(ImageShapeRefused, match="as many"):
        call("ZoomIQA_Score", before=batch, after=batch[:1])


def test_a_batch_keeps_one_size(batch: torch.Tensor) -> None:
    done = call("ZoomIQA_Restore", image=batch[:, :64, :64], restorer="identity", candidates=1)
    assert done["image"].shape == (2, 64, 64, 3)


def test_the_example_workflow_names_our_nodes_and_their_parts() -> None:
    """Every link of the saved graph joins an output to an input of the same kind."""
    graph = json.loads(WORKFLOW.read_text())
    known = {node.id: node for node in NODES}
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert set(known) & {node["type"] for node in graph["nodes"]} >= {"ZoomIQA_Assess", "ZoomIQA_Restore"}
    for _, source, slot, target, place, kind in graph["links"]:
        assert nodes[source]["outputs"][slot]["type"] == kind
        assert nodes[target]["inputs"][place]["type"] == kind
    for node in graph["nodes"]:
        ours = known.get(node["type"])
        if ours is not None:
            kinds = {entry.name: entry.kind for entry in ours.inputs}
            assert [entry["name"] for entry in node["outputs"]] == [entry.name for entry in ours.outputs]
            assert all(kinds[entry["name"]] == entry["type"] for entry in node["inputs"])
            widgets = [entry for entry in ours.inputs if entry.kind in ("COMBO", "STRING", "INT", "FLOAT")]
            # The editor puts one more value behind a seed: what becomes of it after a run.
            extra = sum(entry.name == "seed" for entry in widgets)
            assert len(node["widgets_values"]) == len(widgets) + extra


def test_the_third_interface(batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ComfyUI's own classes where it is installed, else with a stand-in of the same signatures."""
    if find_spec("comfy_api") is None:
        fake_comfy.install(monkeypatch)
        monkeypatch.delitem(sys.modules, "apps.comfyui.v3", raising=False)
    from apps.comfyui.v3 import comfy_entrypoint

    nodes = asyncio.run(asyncio.run(comfy_entrypoint()).get_node_list())
    schemas = {node.define_schema().node_id: node.define_schema() for node in nodes}
    assert set(schemas) == set(NODE_CLASS_MAPPINGS)
    for node_id, schema in schemas.items():
        first = NODE_CLASS_MAPPINGS[node_id]
        assert tuple(entry.io_type for entry in schema.outputs) == first.RETURN_TYPES
        assert tuple(entry.is_output_list for entry in schema.outputs) == first.OUTPUT_IS_LIST
        for group, optional in (("required", False), ("optional", True)):
            names = [entry.id for entry in schema.inputs if entry.optional == optional]
            assert names == list(first.INPUT_TYPES()[group])
    assess_node = next(node for node in nodes if node.__name__ == "ZoomIQA_Assess")
    assert len(assess_node.execute(image=batch[:1]).args[0]) == 1
