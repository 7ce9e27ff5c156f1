"""What a prepared data set's card says: where its labels come from and how they became ratings."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoomiqa.evaluation.datasets.completeness import Located, has_splits
from zoomiqa.evaluation.datasets.labels import Label, LabelSource
from zoomiqa.evaluation.datasets.specs import Attribute, DatasetSpec, Scale
from zoomiqa.files import printable


def make_card(
    spec: DatasetSpec,
    found: LabelSource,
    labels: Sequence[Label],
    located: Sequence[Located],
    root: Path,
) -> dict[str, Any]:
    """The card, without the files written and the notes."""
    form = found.form
    return {
        "dataset": spec.name,
        "title": spec.title,
        "citation": spec.citation,
        "licence": spec.licence,
        "complete": len(located) == spec.total,
        "counts": {"published": spec.total, "labelled": len(labels), "written": len(located), **_split_counts(spec)},
        "labels": {
            "form": form.title,
            "files": [{"file": _shown(path, root), "sha256": _digest(path)} for path in found.all_files],
        },
        "scale": _scale(form.scale),
        "std": "published" if any(label.std is not None for label in labels) else None,
        "attributes": {each.name: _attribute(each, labels) for each in form.columns.attributes},
        "split_origin": spec.split_origin if has_splits(spec, labels) else None,
        "folders": sorted({each.path.rpartition("/")[0] for each in located}),
    }


def _split_counts(spec: DatasetSpec) -> dict[str, Any]:
    return {"published_splits": dict(spec.splits)} if spec.splits else {}


def _scale(scale: Scale) -> dict[str, Any]:
    return {
        "low": scale.low,
        "high": scale.high,
        "direction": "lower is better" if scale.lower_is_better else "higher is better",
        "ends": "smallest and largest label of the whole set" if scale.is_observed else "ends of the authors' scale",
        "gt_score": f"{'5 -' if scale.lower_is_better else '1 +'} 4 * (mos - low) / (high - low)",
    }


def _attribute(attribute: Attribute, labels: Sequence[Label]) -> dict[str, Any]:
    """With its correlation with the MOS, which shows a column that runs the other way."""
    values = [label.attributes[attribute.name] for label in labels]
    try:
        agreement = round(statistics.correlation(values, [label.mos for label in labels]), 4)
    except statistics.StatisticsError:  # fewer than two labels, or all alike
        agreement = None
    return {"column": attribute.column, **_scale(attribute.scale), "plcc_with_mos": agreement}


def _shown(path: Path, root: Path) -> str:
    """Relative to the source, or its bare name: a card is passed on and says nothing of this machine."""
    inside = path.is_relative_to(root)
    return printable(path.relative_to(root).as_posix() if inside else path.name)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
