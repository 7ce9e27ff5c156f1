"""What a metric is: one figure of quality, as data. It must not know any metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoomiqa.errors import OptionInvalid

Pixels = NDArray[np.uint8]
Kind = Literal["full-reference", "no-reference", "consistency"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of quality."""

    name: str
    kind: Kind
    higher_is_better: bool
    range: tuple[float | None, float | None]
    """Lowest and highest value; `None` where there is no bound."""

    description: str
    compute: Callable[[Pixels, Pixels | None], float]
    """(picture, reference) → value; the reference is `None` for no-reference metrics."""

    unit: str = ""
    licence: str = ""
    is_range_rough: bool = False
    """Whether the range is where values usually lie, and no bound."""

    version: str = ""
    """Package and version that compute it; figures of one name differ between packages."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "higher_is_better": self.higher_is_better,
            "range": list(self.range),
            "is_range_rough": self.is_range_rough,
            "unit": self.unit,
            "description": self.description,
            "licence": self.licence,
            "version": self.version,
        }


def check_same_size(picture: Pixels, reference: Pixels) -> None:
    """Refuse two pictures (H×W×3) of different sizes.

    Raises:
        OptionInvalid: they are.
    """
    if picture.shape != reference.shape:
        raise OptionInvalid(
            "a full-reference metric needs two pictures of one size",
            f"{picture.shape[1]}x{picture.shape[0]} against {reference.shape[1]}x{reference.shape[0]}",
            "resize one of them first, or use consistency",
        )
