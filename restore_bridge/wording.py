"""Turns a sentence about flaws into phrases for a negative prompt. It must not know rounds, boxes or encoders.

A sentence becomes noun phrases, each with its place ("Blown highlights wash out any texture in the sky" → "blown
highlights in the sky"). The model's words are kept; only the frame goes.
"""

from __future__ import annotations

import re

from restore_bridge.grammar import (
    DETERMINER,
    EVERYWHERE,
    FINITE_VERB,
    FLAW_ING,
    GENERIC_ONLY,
    PLACE,
    PREPOSITION,
    gerund,
    is_generic,
    noun_phrase,
    with_attribute,
)
from restore_bridge.places import as_tail, find_places, without_places
from zoomiqa.statements import is_denied, without_connective, without_warning
from zoomiqa.vocabulary import find_flaws

_I = re.IGNORECASE
_ADVERB = r"(?:(?:\w+ly|also|still|too|quite|rather|very|further|both|even)\s+)*"
_THERE = re.compile(
    rf"^(?:there\s+(?:is|are|was|were|seems? to be|appears? to be)|(?:one|you|we)\s+can\s+see|note)\s+{_ADVERB}"
    r"(?:some\s+)?(?:(?:visible|evident)\s+)?(?=\w)",
    _I,
)
_AVOID = re.compile(
    r"^(?:(?:please\s+)?(?:avoid(?:ing)?|prevent(?:ing)?|remov(?:e|ing)|reduc(?:e|ing)|eliminat(?:e|ing)|minimi[sz](?:e|ing)"
    r"|fix(?:ing)?|watch out for|beware of|presence of)\s+)+(?:the presence of\s+)?",
    _I,
)
_HAVE = (
    rf"(?:{_ADVERB}(?:suffers?|suffering)\s+from|{_ADVERB}exhibits?|{_ADVERB}shows?|{_ADVERB}has|{_ADVERB}have|{_ADVERB}contains?"
    rf"|{_ADVERB}displays?|{_ADVERB}presents?|(?:is|are)\s+{_ADVERB}(?:affected|marred|plagued|degraded|dominated|spoiled"
    r"|compromised|impaired|covered|hampered|hurt|obscured)\s+by)"
)
_PRESENT = (
    rf"(?:is|are|was|were|remains?|can be|appears?)\s+{_ADVERB}(?:present|visible|evident|noticeable|apparent|seen|found"  # noqa: E501
    r"|detectable|observable|discernible|perceptible|prominent)\b"
)
_CAUSE = (
    rf"{_ADVERB}(?:causes?|creates?|introduces?|produces?|results?\s+in|leads?\s+to|adds?|generates?|yields?|induces?)"
)
_SPREAD = (
    rf"{_ADVERB}(?:affects?|pervades?|covers?|dominates?|plagues?|mars?|spoils?|ruins?|permeates?|fills?|afflicts?)"
)
_HIT = (
    rf"{_ADVERB}(?:degrades?|obscures?|compromises?|diminish(?:es)?|reduces?|wash(?:es)?\s+out|hides?|masks|limits"
    r"|detracts?\s+from|undermines?|softens?|weakens?|hinders?|prevents?|destroys?|impairs?|robs?|distracts?\s+from|smears?"
    r"|erases?|eliminates?|makes|leaves(?=\s+(?:the|an?|them|it|its|no|some)\b)|gives|loses|swallows|lowers|flattens|interferes?\s+with|extends?"
    r"|occurs?|persists?|stands? out|appears?)"
)
_BE = r"(?:is|are|was|were|looks?|appears?|seems?|becomes?|remains?)(?:\s+to\s+be)?"
_NEGATIVE_VERBS = [
    (name, re.compile(rf"\s+(?:that|which)?\s*\b{pattern}(?:\s+|$)", _I))
    for name, pattern in (
        ("present", _PRESENT),
        ("have", _HAVE),
        ("lack", r"(?:lacks|lack(?!\s+of\b))"),
        ("cause", _CAUSE),
        ("spread", _SPREAD),
        ("hit", _HIT),
        ("be", _BE),
    )
]
_TAIL = re.compile(
    r",?\s+(?=(?:particularly|especially|notably|mainly|primarily|mostly|most\s+\w+ly)\b)|,\s+(?=which\b|(?:\w+ly\s+)?\w+ing\b)",
    _I,
)
_STRESS = re.compile(r"^(?:particularly|especially|notably|mainly|primarily|mostly|most)\b", _I)
_WHOLE = re.compile(r"\b(?:entire|whole|overall|throughout|across the (?:image|photo|picture|frame|scene))\b", _I)
_LISTED = re.compile(r"\s+(?:and|as well as|along with|coupled with|combined with)\s+|,\s+with\s+", _I)
_JOINT = re.compile(rf",\s*(?:and\s+|but\s+)?|{_LISTED.pattern}", _I)
_NOT_A_TAIL = re.compile(
    rf"^(?:lacking|missing|lighting|{FLAW_ING})\b",
    _I,
)
_TAIL_CAUSE = re.compile(
    r"^(?:particularly\s+|\w+ly\s+)?(?:resulting in|leading to|causing|creating|producing|introducing|giving (?:it|them|the \w+)|which "  # noqa: E501
    r"(?:causes|creates|introduces))\s+(.+)",
    _I,
)


