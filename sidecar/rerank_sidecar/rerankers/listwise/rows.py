"""Orders that a chat model gave as a list, a table or records, and not as `[2] > [1]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

from rerank_sidecar.rerankers.listwise.numbers import NOUN, Kind, Number, is_between, numbers_of

_BESIDES = frozenset({Kind.PLACE, Kind.SCORE})


@dataclass(frozen=True, slots=True)
class _Row:
    """The documents that a line names at its beginning, and what it says of the first of them.

    `is_list`: several are several documents, and not a place and a document. `is_all`: the line
    says nothing else. `is_bare`: they are numbers without a word or a bracket. `is_worse`: the line
    calls them irrelevant. `section` counts the headings before it.
    """

    identifiers: list[int]
    place: float | None = None
    score: float | None = None
    is_list: bool = True
    is_all: bool = True
    is_bare: bool = False
    is_worse: bool = False
    section: int = 0


def distinct(found: Iterable[int]) -> list[int]:
    """Give each number once, where it came first."""
    return list(dict.fromkeys(found))


def runs(
    numbers: Iterable[Number], is_one: Callable[[Number, Number], bool]
) -> Iterator[list[Number]]:
    """Cut numbers into runs of which each belongs to the one before it."""
    run: list[Number] = []
    for each in numbers:
        if run and not is_one(run[-1], each):
            yield run
            run = []
        run.append(each)
    if run:
        yield run


# Records: {"id": 3, "score": 0.9}, in JSON, whole or broken off, in Python, in YAML or in XML.

_FIELD = re.compile(
    r"(?<![A-Za-z_])(?P<key>[A-Za-z_]{2,24})[\"']?\s{0,2}[:=]\s{0,2}[\"'\[]{0,2}"
    rf"(?:{NOUN}[ _-]?)?(?P<value>\d{{1,9}}(?:\.\d{{1,9}})?)(?![\w.]*\d)",
    re.IGNORECASE,
)
_IDENTIFIER = r"(?:passage|document|doc|text|item|result|candidate)_?(?:id|index|number|no|num)?"
_KEYS = {
    "identifier": re.compile(rf"{_IDENTIFIER}|p?id|identifier|ident", re.IGNORECASE),
    "index": re.compile(r"index|idx|number|no", re.IGNORECASE),
    "place": re.compile(r"rank|place|position|order", re.IGNORECASE),
    "score": re.compile(
        r"(?:relevan\w{0,3}_?)?(?:score|rating|probability|confidence)|relevan\w{1,3}",
        re.IGNORECASE,
    ),
}


def records(said: str, count: int) -> list[list[int]]:
    """Read records, best first; there are none if fewer than two name a document."""
    fields: list[dict[str, float]] = [{}]
    for found in _FIELD.finditer(said):
        name = next((name for name, key in _KEYS.items() if key.fullmatch(found["key"])), None)
        if name is not None:
            if name in fields[-1]:
                fields.append({})
            fields[-1][name] = float(found["value"])
    rows = [
        (0, _Row([int(identifier)], each.get("place"), each.get("score")))
        for each in fields
        if 0 <= (identifier := each.get("identifier", each.get("index", -1.0))) <= count
    ]
    return [_in_order(block) for _, block in _blocks(rows)] if len(rows) > 1 else []


# Lists and tables: a document to a line, or several.

_WORSE = re.compile(
    r"\b(?:not|ir|un|non|less|least|off)[ -]?(?:very |at all )?(?:relevant|related|topic)"
    r"|\bworst\b|不相关",
    re.IGNORECASE,
)
_UPWARDS = re.compile(r"\bleast\b.{0,30}\bto\b.{0,20}\bmost\b|\bworst to best\b", re.IGNORECASE)
_PLACES_BEHIND = re.compile(
    rf"\b{NOUN}\b[^\w|,\n]{{0,4}}(?:ids?)?[ \t*]{{0,4}}[|,\t][ \t*]{{0,4}}"
    r"(?:rank|place|position)\b",
    re.IGNORECASE,
)
"""A table's heading."""
_HEADING = re.compile(r":[\s*_`]{0,6}\Z")
_INTRODUCES = re.compile(
    rf"(?:[:=.!?]|\b(?:is|are|be|as|ist|lautet|est|es|son|sind|是|为))[\W_]*(?:{NOUN}\W*)?\Z",
    re.IGNORECASE,
)
_ENDS = re.compile(r"[^\w.!?\n]{0,12}(?:\Z|$|[.!?](?:[^\w]|\Z))", re.MULTILINE)
_MOST_BEFORE = 80
_NOT_AN_IDENTIFIER = re.compile(r"\s*[\w+=]")


