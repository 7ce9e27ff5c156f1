"""What a text about a picture states: its clauses, which flaws they report, which they deny, which they only warn of.

`zoomiqa.vocabulary.find_flaws` reads words; here is what a mention means. It must not know prompts, measures or where
the text comes from. Standard library only; every function takes time in proportion to the text's length.
"""

from __future__ import annotations

import re

from zoomiqa.vocabulary import Flaw, find_flaws

LONGEST_CLAUSE = 600
"""Characters of one clause that are read; nobody writes longer ones, and reading stays linear."""

FINITE = (
    r"(?:is|are|was|were|has|have|would|should|could|will|must|shows?|appears?|looks?|suffers?|lacks?|exhibits?|contains?"
    r"|displays?|causes?|creates?|affects?|degrades?|obscures?|reduces?|remains?|pervades?)"
)
"""Regular expression of a finite verb: what follows a joint stands alone only where there is one."""

_I = re.IGNORECASE
_HEADING = re.compile(
    r"^\W{0,6}(?:\d{1,2}\W{1,4})?(?:directions? for improvement|issues? to avoid|improvements?|issues|positive(?: prompt)?"  # noqa: E501
    r"|negative(?: prompt)?)\b[^:\n.]{0,60}:[*_\s]*",
    _I,
)
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\betc)[.!?](?=[\s\"”’*)]|$)|;|\n+")
_JOINT = re.compile(
    rf"(?:,\s+(?:and|but|while|whereas|though|although|with)\s+|\s+(?:while|whereas|but)\s+)"
    rf"(?=(?:also\s+)?[^,;]{{2,70}}?\b{FINITE}\b)",
    _I,
)
_LEAD = re.compile(
    r"^(?:(?:additionally|moreover|furthermore|however|overall|also|finally|first(?:ly)?|second(?:ly)?|lastly|ideally|similarly"
    r"|likewise|in addition|in particular|as a result|consequently|therefore|specifically|notably|for example|and|but|then"  # noqa: E501
    r"|to (?:improve|enhance|achieve|raise)[^,]{0,80})\s*,?\s+)+",
    _I,
)
_ADVICE = re.compile(
    r"^(?:avoid(?:ing)?|prevent(?:ing)?|do not|don't|never|must not|should not)\s+(?:introduc\w+|add\w*|creat\w+|caus\w+|produc\w+"  # noqa: E501
    r"|leav\w+|mak\w+|us\w+|apply\w*|over\w*ing)\s+",
    _I,
)
_NEGATED = re.compile(
    r"\b(?:no|not|without|free (?:of|from)|devoid of|absence of|lacks? (?:of )?(?:any|visible|noticeable)|never|neither"
    r"|nor|isn't|aren't|hardly any|barely any|clear of|doesn't|does not|do not)\b"
    r"(?:\s+(?!(?:but|yet|though|although|however)\b)[\w'-]+){0,5}?\s*$",
    _I,
)
"""A denial that reaches to the end of the text; a "but" between ends it."""

_SAFE_NO = re.compile(r"\b(?:not only|no longer|no detail|not sharp|not in focus|no clear)\b", _I)
_NOTHING = re.compile(
    r"^(?:there (?:is|are) |(?:the )?(?:image|picture|photo) (?:has|shows) )?(?:none\b|nothing\b|no\b(?: [\w-]+){0,3}"
    r" (?:flaws?|issues?|problems?|art[ei]facts?|defects?|degradations?|distortions?)\b)",
    re.IGNORECASE,
)
"""A statement that there is nothing to state."""

_EXCEPT = re.compile(r"\b(?:except(?: for)?|apart from|other than|aside from|besides|but for)\s+", re.IGNORECASE)


def sentences(text: str) -> list[tuple[int, int]]:
    """Character spans of the clauses of `text`: sentence ends, line ends, semicolons, and joints that stand alone."""
    spans: list[tuple[int, int]] = []
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        heading = _HEADING.match(text[start:end])
        begin = start + heading.end() if heading else start
        for joint in _JOINT.finditer(text, begin, end):
            spans.append((begin, joint.start()))
            begin = joint.end()
        spans.append((begin, end))
        start = end
    return [_trim(text, *span) for span in spans if re.search(r"\w", text[span[0] : span[1]])]


def without_connective(clause: str) -> str:
    """The clause without its connective and without the capital of its first word; names elsewhere keep theirs."""
    text = _LEAD.sub("", clause).strip()
    return text[0].lower() + text[1:] if text[:1].isupper() and (text[1:2].islower() or text[1:2] in " '") else text


def without_warning(clause: str) -> tuple[str, bool]:
    """`clause` (without its connective) less the words of a warning, and whether it was one.

    A warning ("avoid adding halos") speaks of a flaw that is not there yet.
    """
    match = _ADVICE.match(clause)
    return (clause[match.end() :], True) if match else (clause, False)


def without_denial(clause: str) -> str:
    """`clause`, or what it excepts where it says that there is nothing to state ("no flaws except noise"), or ""."""
    if not _NOTHING.match(clause):
        return clause
    exception = _EXCEPT.search(clause)
    return clause[exception.end() :] if exception else ""


def is_denied(text: str) -> bool:
    """Whether every flaw that `text` mentions is said to be absent ("no visible noise", "free of blur")."""
    return bool(find_flaws(text)) and not _reported(text)


def stated_flaws(text: str) -> tuple[Flaw, ...]:
    """The flaws that a text on what is wrong (*Issues to Avoid*) reports as present, each once, in reading order.

    Denied ones ("no visible noise") and those that it only warns of ("avoid adding halos") are left out.
    """
    found: dict[Flaw, None] = {}
    for start, end in sentences(text):
        clause = without_denial(text[start : min(end, start + LONGEST_CLAUSE)])
        clause, is_warning = without_warning(without_connective(clause))
        if not is_warning:
            found |= dict.fromkeys(_reported(clause))
    return tuple(found)


def _reported(clause: str) -> list[Flaw]:
    mentions = find_flaws(clause)
    if _SAFE_NO.search(clause):
        return [flaw for flaw, _ in mentions]
    return [flaw for flaw, span in mentions if not _NEGATED.search(clause[: span[0]])]


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))
