"""Between the messages of rerank.proto and the engine's values; no decisions are taken here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

from rerank_sidecar.api.vectors import read_message
from rerank_sidecar.errors import InvalidField, error_row
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    ModelDescription,
    ModelReference,
    Normalization,
    RankedDocument,
    RerankOptions,
    RerankRequest,
    RerankResult,
    RerankSummary,
    Score,
    StreamSummary,
    Timing,
    Truncation,
    TruncationSide,
    Usage,
    Vectors,
)
from rerank_sidecar.v1 import rerank_pb2 as pb

_T = TypeVar("_T")

_POLICIES: Mapping[int, LongDocumentPolicy | None] = {
    pb.LONG_DOCUMENT_POLICY_UNSPECIFIED: None,
    pb.LONG_DOCUMENT_POLICY_CHUNK: LongDocumentPolicy.CHUNK,
    pb.LONG_DOCUMENT_POLICY_TRUNCATE: LongDocumentPolicy.TRUNCATE,
    pb.LONG_DOCUMENT_POLICY_REJECT: LongDocumentPolicy.REJECT,
}
_SIDES: Mapping[int, TruncationSide] = {
    pb.TRUNCATION_SIDE_UNSPECIFIED: TruncationSide.RIGHT,
    pb.TRUNCATION_SIDE_RIGHT: TruncationSide.RIGHT,
    pb.TRUNCATION_SIDE_LEFT: TruncationSide.LEFT,
}
_NORMALIZATIONS: Mapping[int, Normalization | None] = {
    pb.NORMALIZATION_UNSPECIFIED: None,
    pb.NORMALIZATION_NONE: Normalization.NONE,
    pb.NORMALIZATION_UNIT: Normalization.UNIT,
    pb.NORMALIZATION_LOGIT: Normalization.LOGIT,
}


def read_request(message: pb.RerankRequest, timeout_s: float | None) -> RerankRequest:
    """Read a unary request; `timeout_s` is what is left of the call's deadline, in seconds.

    Raises:
        InvalidField: an enum has a number that this server does not know, or vectors are none.
    """
    return RerankRequest(
        query=message.query,
        documents=read_documents(message.documents),
        options=read_options(message.options, timeout_s, _query_vectors(message)),
    )


def read_start(message: pb.RerankStreamStart, timeout_s: float | None) -> RerankOptions:
    """Read all of a stream's first message but the query's text.

    Raises:
        InvalidField: an enum has a number that this server does not know, or the query's vectors
            are none.
    """
    return read_options(message.options, timeout_s, _query_vectors(message))


def read_options(
    message: pb.RerankOptions, timeout_s: float | None, query_vectors: Vectors | None = None
) -> RerankOptions:
    """Read the options, with an unset field as None where unset differs from zero.

    Raises:
        InvalidField: an enum has a number that this server does not know.
    """
    threshold = message.score_threshold if message.HasField("score_threshold") else None
    return RerankOptions(
        model=message.model or None,
        top_n=message.top_n if message.HasField("top_n") else None,
        return_documents=message.return_documents,
        score_threshold=threshold,
        truncation=_read_truncation(message.truncation),
        long_document_policy=_read_enum(
            _POLICIES, message.long_document_policy, "long_document_policy"
        ),
        priority=message.priority,
        normalization=_read_enum(_NORMALIZATIONS, message.normalization, "normalization"),
        timeout_s=timeout_s,
        query_vectors=query_vectors,
    )


def read_documents(messages: Iterable[pb.Document], first: int = 0) -> tuple[Document, ...]:
    """Read candidates in their order; `first` is the index of the first.

    Raises:
        InvalidField: the vectors of one are none.
    """
    return tuple(
        Document(
            message.text,
            message.id if message.HasField("id") else None,
            _vectors(message, index) if message.HasField("vectors") else None,
        )
        for index, message in enumerate(messages, first)
    )


def _vectors(message: pb.Document, index: int) -> Vectors:
    return read_message(message.vectors, f"documents[{index}].vectors")


def _query_vectors(message: pb.RerankRequest | pb.RerankStreamStart) -> Vectors | None:
    if not message.HasField("query_vectors"):
        return None
    return read_message(message.query_vectors, "query_vectors")


def write_response(result: RerankResult) -> pb.RerankResponse:
    """Write the answer to a unary request."""
    response = pb.RerankResponse(summary=_write_summary(result.summary))
    for ranked in result.results:
        _write_ranked(ranked, response.results.add())
    return response


def write_event(event: RankedDocument | StreamSummary) -> pb.RerankStreamResponse:
    """Write one message of a stream: a document's outcome, or the summary that ends it."""
    if isinstance(event, RankedDocument):
        return pb.RerankStreamResponse(result=write_ranked(event))
    summary = _write_summary(event.summary)
    return pb.RerankStreamResponse(
        summary=pb.RerankStreamSummary(order=event.order, summary=summary)
    )


