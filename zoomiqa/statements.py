"""What a text about a picture states: its clauses, which flaws they report, which they deny, which they only warn of.

`zoomiqa.vocabulary.find_flaws` reads words; here is what a mention means. Models write in paragraphs, numbered lists,
Markdown and tables: list marks, headings and table rules are no statements, and "Noise: severe" says that the noise is
severe. It must not know prompts, measures or where the text comes from. Standard library only; every function takes
time in proportion to the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from zoomiqa.vocabulary import Flaw, find_flaws

LONGEST_CLAUSE = 600
"""Characters of one clause that are read; nobody writes longer ones, and reading stays linear."""

FINITE = (
    r"(?:is|are|was|were|has|have|would|should|could|will|must|shows?|appears?|looks?|suffers?|lacks?|exhibits?|contains?"
    r"|displays?|causes?|creates?|affects?|degrades?|obscures?|reduces?|remains?|pervades?)"
)
"""Regular expression of a finite verb: what follows a joint stands alone only where there is one."""

_I = re.IGNORECASE

# ---- lines ----------------------------------------------------------------------------------------------------------
_MARK = re.compile(r"\s*(?:>\s*)*(?:(?:[-–—•·*+]|\(?\d{1,2}[.):]|\(?[a-zA-Z][.)])\s+)*(?:\[[ xX]\]\s+)?")
_TABLE_RULE = re.compile(r"\s*(?:\|\s*)?:?-{2,}:?\s*(?:\|[\s:|-]*)?")
_TITLE = re.compile(r"\s*(?:(?P<plain>#{1,6}\s+\S.*|[^:.!?]{1,60}:[*_\s]*)|(?:\*\*|__)[^*_]+(?:\*\*|__)[:\s]*)")
"""A line that may be a heading: a Markdown one, one that ends in a colon, or one all bold."""

_LONGEST_TITLE = 3
"""Words of a heading that is read with the line below, as its label."""

_TOPIC = re.compile(
    r"[\W_]*(?:[a-z]+\s+){0,3}(?:directions?|issues?|improvements?|flaws?|problems?|defects?|suggestions?|recommendations?"
    r"|summary|notes?)(?: (?:for improvement|to (?:avoid|fix)|found))?[\W_]*",
    _I,
)
"""A line that only names what the lines below are about."""

_LETTERS = re.compile(r"[^\W\d_].*?[^\W\d_]")

# ---- clauses --------------------------------------------------------------------------------------------------------
_HEADING = re.compile(
    r"^\W{0,6}(?:\d{1,2}\W{1,4})?(?:directions? for improvement|issues? to avoid|improvements?|issues?|positive(?: prompt)?"  # noqa: E501
    r"|negative(?: prompt)?)\b[^:\n.]{0,60}:[*_\s]*",
    _I,
)
_SENTENCE_END = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\betc)[.!?](?=[\s\"”’*)]|$)|;|(?<=\S\s)(?=\(\d{1,2}\)\s)"
)
_GAP = r"(?<!\s)\s{1,9}"
_JOINT = re.compile(
    rf"(?:,\s{{1,9}}(?:and|but|while|whereas|though|although|with|however|yet)|{_GAP}(?:while|whereas|but|(?P<and>and)))\s{{1,9}}"
    rf"(?=(?:also\s+)?[^,;]{{2,70}}?\b{FINITE}\b)",
    _I,
)
_IS_SENTENCE = re.compile(rf"\b{FINITE}\b", _I)
_ORDER = re.compile(
    r"\W*(?:increas|improv|enhanc|boost|sharpen|brighten|darken|lift|rais|reduc|remov|eliminat|minimi[sz]|correct|fix|restor|recover"
    r"|preserv|keep|maintain|avoid|add|adjust|balanc)\w*(?P<object>\s{1,3}[\w' -]{2,50})?[\s*_]{0,9}:[\s*_]*",
    _I,
)
"""A label that is itself a command: "Reduce noise: the sky is rough"."""

_LEAD = re.compile(
    r"^(?:(?:additionally|moreover|furthermore|however|overall|also|finally|first(?:ly)?|second(?:ly)?|lastly|ideally|similarly"
    r"|likewise|in addition|in particular|as a result|consequently|therefore|specifically|notably|for example|and|but|then"  # noqa: E501
    r"|to (?:improve|enhance|achieve|raise)[^,]{0,80})\s*,?\s+)+",
    _I,
)
_CONCESSION = re.compile(r"(?:while|although|though|even though|despite|whereas)\s[^,]{2,90},\s*", _I)
_ADVICE = re.compile(
    r"^(?:avoid(?:ing)?|prevent(?:ing)?|do not|don't|never|must not|should not)\s+(?:introduc\w+|add\w*|creat\w+|caus\w+|produc\w+"  # noqa: E501
    r"|leav\w+|mak\w+|us\w+|apply\w*|over\w*ing)\s+",
    _I,
)

# ---- labels ---------------------------------------------------------------------------------------------------------
_LABEL = re.compile(
    r"[\s*_`#]*(?P<label>[^\W\d_][\w/&,' -]{1,40}?)[\s*_`]*"
    r"(?:[:|]\W*|\s+\((?=(?:severe|strong|heavy|moderate|slight|mild|minor|none)\b)|(?<=[*_])\s+[–—-]\s+|\s*\n\W*)(?P<rest>\S.*)",
    re.DOTALL,
)
_ABSENT = r"(?:none|nil|n/a|not applicable|absent|nonexistent|negligible|0(?:\s*/\s*\d{1,3})?%?)"
_ALL_ABSENT = re.compile(rf"(?:{_ABSENT}|no)\W*", _I)
_GRADE = re.compile(
    r"(?P<grade>(?:very |quite |rather |extremely )?(?:severe|strong|heavy|high|pronounced|moderate|medium|noticeable"
    r"|visible|slight|mild|minor|low|minimal|faint|poor|bad|weak))(?=\W*$|,|\s+(?:\(|(?:in|on|at|across|along|throughout)\b))"
    rf"|(?:{_ABSENT}(?!\w)|not\b|no\W*$)",
    _I,
)
"""What a label's text opens with where it says how strongly the label holds."""

