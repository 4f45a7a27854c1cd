"""Calls with more than one query: a request for each, answered together, row by row."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.ordering import order
from rerank_sidecar.engine.validation import check_count
from rerank_sidecar.errors import NotSupportedByModel, RequestError
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    Normalization,
    PairRequest,
    RankedDocument,
    RerankOptions,
    RerankRequest,
    RerankResult,
    RerankSummary,
    Timing,
    Usage,
)

_AT_ONCE = 64
"""Requests of one call that run at once: enough to fill batches, too few to be the only caller."""


@dataclass(frozen=True, slots=True)
class Part:
    """One request of a call, and at which row of the answer each of its documents belongs."""

    request: RerankRequest
    rows: Sequence[int]


async def rerank_pairs(engine: Engine, request: PairRequest) -> RerankResult:
    """Score each document against the query of its own row; indexes are rows.

    Rows of one query are one request, so that a call with one query costs what `rerank` costs.
    Raises what `rerank_parts` raises.
    """
    rows_of: dict[str, list[int]] = {}
    for row, query in enumerate(request.queries):
        rows_of.setdefault(query, []).append(row)
    documents, options = request.documents, request.options
    parts = [
        Part(RerankRequest(query, tuple(documents[row] for row in rows), options), rows)
        for query, rows in (rows_of or {"": []}).items()
    ]
    return await rerank_parts(engine, parts)


async def rerank_parts(engine: Engine, parts: Sequence[Part]) -> RerankResult:
    """Answer at least one request as one, best row first; the first that fails fails them all.

    All are asked of one model and scale, without top_n. Totals are sums, waiting is the longest.

    Raises:
        LimitExceeded: they have more documents than one request may carry.
        NotSupportedByModel: queries in different scripts were answered by models whose scores
            cannot stand beside each other, or the model gives places among those of one query.
        RerankError: whatever `Engine.rerank` raises.
    """
    if len(parts) == 1 and list(parts[0].rows) == list(range(len(parts[0].rows))):
        return await engine.rerank(parts[0].request)
    model = parts[0].request.options.model
    check_count(sum(len(part.rows) for part in parts), engine.settings_of(model))
    began, turn = time.monotonic(), asyncio.Semaphore(_AT_ONCE)

    async def answer(request: RerankRequest) -> RerankResult:
        async with turn:
            left = _with_time_left(request.options, began, engine.settings.request_timeout_s)
            return await engine.rerank(replace(request, options=left))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(part.request)) for part in parts]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return _joined(parts, [task.result() for task in tasks], time.monotonic() - began)


def _with_time_left(options: RerankOptions, began: float, usual_s: float) -> RerankOptions:
    timeout_s = usual_s if options.timeout_s is None else options.timeout_s
    return replace(options, timeout_s=began + timeout_s - time.monotonic())


def _joined(parts: Sequence[Part], results: Sequence[RerankResult], total_s: float) -> RerankResult:
    summary = _summary([result.summary for result in results], total_s)
    found: dict[int, RankedDocument] = {}
    for part, result in zip(parts, results, strict=True):
        for each in result.results:
            found[part.rows[each.index]] = _at_row(part.rows[each.index], each)
    scores = [(row, each.score.value) for row, each in found.items() if each.score is not None]
    failed = sorted(row for row, each in found.items() if each.score is None)
    options = replace(parts[0].request.options, normalization=summary.normalization)
    best_first = order(scores, options, summary.score_kind)
    return RerankResult(tuple(found[row] for row in (*best_first, *failed)), summary)


def _at_row(row: int, ranked: RankedDocument) -> RankedDocument:
    error, name = ranked.error, f"documents[{ranked.index}]"
    if isinstance(error, RequestError) and error.field == name:
        at_row = f"documents[{row}]"
        error = type(error)(at_row + error.message.removeprefix(name), at_row)
    return replace(ranked, index=row, error=error)


def _summary(summaries: Sequence[RerankSummary], total_s: float) -> RerankSummary:
    first = summaries[0]
    kinds = {each.score_kind for each in summaries}
    if len(summaries) > 1 and ScoreKind.RANK in kinds:
        raise NotSupportedByModel(
            "the model ranks the documents of one query, and here are several queries"
        )
    if len(kinds) > 1 and first.normalization is not Normalization.UNIT:
        raise NotSupportedByModel(
            "these queries are read by models whose scores differ in kind; ask for scores in "
            "[0, 1], or send queries in different scripts one by one"
        )
    return replace(
        first,
        query_truncated=any(each.query_truncated for each in summaries),
        fallback_for=next(filter(None, (each.fallback_for for each in summaries)), None),
        usage=Usage(
            tokens=sum(each.usage.tokens for each in summaries),
            pairs=sum(each.usage.pairs for each in summaries),
            cache_hits=sum(each.usage.cache_hits for each in summaries),
            remote_calls=sum(each.usage.remote_calls for each in summaries),
        ),
        timing=Timing(
            queue_us=max(each.timing.queue_us for each in summaries),
            tokenise_us=sum(each.timing.tokenise_us for each in summaries),
            infer_us=sum(each.timing.infer_us for each in summaries),
            total_us=round(total_s * 1_000_000),
        ),
    )
