"""Turns a sentence about the wanted picture into wishes for a positive prompt. It must not know rounds or encoders.

A sentence is taken wish by wish ("increase contrast and reduce noise" are two), and each loses its modal frame ("The
leaves would possess crisp edges" → "leaves with crisp edges"). Flaws become what is wanted in their place. The model's
words are kept; only the frame goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from restore_bridge.grammar import (
    DETERMINER,
    EVERYWHERE,
    FINITE_VERB,
    FLAW_ING,
    GENERIC,
    PLACE,
    PREPOSITION,
    gerund,
    is_generic,
    noun_phrase,
    with_attribute,
)
from zoomiqa.statements import sentences, without_connective
from zoomiqa.vocabulary import TERMS, Flaw, find_flaws

_I = re.IGNORECASE
_MODAL = re.compile(r"\s+(?:would|should|could|will|must|might|can|needs?\s+to|ought\s+to)\s+", _I)
_COMPARED = (
    r"(?:sharper|brighter|darker|cleaner|crisper|clearer|smoother|richer|finer|softer|warmer|cooler|deeper|higher|lower|stronger"
    r"|better|greater|truer|lighter|less|fewer|more)"
)
_ADDRESS = re.compile(
    r"^(?:(?:i|we|you|one)\s+(?:(?:would|could|should|can|might)\s+)?(?:recommend|suggest|advise|try|consider)\s+"
    rf"|mak(?:e|ing)\s+{GENERIC}\s+(?={_COMPARED}\b)"
    r"|(?:it is|it's|it would be)\s+(?:recommended|advisable|best|good|helpful)\s+to\s+"
    rf"|{GENERIC}\s+(?:could|can|would|should|may|might)\s+be\s+(?:further\s+)?(?:improved|enhanced)\s+by\s+)",
    _I,
)
"""How advice addresses its reader."""

_BESIDE = re.compile(r",?\s*\b(?:without|instead of|rather than|as opposed to)\b[^,;]*", _I)
"""What is only set against the wish: "detailed without glare"."""

_REMOVE = re.compile(
    r"^(?:(?:please|try to|consider|you should|it would help to)\s+)?(?:reduc\w+|decreas\w+|remov\w+|eliminat\w+|minimi[sz]\w+|suppress\w*"  # noqa: E501
    r"|correct(?:ing|ed)?|fix\w*|lower\w*|mitigat\w+|address\w*|clean(?:ing)?\s+up|less|fewer|lower|no|with no"
    r"|free (?:of|from)|devoid of)\s+",
    _I,
)
_GUARD = re.compile(
    r"^(?:(?:please|try to|be careful to)\s+)?(?:(?:avoid\w*|prevent\w*|do not|don't|never|not)(?:\s+|$)"
    rf"|without\s+(?:\w+ly\s+)?(?=(?!{FLAW_ING}\b)[\w-]+ing\b))",
    _I,
)
"""A wish that nothing be spoiled: what it names is not there yet."""

_KEEP = re.compile(r"^(?:please\s+)?(?:while\s+|still\s+)?(?:keep|preserv|retain|maintain)(?:e|ing)?\s+", _I)
_UNDO = re.compile(
    r"^(?:(?:apply(?:ing)?|us(?:e|ing)|perform(?:ing)?)\s+)?de(?P<flaw>nois|blur|haz)(?:e|r?ing)?\b"
    r"(?:\s+(?:it|the (?:whole |entire )?(?:image|photo|picture))\b)?\s*",
    _I,
)
_UNDONE = {"nois": "noise", "blur": "blur", "haz": "haze"}
_KEPT_LOW = re.compile(r"\s+(?:low|down|minimal|(?:to|at) (?:a|the) minimum|under control|in check)\b.*$", _I)
_NOT_BE = re.compile(
    r"^.*?\b(?:should|must|would|could|need|can|may|do|does)(?:\s+not|n't)\s+"
    r"(?:be|look|appear|have|show|contain|exhibit|suffer from)\b",
    _I,
)
_LESSENED = re.compile(
    r"\b(?:less|fewer|lower|no|not|zero|little|free|reduc\w+|remov\w+|eliminat\w+|minimi\w+|suppress\w*|correct\w+)\b",
    _I,
)
_ADJECTIVE = (
    r"(?:sharp|crisp|clean|clear|natural|balanced|accurate|rich|vivid|vibrant|smooth|even|detailed|fine|bright|neutral|true|correct"
    r"|soft|deep|strong|good|proper|realistic|faithful|pleasing|full|well[- ]\w+|\w+ly\s+[\w-]+)"
)
_DO = (
    r"(?:(?:reduc|decreas|remov|eliminat|minimi[sz]|increas|improv|enhanc|restor|preserv|ensur|apply|us|mak|achiev|denois|rais|refin"
    r"|balanc|provid|captur)(?:e|ing)?|(?:suppress|avoid|prevent|correct|fix|lower|mitigat|address|boost|sharpen|brighten|darken"
    r"|strengthen|deepen|lift|recover|keep|retain|maintain|add|bring|deblur|dehaz|clean up|soften|clarify)(?:e|ing)?"
    r"|do not|don't|never|not)"
)
_JOINED = (
    r"\s*,\s*(?:(?:and|but|or|yet|while|also|then|by|an?|the)\s+)*|\s+(?:and|but|while)\s+(?:(?:also|by|an?|the)\s+)?"
)
_DO_FIRST = re.compile(rf"(?:please\s+)?{_DO}\b", _I)
_COMPARED_FIRST = re.compile(rf"{_COMPARED}\b", _I)
_ATTRIBUTE = re.compile(
    rf"{_COMPARED}(?:\s*$|\s+(?:{PREPOSITION[3:-1]}|than|and|or|to)\b)|(?P<either>(?:more|less)\s+\w+$)", _I
)
"""A comparative without a noun ("brighter on the right"), or perhaps with one ("more vivid", "more contrast")."""

_WORD = re.compile(r"\w+\s+")
_NEXT = re.compile(
    rf"(?:{_JOINED})(?=(?:{_DO}|{_COMPARED}|no|with no|free (?:of|from)|devoid of)\s+\w|{_COMPARED}\b|[\w-]+-free\b)"
    rf"|\s*,\s*(?=(?:the|its|their)\s+(?:\w+\s+){{1,2}}(?:is|are)\s)|(?<=-free)(?:{_JOINED})|\s+with\s+(?={_COMPARED}\b)"
    rf"|(?:\s*,)?\s+(?:but\s+)?(?=without\s+(?:\w+ly\s+)?(?!{FLAW_ING}\b)[\w-]+ing\b)",
    _I,
)
"""Where a wish of its own begins: at a command, a comparative, or a denial."""

_NEXT_NAMED = re.compile(rf"(?:{_JOINED})(?={_ADJECTIVE}(?:\s+(?!and\b|or\b)\w|$))|\s*,\s*(?=with\s)", _I)
"""Where the next of several wanted things begins: at an adjective with its noun."""

_STRIP = re.compile(
    r"^(?:(?:please|try to|consider|aim (?:for|to)|by|clearly|carefully)\s+)*(?:(?:achiev|ensur|maintain|provid|captur|preserv|us|includ"  # noqa: E501
    r"|produc|creat|deliver|obtain|giv|hav|show|keep|retain|guarante|featur|add|maximi[sz]|optimi[sz]|bring|allow|present)"
    r"(?:e|es|ing|eing|s)?|(?:bring(?:ing)?|draw(?:ing)?) out|restor(?:e|ing)|employ(?:ing)?|apply(?:ing)?)\s+(?:that\s+|for\s+)?",  # noqa: E501
    _I,
)
_RAISE = re.compile(
    r"^(?:(?:please|try to|consider)\s+)*(increas|improv|enhanc|boost|sharpen|brighten|strengthen|deepen|lift|rais|refin|balanc|recover"  # noqa: E501
    r"|clarif|soften)(?:e|es|ing|ying|y|s)?\s+",
    _I,
)
_RAISED = {
    "increas": "increased",
    "improv": "improved",
    "enhanc": "enhanced",
    "boost": "boosted",
    "sharpen": "sharpened",
    "brighten": "brightened",
    "strengthen": "strengthened",
    "deepen": "deepened",
    "lift": "lifted",
    "rais": "raised",
    "refin": "refined",
    "balanc": "balanced",
    "recover": "recovered",
    "clarif": "clarified",
    "soften": "softened",
}
_INVOLVE = re.compile(r"^(?:involve|require|mean|include|entail|need|come from|benefit from|depend on|call for)\s+", _I)
_ENSURE = re.compile(r"^(?:ensure|guarantee|make sure|allow|let|see|help)\s+(?:that\s+)?", _I)
_OWN = re.compile(
    r"^(?:have|possess|feature|show|display|exhibit|present|contain|carry|offer|retain|keep|maintain)\s+", _I
)
_BE_WITH = re.compile(
    r"^(?:be|appear|look)\s+(?:(?:clearly|cleanly|well|fully)\s+)?(?:rendered|captured|shown|presented|depicted|displayed|reproduced)?\s*"
    r"(?=with\b|in\b)",
    _I,
)
_BE_VERB = re.compile(r"^(?:be|appear|look|become|remain|stay)\s+(?:rendered\s+(?:as\s+)?)?", _I)
_MAKE = re.compile(
    r"^(?:render|show|reveal|feature|have|display|exhibit|present|include|capture|preserve|maintain|possess|offer"
    r"|provide|contain|bring out|deliver|use|benefit from|keep|retain)\s+",
    _I,
)
_VERB = re.compile(r"^((?:\w+ly\s+)?)([a-z]+)\s+(.+)$", _I)
_KEEPS = re.compile(r"\s+(maintains?|retains?|keeps?|shows?|reveals?|has|have|displays?|preserves?)\s+", _I)
_KEPT = {
    "maintain": "maintaining",
    "retain": "retaining",
    "keep": "keeping",
    "show": "showing",
    "reveal": "revealing",
    "ha": "with",
    "have": "with",
    "display": "displaying",
    "preserve": "preserving",
}
_IS = re.compile(r"\s+(?:is|are|be)\s+(?=\w)", _I)
_POSITIVE_TAIL = re.compile(r",\s+(?:(?:thereby|thus|and)\s+)?(?=(?:\w+ly\s+)?\w+ing\b(?!\s*,))", _I)
_EMPTY = re.compile(
    r"^(?:(?:higher[- ]quality|better|good|well[- ]executed|ideal|perfect|improved|superior|it|this)\s*)*"
    r"(?:image|photo|photograph|picture|frame|crop|shot|version|result)?$",
    _I,
)
_WISHES: tuple[tuple[re.Pattern[str], Flaw], ...] = tuple(
    (re.compile(pattern, _I), flaw)
    for pattern, flaw in (
        (
            r"\b(?:brighter|brighten\w*|lift\w* (?:the )?shadows|more light"
            r"|(?:increas|rais|boost)\w* (?:the |overall )*(?:brightness|exposure))\b",
            Flaw.UNDEREXPOSURE,
        ),
        (
            r"\b(?:darker|darken\w*|less bright|recover\w* (?:the )?highlights"
            r"|(?:reduc|lower|decreas)\w* (?:the |overall )*(?:brightness|exposure|highlights))\b",
            Flaw.OVEREXPOSURE,
        ),
        (
            r"\b(?:sharper|sharpen\w*|deblur\w*|more sharpness"
            r"|(?:increas|improv|enhanc|boost)\w* (?:the |overall )*sharpness)\b",
            Flaw.BLUR,
        ),
        (r"\b(?:denois\w*|cleaner|noise[- ]free)\b", Flaw.NOISE),
        (
            r"\b(?:more|higher|better|stronger|(?:increas|improv|enhanc|boost)\w*) (?:the |overall |tonal )*contrast\b",
            Flaw.LOW_CONTRAST,
        ),
        (
            r"\b(?:more (?:vivid|vibrant|colou?rful|saturat\w+)|richer colou?rs?|(?:increased?|more) saturation)\b",
            Flaw.DULL_COLOR,
        ),
        (r"\b(?:dehaz\w*|clearer air)\b", Flaw.HAZE),
    )
)
"""Wishes that ask for a change, and the flaw whose repair is that change."""

_CAMERA = re.compile(r"\b(?:shutter|tripod|aperture|iso|re-?shoot\w*|re-?tak\w*|lens|camera settings)\b", _I)
"""Advice to the photographer, which no restorer can follow."""

_LONG = 18
"""Words from which a phrase gives up its tail."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing that a text wants."""

    text: str
    """As it stands in a prompt."""

    flaws: tuple[Flaw, ...]
    """What it asks to repair. A mere picture of the ideal asks nothing, nor does a wish that something stay."""

    words: str
    """The part of the clause that says it."""


