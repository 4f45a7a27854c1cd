"""The way of documents through a model: read in threads, scored by the scheduler, told at once.

A group of documents arrives; a thread tokenises it and cuts it into windows; every window is
submitted as one sequence; the windows of a document fold into one score, the best; its outcome is
yielded as soon as it is known, while later groups are still arriving or being read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol, TypeVar

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.scheduler import Completion, Scheduler
from rerank_sidecar.errors import Cancelled, ServerFault
from rerank_sidecar.rerankers.arrivals import closing, in_parts
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, ScoreOptions
from rerank_sidecar.rerankers.reading import DocumentReading, Finish
from rerank_sidecar.types import Score

T = TypeVar("T")


class QueryReading(Protocol):
    """A query that has been read: how to read and score documents against it."""

    def read(self, texts: Sequence[str]) -> list[DocumentReading]:
        """Tokenise documents and cut them into windows; runs in a thread."""
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
    other error, such as a deadline that passed, is raised for the whole request. `executor` runs
    the tokeniser; None is the event loop's own.
    """

    def __init__(
        self, scheduler: Scheduler, options: ScoreOptions, executor: Executor | None
    ) -> None:
        self._scheduler = scheduler
        self._options = options
        self._executor = executor
        self._pending: dict[int, _Pending] = {}
        self._events: asyncio.Queue[tuple[int, Outcome] | BaseException | None] = asyncio.Queue()
        self._is_fed = False
        self._unscored_tokens = 0
        self._fewer_tokens = asyncio.Event()

    async def in_thread(self, read: Callable[[Sequence[str]], T], texts: Sequence[str]) -> T:
        """Run something that tokenises in a thread, and meter its time."""
        loop = asyncio.get_running_loop()
        result, seconds = await loop.run_in_executor(self._executor, _timed, read, texts)
        self._options.meter.tokenise_s += seconds
        return result

    def count(self, completion: Completion[Any], sequence: TokenSequence) -> None:
        """Meter what a sequence has cost."""
        meter = self._options.meter
        meter.tokens += len(sequence)
        meter.queue_s = max(meter.queue_s, completion.queue_s)
        meter.infer_s += completion.infer_s

    async def outcomes(
        self,
        read_query: Callable[[], Awaitable[QueryReading]],
        documents: AsyncIterator[IndexedDocuments],
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Yield each document's outcome as it is known.

        However this ends, the iterator of documents is closed and nothing is left running.
        """
        feeding = asyncio.create_task(self._feed(read_query, documents))
        feeding.add_done_callback(self._on_fed)
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            feeding.cancel()  # it submits nothing from here on
            self._drop_pending()
            await asyncio.wait([feeding])

    async def _feed(
        self,
        read_query: Callable[[], Awaitable[QueryReading]],
        documents: AsyncIterator[IndexedDocuments],
    ) -> None:
        async with closing(documents):
            query = await read_query()
            try:
                async for group in documents:
                    for part in in_parts(group):
                        await self._submit(part, query)
            finally:
                query.close()

    def _on_fed(self, feeding: asyncio.Task[None]) -> None:
        self._is_fed = True
        error = _error_of(feeding)
        if error is not None:
            self._events.put_nowait(error)
        self._end_if_done()

    async def _submit(self, part: IndexedDocuments, query: QueryReading) -> None:
        readings = await self.in_thread(query.read, [document.text for _, document in part])
        finish = await query.finish()
        together: list[tuple[int, DocumentReading]] = []
        for (index, _), reading in zip(part, readings, strict=True):
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
        futures = iter(
            self._scheduler.submit(
                [sequence for _, reading in read for sequence in reading.sequences],
                finish,
                priority=options.priority,
                deadline=options.deadline,
            )
        )
        for index, reading in read:
            options.meter.query_truncated |= reading.query_truncated
            self._follow(_Pending(index, reading, [next(futures) for _ in reading.sequences]))

    def _follow(self, pending: _Pending) -> None:
        self._pending[pending.index] = pending
        for position, future in enumerate(pending.futures):
            future.add_done_callback(partial(self._on_scored, pending, position))

    def _on_scored(
        self, pending: _Pending, position: int, future: asyncio.Future[Completion[float]]
    ) -> None:
        self._unscored_tokens -= len(pending.reading.sequences[position])
        self._fewer_tokens.set()
        error = _error_of(future)
        if pending.index not in self._pending:
            return
        if error is None:
            completion = future.result()
            self.count(completion, pending.reading.sequences[position])
            self._options.meter.pairs += 1
            if pending.take(position, completion.value):
                self._decide(pending, pending.fold())
        elif isinstance(error, ServerFault):
            self._decide(pending, error)
        else:
            self._events.put_nowait(error)

    def _decide(self, pending: _Pending, outcome: Outcome) -> None:
        del self._pending[pending.index]
        pending.cancel()
        self._events.put_nowait((pending.index, outcome))
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
        futures: list[asyncio.Future[Completion[float]]],
    ) -> None:
        self.index = index
        self.reading = reading
        self.futures = futures
        self._scores: dict[int, float] = {}

    def take(self, position: int, score: float) -> bool:
        """Note the score of a window; tell whether it was the last one."""
        self._scores[position] = score
        return len(self._scores) == len(self.futures)

    def fold(self) -> Score:
        """Give the best window's score; among equals the earliest wins."""
        best = max(range(len(self.futures)), key=self._scores.__getitem__)
        windows = self.reading.windows
        return Score(
            value=self._scores[best],
            best_window=windows[best] if windows else None,
            truncated=self.reading.truncated,
            window_count=len(self.futures),
        )

    def cancel(self) -> None:
        """Drop the windows that have not been scored."""
        for future in self.futures:
            future.cancel()


def _error_of(future: asyncio.Future[Any]) -> BaseException | None:
    if future.cancelled():
        return Cancelled("the request was cancelled")
    return future.exception()


def _timed(read: Callable[[Sequence[str]], T], texts: Sequence[str]) -> tuple[T, float]:
    started = time.perf_counter()
    result = read(texts)
    return result, time.perf_counter() - started