def write_ranked(ranked: RankedDocument) -> pb.RerankResult:
    """Write what became of one document."""
    message = pb.RerankResult()
    _write_ranked(ranked, message)
    return message


def write_models(models: Iterable[ModelDescription]) -> pb.ListModelsResponse:
    """Write the list of models, the default first as the engine gives it."""
    return pb.ListModelsResponse(models=[write_model(model) for model in models])


def _read_truncation(message: pb.Truncation) -> Truncation:
    is_limited = message.HasField("max_tokens_per_document")
    return Truncation(
        max_tokens_per_document=message.max_tokens_per_document if is_limited else None,
        side=_read_enum(_SIDES, message.side, "truncation.side"),
    )


def _read_enum(values: Mapping[int, _T], number: int, field: str) -> _T:
    # proto3 enums are open: a newer client's value arrives as a number and must not be ignored.
    if number not in values:
        raise InvalidField(f"{field}: unknown value {number}", field)
    return values[number]


# Written in place: building a message from others copies them, which takes four times as long.
def _write_ranked(ranked: RankedDocument, message: pb.RerankResult) -> None:
    message.index = ranked.index
    if ranked.id is not None:
        message.id = ranked.id
    if ranked.document is not None:
        _write_document(ranked.document, message.document)
    if ranked.score is not None:
        _write_score(ranked.score, message.score)
    if ranked.error is not None:
        message.error.reason = error_row(ranked.error).reason
        message.error.message = ranked.error.message


def _write_document(document: Document, message: pb.Document) -> None:
    message.SetInParent()
    message.text = document.text
    if document.id is not None:
        message.id = document.id


def _write_score(score: Score, message: pb.Score) -> None:
    message.SetInParent()
    message.value = score.value
    message.truncated = score.truncated
    message.window_count = score.window_count
    if score.best_window is not None:
        message.best_window.SetInParent()
        message.best_window.start = score.best_window.start
        message.best_window.end = score.best_window.end


def _write_summary(summary: RerankSummary) -> pb.RerankSummary:
    return pb.RerankSummary(
        model=_write_reference(summary.model),
        score_kind=f"SCORE_KIND_{summary.score_kind.name}",
        normalization=f"NORMALIZATION_{summary.normalization.name}",
        query_truncated=summary.query_truncated,
        usage=_write_usage(summary.usage),
        timing=_write_timing(summary.timing),
        fallback_for=summary.fallback_for,
    )


def _write_reference(model: ModelReference) -> pb.ModelReference:
    return pb.ModelReference(name=model.name, version=model.version)


def _write_usage(usage: Usage) -> pb.Usage:
    return pb.Usage(
        tokens=usage.tokens,
        pairs=usage.pairs,
        cache_hits=usage.cache_hits,
        remote_calls=usage.remote_calls,
    )


def _write_timing(timing: Timing) -> pb.Timing:
    return pb.Timing(
        queue_us=timing.queue_us,
        tokenise_us=timing.tokenise_us,
        infer_us=timing.infer_us,
        total_us=timing.total_us,
    )


def write_model(model: ModelDescription) -> pb.Model:
    """Write what is known of a model."""
    return pb.Model(
        model=_write_reference(model.model),
        family=model.family,
        score_kind=f"SCORE_KIND_{_name(model.score_kind)}",
        max_tokens=model.max_tokens,
        comparable_across_requests=model.comparable_across_requests,
        is_default=model.is_default,
        default_long_document_policy=(
            f"LONG_DOCUMENT_POLICY_{_name(model.default_long_document_policy)}"
        ),
        aliases=model.aliases,
        is_loaded=model.is_loaded,
        vector_dimension=model.vector_dimension,
    )


def _name(value: Enum | None) -> str:
    return "UNSPECIFIED" if value is None else value.name