_AT = re.compile(r"(?:in|on|at|along|across|throughout|near|around)\s", _I)
_LONGEST_LABEL = 5
"""Words."""

_ABOUT = re.compile(rf"(?P<subject>(?:the|an?|all|some|most)\s+(?:[\w'-]+\s+){{0,7}}?[\w'-]+)\s+{FINITE}\b", _I)
_NUMBER = re.compile(r"\d+(?:\.\d+)?\s*(?:/\s*\d{1,3}|%)?\W*")

# ---- denials --------------------------------------------------------------------------------------------------------
_NEGATED = re.compile(
    r"(?:\bwith\s+)?\b(?:no(?! (?:longer|detail|clear)\b)|not(?! only\b)|without|free (?:of|from)|devoid of|absence of"
    r"|lacks? (?:of )?(?:any|visible|noticeable)|never|neither|nor|hardly any|barely any|clear of|cannot|\w+n['’]t)"
    r"(?:\s+(?!(?:but|yet|though|although|however)\b)[\w'-]+){0,5}?\s*$"
    r"|(?<!\ba )\b(?:very )?(?:little|low(?: (?:levels?|amounts?) of)?)\s+$",
    _I,
)
"""A denial that reaches to the end of the text; a "but" between ends it."""

_SEEM = r"(?:is|are|was|were|do|does|seems?|appears?|looks?|remains?)"
_NOT_THERE = re.compile(
    rf"[^,;]{{0,60}}?\b{_SEEM}\s+(?:\w+ly\s+|all\s+)*(?:{_ABSENT}|invisible|imperceptible|under control"
    r"|(?:well|nicely|tightly)[- ](?:controlled|managed|handled|contained))(?!\w)"
    rf"|[^,;]{{0,60}}?(?:\b{_SEEM}(?:\s+not|n['’]t)|\bcannot|\bcan['’]t)\s+(?:be\s+)?(?:\w+ly\s+|even\s+)*(?:an?\s+|any\s+)?"
    r"(?:(?:real|big|major|serious|significant)\s+)?(?:visible|present|noticeable|apparent|evident|detectable|perceptible"
    r"|discernible|seen|found|detected|there|problem|issue|concern|factor|exist|appear|occur|matter)\w*"
    rf"|\s*(?:levels?\s+)?{_SEEM}\s+(?:\w+ly\s+|very\s+)*low\b|\s*{_ABSENT}\W*$|\W{{0,3}}free\b",
    _I,
)
"""What follows a flaw where it is said to be absent."""

