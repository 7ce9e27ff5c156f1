"""Trained arrays that lie beside the code: read once, as single precision. It must not know what they mean."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from importlib import resources

import numpy as np

from zoomiqa.imaging.signals.canvas import Plane


@cache
def stored_arrays(package: str, name: str) -> Mapping[str, Plane]:
    """The arrays of the file `name` in the folder `data` of `package`, by their names; nothing is unpickled."""
    stored = resources.files(package).joinpath("data", name).read_bytes()
    with np.load(io.BytesIO(stored), allow_pickle=False) as archive:
        return {key: archive[key].astype(np.float32) for key in archive.files}


def network_count(arrays: Mapping[str, Plane]) -> int:
    """How many networks there are in arrays whose names begin with the network's number ("2.out.bias")."""
    return len({name.split(".")[0] for name in arrays if "." in name})
