"""Documents as they arrive: in parts small enough to be read at once, and closed in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from rerank_sidecar.rerankers.base import IndexedDocuments
from rerank_sidecar.types import Document

# Few enough that scores of the first documents are on their way while others are being read, and
# that a tokeniser's own records, some 150 bytes a token, of huge documents fit in memory.
_DOCUMENTS_AT_ONCE = 32
_CHARACTERS_AT_ONCE = 1_000_000


def in_parts(
    group: IndexedDocuments, most: int = _DOCUMENTS_AT_ONCE
) -> Iterator[list[tuple[int, Document]]]:
    """Cut a group of documents into parts that are each worth one visit to a thread."""
    part: list[tuple[int, Document]] = []
    characters = 0
    for indexed in group:
        part.append(indexed)
        characters += len(indexed[1].text)
        if len(part) == most or characters >= _CHARACTERS_AT_ONCE:
            yield part
            part, characters = [], 0
    if part:
        yield part


@asynccontextmanager
async def closing(documents: AsyncIterator[IndexedDocuments]) -> AsyncIterator[None]:
    """Close an iterator of documents on leaving, if it can be closed."""
    try:
        yield
    finally:
        close = getattr(documents, "aclose", None)
        if close is not None:
            await close()