def lists(said: str, count: int) -> list[list[int]]:
    """Read lines that begin with documents, and lists of documents within lines."""
    rows: list[tuple[int, _Row]] = []
    found: list[tuple[int, list[int]]] = []
    section = 0
    for at, line in enumerate(said.split("\n")):
        pieces = list(runs(numbers_of(line), partial(_is_together, line)))
        section += not pieces and _HEADING.search(line) is not None
        if pieces and _is_head(line[: pieces[0][0].start]):
            new = _rows(line, pieces[0], count)
            rows.extend((at, replace(row, section=section)) for row in new)
        else:
            pieces.insert(0, [])
        found.extend((at, each) for each in _within(line, pieces, count))
    if _PLACES_BEHIND.search(said):
        rows = [(at, _turned(row)) for at, row in rows]
    found.extend((at, _in_order(block)) for at, block in _blocks(rows) if _is_order(block))
    found.sort(key=itemgetter(0))
    is_upwards = _UPWARDS.search(said) is not None
    return [each[::-1] if is_upwards else each for _, each in found]


def _is_together(said: str, one: Number, other: Number) -> bool:
    return is_between(said, one.end, other.start)


def _turned(row: _Row) -> _Row:
    identifier, *others = row.identifiers
    return replace(row, identifiers=[identifier], place=others[0]) if others else row


def _is_head(before: str) -> bool:
    """Tell whether what stands before a line's first number is no more than signs and a label."""
    tail = re.split("[:=]", before)[-1]
    return len(before) <= _MOST_BEFORE and is_between(tail, 0, len(tail))


def _plain(run: Sequence[Number]) -> list[Number]:
    return [each for each in run if each.kind not in _BESIDES]


def _known(numbers: Iterable[Number], count: int) -> list[int]:
    return distinct(int(each.value) for each in numbers if 0 <= each.value <= count)


def _within(line: str, pieces: Sequence[Sequence[Number]], count: int) -> Iterator[list[int]]:
    """Give the lists behind the first piece: at a sentence's end, or too long for anything else."""
    begun, named = 0, [each for each in pieces[0] if each.kind.is_identifier]
    for run in pieces[1:]:
        known, start = _known(_plain(run), count), run[0].start
        is_all = len(known) == len(run)
        before = line[max(0, start - _MOST_BEFORE) : start]
        if len(known) > 1 and _INTRODUCES.search(before) and _ENDS.match(line, run[-1].end):
            yield known
        elif len(known) > 2 and is_all:
            # "[3] is the best, followed by [5], [1] and [4]"
            is_worse = _WORSE.search(line, begun, start) is not None
            yield known if is_worse else distinct([*_known(named, count), *known])
        else:
            named.extend(each for each in run if each.kind.is_identifier)
            continue
        begun, named = run[-1].end, []


def _rows(line: str, lead: Sequence[Number], count: int) -> Iterator[_Row]:
    rest = line[lead[-1].end :]
    is_named = any(each.kind.is_identifier for each in lead)
    is_score = lead[0].kind is Kind.SCORE and not is_named
    is_prose = lead[-1].kind is Kind.BARE and len(lead) < 3 and _NOT_AN_IDENTIFIER.match(rest)
    if is_score or is_prose:
        return
    is_all = not re.search(r"\w", rest)
    is_worse = _WORSE.search(line, 0, lead[0].start) is not None
    for part in _pairs(lead):
        row = _row(line, part, count)
        if row is not None:
            yield replace(row, is_all=is_all, is_worse=is_worse)


