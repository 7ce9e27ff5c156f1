"""The pre-pass that does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoomiqa.imaging.picture import Picture


class NoPrepass:
    """Hands the picture on, pixel for pixel."""

    name = "none"

    def clean(self, picture: Picture) -> Picture:
        return picture
