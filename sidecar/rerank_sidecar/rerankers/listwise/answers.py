"""What a chat model said about an order: read with care, for it may have said anything.

Models are asked for `[2] > [1] > [3]`. They also answer with prose around it, lists, tables, JSON,
their thoughts, half of it, the same twice, numbers that nobody has, or a refusal. Whatever looks
like an order is found. The longest counts, a chain like the above double; of about equals the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rerank_sidecar.rerankers.listwise.numbers import Kind, Number, is_between, numbers_of, plain
from rerank_sidecar.rerankers.listwise.rows import distinct, lists, records, runs

_EXAMPLE = re.compile(r"in the form \[2\] > \[1\]", re.IGNORECASE)
"""How the question shows the form; models repeat questions."""

_ABOUT = 0.75
"""An order at least so long beside the longest, and behind it, corrects it."""

_REFUSES = re.compile(
    r"\b(?:cannot|can't|unable|sorry|none|neither|irrelevant|harmful)\b|\bnot relevant\b",
    re.IGNORECASE,
)
_PRAISES = re.compile(r"\b(?:most|best|top|first|only)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Order:
    """Identifiers, best first, and how much they count."""

    identifiers: list[int]
    weight: float


def read_order(answer: str, count: int) -> list[int]:
    """Find the order that an answer gives to `count` documents: places from 0, best first.

    Each is named once, where it was named first. Numbers outside 1 to `count` are passed over,
    unless they are 0 to `count` - 1, each of them. The list is empty if the answer gives no order.
    Takes time in proportion to the length of the answer.
    """
    said = _EXAMPLE.sub(" ", plain(answer))
    numbers = list(numbers_of(said))
    listed = records(said, count) or lists(said, count)
    orders = [*_weighed(listed), *_weighed(_chains(said, numbers, count), 2.0)]
    return _places(_winner(orders) or _in_prose(said, numbers, count), count)


def completed(named: Sequence[int], count: int) -> list[int]:
    """Put those that were not named behind those that were, in the order that they had."""
    return [*named, *sorted(set(range(count)).difference(named))]


def _places(identifiers: Sequence[int], count: int) -> list[int]:
    first = 0 if set(identifiers) == set(range(count)) else 1
    return [each - first for each in identifiers if first <= each < count + first]


def _weighed(found: Iterable[list[int]], factor: float = 1.0) -> Iterator[_Order]:
    """Weigh orders; those of different documents are one: the relevant ones, then the others."""
    last: list[int] = []
    for each in found:
        if not set(last).isdisjoint(each):
            yield _Order(last, _weight(last, factor))
            last = []
        last = [*last, *each]
    if last:
        yield _Order(last, _weight(last, factor))


def _weight(identifiers: Sequence[int], factor: float) -> float:
    # 1, 2, 3 is how documents were given: it counts only where nothing else is said.
    is_as_given = factor == 1.0 and list(identifiers) == list(range(1, len(identifiers) + 1))
    return 1.0 if is_as_given else factor * len(identifiers)


def _winner(orders: Sequence[_Order]) -> list[int]:
    most = max((each.weight for each in orders), default=0.0)
    good = [each.identifiers for each in orders if each.weight >= _ABOUT * most]
    return good[-1] if good else []


def _chains(said: str, numbers: Sequence[Number], count: int) -> list[list[int]]:
    found: list[list[int]] = []
    for run in runs(numbers, lambda one, other: _is_step(said, one, other)):
        signs = said[run[0].end : run[-1].start]
        chain = _identifiers(run, count)
        if len(chain) > 1 and (">" in signs or "<" in signs):
            found.append(chain if ">" in signs else chain[::-1])
    # "1 -> [3]" on each line is a table.
    is_table = len(found) > 2 and all(len(each) == 2 for each in found)
    return [] if is_table else found


def _is_step(said: str, one: Number, other: Number) -> bool:
    if not is_between(said, one.end, other.start):
        return False
    signs = said[one.end : other.start]
    return ">" in signs or "<" in signs or not re.search(r"[\n.:]", signs)


def _in_prose(said: str, numbers: Sequence[Number], count: int) -> list[int]:
    """Take identifiers as they come; bare numbers may mean anything, a name alone may, too."""
    together = runs(numbers, lambda one, other: _is_step(said, one, other))
    named = [each for run in together if run[0].kind.is_identifier for each in run]
    if not named or _REFUSES.search(said, 0, named[0].end):
        return []
    found = _identifiers(named, count)
    is_sure = len(found) > 1 or named[0].kind is Kind.BRACKETED or _PRAISES.search(said)
    return found if is_sure else []


def _identifiers(numbers: Iterable[Number], count: int) -> list[int]:
    wanted = (each for each in numbers if each.kind not in {Kind.PLACE, Kind.SCORE})
    return distinct(int(each.value) for each in wanted if 0 <= each.value <= count)
