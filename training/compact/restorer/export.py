"""From fitted networks to the files that are shipped: ONNX with 16-bit weights. It must not know photographs."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from restore_bridge.restorers.compact.condition import CHANNELS
from restore_bridge.restorers.compact.tone import QUANTILES, THUMBNAIL
from zoomiqa.files import atomic_write_bytes

from .network import STRIDE, DetailNet, ToneNet

OPSET = 17
SMALLEST = 256
"""Numbers that a tensor must hold to be stored in 16 bits."""

HALVED = "_16"
"""What the name of such a tensor ends in."""


def export_all(run: Path, out: Path) -> None:
    """Write both networks of the run in folder `run` to folder `out`."""
    detail, tone = DetailNet(), ToneNet()
    detail.load_state_dict(torch.load(run / "detail.pt", weights_only=True)["average"])
    tone.load_state_dict(torch.load(run / "tone.pt", weights_only=True))
    out.mkdir(parents=True, exist_ok=True)
    export_detail(detail, out / "detail.onnx")
    export_tone(tone, out / "tone.onnx")


def read_weights(net: nn.Module, path: Path) -> None:
    """Give `net` the weights of a file that was written here from a network of the same form."""
    import onnx
    from onnx import numpy_helper

    stored = {tensor.name.removesuffix(HALVED): tensor for tensor in onnx.load(path).graph.initializer}
    wanted = net.state_dict()
    net.load_state_dict(
        {name: torch.from_numpy(numpy_helper.to_array(stored[name]).astype(np.float32)) for name in wanted}
    )


def export_detail(net: DetailNet, path: Path) -> None:
    """Write the detail network; height and width are free."""
    side = 4 * STRIDE
    sides = {2: "height", 3: "width"}
    picture = torch.zeros(1, 3, side, side)
    example = (picture, picture, torch.zeros(1, len(CHANNELS), side, side))
    names = ["pixels", "guess", "condition"]
    _export(net, example, names, "restored", dict.fromkeys([*names, "restored"], sides), path)


def export_tone(net: ToneNet, path: Path) -> None:
    """Write the tone network."""
    example = (torch.zeros(1, 3, THUMBNAIL, THUMBNAIL), torch.zeros(1, 3 * len(QUANTILES)), torch.zeros(1, 1))
    _export(net, example, ["thumbnail", "quantiles", "told"], "curve", {}, path)


def _export(
    net: nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: list[str],
    output: str,
    free: dict[str, dict[int, str]],
    path: Path,
) -> None:
    import onnx

    buffer = io.BytesIO()
    with warnings.catch_warnings():  # the exporter without onnxscript is announced to end
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval().to(memory_format=torch.contiguous_format),
            example,
            buffer,
            dynamo=False,
            input_names=inputs,
            output_names=[output],
            dynamic_axes=free,
            opset_version=OPSET,
        )
    model = onnx.load_from_string(buffer.getvalue())
    _halve(model.graph)
    onnx.checker.check_model(model)
    atomic_write_bytes(path, model.SerializeToString(deterministic=True))


def _halve(graph: object) -> None:
    """Store large weights in 16 bits, widened again when the file is read (onnxruntime folds the cast)."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:  # type: ignore[attr-defined]
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= SMALLEST:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + HALVED))
            casts.append(helper.make_node("Cast", [name + HALVED], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)  # type: ignore[attr-defined]
    del graph.node[:]  # type: ignore[attr-defined]
    graph.node.extend([*casts, *nodes])  # type: ignore[attr-defined]
