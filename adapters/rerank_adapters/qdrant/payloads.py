"""Payloads: reading a text out of one, and asking for that text where the caller did not.

Keys are written as Qdrant writes them: `title`, `book.title`, `chapters[].text`, and `"a key"` in
quotes where it has other characters than letters, digits, `_` and `-`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from qdrant_client import grpc
from qdrant_client.conversions.conversion import GrpcToRest
from qdrant_client.http.models import PayloadSelectorExclude, PayloadSelectorInclude

from rerank_adapters.rerank import Prop

if TYPE_CHECKING:  # older versions of Qdrant's client have no such name
    from qdrant_client.conversions.common_types import WithPayloadInterface

Payload = dict[str, Any]

Path = tuple[str | int | None, ...]
"""The steps of a key: a name, the position in a list, or None for each item of a list."""

_STEP = re.compile(r'(?:"([^"]+)"|([\w-]+))((?:\[\d*\])*)(?:\.(?=.)|$)')
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_BRACKETS = re.compile(r"\[(\d*)\]")


@dataclass(frozen=True, slots=True)
class Selection:
    """What the store is asked for, and how that becomes what the caller asked for."""

    asked: WithPayloadInterface | None
    keep: Callable[[Payload | None], Payload | None]


def text_field(payload: Payload | None, key: str) -> str | None:
    """Give the text under a key; those of a list are joined by newlines. None: there is no text."""
    texts = [value for value in _values(payload, parse_key(key)) if isinstance(value, str)]
    return "\n".join(texts) if texts else None


def select(with_payload: WithPayloadInterface | None, prop: Prop | None) -> Selection:
    """Select what the caller wants and what `prop` reads; a function reads all of a row.

    Raises:
        TypeError: `with_payload` is none of what Qdrant's client takes.
        ValueError: a key is not written as Qdrant writes them; the message has it.
    """
    if prop is None:
        return Selection(with_payload, _all)
    if isinstance(with_payload, grpc.WithPayloadSelector):
        with_payload = GrpcToRest.convert_with_payload_selector(with_payload)
    if callable(prop):
        return Selection(True, _keeper(with_payload))
    keys = [prop] if isinstance(prop, str) else list(prop)
    paths = [parse_key(key) for key in keys]
    if with_payload is True:
        return Selection(True, _all)
    if isinstance(with_payload, PayloadSelectorExclude):
        return _without(with_payload, paths)
    mine = _included(with_payload)
    return Selection([*mine, *map(_written, paths)], _keeper(with_payload))


@lru_cache(maxsize=1024)
def parse_key(key: str) -> Path:
    """Read a key.

    Raises:
        ValueError: it is not written as Qdrant writes keys; the message has it.
    """
    steps: list[str | int | None] = []
    place = 0
    while place < len(key):
        step = _STEP.match(key, place)
        if step is None:
            break
        steps.append(step[1] or step[2])
        steps += [int(digits) if digits else None for digits in _BRACKETS.findall(step[3])]
        place = step.end()
    if not steps or place < len(key):
        raise ValueError(f"{key!r} is no key of a payload: put names in double quotes if need be")
    return tuple(steps)


def _values(value: Any, path: Path) -> Iterator[object]:  # noqa: ANN401
    if not path:
        yield from value if isinstance(value, list) else [value]
        return
    step, rest = path[0], path[1:]
    if isinstance(value, dict) and step in value:
        yield from _values(value[step], rest)
    elif isinstance(value, list) and step is None:
        for item in value:
            yield from _values(item, rest)
    elif isinstance(value, list) and isinstance(step, int) and step < len(value):
        yield from _values(value[step], rest)


def _written(path: Path) -> str:
    """Write a key for a selector, which knows no positions: from there on, all is asked for."""
    key = ""
    for step in path:
        if isinstance(step, int):
            break
        if step is None:
            key += "[]"
        else:
            key += f".{step}" if _PLAIN.fullmatch(step) else f'."{step}"'
    return key.removeprefix(".")


def _included(with_payload: WithPayloadInterface | None) -> Sequence[str]:
    if with_payload is None or with_payload is False:
        return []
    if isinstance(with_payload, PayloadSelectorInclude):
        return with_payload.include
    if isinstance(with_payload, (list, tuple)):
        return with_payload
    raise TypeError("with_payload must be a bool, a list of keys or a PayloadSelector")


def _without(selector: PayloadSelectorExclude, paths: list[Path]) -> Selection:
    others = [key for key in selector.exclude if not _touches(parse_key(key), paths)]
    if len(others) == len(selector.exclude):
        return Selection(selector, _all)
    return Selection(PayloadSelectorExclude(exclude=others) if others else True, _keeper(selector))


def _touches(path: Path, others: Iterable[Path]) -> bool:
    return any(all(map(_meet, path, other)) for other in others)


def _meet(step: str | int | None, other: str | int | None) -> bool:
    return step == other or not (isinstance(step, str) or isinstance(other, str))


def _keeper(
    with_payload: WithPayloadInterface | None,
) -> Callable[[Payload | None], Payload | None]:
    if with_payload is True:
        return _all
    if isinstance(with_payload, PayloadSelectorExclude):
        tree = _tree(with_payload.exclude)
        return lambda payload: payload and _exclude(payload, tree)
    if with_payload is None or with_payload is False:
        return lambda payload: None
    tree = _tree(_included(with_payload))
    return lambda payload: payload and _include(payload, tree)


def _all(payload: Payload | None) -> Payload | None:
    return payload


class _Tree(dict[str | int | None, "_Tree"]):
    """The keys of a selector by their steps; one that is empty stands for all that is below."""


def _tree(keys: Iterable[str]) -> _Tree:
    tree = _Tree()
    for path in sorted({parse_key(key) for key in keys}, key=len, reverse=True):
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, _Tree())
        node[path[-1]] = _Tree()  # the shorter key comes later, and takes the longer ones' place
    return tree


def _include(value: Any, tree: Mapping[str | int | None, _Tree]) -> Any:  # noqa: ANN401
    """Keep what is under the keys, as Qdrant does: no key goes into a list but through `[]`."""
    if isinstance(value, dict):
        return {
            key: _include(item, tree[key]) if tree[key] else item
            for key, item in value.items()
            if key in tree
        }
    if isinstance(value, list):
        if None not in tree:
            return []
        return [_include(item, tree[None]) if tree[None] else item for item in value]
    return value


def _exclude(value: Any, tree: Mapping[str | int | None, _Tree]) -> Any:  # noqa: ANN401
    """Leave out what is under the keys, as Qdrant does."""
    if isinstance(value, dict):
        return {
            key: _exclude(item, tree[key]) if key in tree else item
            for key, item in value.items()
            if key not in tree or tree[key]
        }
    if isinstance(value, list) and None in tree:
        return [_exclude(item, tree[None]) for item in value if tree[None]]
    return value
