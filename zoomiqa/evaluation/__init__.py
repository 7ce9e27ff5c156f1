"""Evaluation: labelled pictures, how ratings agree with people, and whether texts agree with measurement."""

from zoomiqa.evaluation.agreement import (
    Agreement,
    Interval,
    IsotonicFit,
    LogisticFit,
    agreement,
    bootstrap,
    fit_logistic,
    isotonic_on_test_set,
    unique_ratio,
)
from zoomiqa.evaluation.annotations import Annotation, load_annotations

__all__ = [
    "Agreement",
    "Annotation",
    "Interval",
    "IsotonicFit",
    "LogisticFit",
    "agreement",
    "bootstrap",
    "fit_logistic",
    "isotonic_on_test_set",
    "load_annotations",
    "unique_ratio",
]