def positive_phrases(clause: str) -> list[Wish]:
    """Wanted states in one sanitised `clause`; flaws that it names become what is wanted instead, or go."""
    text = _ADDRESS.sub("", without_connective(clause))
    return [wish for words in _conjuncts(text) for wish in _wishes(words)]


def asked_flaws(text: str) -> tuple[Flaw, ...]:
    """The flaws that a sanitised text asks to repair: "reduce the noise", "brighter"."""
    wishes = (wish for start, end in sentences(text) for wish in positive_phrases(text[start:end]))
    return tuple(dict.fromkeys(flaw for wish in wishes for flaw in wish.flaws))


def _conjuncts(text: str) -> Iterator[str]:
    """The wishes of a clause, each with the frame ("the image should be") that it shares with the first."""
    modal = None if _DO_FIRST.match(text) else _MODAL.search(text)
    verb = _WORD.match(text, modal.end()) if modal else None
    frame = text[: verb.end()] if verb else ""
    joints = [(0, 0), *_joints(text, is_framed=modal is not None), (len(text), len(text))]
    for (_, start), (end, _) in pairwise(joints):
        words = text[start:end].strip(" ,")
        if words:
            yield words if start < len(frame) or _stands_alone(words, frame) else f"{frame}{words}"


def _stands_alone(words: str, frame: str) -> bool:
    """Whether a wish needs no frame: a command, or a comparative with its noun ("richer greens")."""
    if not frame or _DO_FIRST.match(words):
        return True
    attribute = _ATTRIBUTE.match(words)
    is_of_picture = is_generic(_MODAL.split(frame, maxsplit=1)[0])
    has_noun = attribute is None or (attribute["either"] is not None and is_of_picture)
    return _COMPARED_FIRST.match(words) is not None and has_noun


