"""What a service may spend and what it offers. Everything is decided once, by whoever starts it; a request can only
choose among it. It must not know how a job is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from restore_bridge.restorers import DEFAULT_RESTORER
from zoomiqa.assessors import DEFAULT_ASSESSOR, AssessorSpec
from zoomiqa.errors import OptionInvalid
from zoomiqa.limits import SERVER, Limits


@dataclass(frozen=True, slots=True)
class Offer:
    """An assessor or restorer that may be chosen, or one that may not, with the reason."""

    name: str
    description: str
    is_ready: bool = True
    reason: str = ""
    """Why it is not ready, or what it will need when it is used."""

    scales: tuple[int, ...] = (1,)
    is_generative: bool = False
    encoder: str = "none"

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "description": self.description,
            "is_ready": self.is_ready,
            "reason": self.reason,
            "scales": list(self.scales),
            "is_generative": self.is_generative,
            "encoder": self.encoder,
        }


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Decided at the start."""

    folder: Path
    """Where jobs are kept; one process at a time."""

    limits: Limits = SERVER
    assessors: Mapping[str, AssessorSpec] = field(default_factory=lambda: {DEFAULT_ASSESSOR: AssessorSpec()})
    """What may be asked to assess; the first is the default."""

    restorers: tuple[Offer, ...] = (Offer(DEFAULT_RESTORER, "embedded; acts on the guidance"),)
    """What may be asked to restore; the first ready one is the default."""

    restorer_options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Options that a restorer is made with, by its name; a request cannot set them."""

    workers: int = 1
    waiting: int = 64
    """Jobs that may wait; more are refused at once."""

    waiting_per_client: int = 24
    """Of these, jobs of one client."""

    job_seconds: float = 600.0
    """Time for one job; then its process is ended."""

    keep_seconds: float = 3600.0
    """How long a finished job and its files are kept."""

    allow_url: bool = False
    """Whether a request may name a picture by https address; see `apps.service.addresses`."""

    def __post_init__(self) -> None:
        for name in ("workers", "waiting", "waiting_per_client", "job_seconds", "keep_seconds"):
            if not getattr(self, name) > 0:
                raise OptionInvalid(f"{name} must be positive", getattr(self, name), "give a number above zero")
        if not self.assessors or not any(offer.is_ready for offer in self.restorers):
            raise OptionInvalid("a service needs an assessor and a restorer", None, "leave the defaults")

    @property
    def default_assessor(self) -> str:
        return next(iter(self.assessors))

    @property
    def default_restorer(self) -> str:
        return next(offer.name for offer in self.restorers if offer.is_ready)

    def restorer(self, name: str) -> Offer:
        """The ready restorer called `name`.

        Raises:
            OptionInvalid: there is none.
        """
        ready = {offer.name: offer for offer in self.restorers if offer.is_ready}
        if name not in ready:
            raise OptionInvalid("this service has no such restorer", name, f"it has {', '.join(ready)}")
        return ready[name]
