"""Encoded documents that are kept, in memory and perhaps on disk, so that they are encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from rerank_sidecar.rerankers.token_matrix import EncodedDocument
from rerank_sidecar.telemetry import metrics

_NAME = "token_matrix"

_ENTRY_BYTES = 400
"""A key, its place in the table and in the order, and the document object itself."""

_MATRIX_BYTES = 500
"""The objects around the numbers of one matrix: two arrays, their memory, a window."""


class MatrixStore(Protocol):
    """A slower and larger place that outlives the process; never raises, whatever befalls it."""

    def find(self, keys: Sequence[bytes]) -> Mapping[bytes, EncodedDocument]:
        """Give those documents that are there."""
        ...

    def put(self, key: bytes, document: EncodedDocument) -> None:
        """Store a document soon; does not wait for it."""
        ...

    def close(self) -> None:
        """Store what waits and let go."""
        ...


class TokenMatrixCache:
    """Encoded documents by key, of at most `max_bytes`; least recently used ones go first.

    What is found in the store alone moves up into memory. Thread-safe.
    """

    def __init__(self, max_bytes: int, store: MatrixStore | None = None) -> None:
        self._max_bytes = max_bytes
        self._store = store
        self._lock = threading.Lock()
        self._documents: OrderedDict[bytes, EncodedDocument] = OrderedDict()
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """How much memory the documents take, with the objects around their numbers."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._documents)

    def find(self, keys: Sequence[bytes]) -> list[EncodedDocument | None]:
        """Look documents up, in order, and count hits and misses; may read the disk."""
        found: dict[bytes, EncodedDocument] = {}
        with self._lock:
            for key in keys:
                document = self._documents.get(key)
                if document is not None:
                    self._documents.move_to_end(key)
                    found[key] = document
        if self._store is not None and len(found) < len(keys):
            stored = self._store.find([key for key in keys if key not in found])
            self._remember(stored.items())
            found.update(stored)
        documents = [found.get(key) for key in keys]
        _count(documents)
        return documents

    def holds(self, keys: Sequence[bytes]) -> list[bool]:
        """Tell which documents are in memory; neither counts, nor uses them, nor asks the store."""
        with self._lock:
            return [key in self._documents for key in keys]

    def put(self, key: bytes, document: EncodedDocument) -> None:
        """Keep a document."""
        self._remember([(key, document)])
        if self._store is not None:
            self._store.put(key, document)

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store.close()

    def _remember(self, items: Iterable[tuple[bytes, EncodedDocument]]) -> None:
        with self._lock:
            for key, document in items:
                size = size_of(document)
                if size > self._max_bytes:
                    continue  # it would drive out everything and still not fit
                replaced = self._documents.pop(key, None)
                self._bytes += size - (0 if replaced is None else size_of(replaced))
                self._documents[key] = document
            while self._bytes > self._max_bytes:
                _, oldest = self._documents.popitem(last=False)
                self._bytes -= size_of(oldest)
            metrics.CACHE_BYTES.labels(cache=_NAME).set(self._bytes)


def size_of(document: EncodedDocument) -> int:
    """Count the bytes of a document in memory, with the objects around its numbers."""
    numbers = sum(matrix.levels.nbytes + matrix.scales.nbytes for matrix in document.matrices)
    return _ENTRY_BYTES + _MATRIX_BYTES * len(document.matrices) + numbers


def _count(documents: Sequence[EncodedDocument | None]) -> None:
    misses = documents.count(None)
    metrics.CACHE_LOOKUPS.labels(cache=_NAME, result="hit").inc(len(documents) - misses)
    metrics.CACHE_LOOKUPS.labels(cache=_NAME, result="miss").inc(misses)
