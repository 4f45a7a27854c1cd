"""Whether Weaviate's reranker module is why a query failed, and what that means for `on_error`."""

from __future__ import annotations

import logging
import re
import threading

import grpc
from weaviate.exceptions import WeaviateQueryError

from rerank_adapters.errors import DeadlineExceeded, RerankCallError, Unavailable

_BY_MODULE = "extend rerank: "
"""What Weaviate puts before the words of a reranker module (usecases/modules/modules.go)."""

_NO_KEY = "no api key found"
_STATUS = re.compile(r"status:? (\d{3})")
_CALLERS_FAULT = frozenset(range(400, 500)) - {408, 429}

_LOG = logging.getLogger("rerank_adapters")


def module_fault(error: WeaviateQueryError) -> RerankCallError | None:
    """Give the error for which a query may be answered without reranking.

    None: the search itself failed, or the sidecar refused it for what the caller or the collection
    asks for, which would never get better. The cause of what is given is Weaviate's own error; that
    may show documents, so the message does not repeat it.
    """
    words = error.message
    fault = _fault(words)
    if fault is not None:
        fault.__cause__ = error
    return fault


def _fault(words: str) -> RerankCallError | None:
    if "deadline exceeded" in words.lower() and _BY_MODULE not in words:
        return DeadlineExceeded(
            grpc.StatusCode.DEADLINE_EXCEEDED, None, "Weaviate did not rerank in time"
        )
    if _BY_MODULE not in words or _NO_KEY in words:
        return None
    status = _STATUS.search(words)
    if status is None:
        said = "its reranker did not answer"
    elif int(status[1]) in _CALLERS_FAULT:
        return None
    else:
        said = f"its reranker answered {status[1]}"
    return Unavailable(grpc.StatusCode.UNAVAILABLE, None, f"Weaviate could not rerank: {said}")


class PassThroughs:
    """Counts and logs the queries that came back in Weaviate's own order, for an error."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Give how many there were."""
        return self._count

    def add(self, fault: RerankCallError) -> None:
        """Count one."""
        with self._lock:
            self._count += 1
        _LOG.warning("not reranked: %s", fault.reason or fault.code.name)
