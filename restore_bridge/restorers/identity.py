"""The restorer that changes nothing: the baseline of every comparison and the double of every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restore_bridge.restorers.base import DEFAULT_SETTINGS, Capabilities, Restored, RestoreSettings, check_scale

if TYPE_CHECKING:
    from restore_bridge.guidance import Guidance
    from restore_bridge.prompts import Prompts
    from zoomiqa.imaging.picture import Picture


class IdentityRestorer:
    """Returns the picture itself, pixel for pixel."""

    capabilities = Capabilities(
        name="identity",
        description="changes nothing; the baseline",
        text_guided=False,
        tiled=True,
        licence="Apache-2.0",
        memory="none",
        seeded=False,
    )

    def restore(
        self,
        picture: Picture,
        guidance: Guidance,  # noqa: ARG002
        *,
        prompts: Prompts | None = None,  # noqa: ARG002
        settings: RestoreSettings = DEFAULT_SETTINGS,
    ) -> Restored:
        check_scale(self.capabilities, settings, picture.size)
        return Restored(picture)