def negative_phrases(clause: str) -> tuple[list[str], bool]:
    """Noun phrases of the flaws in one sanitised `clause`.

    Returns:
        (phrases, stated): `stated` is false where the clause warns of a flaw instead of reporting it ("avoid adding
        halos"), so that nothing is repaired that is not there.
    """
    text, is_warning = without_warning(without_connective(clause))
    stated = not is_warning
    text = _AVOID.sub("", text).strip()
    if is_denied(text):
        return [], stated
    text = _THERE.sub("", text)
    if _listed(text):
        parts = re.split(r",\s*(?:and\s+|or\s+)?|\s+and\s+", text)
        return _sharing_place([part for part in parts if part.strip()]), stated
    main, *tails = _split_tails(text)
    head = _negative_main(main)
    extra: list[str] = []
    for tail in tails:
        cause = _TAIL_CAUSE.match(tail)
        if cause and find_flaws(cause[1]) and not is_denied(cause[1]):
            extra.append(noun_phrase(_negative_main(cause[1])))
            continue
        place = PLACE.search(tail)
        stressed = _STRESS.match(tail) is not None
        if (
            head
            and place
            and (stressed or not _WHOLE.search(main))
            and not PLACE.search(EVERYWHERE.sub("", head))
            and not tail.lower().startswith("which")
        ):
            head = f"{EVERYWHERE.sub('', head)} {place[0]}"
    phrases = [part for piece in ([head] if head else []) for part in _unlike(noun_phrase(piece))]
    return [phrase for phrase in (*phrases, *extra) if phrase], stated


def _listed(text: str) -> bool:
    parts = re.split(r",\s*(?:and\s+|or\s+)?", text)
    found = sum(bool(find_flaws(part)) for part in parts)
    longest = max(len(part.split()) for part in parts)
    return (
        len(parts) > 1 < found
        and (longest <= 4 or (longest <= 8 and found == len(parts)))
        and not FINITE_VERB.search(text)
    )