_CONTRAST = r"(?:but|yet|only|just|though|although|however)"
_SEPARATOR = re.compile(
    rf"\s*,\s*(?:(?:and|or|nor|{_CONTRAST})\b,?\s*)?|\s+(?:and|or|nor|{_CONTRAST})\s+|\s+(?=without\b)", _I
)
_IS_CONTRAST = re.compile(rf"\b{_CONTRAST}\b", _I)
_IS_EITHER = re.compile(r"\b(?:or|nor)\b", _I)
_CLAIM = re.compile(
    rf"\b{FINITE}\b|^(?:an?\s+)?(?:some|slight\w*|minor|mild|faint|moderate\w*|noticeabl\w+|visibl\w+|obvious\w*|strong\w*"
    r"|heav\w+|severe\w*|extreme\w*|significant\w*|pronounced|excessive\w*|little|bit|hint|touch|there|which|with)\b",
    _I,
)
"""A part of a list that says something by itself, so that a denial before it does not reach it."""

_NOTHING = re.compile(
    r"^(?:there (?:is|are) |(?:the )?(?:image|picture|photo) (?:has|shows|needs|requires) )?"
    r"(?:(?:none|nothing|n/?a|nil|not applicable)\b"
    r"|no\b(?: [\w-]+){0,3} (?:flaws?|issues?|problems?|art[ei]facts?|defects?|degradations?|distortions?"
    r"|improvements?|changes?|adjustments?|corrections?|edits?|concerns?|weakness(?:es)?)\b)",
    _I,
)
"""A statement that there is nothing to state."""

_PRAISE = re.compile(
    rf"[^,;]{{1,60}}?\b(?:{_SEEM}\s+(?:\w+ly\s+)*(?:accurate|good|great|fine|excellent|perfect|correct|acceptable|adequate|pleasing"
    r"|sharp|crisp|clean|clear|natural|balanced|well[- ]\w+|in focus)"
    r"|(?:is|are)(?:\s+not|n't) (?:an? )?(?:issues?|problems?|concerns?))\b"
    r"(?:(?:,|\s+and)?\s+(?:and\s+)?[\w-]+){0,4}\W*",
    _I,
)
_EXCEPT = re.compile(r"\b(?:except(?: for)?|apart from|other than|aside from|besides|but for)\s+", _I)


@dataclass(frozen=True, slots=True)
class _Line:
    """What one line says, half-open, without its list mark."""

    start: int
    end: int
    is_marked: bool
    is_row: bool
    title: re.Match[str] | None


@dataclass(slots=True)
class _Part:
    """A part of a list or a contrast, half-open; what a denial takes away is cut off its end."""

    start: int
    end: int
    is_contrast: bool
    is_either: bool
    """Whether an "or" joins it to the part before."""

    mentions: list[tuple[int, int]]
    """Where it names flaws."""


