"""What a chat model said about an order: read with care, for it may have said anything.

Models are asked for `[2] > [1] > [3]`. They also answer with prose around it, lists, JSON, their
thoughts, half of it, the same twice, numbers that nobody has, or a refusal.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_MOST_CHARACTERS = 200_000
"""An answer's end is what counts; more than this is no list of identifiers."""

_THOUGHT = r"(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad)"
_END_OF_THOUGHT = re.compile(
    rf"</{_THOUGHT}>|\[/{_THOUGHT}\]|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_START_OF_THOUGHT = re.compile(rf"<{_THOUGHT}>|\[{_THOUGHT}\]|<\|channel\|>analysis", re.IGNORECASE)

# Nothing in these repeats without a bound next to what may match the same: no answer, however odd,
# takes more than linear time.
_NOUN = r"(?:passages?|documents?|docs?|texts?|items?|results?|identifiers?|ids?|numbers?|nos?)"
_BRACKETED = re.compile(
    rf"\[\s{{0,4}}(?:{_NOUN}\b|[PD])?[\s:#._]{{0,4}}(\d{{1,6}})\s{{0,4}}\]", re.IGNORECASE
)
_BARE = re.compile(
    rf"(?<![^\W_])(?<!\d\.)(?:{_NOUN}[_-]?|[PD])?(\d{{1,6}})(?![^\W_]|\.\d|%)", re.IGNORECASE
)
_NAMED = re.compile(rf"\b{_NOUN}[ #_-]{{1,2}}(\d{{1,6}})(?![^\W_]|\.\d|%)", re.IGNORECASE)
_SEVERAL_IN_BRACKETS = re.compile(r"\[\s{0,4}\d{1,6}(?:\s{0,4}[,;>=]\s{0,4}\d{1,6}){1,99}\s{0,4}\]")
_BRACKETS = str.maketrans("【】〔〕", "[][]")
_BETTER = ">≻›»→➔"
_BETWEEN = re.compile(
    rf"(?:[\s,;|/=~*_`'\"\\\[\](){{}}#:.<{_BETTER}-]|\b{_NOUN}\b|\b(?:and|then|over)\b)+",
    re.IGNORECASE,
)
_WORSE = "<"
_MOST_BETWEEN = 40
_BEFORE_A_LIST = re.compile(
    rf"[\n.!?][ \t]{{0,4}}(?:[^\n.!?]{{0,40}}:)?[\s`'\"*_(<{{$#>-]{{0,6}}(?:{_NOUN}\s)?\Z",
    re.IGNORECASE,
)
_MOST_BEFORE_A_LIST = 70
_BEHIND_A_LIST = re.compile(r"[ \t`'\"*_)>}$.]{0,6}(?:\n|\Z)")
_ORDINAL = re.compile(
    r"^[ \t>*_#|-]{0,8}(?:rank|place|position)?[ #]{0,2}(\d{1,6})[*_]{0,2}(?:[.):]|[ \t]{0,4}\|)"
    r"(?=.*\d)",
    re.MULTILINE | re.IGNORECASE,
)
_AT_START = re.compile(
    rf"^[\s>*_#-]{{0,8}}(?:{_NOUN}\b)?[\s#]{{0,2}}(\d{{1,6}})[*_]{{0,2}}"
    r"(?:[:.)](?!\d)|[ \t]{0,4}(?:[(–—-]|$))",
    re.MULTILINE | re.IGNORECASE,
)
_KEY_OF_AN_IDENTIFIER = re.compile(
    rf"(?:{_NOUN}|index)(?:_?(?:id|index|number|no))?", re.IGNORECASE
)


def read_order(answer: str, count: int) -> list[int]:
    """Find the order that an answer gives to `count` documents: places from 0, best first.

    Each is named once, where it was named first. Numbers outside 1 to `count` are passed over. The
    list is empty if the answer names nothing. Takes time in proportion to the length of the answer.
    """
    said = _without_thoughts(_plain(html.unescape(answer[-_MOST_CHARACTERS:])))
    return [number - 1 for number in _known(_from_objects(said) or _from_text(said, count), count)]


def completed(named: Sequence[int], count: int) -> list[int]:
    """Put those that were not named behind those that were, in the order that they had."""
    return [*named, *sorted(set(range(count)).difference(named))]


def _plain(answer: str) -> str:
    """Write signs as in English: models that think in Chinese answer `【２】＞【１】`."""
    return unicodedata.normalize("NFKC", answer).translate(_BRACKETS)


def _without_thoughts(answer: str) -> str:
    """Cut off what a reasoning model said to itself; where that has no end, all of it is."""
    answer = _END_OF_THOUGHT.split(answer)[-1]
    return _START_OF_THOUGHT.split(answer, maxsplit=1)[0]


def _from_objects(said: str) -> list[int]:
    """Read JSON: a list of objects such as `{"id": 2, "score": 0.9}`, or an object by places."""
    listed, by_place = _json(said, "[", "]"), _json(said, "{", "}")
    if isinstance(by_place, dict) and list(by_place) == _places(len(by_place)):
        return _all_different(by_place.values())
    objects = [each for each in listed if isinstance(each, dict)] if listed else []
    return [number for each in objects for number in _identifier(each)]


def _all_different(values: Iterable[Any]) -> list[int]:
    """Give the number that each value is, or nothing: they may as well be scores."""
    found = [_BARE.fullmatch(str(each)[:_MOST_BETWEEN].strip("[]")) for each in values]
    numbers = [int(each[1]) for each in found if each]
    return numbers if len(set(numbers)) == len(found) else []


def _json(said: str, first: str, last: str) -> Any:  # noqa: ANN401 - whatever it holds
    try:
        return json.loads(said[said.find(first) : said.rfind(last) + 1])
    except (ValueError, RecursionError):
        return None


def _places(count: int) -> list[str]:
    return [str(place) for place in range(1, count + 1)]


def _identifier(item: dict[str, Any]) -> Iterator[int]:
    for key, value in item.items():
        found = _BARE.search(str(value)[:_MOST_BETWEEN])
        if found and _KEY_OF_AN_IDENTIFIER.fullmatch(key):
            yield int(found[1])
            return


def _from_text(said: str, count: int) -> list[int]:
    said = _SEVERAL_IN_BRACKETS.sub(_each_in_brackets, said)
    found = certain = list(_BRACKETED.finditer(said))
    if not found:
        said = _without_ordinals(said)
        found, certain = list(_BARE.finditer(said)), list(_NAMED.finditer(said))
    best = _best_run(said, found, set(_known(_numbers(certain), count)), count)
    if len(best) > 1 or said.strip(" .*\n\t").isdecimal():
        return best
    # Without a list of them, identifiers count as they come: one on a line, say, or in prose.
    if found is certain or len(certain) > 1:
        return _numbers(certain)
    # A number within prose may mean anything: "I cannot rank these 3 passages".
    return _numbers(_AT_START.finditer(said))


def _each_in_brackets(several: re.Match[str]) -> str:
    return re.sub(r"\d+", r"[\g<0>]", several[0][1:-1])


def _best_run(
    said: str, found: Sequence[re.Match[str]], certain: set[int], count: int
) -> list[int]:
    """Give the longest run of numbers with nothing but signs between, of those that say "better".

    Without such a sign a run counts if it stands by itself, or if nothing else is named: "[3] is
    best, then [1] and [2]" has one, too. Of equals the last one counts: what a model weighs before
    it answers comes earlier.
    """
    best, best_rank = [], (False, 0)
    for run in _runs(said, found):
        known = _known(_numbers(run), count)
        signs = said[run[0].end() : run[-1].start()]
        is_chain = any(sign in signs for sign in _BETTER)
        if _WORSE in signs and not is_chain:
            known, is_chain = known[::-1], True
        rank = (len(known) > 1 and is_chain, len(known))
        counts = rank[0] or certain <= set(known) or _is_by_itself(said, run)
        if counts and rank >= best_rank:
            best, best_rank = known, rank
    return best


def _is_by_itself(said: str, run: Sequence[re.Match[str]]) -> bool:
    """Tell whether a line or a sentence holds nothing else, but for a label such as "Answer:"."""
    start, end = run[0].start(), run[-1].end()
    before = "\n" + said[max(0, start - _MOST_BEFORE_A_LIST) : start]
    return bool(_BEFORE_A_LIST.search(before) and _BEHIND_A_LIST.match(said, end))


def _runs(said: str, found: Sequence[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
    run: list[re.Match[str]] = []
    for each in found:
        if run and not _is_between(said, run[-1].end(), each.start()):
            yield run
            run = []
        run.append(each)
    if run:
        yield run


def _is_between(said: str, start: int, end: int) -> bool:
    if end - start > _MOST_BETWEEN:
        return False
    return start == end or _BETWEEN.fullmatch(said, start, end) is not None


def _without_ordinals(said: str) -> str:
    """Take the 1., 2., 3. of a numbered list away, whose lines name a number besides."""
    ordinals = _numbers(_ORDINAL.finditer(said))
    if len(ordinals) > 1 and ordinals == list(range(1, len(ordinals) + 1)):
        return _ORDINAL.sub("", said)
    return said


def _numbers(found: Iterable[re.Match[str]]) -> list[int]:
    return [int(each[1]) for each in found]


def _known(numbers: Iterable[int], count: int) -> list[int]:
    return list(dict.fromkeys(number for number in numbers if 1 <= number <= count))
