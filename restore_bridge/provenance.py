"""The mark on a restored picture: what kind of source it has, and what made it. It must not know files or models.

A picture is marked in its XMP, so whatever saves it writes the mark. The IPTC's digital source type (Photo Metadata
Standard 2023.1) says in a form for machines that an algorithm had a hand in it: `compositeWithTrainedAlgorithmicMedia`
where the restorer invents detail, `algorithmicallyEnhanced` where it corrects what is there. The mark stays when
private metadata is stripped; it says nothing of the photographer.
"""

from __future__ import annotations

from dataclasses import replace

from restore_bridge.restorers.base import Capabilities
from zoomiqa import __version__
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import Picture
from zoomiqa.xmp import IPTC_EXTENSION, OWN, Name, Property, merge

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def digital_source_type(capabilities: Capabilities) -> str:
    """The term of the IPTC's vocabulary for what such a restorer makes of a photograph."""
    term = "compositeWithTrainedAlgorithmicMedia" if capabilities.generative else "algorithmicallyEnhanced"
    return _SOURCE_TYPES + term


def mark(picture: Picture, capabilities: Capabilities) -> Picture:
    """`picture`, made by a restorer with these capabilities, with the mark in its metadata. Pixels stay the same."""
    properties = (
        Property(Name(IPTC_EXTENSION, "DigitalSourceType"), digital_source_type(capabilities)),
        Property(Name(OWN, "RestoredBy"), f"{capabilities.name} (restore-bridge {__version__})"),
    )
    try:
        packet = merge(picture.metadata.xmp, properties, drop_namespace=OWN)
    except OptionInvalid:  # what came with the picture cannot be read by anyone; the mark may not be lost with it
        packet = merge(None, properties)
    return replace(picture, metadata=replace(picture.metadata, xmp=packet))
