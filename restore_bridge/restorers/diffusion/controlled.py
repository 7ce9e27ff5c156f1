"""Where a model and its ControlNet come from. It must not know any network."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, cast

from restore_bridge.restorers.diffusion.base import LatentRestorer
from restore_bridge.restorers.diffusion.loading import Source, from_pretrained
from restore_bridge.restorers.diffusion.options import ControlOptions


class ControlledRestorer(LatentRestorer):
    """A model under a ControlNet, which may come with the pipeline's folder or from elsewhere."""

    options_type = ControlOptions
    default_controlnet: ClassVar[str]

    @abstractmethod
    def controlnet_class(self) -> Any:
        """The class of diffusers that holds the ControlNet."""

    @abstractmethod
    def pipeline_class(self) -> Any:
        """The class of diffusers that holds all networks."""

    def sources(self) -> dict[str, str]:
        chosen = cast("ControlOptions", self.options).controlnet
        if chosen is None and self.options.weights is not None and self.source.holds("controlnet"):
            return {"pipeline": self.source.text}
        return {"pipeline": self.source.text, "controlnet": str(chosen or self.default_controlnet)}

    def load_pipeline(self, source: Source, dtype: str) -> Any:
        parts: dict[str, Any] = {}
        control = self.sources().get("controlnet")
        if control is not None:
            parts["controlnet"] = from_pretrained(self.controlnet_class(), Source(control), dtype=dtype)
        return from_pretrained(
            self.pipeline_class(), source, dtype=dtype, variant=self.options.variant, vae_dtype="fp32", **parts
        )
