"""Cutting documents into calls that a server takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rerank_sidecar.rerankers.base import IndexedDocuments


@dataclass(frozen=True, slots=True)
class Portions:
    """How much one call carries: so many documents, and so many bytes of them in UTF-8.

    `max_characters` is how much is sent of each document, None if all of it.
    """

    max_documents: int
    max_bytes: int
    max_characters: int | None = None


def in_calls(group: IndexedDocuments, portions: Portions) -> Iterator[IndexedDocuments]:
    """Cut a group of documents into as few calls as the limits allow, about equally long.

    A document that is longer than a whole call goes alone.
    """
    calls = -(-len(group) // portions.max_documents)
    for number in range(calls):
        start, end = (len(group) * each // calls for each in (number, number + 1))
        yield from _in_bytes(group[start:end], portions)


def _in_bytes(group: IndexedDocuments, portions: Portions) -> Iterator[IndexedDocuments]:
    start = size = 0
    for place, length in enumerate(_lengths(group, portions.max_characters)):
        if place > start and size + length > portions.max_bytes:
            yield group[start:place]
            start, size = place, 0
        size += length
    if group:
        yield group[start:]


def _lengths(group: IndexedDocuments, most: int | None) -> Sequence[int]:
    return [len(document.text[:most].encode("utf-8", "replace")) for _, document in group]
