"""Cutting documents into calls that a server takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rerank_sidecar.rerankers.base import IndexedDocuments


def in_calls(
    group: IndexedDocuments, max_documents: int, max_bytes: int
) -> Iterator[IndexedDocuments]:
    """Cut a group of documents into as few calls as the limits allow, about equally long.

    `max_bytes` is counted in UTF-8; a document that is longer goes alone.
    """
    calls = -(-len(group) // max_documents)
    for number in range(calls):
        start, end = (len(group) * each // calls for each in (number, number + 1))
        yield from _in_bytes(group[start:end], max_bytes)


def _in_bytes(group: IndexedDocuments, max_bytes: int) -> Iterator[IndexedDocuments]:
    start = size = 0
    for place, length in enumerate(_lengths(group)):
        if place > start and size + length > max_bytes:
            yield group[start:place]
            start, size = place, 0
        size += length
    if group:
        yield group[start:]


def _lengths(group: IndexedDocuments) -> Sequence[int]:
    return [len(document.text.encode("utf-8", "replace")) for _, document in group]
