"""Reading the shared golden tensors of SUPIR: weights by their recipe, inputs and outputs from the files."""

import json
import math
import zlib

import numpy as np

from tests.shared import need

FOLDER = "golden/supir"


def load(stem):
    """(description, inputs and outputs as 32-bit tensors)."""
    from safetensors.torch import load_file

    facts = json.loads(need(f"{FOLDER}/{stem}.json").read_text("utf-8"))
    return facts, {name: value.float() for name, value in load_file(need(f"{FOLDER}/{stem}.io.safetensors")).items()}


def stems(pattern):
    """Names of the descriptions that match; one that says what is missing where there are none."""
    from tests.shared import ROOT

    found = sorted(path.stem for path in (ROOT / FOLDER).glob(f"{pattern}.json"))
    return found or [pattern.replace("*", "any")]


def weight(prefix, key, shape):
    """The value that the golden README's recipe gives a tensor."""
    import torch

    values = np.random.RandomState(zlib.crc32((prefix + key).encode())).standard_normal(shape)
    if len(shape) >= 2:
        values = values / math.sqrt(np.prod(shape[1:]))
    elif key.endswith("weight"):
        values = 1 + 0.2 * values
    else:
        values = values * 0.1
    return torch.from_numpy(np.asarray(values).astype(np.float16).astype(np.float32))


def fill(model, facts, *tables):
    """Load a network with the recipe's weights under the released names; every tensor must have its place.

    Args:
        model: Ours.
        facts: Description of the golden files.
        tables: (beginning of our names, `Names`) pairs; the first that fits a tensor counts.
    """
    import dataclasses

    pairs = {}
    for name in model.state_dict():
        table = next(table for begin, table in tables if name.startswith(begin))
        pairs |= dataclasses.replace(table, prefix="").pairs([name])
    shapes = facts["state_dict_shapes"]
    assert pairs.keys() == shapes.keys()
    own = model.state_dict()
    assert all(list(own[pairs[key]].shape) == shape for key, shape in shapes.items())
    model.load_state_dict({pairs[key]: weight(facts["weight_prefix"], key, shape) for key, shape in shapes.items()})
    return model.eval()
