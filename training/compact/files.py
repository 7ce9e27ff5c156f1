"""The files of a fit: a network as ONNX with 16-bit weights, and what a card says of how they were made.

Large weights are stored in half precision and turned back into single precision when the file is opened (onnxruntime
folds the cast), so that it is half as large and every kernel runs as usual. It must not know what is in a network.
"""

from __future__ import annotations

import io
import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoomiqa.files import atomic_write_bytes

OPSET = 17

_HALVED = "_16"
"""What the names of tensors end in that are stored in half precision."""

Free = Mapping[str, Mapping[int, str]]
"""Names of those axes of inputs and outputs whose length is free."""


def command_line(package: str, words: Sequence[str]) -> str:
    """The command that made something; of paths only the last part, as the rest tells of a machine."""
    short = [Path(word).name if os.sep in word else word for word in words]
    return shlex.join(["python", "-m", package, *short])


def traced(network: Any, examples: Mapping[str, Any], outputs: Sequence[str], free: Free) -> bytes:
    """A network as ONNX in single precision.

    Args:
        network: A PyTorch module.
        examples: Its inputs by name, in order.
        outputs: Names of its outputs, in order.
        free: The axes that may be longer than in `examples`.
    """
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter of traced graphs speaks of its successor
        torch.onnx.export(
            network.eval().to(memory_format=torch.contiguous_format),
            tuple(examples.values()),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in free.items()},
        )
    return buffer.getvalue()


def write_halved(
    path: Path, network: Any, examples: Mapping[str, Any], outputs: Sequence[str], free: Free, *, smallest: int
) -> None:
    """Write what `traced` gives, with weights of at least `smallest` numbers stored in 16 bits."""
    import onnx

    model = onnx.load_from_string(traced(network, examples, outputs, free))
    _halve(model.graph, smallest)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, model.SerializeToString(deterministic=True))


def _halve(graph: Any, smallest: int) -> None:
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= smallest:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + _HALVED))
            casts.append(helper.make_node("Cast", [name + _HALVED], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def read_weights(path: Path, network: Any) -> None:
    """Give `network` (a PyTorch module) the weights of a file that was written from one of the same form."""
    import onnx
    import torch
    from onnx import numpy_helper

    stored = {tensor.name.removesuffix(_HALVED): tensor for tensor in onnx.load(path).graph.initializer}
    network.load_state_dict(
        {name: torch.tensor(numpy_helper.to_array(stored[name]), dtype=torch.float32) for name in network.state_dict()}
    )
