"""Evaluation: labelled pictures and how ratings agree with people."""

from zoomiqa.evaluation.agreement import Agreement, agreement
from zoomiqa.evaluation.annotations import Annotation, load_annotations

__all__ = ["Agreement", "Annotation", "agreement", "load_annotations"]