def sentences(text: str) -> list[tuple[int, int]]:
    """Character spans of the clauses of `text`.

    They end with sentences, lines, semicolons, and joints that stand alone. List marks, table rules and headings are
    no clauses; a heading that names a flaw ("Noise:") is one with the text that follows it.
    """
    spans: list[tuple[int, int]] = []
    for first, last in _lines(text):
        start = first
        for end in [*(match.end() for match in _SENTENCE_END.finditer(text, first, last)), last]:
            heading = _HEADING.match(text[start:end])
            begin = start + heading.end() if heading else start
            order = _ORDER.match(text, begin, end)
            if order and order["object"]:
                spans.append((begin, order.end()))
                begin = order.end()
            for joint in _JOINT.finditer(text, begin, end):
                before = text[begin : joint.start()]
                if _LETTERS.search(before) and (joint["and"] is None or _IS_SENTENCE.search(before)):
                    spans.append((begin, joint.start()))
                    begin = joint.end()
            spans.append((begin, end))
            start = end
    return [_trim(text, *span) for span in spans if _LETTERS.search(text[span[0] : span[1]])]


def without_label(clause: str) -> str:
    """A clause as written, with its label made part of the sentence or dropped.

    "Noise: severe in the sky" → "severe noise in the sky"; "Noise: none" → "noise is none"; "Noise: visible grain" →
    "visible grain"; "Noise: the sky looks rough" → "noise in the sky". Cells of a table row are read likewise.
    """
    match = _LABEL.fullmatch(clause)
    if match is None or len(match["label"].split()) > _LONGEST_LABEL or _IS_SENTENCE.search(match["label"]):
        return clause
    if _ORDER.match(clause):
        return f"{match['label']} {match['rest']}"
    label = _lowered(match["label"])
    rest = ", ".join(cell for cell in re.split(r"\s*\|\s*", match["rest"]) if re.search(r"\w", cell))
    named, said = ({flaw for flaw, _ in find_flaws(part)} for part in (label, rest))
    graded = _GRADE.match(rest)
    if graded and graded["grade"]:
        return f"{_lowered(graded['grade'])} {label}{rest[graded.end() :]}"
    if graded:
        return f"{label} is {_lowered(rest)}" if named or not _ALL_ABSENT.fullmatch(rest) else ""
    if _AT.match(label):
        return f"{rest.rstrip(' .')} {label}"
    if named and _NUMBER.fullmatch(rest):
        return label
    if named <= said:
        return rest
    about = _ABOUT.match(rest)
    return f"{label} in {_lowered(about['subject'])}" if about else f"{label}, {_lowered(rest)}"


def without_connective(clause: str) -> str:
    """The clause without its connective and without the capital of its first word; names elsewhere keep theirs."""
    concession = _CONCESSION.match(clause)
    text = _LEAD.sub("", clause[concession.end() :] if concession and not find_flaws(concession[0]) else clause).strip()
    return _lowered(text)


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


def asserted(clause: str) -> list[str]:
    """The parts of `clause` that hold; those that deny a flaw go ("no noise, only slight haze" → "slight haze").

    A denial reaches along its list ("free of noise, blur and banding") up to a "but" or a part that claims something
    by itself ("no noise, some blur"), and backwards from its verb ("noise and blur are absent"). A clause that denies
    no flaw is returned whole.
    """
    parts = _parts(clause)
    ends = [part.end for part in parts]
    _deny_forward(clause, parts)
    _deny_backward(clause, parts)
    if ends == [part.end for part in parts]:
        return [clause]
    runs: list[list[_Part]] = []
    is_open = False
    for part, end in zip(parts, ends, strict=True):
        if part.end > part.start:
            runs[len(runs) - is_open :] = [[*(runs[-1] if is_open else []), part]]
        is_open = part.start < part.end == end
    kept = [(clause[run[0].start : run[-1].end].strip(" ,"), run[0]) for run in runs]
    return [run for run, first in kept if find_flaws(run) or (first.is_contrast and first.end in ends)]


def praises(clause: str) -> bool:
    """Whether `clause` only says that something is as it should be ("the colours are accurate")."""
    return _PRAISE.fullmatch(clause) is not None and not find_flaws(clause)


def is_denied(text: str) -> bool:
    """Whether every flaw that `text` mentions is said to be absent ("no visible noise", "free of blur")."""
    return bool(find_flaws(text)) and not _reported(text)


