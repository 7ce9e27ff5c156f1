"""A tiny DreamClear, made once."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def photo():
    """(64, 128, 3) uint8 of a real photograph."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[60:124, 180:308])


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Where the tiny DreamClear lies: `saved` (a pipeline), `base`, `checkpoint`, `pickle` and `swinir` (files)."""
    from tests import tiny_dreamclear

    root = tmp_path_factory.mktemp("dreamclear")
    (root / "files").mkdir()
    return {
        "saved": str(tiny_dreamclear.pipeline(root / "saved")),
        "base": str(tiny_dreamclear.base(root / "base")),
        "checkpoint": tiny_dreamclear.save_checkpoint(root / "files" / "DreamClear-1024.safetensors"),
        "pickle": tiny_dreamclear.save_checkpoint(root / "files" / "DreamClear-1024.pth"),
        "swinir": tiny_dreamclear.save_swinir(root / "files" / "general_swinir_v1.safetensors"),
    }