def _pairs(lead: Sequence[Number]) -> Iterator[Sequence[Number]]:
    """Cut `1. [3] 2. [5]` and `"3": 0.9, "5": 0.8` into pairs; other leads are one piece."""
    ones, others = lead[::2], lead[1::2]
    kinds = {each.kind for each in ones}, {each.kind for each in others}
    is_mixed = len(kinds[0]) == len(kinds[1]) == 1 and kinds[0] != kinds[1]
    firsts = [each.value for each in ones]
    is_numbered = firsts == list(range(1, len(firsts) + 1)) and not set(firsts).isdisjoint(
        each.value for each in others
    )
    if len(lead) > 3 and is_numbered and Kind.NAMED not in kinds[0]:
        ones = [replace(each, kind=Kind.PLACE) for each in ones]
        return zip(ones, others, strict=False)
    size = 2 if len(lead) > 3 and is_mixed else len(lead)
    return (lead[place : place + size] for place in range(0, len(lead), size))


def _row(line: str, part: Sequence[Number], count: int) -> _Row | None:
    plain = _plain(part)
    named = [each for each in plain if each.kind.is_identifier]
    beside = {each.kind: each.value for each in reversed(part) if each.kind in _BESIDES}
    is_list = len(plain) < 2 or not re.search("[:=|>]", line[plain[0].end : plain[1].start])
    place = beside.get(Kind.PLACE)
    if named and named[0] is not plain[0]:
        place, plain = plain[0].value, named
    elif len(named) > 1 or (named and not is_list):  # and its score, or its place: who knows
        plain = named
    known = [int(each.value) for each in plain if 0 <= each.value <= count]
    return _Row(known, place, beside.get(Kind.SCORE), is_list, is_bare=not named) if known else None


def _blocks(rows: Iterable[tuple[int, _Row]]) -> Iterator[tuple[int, list[_Row]]]:
    """Cut rows where a document or a place comes again, or where another way to list begins."""
    at, block = 0, list[_Row]()
    firsts: set[int] = set()
    places: set[float] = set()
    for start, row in rows:
        if block and (
            row.identifiers[0] in firsts
            or row.place in places
            or row.section != block[-1].section
            or (row.place is None) != (block[-1].place is None)
            or (len(row.identifiers) > 1 and row.is_all and not block[-1].is_all)
        ):
            yield at, block
            block, firsts, places = [], set(), set()
        at = start if not block else at
        block.append(row)
        firsts.add(row.identifiers[0])
        places.update(() if row.place is None else (row.place,))
    if block:
        yield at, block


def _is_order(block: Sequence[_Row]) -> bool:
    """Tell an order from a line that begins with a document, and from steps 1., 2., 3."""
    if all(row.is_all for row in block):
        return True
    firsts = [row.identifiers for row in block]
    is_as_given = firsts == [[place] for place in range(1, len(block) + 1)]
    is_single = len(block) == 1 and len(firsts[0]) == 1
    says_more = block[0].place is not None or block[0].score is not None
    return not is_single and (says_more or not (is_as_given and block[0].is_bare))


def _in_order(block: Sequence[_Row]) -> list[int]:
    firsts = [row.identifiers[0] for row in block]
    seconds = [row.identifiers[1] for row in block if len(row.identifiers) > 1]
    if _are_places(firsts, seconds):
        return seconds
    if all(row.place is not None for row in block):
        block = sorted(block, key=lambda row: row.place or 0.0)
    elif firsts == sorted(firsts) and all(row.score is not None for row in block):
        block = sorted(block, key=lambda row: -(row.score or 0.0))
    block = sorted(block, key=lambda row: row.is_worse)
    if len(block) == 1 or all(row.is_list for row in block):
        return distinct(each for row in block for each in row.identifiers)
    return [row.identifiers[0] for row in block]


def _are_places(firsts: Sequence[int], seconds: Sequence[int]) -> bool:
    """Tell whether lines are a place and a document each; the last one may have broken off."""
    count = len(firsts)
    return (
        count > 1
        and list(firsts) == list(range(1, count + 1))
        and count - len(seconds) <= (count > 2)
        and len(set(seconds)) == len(seconds)
        and (count > 2 or not set(firsts).isdisjoint(seconds))
    )