def _joints(text: str, *, is_framed: bool) -> list[tuple[int, int]]:
    """Where a wish ends and the next begins.

    A command, a comparative and a denial begin one anywhere. An adjective begins one after a flaw, which would take
    the rest with it, and in a list of named things; after another adjective ("bright, balanced light") it does not.
    """
    sure = {match.span() for match in _NEXT.finditer(text)}
    found = sorted({*sure, *(match.span() for match in _NEXT_NAMED.finditer(text))})
    joints: list[tuple[int, int]] = []
    listed: list[tuple[int, int]] = []
    for start, end in found:
        before = text[(joints or [(0, 0)])[-1][1] : start]
        is_kept = _KEEP.match(before.strip()) is not None
        if (start, end) in sure or (find_flaws(before) and not is_kept):
            joints.append((start, end))
        elif (
            not is_framed
            and not is_kept
            and " " in text[max([0, *(last for _, last in (*joints, *listed))]) : start].strip()
        ):
            listed.append((start, end))
    if joints or any("," in text[start:end] for start, end in listed):
        return sorted([*joints, *listed])
    return []


def _wishes(words: str) -> list[Wish]:
    if guard := _GUARD.match(words):
        return [Wish(text, (), words) for text, _ in _turned(words[guard.end() :])]
    if keep := _KEEP.match(words):
        kept = words[keep.end() :]
        if find_flaws(kept) and (low := _KEPT_LOW.search(kept)):
            return _gone(kept[: low.start()], words)
        return [Wish(noun_phrase(kept), (), words)]
    if (removal := _REMOVE.match(words) or _NOT_BE.match(words)) is not None:
        return _gone(words[removal.end() :], words)
    if undo := _UNDO.match(words):
        place = words[undo.end() :]
        return _gone(
            f"{_UNDONE[undo['flaw'].lower()]} {place if PLACE.match(place) or not place else f'in {place}'}", words
        )
    named = _BESIDE.sub("", words).strip(" ,")
    if not named:
        return _gone(words, words)
    parts = re.split(r",\s*(?:and\s+)?", named)
    if len(parts) > 1 and all(0 < len(part.split()) <= 4 for part in parts) and not FINITE_VERB.search(named):
        return [wish for part in parts for wish in _wishes(part)]
    wishes: list[Wish] = []
    for phrase in map(noun_phrase, _positive_main(named)):
        if phrase and find_flaws(phrase):
            is_asked = _LESSENED.search(words) is not None
            wishes += [Wish(text, (flaw,) if is_asked else (), words) for text, flaw in _turned(phrase)]
        elif phrase and not _EMPTY.match(phrase) and not _CAMERA.search(phrase):
            asked = dict.fromkeys(flaw for pattern, flaw in _WISHES if pattern.search(phrase))
            wishes.append(Wish(phrase, tuple(asked), words))
    return wishes


