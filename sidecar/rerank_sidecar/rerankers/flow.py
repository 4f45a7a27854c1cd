"""The way of documents through a model: read in threads, scored by the scheduler, told at once.

A group of documents arrives. Those whose encoding is known are scored in one go. The rest is
tokenised and cut into windows; every window is submitted as one sequence; the windows of a document
fold into one score, the best. An outcome is yielded as soon as it is known, while later groups are
still arriving or being read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Protocol

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.scheduler import Completion, Scheduler
from rerank_sidecar.errors import Cancelled, ServerFault
from rerank_sidecar.rerankers.arrivals import closing as closing_documents
from rerank_sidecar.rerankers.arrivals import in_parts
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, ScoreOptions
from rerank_sidecar.rerankers.reading import (
    DocumentReading,
    Finish,
    TooLong,
    WindowScore,
    best_of,
)

Outcomes = Sequence[tuple[int, Outcome]]

_RECALLED_AT_ONCE = 128
"""Enough for a usual request to be one visit to a thread; of the longest, some 200 MB."""


class QueryReading(Protocol):
    """A query that is being read: how to read and score documents against it."""

    async def recall(self, group: IndexedDocuments) -> tuple[Outcomes, IndexedDocuments]:
        """Score the documents that need no forward pass, and give the others back."""
        ...

    async def read(self, texts: Sequence[str]) -> list[DocumentReading | TooLong]:
        """Tokenise documents and cut them into windows, unless they may not be cut."""
        ...

    async def finish(self) -> Finish:
        """Wait until windows can be scored and give how; asked again for each group."""
        ...

    def close(self) -> None:
        """Drop what is still running for the query."""
        ...


class DocumentFlow:
    """One request's documents on their way through a scheduler.

    An error of our own making (ServerFault) is the outcome of the document that it struck; any
    other error, such as a deadline that passed, is raised for the whole request.
    """

    def __init__(self, scheduler: Scheduler, options: ScoreOptions) -> None:
        self._scheduler = scheduler
        self._options = options
        self._pending: dict[int, _Pending] = {}
        self._events: asyncio.Queue[Outcomes | BaseException | None] = asyncio.Queue()
        self._is_fed = False
        self._unscored_tokens = 0
        self._fewer_tokens = asyncio.Event()
        self._place = 0.0

    async def outcomes(
        self, read_query: Callable[[], QueryReading], documents: AsyncIterator[IndexedDocuments]
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Yield each document's outcome as it is known.

        However this ends, the iterator of documents is closed and nothing is left running.
        """
        with closing(read_query()) as query:
            feeding = asyncio.create_task(self._feed(query, documents))
            feeding.add_done_callback(self._on_fed)
            try:
                while (event := await self._events.get()) is not None:
                    if isinstance(event, BaseException):
                        raise event
                    for outcome in event:
                        yield outcome
            finally:
                feeding.cancel()  # it submits nothing from here on
                self._drop_pending()
                await asyncio.wait([feeding])

    async def _feed(self, query: QueryReading, documents: AsyncIterator[IndexedDocuments]) -> None:
        async with closing_documents(documents):
            async for group in documents:
                self._place = max(self._place, time.monotonic())
                for part in in_parts(group, _RECALLED_AT_ONCE):
                    await self._score(part, query)

    async def _score(self, documents: IndexedDocuments, query: QueryReading) -> None:
        known, unknown = await query.recall(documents)
        if known:
            self._events.put_nowait(known)
        for part in in_parts(unknown):
            await self._submit(part, query)

    def _on_fed(self, feeding: asyncio.Task[None]) -> None:
        self._is_fed = True
        error = _error_of(feeding)
        if error is not None:
            self._events.put_nowait(error)
        self._end_if_done()

    async def _submit(self, part: IndexedDocuments, query: QueryReading) -> None:
        readings = await query.read([document.text for _, document in part])
        finish = await query.finish()
        together: list[tuple[int, DocumentReading]] = []
        for (index, _), reading in zip(part, readings, strict=True):
            if isinstance(reading, TooLong):
                self._events.put_nowait([(index, reading.error(index))])
                continue
            together.append((index, reading))
            self._unscored_tokens += sum(map(len, reading.sequences))
            if self._has_its_share():
                self._submit_together(together, finish)
                together = []
                await self._until_below_share()
        self._submit_together(together, finish)

    def _has_its_share(self) -> bool:
        return self._unscored_tokens >= self._scheduler.fair_share_tokens

    async def _until_below_share(self) -> None:
        # So a request of thousands of documents does not stand before a small one that came later.
        while self._has_its_share():
            self._fewer_tokens.clear()
            await self._fewer_tokens.wait()

    def _submit_together(self, read: list[tuple[int, DocumentReading]], finish: Finish) -> None:
        options = self._options
        sequences = [sequence for _, reading in read for sequence in reading.sequences]
        futures = iter(
            self._scheduler.submit(
                sequences,
                finish,
                priority=options.priority,
                deadline=options.deadline,
                since=self._place,
            )
        )
        # Later turns stand in the queue where they would on an idle server: behind who came by
        # then, but not behind all who came since, or each turn would wait for a whole queue
        # (Zhang, "VirtualClock", SIGCOMM 1990).
        self._place += sum(map(len, sequences)) / self._scheduler.tokens_per_s
        for index, reading in read:
            options.meter.query_truncated |= reading.query_truncated
            self._follow(_Pending(index, reading, [next(futures) for _ in reading.sequences]))

    def _follow(self, pending: _Pending) -> None:
        self._pending[pending.index] = pending
        for position, future in enumerate(pending.futures):
            future.add_done_callback(partial(self._on_scored, pending, position))

    def _on_scored(
        self, pending: _Pending, position: int, future: asyncio.Future[Completion[WindowScore]]
    ) -> None:
        self._unscored_tokens -= len(pending.reading.sequences[position])
        self._fewer_tokens.set()
        error = _error_of(future)
        if pending.index not in self._pending:
            return
        if error is None:
            completion = future.result()
            self._count(completion, pending.reading.sequences[position])
            if pending.take(position, completion.value):
                self._decide(pending, pending.fold())
        elif isinstance(error, ServerFault):
            self._decide(pending, error)
        else:
            self._events.put_nowait(error)

    def _count(self, completion: Completion[Any], sequence: TokenSequence) -> None:
        meter = self._options.meter
        meter.pairs += 1
        meter.tokens += len(sequence)
        meter.shared_tokens += len(sequence) if completion.shared else 0
        meter.queue_s = max(meter.queue_s, completion.queue_s)
        meter.infer_s += completion.infer_s

    def _decide(self, pending: _Pending, outcome: Outcome) -> None:
        del self._pending[pending.index]
        pending.cancel()
        self._events.put_nowait([(pending.index, outcome)])
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._is_fed and not self._pending:
            self._events.put_nowait(None)

    def _drop_pending(self) -> None:
        dropped, self._pending = self._pending, {}
        for pending in dropped.values():
            pending.cancel()


class _Pending:
    """A document whose windows are being scored."""

    def __init__(
        self,
        index: int,
        reading: DocumentReading,
        futures: list[asyncio.Future[Completion[WindowScore]]],
    ) -> None:
        self.index = index
        self.reading = reading
        self.futures = futures
        self._scores: dict[int, WindowScore] = {}

    def take(self, position: int, score: WindowScore) -> bool:
        """Note the score of a window; tell whether it was the last one."""
        self._scores[position] = score
        return len(self._scores) == len(self.futures)

    def fold(self) -> Outcome:
        """Give the best window's score; among equals the earliest wins."""
        scores = [self._scores[position] for position in range(len(self.futures))]
        if self.reading.keep is not None:
            self.reading.keep(scores)
        return best_of(
            [score.value for score in scores],
            self.reading.windows,
            truncated=self.reading.truncated,
        )

    def cancel(self) -> None:
        """Drop the windows that have not been scored."""
        for future in self.futures:
            future.cancel()


def _error_of(future: asyncio.Future[Any]) -> BaseException | None:
    if future.cancelled():
        return Cancelled("the request was cancelled")
    return future.exception()