def _split_tails(text: str) -> list[str]:
    pieces, start = [], 0
    for match in _TAIL.finditer(text):
        if match.start() and not _NOT_A_TAIL.match(text[match.end() :]):
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def _negative_main(text: str) -> str:
    verbs = [
        (match.start(), order, name, match)
        for order, (name, pattern) in enumerate(_NEGATIVE_VERBS)
        if (match := pattern.search(text))
    ]
    if not verbs:
        return text
    _, _, name, match = min(verbs, key=lambda item: item[:2])
    subject, rest = text[: match.start()].strip(), text[match.end() :].strip()
    generic = is_generic(subject)
    plain = DETERMINER.sub("", subject)
    if name == "present":
        return f"{subject} {rest}" if not rest or re.match(PREPOSITION, rest, _I) else subject
    if name == "lack":
        return f"lack of {rest}" + ("" if generic else f" in {_the(subject)}")
    if name == "have":
        rest = _relative(rest)
        return rest if generic or len(plain.split()) > 7 or PLACE.search(rest) else f"{rest} in {_the(subject)}"
    if name == "be":
        if where := as_tail(subject):
            return f"{with_attribute('image', rest)} {where}"
        return with_attribute("image" if generic else plain, rest)
    if name == "cause" and (find_flaws(rest) or not find_flaws(subject)):
        return rest
    if name == "spread":
        return (
            subject
            if re.search(r"\b(?:entire|whole|overall|all)\b", rest, _I) or GENERIC_ONLY.match(rest)
            else (f"{subject} in {rest}")
        )
    if not find_flaws(subject) and find_flaws(rest):
        return rest
    if re.match(r"leav|mak", match[0].strip(), _I) and len(rest.split()) <= 16:
        return f"{subject} {gerund(match[0].split()[-1].rstrip('s'))} {rest}"
    place = PLACE.search(rest)
    return f"{subject} {place[0]}" if place and not PLACE.search(EVERYWHERE.sub("", subject)) else subject


def _relative(text: str) -> str:
    """A relative clause after the flaw becomes a participle when it is short, else it goes."""
    match = re.search(r"\s+(?:that|which)\s+(\w+?)(?:es|s)?\s+(.+)$", text, _I)
    if not match:
        return text
    if match[1].lower() in ("leave", "leav", "make", "mak", "render") and len(match[2].split()) <= 18:
        return f"{text[: match.start()]} {gerund(match[1])} {match[2]}"
    place = PLACE.search(match[2])
    return text[: match.start()] + (f" {place[0]}" if place else "")


def _unlike(phrase: str) -> list[str]:
    """Two flaws of different strength in one phrase part ways ("slight blur and severe noise"), each with its place."""
    parts = _LISTED.split(phrase)
    if (
        len(parts) > 1
        and all(find_flaws(part) and not PLACE.search(part) for part in parts[:-1])
        and find_flaws(parts[-1])
    ):
        return _sharing_place(parts)
    return [noun_phrase(part) for part in _by_place(phrase)]


def _sharing_place(parts: list[str]) -> list[str]:
    """Flaws in a list that ends in a place share it ("blur and noise in the upper left").

    Two names of one flaw ("noise and grain") are two statements, the first of them of the whole picture.
    """
    *before, last = parts
    places = find_places(last)
    if len(places) == 1 and before and not any(find_places(part) or _same_flaw(part, last) for part in before):
        before = [f"{part} {last[slice(*places[0].span)]}" for part in before]
    return [noun_phrase(part) for part in (*before, last)]


def _same_flaw(one: str, other: str) -> bool:
    return not {flaw for flaw, _ in find_flaws(one)}.isdisjoint(flaw for flaw, _ in find_flaws(other))


def _by_place(phrase: str) -> list[str]:
    """The flaws of one phrase part ways after each place, so that each keeps its own ("blur at the top and noise")."""
    parts, start = [], 0
    inside = [mention.span for mention in find_places(phrase)]
    for joint in _JOINT.finditer(phrase):
        before, after = phrase[start : joint.start()], _JOINT.split(phrase[joint.end() :], maxsplit=1)[0]
        is_next = find_flaws(after) or (find_places(after) and without_places(after))
        if find_places(before) and is_next and not any(first <= joint.start() < last for first, last in inside):
            parts.append(before)
            start = joint.end()
    return [*parts, phrase[start:]]


def _the(subject: str) -> str:
    subject = subject[0].lower() + subject[1:] if subject[1:2].islower() else subject
    return subject if DETERMINER.match(subject) else f"the {subject}"