def _gone(text: str, words: str) -> list[Wish]:
    turned = [Wish(wanted, (flaw,), words) for wanted, flaw in _turned(text)]
    return turned or [Wish(TERMS[flaw].wanted, (flaw,), words) for pattern, flaw in _WISHES if pattern.search(words)]


def _turned(text: str) -> list[tuple[str, Flaw]]:
    """The wanted state of each flaw in `text`, at the place that `text` names, and the flaw."""
    place = PLACE.search(EVERYWHERE.sub("", _BESIDE.sub("", text)))
    where = f" {place[0]}" if place and len(place[0].split()) <= 10 and not find_flaws(place[0]) else ""
    return [(TERMS[flaw].wanted + where, flaw) for flaw in dict.fromkeys(flaw for flaw, _ in find_flaws(text))]


def _positive_main(text: str) -> list[str]:
    match = _MODAL.search(text)
    if match is None:
        return _positive_plain(text)
    subject, rest = text[: match.start()].strip(), text[match.end() :].strip()
    generic = is_generic(subject)
    subject = "" if generic else _positive_plain(subject)[0]
    main, tails = _positive_tails(rest)
    if involve := _INVOLVE.match(main):
        phrases = [subject, *_positive_plain(main[involve.end() :])]
    elif ensure := _ENSURE.match(main):
        phrases = [subject, *_positive_plain(main[ensure.end() :])]
    elif generic and (make := _MAKE.match(main)):
        phrases = [main[make.end() :]]
    elif own := _OWN.match(main):
        phrases = [f"{subject} with {main[own.end() :]}"]
    elif be_with := _BE_WITH.match(main):
        phrases = [f"{subject or 'image'} {main[be_with.end() :]}"]
    elif be := _BE_VERB.match(main):
        phrases = [with_attribute(DETERMINER.sub("", subject) or "image", main[be.end() :])]
    elif verb := _VERB.match(main):
        phrases = [f"{subject} {verb[1]}{gerund(verb[2])} {verb[3]}" if subject else verb[3]]
    else:
        phrases = [subject or main]
    return _with_tails([phrase for phrase in phrases if phrase], tails)


