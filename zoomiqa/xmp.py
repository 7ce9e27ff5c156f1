"""Reading and merging XMP packets (ISO 16684-1). It must not know pictures, assessments or files.

A packet belongs to whoever wrote it: other programs keep edits, ratings and captions there. So properties are replaced
one by one and all else stays, with the prefixes and the order it had. Ours go into a description of their own, which
ISO 16684-1 §7.4 allows and which later merges find again.

A packet is untrusted. A document type declaration (the way to entity bombs and to files of the machine), a depth or a
length beyond the limits, and anything that is not RDF are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from xml.dom import minidom
from xml.parsers import expat

from zoomiqa.errors import OptionInvalid
from zoomiqa.text import plain

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
META = "adobe:ns:meta/"
XMLNS = "http://www.w3.org/2000/xmlns/"

PREFIXES = {
    "urn:zoomiqa:xmp:1#": "zoomiqa",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
}
"""The namespaces that can be written, and the prefix of each."""

OWN, BASIC, EXIF, IPTC_EXTENSION = PREFIXES

BYTES_LIMIT = 2**20
DEPTH_LIMIT = 64

_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    f'<x:xmpmeta xmlns:x="{META}"><rdf:RDF xmlns:rdf="{RDF}"/></x:xmpmeta><?xpacket end="w"?>'
)


class Name(NamedTuple):
    """A property: its namespace and its name there."""

    namespace: str
    local: str


@dataclass(frozen=True, slots=True)
class Property:
    """A property to write."""

    name: Name
    value: str | tuple[str, ...]
    """A text, or the items of an ordered list."""


def merge(
    packet: bytes | None,
    properties: Iterable[Property],
    *,
    drop: Iterable[Name] = (),
    drop_namespace: str | None = None,
) -> bytes:
    """A packet with these properties in place of those of the same names; everything else stays as it was.

    Args:
        packet: The present one; `None` or empty for none.
        properties: What to write, in namespaces of `PREFIXES`. Control characters in values are left out.
        drop: Further properties to remove. A local name that ends in `*` stands for all that begin so.
        drop_namespace: A namespace all of whose properties are removed first: one writer's own.

    Returns:
        The packet in UTF-8.

    Raises:
        OptionInvalid: `packet` is not XMP, or beyond the limits.
    """
    written = list(properties)
    document = _parse(packet) if packet and _trimmed(packet) else minidom.parseString(_EMPTY)  # noqa: S318
    rdf = _rdf(document)
    about = next((each.getAttributeNS(RDF, "about") for each in _descriptions(rdf)), "")
    doomed = {entry.name for entry in written} | set(drop)
    for description in _descriptions(rdf):
        nodes: list[minidom.Attr | minidom.Element] = [*_attributes(description), *_elements(description)]
        for node in nodes:
            if _is_doomed(_name(node), doomed, drop_namespace):
                _remove(description, node)
        if not _elements(description) and not _attributes(description):
            rdf.removeChild(description)
    if written:
        rdf.appendChild(_description(document, rdf, about, written))
    return document.toxml(encoding="utf-8").removeprefix(b'<?xml version="1.0" encoding="utf-8"?>').strip()


def read(packet: bytes) -> dict[Name, str | tuple[str, ...]]:
    """The simple and list properties of a packet; structures within them are left out.

    Raises:
        OptionInvalid: `packet` is not XMP, or beyond the limits.
    """
    found: dict[Name, str | tuple[str, ...]] = {}
    for description in _descriptions(_rdf(_parse(packet))):
        for attribute in _attributes(description):
            found[_name(attribute)] = attribute.value
        for element in _elements(description):
            items = [item for kind in _elements(element) for item in _elements(kind) if item.localName == "li"]
            if items:
                found[_name(element)] = tuple(map(_text, items))
            elif not _elements(element):
                found[_name(element)] = _text(element)
    return found


def _parse(packet: bytes) -> minidom.Document:
    packet = _trimmed(packet)
    _check(packet)
    document = minidom.parseString(packet)  # noqa: S318
    _rdf(document)
    return document


def _trimmed(packet: bytes) -> bytes:
    """`packet` without the padding around it; in UTF-16 zeros are halves of characters, and spaces do no harm."""
    return packet if packet.startswith((b"\xff\xfe", b"\xfe\xff")) else packet.strip(b"\0 \r\n\t")


def _check(packet: bytes) -> None:
    """Refuse what must not reach a parser that builds trees."""
    fix = "repair it or move it away"
    if len(packet) > BYTES_LIMIT:
        raise OptionInvalid("an XMP packet is too large", f"{len(packet)} bytes", fix)
    depth = 0
    deepest = 0

    def enter(*_: object) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)

    def leave(*_: object) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*_: object) -> None:
        raise OptionInvalid("an XMP packet must not declare a document type", None, fix)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(packet, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise OptionInvalid("an XMP packet cannot be read as XML", str(error), fix) from None
    if deepest > DEPTH_LIMIT:
        raise OptionInvalid("an XMP packet is nested too deeply", deepest, fix)


def _rdf(document: minidom.Document) -> minidom.Element:
    root = document.documentElement
    inside = [root, *_elements(root)] if root is not None else []
    for element in inside:
        if (element.namespaceURI, element.localName) == (RDF, "RDF"):
            return element
    raise OptionInvalid("an XMP packet must hold rdf:RDF", root.tagName if root else None, "repair it or move it away")


def _elements(node: minidom.Node) -> list[minidom.Element]:
    return [child for child in node.childNodes if isinstance(child, minidom.Element)]


def _descriptions(rdf: minidom.Element) -> Iterator[minidom.Element]:
    return (each for each in _elements(rdf) if (each.namespaceURI, each.localName) == (RDF, "Description"))


def _attributes(description: minidom.Element) -> list[minidom.Attr]:
    """Those that are properties: not declarations of namespaces, not `rdf:about`, not `xml:lang`."""
    return [
        attribute
        for attribute in description.attributes.values()
        if attribute.namespaceURI not in (None, XMLNS, RDF) and attribute.prefix != "xml"
    ]


def _name(node: minidom.Attr | minidom.Element) -> Name:
    return Name(node.namespaceURI or "", node.localName or node.nodeName)


def _is_doomed(name: Name, doomed: set[Name], namespace: str | None) -> bool:
    if name.namespace == namespace or name in doomed:
        return True
    return any(
        each.local.endswith("*") and name.namespace == each.namespace and name.local.startswith(each.local[:-1])
        for each in doomed
    )


def _remove(description: minidom.Element, node: minidom.Element | minidom.Attr) -> None:
    if isinstance(node, minidom.Attr):
        description.removeAttributeNode(node)
        return
    before = node.previousSibling
    if before is not None and before.nodeType == minidom.Node.TEXT_NODE and not (before.nodeValue or "").strip():
        description.removeChild(before)  # the line and indent that were the element's
    description.removeChild(node)


def _text(element: minidom.Element) -> str:
    return "".join(child.nodeValue or "" for child in element.childNodes if child.nodeType == minidom.Node.TEXT_NODE)


def _writable(text: str) -> str:
    """`text` without what XML 1.0 §2.2 has no place for."""
    return "".join(each for each in plain(text) if not ("\ud800" <= each <= "\udfff" or each in "\ufffe\uffff"))


def _description(
    document: minidom.Document, rdf: minidom.Element, about: str, properties: Iterable[Property]
) -> minidom.Element:
    """One description with all that is written. Its prefixes are declared on it, whatever they mean elsewhere."""
    rdf_prefix = rdf.tagName.rpartition(":")[0]
    lead = f"{rdf_prefix}:" if rdf_prefix else ""
    description = document.createElementNS(RDF, f"{lead}Description")
    # An attribute without prefix has no namespace, so `about` needs one even where elements need none.
    about_lead = lead or "rdf:"
    if not lead:
        description.setAttributeNS(XMLNS, "xmlns:rdf", RDF)
    description.setAttributeNS(RDF, f"{about_lead}about", about)
    for entry in properties:
        prefix = PREFIXES[entry.name.namespace]
        description.setAttributeNS(XMLNS, f"xmlns:{prefix}", entry.name.namespace)
        element = document.createElementNS(entry.name.namespace, f"{prefix}:{entry.name.local}")
        if isinstance(entry.value, str):
            element.appendChild(document.createTextNode(_writable(entry.value)))
        else:
            items = document.createElementNS(RDF, f"{lead}Seq")
            for value in entry.value:
                item = document.createElementNS(RDF, f"{lead}li")
                item.appendChild(document.createTextNode(_writable(value)))
                items.appendChild(item)
            element.appendChild(items)
        description.appendChild(element)
    return description
