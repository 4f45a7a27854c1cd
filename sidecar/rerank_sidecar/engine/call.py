"""One request on its way through a reranker: numbering, isolation of failures, totals."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from rerank_sidecar.engine.ordering import order
from rerank_sidecar.engine.validation import check_count, check_document
from rerank_sidecar.errors import InternalError, NonFiniteScore, RerankError, error_row
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Meter,
    Outcome,
    Reranker,
    ScoreOptions,
)
from rerank_sidecar.score_kinds import to_unit
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.types import (
    Document,
    ModelReference,
    Normalization,
    RankedDocument,
    RerankOptions,
    RerankSummary,
    Score,
    StreamSummary,
    Timing,
    Usage,
)

_LOG = logging.getLogger(__name__)


class Call:
    """The state of one request: which documents came, what became of them, what it cost."""

    def __init__(
        self, reranker: Reranker, query: str, options: RerankOptions, settings: Settings
    ) -> None:
        self._reranker = reranker
        self._query = query
        self._options = options
        self._settings = settings
        self._started = time.monotonic()
        self._meter = Meter()
        self._waiting: dict[int, Document] = {}
        self._refused: list[RankedDocument] = []
        self._count = 0
        self._scores: dict[int, float] = {}
        timeout_s = options.timeout_s
        self.deadline = None if timeout_s is None else self._started + timeout_s

    async def outcomes(
        self, documents: AsyncIterator[Sequence[Document]]
    ) -> AsyncGenerator[RankedDocument, None]:
        """Yield what became of each document, once each."""
        scoring = self._reranker.score(self._query, self._numbered(documents), self._how())
        async with aclosing(scoring) as outcomes:
            async for index, outcome in outcomes:
                for refused in self._take_refused():
                    yield refused
                yield self._ranked(index, outcome)
        for refused in self._take_refused():
            yield refused
        for index in list(self._waiting):
            _LOG.error("the reranker %s lost a document", self._reranker.info.name)
            yield self._ranked(index, InternalError("the document was not scored"))

    def summary(self) -> StreamSummary:
        """Give the order and the totals; meaningful once every outcome has been yielded."""
        info, meter = self._reranker.info, self._meter
        total_s = time.monotonic() - self._started
        self._count_metrics(total_s)
        return StreamSummary(
            order=order(self._scores.items(), self._options, info.score_kind),
            summary=RerankSummary(
                model=ModelReference(info.name, info.version),
                score_kind=info.score_kind,
                normalization=self._options.normalization,
                query_truncated=meter.query_truncated,
                usage=Usage(meter.tokens, meter.pairs, meter.cache_hits),
                timing=Timing(
                    queue_us=_microseconds(meter.queue_s),
                    tokenise_us=_microseconds(meter.tokenise_s),
                    infer_us=_microseconds(meter.infer_s),
                    total_us=_microseconds(total_s),
                ),
            ),
        )

    def _how(self) -> ScoreOptions:
        policy = self._options.long_document_policy or self._settings.long_document_policy
        return ScoreOptions(
            truncation=self._options.truncation,
            long_document_policy=policy or self._reranker.info.default_long_document_policy,
            priority=self._options.priority,
            deadline=self.deadline,
            meter=self._meter,
        )

    async def _numbered(
        self, documents: AsyncIterator[Sequence[Document]]
    ) -> AsyncIterator[IndexedDocuments]:
        async for group in documents:
            first, self._count = self._count, self._count + len(group)
            check_count(self._count, self._settings)
            accepted = [pair for pair in enumerate(group, first) if self._accepts(*pair)]
            self._waiting.update(accepted)
            if accepted:
                yield accepted

    def _accepts(self, index: int, document: Document) -> bool:
        error = check_document(index, document, self._settings)
        if error is not None:
            self._refused.append(self._failed(index, document, error))
        return error is None

    def _take_refused(self) -> list[RankedDocument]:
        refused, self._refused = self._refused, []
        return refused

    def _ranked(self, index: int, outcome: Outcome) -> RankedDocument:
        document = self._waiting.pop(index)
        if isinstance(outcome, RerankError):
            return self._failed(index, document, outcome)
        value = self._on_returned_scale(outcome.value)
        if not math.isfinite(value):
            return self._failed(index, document, NonFiniteScore("the model gave no finite score"))
        self._scores[index] = value
        score = Score(value, outcome.best_window, outcome.truncated, outcome.window_count)
        return RankedDocument(index, score=score, id=document.id, document=self._returned(document))

    def _failed(self, index: int, document: Document, error: RerankError) -> RankedDocument:
        metrics.DOCUMENTS_FAILED.labels(reason=error_row(error).reason).inc()
        return RankedDocument(index, error=error, id=document.id, document=self._returned(document))

    def _returned(self, document: Document) -> Document | None:
        return document if self._options.return_documents else None

    def _on_returned_scale(self, value: float) -> float:
        if self._options.normalization is Normalization.NONE or not math.isfinite(value):
            return value
        return to_unit(self._reranker.info.score_kind, value, self._count)

    def _count_metrics(self, total_s: float) -> None:
        name = self._reranker.info.name
        metrics.REQUEST_SECONDS.labels(model=name).observe(total_s)
        metrics.DOCUMENTS.labels(model=name).inc(len(self._scores))
        metrics.TOKENS.labels(model=name).inc(self._meter.tokens)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
