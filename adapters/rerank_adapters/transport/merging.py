"""Answers made here: of the parts of a split call, and of a call that was passed through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import grpc

from rerank_adapters.errors import InvalidField, RerankCallError, Unavailable
from rerank_adapters.messages import (
    Document,
    DocumentError,
    RerankOptions,
    RerankResponse,
    RerankResult,
    Timing,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Part:
    """The answer to some of a call's documents, and the index of the first of them."""

    start: int
    response: RerankResponse


def merge(parts: Sequence[Part], options: RerankOptions) -> RerankResponse:
    """Make one answer of those to the parts of a call, as if it had not been split.

    Usage and times are sums, since the parts were asked one after the other; waiting is the
    longest.

    Raises:
        Unavailable: they come from different models, and so do not belong together.
    """
    responses = [part.response for part in parts]
    if len({_scale(each) for each in responses}) > 1:
        message = "the model changed between the parts of a call; ask again"
        raise Unavailable(grpc.StatusCode.UNAVAILABLE, None, message)
    results = [
        moved(each, part.start + each.index) for part in parts for each in part.response.results
    ]
    scored = sorted(
        (each for each in results if each.score is not None), key=lambda each: -(each.score or 0.0)
    )
    failed = [each for each in results if each.score is None]
    return replace(
        responses[0],
        results=(*scored[: options.get("top_n")], *failed),
        query_truncated=any(each.query_truncated for each in responses),
        usage=_total_usage([each.usage for each in responses]),
        timing=_total_timing([each.timing for each in responses]),
    )


def passed_through(
    documents: Sequence[str | Document], options: RerankOptions, error: RerankCallError
) -> RerankResponse:
    """Give documents back as they came, the first `top_n` of them, with the error that did it.

    Raises:
        InvalidField: there is no such `top_n`, which the server has not come to tell.
    """
    top_n = options.get("top_n")
    if top_n is not None and top_n < 1:
        code, message = grpc.StatusCode.INVALID_ARGUMENT, "top_n: must be at least 1"
        raise InvalidField(code, "INVALID_FIELD", message, "options.top_n") from error
    taken = documents[:top_n]
    shown = options.get("return_documents", False)
    return RerankResponse(
        results=tuple(_unscored(index, each, shown) for index, each in enumerate(taken)),
        model="",
        model_version="",
        score_kind="UNSPECIFIED",
        normalization="unspecified",
        query_truncated=False,
        usage=Usage(0, 0, 0),
        timing=Timing(0, 0, 0, 0),
        passed_through=error,
    )


def _scale(response: RerankResponse) -> tuple[str, str, str, str]:
    return (response.model, response.model_version, response.score_kind, response.normalization)


def moved(result: RerankResult, index: int) -> RerankResult:
    """Give a result the index that its document has in a larger list."""
    return replace(result, index=index, error=_renamed(result.error, result.index, index))


def _renamed(error: DocumentError | None, index: int, new_index: int) -> DocumentError | None:
    # The server's message begins with the place of the document in the part that it was sent.
    name = f"documents[{index}]"
    if error is None or not error.message.startswith(name):
        return error
    return replace(error, message=f"documents[{new_index}]" + error.message.removeprefix(name))


def _total_usage(each: Sequence[Usage]) -> Usage:
    return Usage(
        tokens=sum(usage.tokens for usage in each),
        pairs=sum(usage.pairs for usage in each),
        cache_hits=sum(usage.cache_hits for usage in each),
        remote_calls=sum(usage.remote_calls for usage in each),
    )


def _total_timing(each: Sequence[Timing]) -> Timing:
    return Timing(
        queue_us=max(timing.queue_us for timing in each),
        tokenise_us=sum(timing.tokenise_us for timing in each),
        infer_us=sum(timing.infer_us for timing in each),
        total_us=sum(timing.total_us for timing in each),
    )


def _unscored(index: int, given: str | Document, shown: bool) -> RerankResult:
    document = Document(given) if isinstance(given, str) else given
    return RerankResult(
        index=index,
        id=document.id,
        score=None,
        error=None,
        best_window=None,
        truncated=False,
        window_count=0,
        document=document if shown else None,
    )
