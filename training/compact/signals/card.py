"""The card of the weights file, as JSON. It must not measure anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import lightgbm
import numpy
import scipy

from zoomiqa.assessors.compact.features import CROP_SIDE, REGION_AREA, VIEW_SIDE
from zoomiqa.assessors.compact.rating import FORMAT_VERSION

ORIGIN = (
    "human scores of BIQ2021 (Ahmed & Asif 2022), 3,600 photos of its official training part; degraded copies of some"
    " of them with scores lowered after KADID-10k's mean scores per level"
)


def card(path: Path, settings: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The card of the weights file at `path`.

    Args:
        path: The file.
        settings: What it was fitted on, and how.
        report: What was measured of it.
    """
    data = path.read_bytes()
    facts = {
        "format_version": FORMAT_VERSION,
        "origin": ORIGIN,
        **settings,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "versions": {
            "numpy": numpy.__version__,
            "opencv": cv2.__version__,
            "scipy": scipy.__version__,
            "lightgbm": lightgbm.__version__,
        },
        "view_side": VIEW_SIDE,
        "crop_side": CROP_SIDE,
        "region_area": REGION_AREA,
        **report,
    }
    return json.dumps(facts, indent=1) + "\n"
