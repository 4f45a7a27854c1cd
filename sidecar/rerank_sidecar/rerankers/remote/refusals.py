"""A call that the server refuses is asked again in halves, so that one document fails alone."""

from __future__ import annotations

from rerank_sidecar.errors import RerankError
from rerank_sidecar.rerankers.base import IndexedDocuments

_MOST_REFUSED_CALLS = 64
_MOST_REFUSED_DOCUMENTS = 3
"""So many refused one by one before any was scored: it is not the documents."""


class Refusals:
    """What the server refused of one request, and what becomes of it.

    A refusal may be meant for a document (too long for the model, say) or for the request (no such
    model). As long as nothing has been scored nobody knows, and refused documents wait.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._something_scored = False
        self._waiting: list[tuple[int, RerankError]] = []

    def refused(self, part: IndexedDocuments, error: RerankError) -> list[IndexedDocuments]:
        """Say what to ask in place of a call that was refused: nothing for a single document.

        Raises:
            RerankError: the refusal itself; to go on asking would be of no use.
        """
        self._calls += 1
        if len(part) == 1:
            self._waiting.append((part[0][0], error))
        nobody_scored = not self._something_scored
        if self._calls >= _MOST_REFUSED_CALLS or (
            nobody_scored and len(self._waiting) >= _MOST_REFUSED_DOCUMENTS
        ):
            raise error
        middle = len(part) // 2
        return [part[:middle], part[middle:]] if middle else []

    def scored(self) -> None:
        """Take notice that the server answered a call."""
        self._something_scored = True

    def settled(self) -> list[tuple[int, RerankError]]:
        """Give the documents that are now known to fail alone, each once."""
        if not self._something_scored:
            return []
        known, self._waiting = self._waiting, []
        return known

    def verdict(self) -> RerankError | None:
        """Give, when all is done, the error of a request of which nothing was scored."""
        return self._waiting[0][1] if self._waiting else None
