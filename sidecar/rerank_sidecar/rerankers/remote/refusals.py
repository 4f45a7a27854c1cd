"""A call that the server refuses is asked again in halves, so that one document fails alone."""

from __future__ import annotations

from collections.abc import Sequence

from rerank_sidecar.rerankers.base import IndexedDocuments

HARMLESS = "1"
"""A document that no server minds: if even this is refused, it is not for the documents."""

_MOST_REFUSED = 64


class Refusals:
    """How often parts of one call were refused, which bounds what finding the culprits costs."""

    def __init__(self) -> None:
        self._count = 0

    def halves(self, part: IndexedDocuments) -> Sequence[IndexedDocuments]:
        """Say what to ask in place of a part that was refused: nothing, if it is to fail.

        Most refusals are for texts that are too long, or empty. The halves are the shorter and the
        longer documents, so that those that are fit soon have calls to themselves.
        """
        self._count += 1
        if len(part) == 1 or self._count >= _MOST_REFUSED:
            return []
        by_length = sorted(part, key=lambda indexed: len(indexed[1].text))
        middle = len(part) // 2
        return [by_length[:middle], by_length[middle:]]
