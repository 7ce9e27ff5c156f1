"""Which scored photos show the same scene, so that none is trained on while another is measured on.

BIQ2021 holds bursts of one scene (a third of its camera archive) and photos that stand in it twice. Photos count as one
scene when what the backbone's upper stages say of them is nearly the same, directly or through a third. It must not
know scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .cache import Half
from .network import STATISTICS

WIDTH = 128
"""Principal components compared."""

ALIKE = 0.7
"""Cosine from which two photos count as one scene: looked at by eye, nearly all pairs above are, some below too."""

FEWEST = 400


def scenes_of(features: Half) -> NDArray[np.int64]:
    """A number for each photo, the same for photos of one scene.

    Args:
        features: Local features of the viewing copies, ``N x LOCAL x h x w``; of fewer than `FEWEST` photos each
            counts as a scene of its own, as they are too few to tell what sets scenes apart.
    """
    if len(features) < FEWEST:
        return np.arange(len(features))
    shown = np.stack([row[STATISTICS:].astype(np.float32).mean((1, 2)) for row in features])
    shown = (shown - shown.mean(0)) / (shown.std(0) + 1e-3)
    _, lengths, axes = np.linalg.svd(shown[:: max(1, len(shown) // 1200)], full_matrices=False)
    width = min(WIDTH, len(features) // 10)
    codes = shown @ axes[:width].T / lengths[:width]
    codes /= np.linalg.norm(codes, axis=1, keepdims=True) + 1e-9
    _, found = connected_components(coo_matrix(codes @ codes.T > ALIKE), directed=False)
    return np.asarray(found, np.int64)