def stated_flaws(text: str) -> tuple[Flaw, ...]:
    """The flaws that a text on what is wrong (*Issues to Avoid*) reports as present, each once, in reading order.

    Denied ones ("no visible noise") and those that it only warns of ("avoid adding halos") are left out.
    """
    found: dict[Flaw, None] = {}
    for start, end in sentences(text):
        clause = without_denial(without_label(text[start : min(end, start + LONGEST_CLAUSE)]))
        clause, is_warning = without_warning(without_connective(clause))
        if not is_warning:
            found |= dict.fromkeys(_reported(clause))
    return tuple(found)


def _reported(clause: str) -> list[Flaw]:
    return [flaw for part in asserted(clause) for flaw, _ in find_flaws(part)]


def _lowered(text: str) -> str:
    return text[0].lower() + text[1:] if text[:1].isupper() and (text[1:2].islower() or text[1:2] in " '") else text


def _parts(clause: str) -> list[_Part]:
    mentions = [span for _, span in find_flaws(clause)]
    joints = [(0, 0), *(match.span() for match in _SEPARATOR.finditer(clause)), (len(clause), len(clause))]
    parts = []
    for (joint, start), (end, _) in pairwise(joints):
        words = clause[joint:start]
        inside = [span for span in mentions if start <= span[0] < end]
        parts.append(_Part(start, end, bool(_IS_CONTRAST.search(words)), bool(_IS_EITHER.search(words)), inside))
    return parts


def _deny_forward(clause: str, parts: list[_Part]) -> None:
    is_denying = False
    for part in parts:
        known = part.start
        for start, end in part.mentions:
            denial = _NEGATED.search(clause[known:start])
            if denial:
                part.end = known + denial.start() if known > part.start else part.start
                is_denying = True
                break
            known = end
        else:
            is_bare = not part.is_contrast and (part.is_either or not _CLAIM.search(clause[part.start : part.end]))
            is_denying = is_denying and is_bare
            if is_denying and part.mentions:
                part.end = part.start


def _deny_backward(clause: str, parts: list[_Part]) -> None:
    is_denying = False
    for part in reversed(parts):
        if part.mentions and part.end > part.start:
            is_absent = any(_NOT_THERE.match(clause[end : part.end]) for _, end in part.mentions)
            is_denying = is_absent or (is_denying and not _CLAIM.search(clause[part.start : part.end]))
            if is_denying:
                part.end = part.start
        is_denying = is_denying and not part.is_contrast


def _lines(text: str) -> Iterator[tuple[int, int]]:
    """Spans of what the lines of `text` say; a heading that names a flaw goes with the line below."""
    lines = _said(text)
    start: int | None = None
    for number, line in enumerate(lines):
        below = lines[number + 1] if number + 1 < len(lines) else None
        leads = below is not None and not below.title and not (line.is_marked and below.is_marked)
        begin, start = line.start if start is None else start, None
        if line.title and (line.title["plain"] or (leads and not line.is_marked)):
            words = text[line.start : line.end]
            if not find_flaws(words):
                continue
            if leads and len(words.split()) <= _LONGEST_TITLE:
                start = begin
                continue
        yield begin, line.end


def _said(text: str) -> list[_Line]:
    """The lines without their list marks; rules, headers of tables and lines that only name a topic are left out."""
    lines: list[_Line] = []
    for match in re.finditer(r"[^\n]+", text):
        start, end = match.span()
        if _TABLE_RULE.fullmatch(match[0]):
            if lines and lines[-1].is_row and text.count("\n", lines[-1].end, start) == 1:
                lines.pop()
            continue
        is_row = match[0].lstrip().startswith("|")
        if is_row:
            cells = match[0].lstrip(" \t|")
            start, end = end - len(cells), end - len(cells) + len(cells.rstrip(" \t|"))
        mark = _MARK.match(text, start, end)
        begin = mark.end() if mark else start
        words = text[begin:end]
        if _LETTERS.search(words) and (not _TOPIC.fullmatch(words) or find_flaws(words)):
            lines.append(_Line(begin, end, begin > start, is_row, _TITLE.fullmatch(words)))
    return lines


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))
