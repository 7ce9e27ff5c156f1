"""From trained weights to the shipped ONNX file, and the check that both say the same. It must not train.

Weights are stored in half precision and turned back into single precision when the model is opened, so that the file
is half as large and every kernel of onnxruntime runs as usual.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zoomiqa.assessors.compact.features import HANDMADE_COUNT, measured_features
from zoomiqa.assessors.compact.network import INPUTS, OUTPUTS
from zoomiqa.assessors.compact.network import RatingNetwork as Runtime

from .network import RatingNetwork

OPSET = 17
ALLOWED = 0.02
"""Largest difference in rating points that half precision may make."""

STORED_AS_IS = 128
"""Tensors with fewer values keep single precision."""


def export(network: RatingNetwork, path: Path) -> None:
    """Write the network as one ONNX file."""
    network.eval()
    examples = (torch.zeros(1, 96, 128, 3, dtype=torch.uint8), torch.zeros(1, HANDMADE_COUNT))
    axes = {"pixels": {0: "n", 1: "h", 2: "w"}, "measured": {0: "n"}}
    axes |= {name: {0: "n"} for name in OUTPUTS} | {name: {0: "n", 1: "y", 2: "x"} for name in ("quality", "weight")}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter of traced graphs speaks of its successor
        torch.onnx.export(
            network,
            examples,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
        )
    model = onnx.load_from_string(buffer.getvalue())
    halve(model)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def halve(model: onnx.ModelProto) -> None:
    """Store the large single-precision weights in half precision, each followed by a cast."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < STORED_AS_IS:
            continue
        name = tensor.name
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)


def difference(network: RatingNetwork, path: Path, pictures: list[NDArray[np.uint8]]) -> float:
    """Largest difference of a rating between the trained network and the file, in rating points."""
    runtime, worst = Runtime(path), 0.0
    for picture in pictures:
        with torch.inference_mode():
            measured = torch.from_numpy(measured_features(picture)[None])
            expected = float(network(torch.from_numpy(picture[None].copy()), measured)[0])
        worst = max(worst, abs(runtime.look(picture).rating.value - min(max(expected, 1.0), 5.0)))
    return worst
