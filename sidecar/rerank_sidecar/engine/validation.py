"""Checks of what every door hands to the engine; the message names the field and the limit."""

from __future__ import annotations

import math

from rerank_sidecar.errors import (
    DeadlineExceeded,
    InvalidField,
    LimitExceeded,
    NotSupportedByModel,
    RequestError,
)
from rerank_sidecar.rerankers.base import RerankerInfo
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Document, RerankOptions, Vectors

_MAX_PRIORITY = 2**31 - 1
"""What the contract's int32 holds."""


def check_request(query: str, options: RerankOptions, settings: Settings) -> None:
    """Refuse a request whose query or options are out of range.

    Raises:
        InvalidField: an option has a value that means nothing.
        LimitExceeded: the query is longer than the settings allow.
        DeadlineExceeded: the caller's time was over on arrival.
    """
    if exceeds(query, settings.max_query_bytes):
        raise LimitExceeded(f"query: over {settings.max_query_bytes} bytes", "query")
    _at_least_one(options.top_n, "top_n")
    if not -_MAX_PRIORITY <= options.priority <= _MAX_PRIORITY:
        raise InvalidField(f"priority: must be within {_MAX_PRIORITY} of 0", "priority")
    _at_least_one(options.truncation.max_tokens_per_document, "truncation.max_tokens_per_document")
    if options.score_threshold is not None and not math.isfinite(options.score_threshold):
        raise InvalidField("score_threshold: must be a finite number", "score_threshold")
    if options.timeout_s is not None and not options.timeout_s > 0:
        raise DeadlineExceeded("the deadline had passed when the request arrived")


def check_count(count: int, settings: Settings) -> None:
    """Refuse more documents than one request may carry.

    Raises:
        LimitExceeded: there are more than `max_documents`.
    """
    if count > settings.max_documents:
        raise LimitExceeded(f"documents: more than {settings.max_documents}", "documents")


def check_chunk(options: RerankOptions, info: RerankerInfo) -> None:
    """Refuse a part of a search for a model that has to see all of it.

    Raises:
        NotSupportedByModel: its scores cannot be compared with those of the other parts.
    """
    if options.is_chunk and not info.comparable_across_requests:
        raise NotSupportedByModel(
            f"model: scores of {info.name} mean something only within one request, and a search "
            "comes here in several",
            "model",
        )


def check_tokens(tokens: int, limit: int) -> None:
    """Refuse a request for which the model would have to read more tokens than one may cost.

    Raises:
        LimitExceeded: there are more than the limit, which is `max_request_tokens`.
    """
    if tokens > limit:
        raise LimitExceeded(
            f"documents: about {tokens} tokens to read with the query, over max_request_tokens, "
            f"which is {limit}",
            "documents",
        )


def check_document(
    index: int, document: Document, settings: Settings, info: RerankerInfo
) -> RequestError | None:
    """Give the error of a document that is too long, or whose vectors cannot be read, or None."""
    if document.vectors is not None:
        return _vectors_error(document.vectors, info, f"documents[{index}].vectors")
    if not exceeds(document.text, settings.max_document_bytes):
        return None
    return LimitExceeded(
        f"documents[{index}]: over {settings.max_document_bytes} bytes", f"documents[{index}]"
    )


def check_query_vectors(options: RerankOptions, info: RerankerInfo) -> None:
    """Refuse vectors of a query that the model cannot compare with those of documents.

    Raises:
        NotSupportedByModel: it reads no vectors.
        InvalidField: they have another dimension than the model's.
    """
    error = _vectors_error(options.query_vectors, info, "query_vectors")
    if error is not None:
        raise error


def _vectors_error(
    vectors: Vectors | None, info: RerankerInfo, field: str
) -> NotSupportedByModel | InvalidField | None:
    if vectors is None:
        return None
    if info.vector_dimension is None:
        return NotSupportedByModel(f"{field}: {info.name} reads texts only", field)
    dimension = vectors.shape[1]
    if dimension != info.vector_dimension:
        return InvalidField(
            f"{field}: {dimension} numbers each, where {info.name} has {info.vector_dimension}",
            field,
        )
    return None


def exceeds(text: str, max_bytes: int) -> bool:
    """Tell whether a text is longer than so many UTF-8 bytes, encoding it only when in doubt."""
    if len(text) * 4 <= max_bytes:
        return False
    return len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes


def _at_least_one(value: int | None, field: str) -> None:
    if value is not None and value < 1:
        raise InvalidField(f"{field}: must be at least 1; leave it out for no limit", field)
