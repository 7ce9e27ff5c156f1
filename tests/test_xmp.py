"""Merging XMP: what others wrote stays, what is hostile is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.attacks import files
from zoomiqa.errors import OptionInvalid
from zoomiqa.xmp import BASIC, BYTES_LIMIT, IPTC_EXTENSION, OWN, Name, Property, merge, read

DARKTABLE = "http://darktable.sf.net/"
DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"
FOREIGN = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="another program">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="id-7" xmlns:xmp="{BASIC}" xmlns:darktable="{DARKTABLE}" xmlns:dc="{DUBLIN_CORE}"
    xmp:Rating="4" darktable:xmp_version="5">
   <darktable:history><rdf:Seq><rdf:li darktable:num="0" darktable:operation="exposure"/></rdf:Seq></darktable:history>
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">A &amp; B &lt;x&gt;</rdf:li></rdf:Alt></dc:title>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()
STARS, RATING = Name(BASIC, "Rating"), Name(OWN, "Rating")


def test_a_packet_from_nothing() -> None:
    packet = merge(None, [Property(RATING, "3.21"), Property(Name(OWN, "Box"), ("0.1", "0.2"))])
    assert packet.startswith(b"<?xpacket begin=")
    assert packet.endswith(b'<?xpacket end="w"?>')
    assert read(packet) == {RATING: "3.21", Name(OWN, "Box"): ("0.1", "0.2")}
    assert merge(b"\0 \n", [Property(RATING, "3.21")]) == merge(None, [Property(RATING, "3.21")])


def test_what_others_wrote_stays() -> None:
    before = read(FOREIGN)
    packet = merge(FOREIGN, [Property(RATING, "3.21")])
    assert read(packet) == before | {RATING: "3.21"}
    text = packet.decode()
    assert 'darktable:operation="exposure"' in text  # a structure that `read` does not show
    assert 'xml:lang="x-default"' in text
    assert text.count('rdf:about="id-7"') == 2  # every description of a packet is about the same thing


def test_a_property_is_replaced_wherever_it_stands() -> None:
    packet = merge(FOREIGN, [Property(STARS, "2")])
    assert read(packet)[STARS] == "2"
    assert packet.count(b"Rating") == 2  # the start and the end of one element; the attribute is gone
    assert read(merge(packet, [Property(STARS, "5")]))[STARS] == "5"


def test_our_namespace_is_cleared_and_no_empty_description_is_left() -> None:
    packet = merge(FOREIGN, [Property(RATING, "3.21"), Property(Name(OWN, "Issues"), "Noise.")])
    again = merge(packet, [Property(RATING, "1.00")], drop_namespace=OWN)
    assert read(again) == read(FOREIGN) | {RATING: "1.00"}
    assert again.count(b"<rdf:Description") == 2
    assert read(merge(again, (), drop_namespace=OWN)) == read(FOREIGN)


def test_names_with_a_star_are_dropped() -> None:
    packet = merge(FOREIGN, (), drop=[Name(DARKTABLE, "*"), Name(BASIC, "Rat*")])
    assert set(read(packet)) == {Name(DUBLIN_CORE, "title")}


def test_rdf_as_the_default_namespace() -> None:
    packet = (
        b"""<RDF xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><Description xmlns:a="urn:a#" a:b="c"/></RDF>"""
    )
    merged = merge(packet, [Property(RATING, "3.21"), Property(Name(OWN, "Box"), ("1",))])
    assert read(merged) == {Name("urn:a#", "b"): "c", RATING: "3.21", Name(OWN, "Box"): ("1",)}


def test_other_encodings_become_utf_8() -> None:
    packet = files.xmp(6).decode().encode("utf-16")
    assert read(merge(packet, [Property(RATING, "3.21")]))[STARS] == "4"


def test_text_that_xml_cannot_hold() -> None:
    packet = merge(None, [Property(RATING, "a\0b\ud800c\ufffed <&> \u202ee")])
    assert read(packet)[RATING] == "abcd <&> e"


@given(st.dictionaries(st.sampled_from(["A", "B", "C"]), st.text() | st.lists(st.text(), min_size=1).map(tuple)))
def test_merging_twice_is_merging_once(values) -> None:
    properties = [Property(Name(IPTC_EXTENSION, name), value) for name, value in values.items()]
    once = merge(FOREIGN, properties)
    assert read(merge(once, properties)) == read(once)
    assert {name: value for name, value in read(once).items() if name.namespace != IPTC_EXTENSION} == read(FOREIGN)


BILLION_LAUGHS = (
    '<!DOCTYPE a [<!ENTITY b "ha">' + "".join(f'<!ENTITY b{n} "{f"&b{n - 1 or str()};" * 10}">' for n in range(1, 9))
).encode() + b"]><x:xmpmeta xmlns:x='adobe:ns:meta/'>&b8;</x:xmpmeta>"
HOSTILE = {
    "entities": (BILLION_LAUGHS, "document type"),
    "file": (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "document type"),
    "deep": (b"<x>" * 2000 + b"</x>" * 2000, "nested too deeply"),
    "long": (b"<a>" + b"x" * BYTES_LIMIT + b"</a>", "too large"),
    "page": (b"<html><body/></html>", "rdf:RDF"),
    "cut": (FOREIGN[:400], "cannot be read as XML"),
    "binary": (bytes(range(256)), "cannot be read as XML"),
    "coding": (b'<?xml version="1.0" encoding="bogus"?><a/>', "cannot be read as XML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_packets_are_refused(name: str) -> None:
    packet, message = HOSTILE[name]
    for use in (read, lambda data: merge(data, [Property(RATING, "1.00")])):
        with pytest.raises(OptionInvalid, match=message):
            use(packet)


@given(st.binary(max_size=60), st.integers(0, len(FOREIGN)))
def test_damaged_packets_are_read_or_refused(junk: bytes, place: int) -> None:
    with contextlib.suppress(OptionInvalid):
        merge(FOREIGN[:place] + junk + FOREIGN[place:], [Property(RATING, "1.00")])
