"""The few calls most users need. It must not hold logic of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from restore_bridge.bridge import RestoreBridge
from restore_bridge.comparison import Comparison, compare
from restore_bridge.results import BridgeResult
from restore_bridge.settings import BridgeSettings
from zoomiqa.api import Source, as_picture
from zoomiqa.assessors import Assessor, create_assessor
from zoomiqa.limits import LOCAL, Limits


def restore(
    source: Source,
    *,
    assessor: Assessor | str | None = None,
    settings: BridgeSettings | None = None,
    limits: Limits = LOCAL,
    **changes: Any,
) -> BridgeResult:
    """Assess one picture, restore it under that guidance, assess again, and keep the better picture.

    Args:
        source: Path, encoded bytes, array, PIL image or `Picture`.
        assessor: Who judges, or its name; the embedded default without it.
        settings: What to do; `changes` replaces single fields, e.g. `restorer="realesrgan", scale=2`.
        limits: Resource limits.

    Raises:
        ImageError: the picture cannot be opened, or the result would be too large.
        OptionInvalid: a setting outside its range.
    """
    wanted = replace(settings or BridgeSettings(), **changes)
    return RestoreBridge(assessor, wanted, limits=limits).run(as_picture(source, limits=limits))


def score(
    before: Source,
    after: Source,
    *,
    assessor: Assessor | str | None = None,
    metrics: tuple[str, ...] | None = None,
    reference: Source | None = None,
    limits: Limits = LOCAL,
) -> list[Comparison]:
    """Score a picture before and after.

    Args:
        before: The picture as it came.
        after: The picture as it is now.
        assessor: Who rates both; the embedded default without it.
        metrics: Names of metrics (see `restore-bridge score --list`); the basic ones without it.
        reference: The pristine picture, where there is one; full-reference metrics are then taken against it.
        limits: Resource limits.
    """
    judge = create_assessor(assessor) if assessor is None or isinstance(assessor, str) else assessor
    pristine = None if reference is None else as_picture(reference, limits=limits)
    return compare(
        as_picture(before, limits=limits),
        as_picture(after, limits=limits),
        reference=pristine,
        assessor=judge,
        metrics=metrics,
    )