def _positive_plain(text: str) -> list[str]:
    main, tails = _positive_tails(text)
    if raised := _RAISE.match(main):
        return _with_tails([f"{_RAISED[raised[1].lower()]} {DETERMINER.sub('', main[raised.end() :])}"], tails)
    stripped = _STRIP.match(main)
    main = main[stripped.end() :] if stripped else main
    if is_match := _IS.search(main):
        main = with_attribute(DETERMINER.sub("", main[: is_match.start()]), main[is_match.end() :])
    elif keeps := _KEEPS.search(main):
        main = f"{main[: keeps.start()]} {_KEPT[keeps[1].lower().rstrip('s')]} {main[keeps.end() :]}"
    return _with_tails([main], tails)


def _positive_tails(text: str) -> tuple[str, list[str]]:
    pieces = _POSITIVE_TAIL.split(text)
    return pieces[0], pieces[1:]


def _with_tails(phrases: list[str], tails: list[str]) -> list[str]:
    for tail in tails:
        if phrases and len(phrases[-1].split()) + len(tail.split()) <= _LONG:
            phrases[-1] = f"{phrases[-1]}, {tail}"
        elif not re.search(r"\b(?:their|its)\b", tail, _I) and (stripped := _STRIP.match(tail)):
            phrases.append(tail[stripped.end() :])
    return phrases
