"""One request on its way through a reranker: numbering, isolation of failures, totals."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from rerank_sidecar.engine.admission import Admission
from rerank_sidecar.engine.entry import Entry
from rerank_sidecar.engine.ordering import order
from rerank_sidecar.engine.score_cache import KnownScores, ScoreCache
from rerank_sidecar.engine.validation import check_count, check_document
from rerank_sidecar.errors import (
    DeadlineExceeded,
    InternalError,
    NonFiniteScore,
    NotSupportedByModel,
    RerankError,
    error_row,
)
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Meter,
    Outcome,
    Reranker,
    ScoreOptions,
    TokenCounter,
)
from rerank_sidecar.score_kinds import to_logit, to_unit
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


@dataclass(frozen=True, slots=True)
class Shared:
    """What all calls of an engine share, but for the settings, which are those of the model."""

    settings: Settings
    scores: ScoreCache
    admission: Admission


class Call:
    """The state of one request: which documents came, what became of them, what it cost.

    `started` is when it arrived, on the clock of `time.monotonic`; None is now.
    """

    def __init__(
        self,
        reranker: Reranker,
        query: str,
        options: RerankOptions,
        shared: Shared,
        started: float | None = None,
    ) -> None:
        self._reranker = reranker
        self._query = query
        self._settings = shared.settings
        self._normalization = options.normalization or self._settings.normalization
        self._options = options
        if options.normalization is None:
            self._options = replace(options, normalization=self._normalization)
        self._started = time.monotonic() if started is None else started
        self._meter = Meter()
        self._count = 0
        self._scores: dict[int, float] = {}
        self._token_counts: dict[int, int] = {}
        self._events: asyncio.Queue[RankedDocument | DeadlineExceeded | None] = asyncio.Queue()
        timeout_s = options.timeout_s
        self._deadline = self._started + (
            self._settings.request_timeout_s if timeout_s is None else timeout_s
        )
        self._how = self._score_options()
        self._known = KnownScores(shared.scores, reranker, query, self._how)
        self._entry = Entry(
            shared.admission,
            reranker,
            query,
            self._how,
            is_chunk=options.is_chunk,
            max_tokens=self._settings.max_request_tokens,
        )
        self._waiting: dict[int, Document] = {}

    async def outcomes(
        self, documents: AsyncIterator[Sequence[Document]]
    ) -> AsyncGenerator[RankedDocument, None]:
        """Yield what became of each document, once each and as soon as it is known.

        However this ends, nothing is left running.

        Raises:
            DeadlineExceeded: the deadline passed before every score was known.
        """
        scoring = asyncio.create_task(self._score(documents))
        scoring.add_done_callback(self._on_scored)
        timer = self._at_deadline()
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, DeadlineExceeded):
                    raise event
                yield event
            await scoring
        finally:
            timer.cancel()
            scoring.cancel()
            try:
                await asyncio.wait([scoring])
            finally:  # a second cancellation does not wait, and must not keep the ticket either
                self._entry.leave()

    def summary(self) -> StreamSummary:
        """Give the order and the totals; meaningful once every outcome has been yielded."""
        asked, meter = self._reranker.info, self._meter
        info = meter.answered_by or asked
        total_s = time.monotonic() - self._started
        timing = Timing(
            queue_us=_microseconds(meter.queue_s),
            tokenise_us=_microseconds(meter.tokenise_s),
            infer_us=_microseconds(meter.infer_s),
            total_us=_microseconds(total_s),
        )
        self._count_metrics(total_s, timing)
        return StreamSummary(
            order=order(self._scores.items(), self._options, info.score_kind),
            summary=RerankSummary(
                model=ModelReference(info.name, info.version),
                score_kind=info.score_kind,
                normalization=self._normalization,
                query_truncated=meter.query_truncated,
                usage=Usage(meter.tokens, meter.pairs, meter.cache_hits, meter.remote_calls),
                timing=timing,
                fallback_for=None if info is asked else asked.name,
            ),
        )

    def _on_scored(self, scoring: asyncio.Task[None]) -> None:
        if not scoring.cancelled():
            scoring.exception()  # taken note of: whoever left early does not want to know
        self._events.put_nowait(None)

    def _at_deadline(self) -> asyncio.TimerHandle:
        late = DeadlineExceeded("the deadline passed before every score was known")
        left_s = max(0.0, self._deadline - time.monotonic())
        return asyncio.get_running_loop().call_later(left_s, self._events.put_nowait, late)

    def _score_options(self) -> ScoreOptions:
        return ScoreOptions(
            truncation=self._options.truncation,
            # None is each model's own default; a combination's members have one each.
            long_document_policy=(
                self._options.long_document_policy or self._settings.long_document_policy
            ),
            priority=self._options.priority,
            deadline=self._deadline,
            meter=self._meter,
            query_vectors=self._options.query_vectors,
            is_chunk=self._options.is_chunk,
        )

    async def _score(self, documents: AsyncIterator[Sequence[Document]]) -> None:
        """Score what has to be; the reranker is not even asked if that is nothing."""
        async with aclosing(self._unknown(documents)) as unknown:
            first = await anext(unknown, None)
            if first is not None:
                await self._score_unknown(_chained(first, unknown))
        for index in list(self._waiting):
            _LOG.error("the reranker %s lost a document", self._reranker.info.name)
            self._tell(index, InternalError("the document was not scored"))

    async def _score_unknown(self, unknown: AsyncIterator[IndexedDocuments]) -> None:
        how = replace(self._how, priority=self._entry.priority)
        scoring = self._reranker.score(self._query, unknown, how)
        async with aclosing(scoring) as outcomes:
            async for index, outcome in outcomes:
                self._entry.progress()
                if self._meter.answered_by is None:  # or it is no score of the model that was asked
                    self._known.learn(index, outcome)
                self._tell(index, outcome)

    async def _unknown(
        self, documents: AsyncIterator[Sequence[Document]]
    ) -> AsyncGenerator[IndexedDocuments, None]:
        """Number what arrives, settle at once what can be, and give the rest, once admitted."""
        async for group in documents:
            first, self._count = self._count, self._count + len(group)
            check_count(self._count, self._settings)
            self._waiting.update(enumerate(group, first))
            accepted = [pair for pair in enumerate(group, first) if self._accepts(*pair)]
            if self._options.count_tokens:
                await self._count_tokens(accepted)
            unknown: list[tuple[int, Document]] = []
            known = await self._known.look_up(accepted)
            for pair, score in zip(accepted, known, strict=True):
                if score is None:
                    unknown.append(pair)
                else:
                    self._tell(pair[0], score)
            if unknown:
                await self._entry.admit([document for _, document in unknown], len(group))
                yield unknown

    async def _count_tokens(self, documents: IndexedDocuments) -> None:
        if not isinstance(self._reranker, TokenCounter):
            raise NotSupportedByModel("the model does not count the tokens of single documents")
        texts = [document for _, document in documents]
        counts = await asyncio.to_thread(self._reranker.count_tokens, self._query, texts, self._how)
        self._token_counts.update(
            (index, n) for (index, _), n in zip(documents, counts, strict=True)
        )

    def _accepts(self, index: int, document: Document) -> bool:
        error = check_document(index, document, self._settings, self._reranker.info)
        if error is not None:
            self._tell(index, error)
        return error is None

    def _tell(self, index: int, outcome: Outcome) -> None:
        self._events.put_nowait(self._ranked(index, outcome))

    def _ranked(self, index: int, outcome: Outcome) -> RankedDocument:
        document = self._waiting.pop(index)
        if isinstance(outcome, RerankError):
            return self._failed(index, document, outcome)
        value = self._on_returned_scale(outcome.value)
        if not math.isfinite(value):
            return self._failed(index, document, NonFiniteScore("the model gave no finite score"))
        self._scores[index] = value
        score = Score(value, outcome.best_window, outcome.truncated, outcome.window_count)
        return RankedDocument(
            index,
            score=score,
            id=document.id,
            document=self._returned(document),
            token_count=self._token_counts.get(index),
        )

    def _failed(self, index: int, document: Document, error: RerankError) -> RankedDocument:
        metrics.DOCUMENTS_FAILED.labels(reason=error_row(error).reason).inc()
        return RankedDocument(index, error=error, id=document.id, document=self._returned(document))

    def _returned(self, document: Document) -> Document | None:
        return document if self._options.return_documents else None

    def _on_returned_scale(self, value: float) -> float:
        info = self._meter.answered_by or self._reranker.info
        kind, normalization = info.score_kind, self._normalization
        if normalization is Normalization.NONE or not math.isfinite(value):
            return value
        if normalization is Normalization.LOGIT:
            return to_logit(kind, value)
        return to_unit(kind, value, self._count)

    def _count_metrics(self, total_s: float, timing: Timing) -> None:
        name = self._reranker.info.name
        metrics.REQUEST_SECONDS.labels(model=name).observe(total_s)
        metrics.count_stages(name, timing)
        metrics.DOCUMENTS.labels(model=name).inc(len(self._scores))
        metrics.TOKENS.labels(model=name).inc(self._meter.tokens - self._meter.shared_tokens)


async def _chained(
    first: IndexedDocuments, rest: AsyncIterator[IndexedDocuments]
) -> AsyncIterator[IndexedDocuments]:
    yield first
    async for group in rest:
        yield group


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
