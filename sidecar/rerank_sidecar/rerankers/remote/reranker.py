"""A model on another server: documents go there in several calls at once, outcomes come back."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any

from rerank_sidecar.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidField,
    NotSupportedByModel,
    RemoteFailed,
)
from rerank_sidecar.json_text import without_lone_surrogates
from rerank_sidecar.rerankers.arrivals import closing
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.rerankers.remote.base import (
    Answer,
    CallFailed,
    Question,
    StandIn,
    Traits,
)
from rerank_sidecar.rerankers.remote.calls import RemoteCalls
from rerank_sidecar.rerankers.remote.parts import Portions, in_calls
from rerank_sidecar.rerankers.remote.refusals import HARMLESS, Refusals
from rerank_sidecar.types import Document, Score, TruncationSide

Outcomes = Sequence[tuple[int, Outcome]]


class RemoteReranker:
    """Scores by a model of another server.

    A group of documents is sent as it arrives, cut into calls of the size that the server takes.
    Where scores mean something within one request only, all documents are waited for and go in one
    call. A call that the server refuses is asked again in halves, down to the documents that it
    will not have, unless it refuses the query with any document. Requests for a way of reading that
    the server does not offer are refused.
    """

    def __init__(
        self, info: RerankerInfo, traits: Traits, calls: RemoteCalls, portions: Portions
    ) -> None:
        self._server = _Server(info, traits, calls, portions)

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._server.info

    @property
    def tokens_per_s(self) -> float:
        """No forward pass of ours keeps anybody waiting: infinity."""
        return math.inf

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """There are no forward passes here: 0."""
        return 0

    def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents as they arrive and yield each outcome once, as soon as it is known.

        Raises:
            NotSupportedByModel: the request wants documents read in a way that the server lacks.
            RemoteFailed: the server failed, refused us, or answered what means nothing.
            RemoteUnavailable: it cannot be reached, or has failed too often a moment ago.
            Overloaded: it has too much to do, or we have for it.
            DeadlineExceeded: the deadline passed.
        """
        return _Request(self._server, query, options).outcomes(documents)


@dataclass(frozen=True, slots=True)
class _Server:
    """What all requests to one server have in common."""

    info: RerankerInfo
    traits: Traits
    calls: RemoteCalls
    portions: Portions


class _Request:
    """One request's documents on their way to the server and back."""

    def __init__(self, server: _Server, query: str, options: ScoreOptions) -> None:
        most = server.traits.max_characters
        self._info = server.info
        self._traits = server.traits
        self._calls = server.calls
        self._portions = server.portions
        self._query = _sendable(query[:most])
        self._query_was_cut = most is not None and len(query) > most
        self._options = options
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: asyncio.Queue[Outcomes | BaseException | None] = asyncio.Queue()
        # No request holds more turns than there are, so that a small one waits for few calls.
        self._turns = asyncio.Semaphore(server.calls.at_once)
        self._first_answer: Answer | None = None
        self._is_query_taken = False
        self._doubting = asyncio.Lock()

    async def outcomes(
        self, documents: AsyncIterator[IndexedDocuments]
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Yield each outcome; however this ends, nothing is left running."""
        self._start(self._feed(documents))
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                for outcome in event:
                    yield outcome
        finally:
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = Cancelled("the request was cancelled") if task.cancelled() else task.exception()
        if error is not None:
            self._events.put_nowait(error)
        elif not self._tasks:
            self._events.put_nowait(None)

    async def _feed(self, documents: AsyncIterator[IndexedDocuments]) -> None:
        async with closing(documents):
            _check_reading(self._traits, self._options)
            async with aclosing(self._groups(documents)) as groups:
                async for group in groups:
                    await self._send(self._in_calls(self._answerable(group)))

    async def _send(self, parts: Sequence[IndexedDocuments]) -> None:
        self._calls.check(len(parts), self._deadline())
        for part in parts:
            await self._turns.acquire()
            self._start(self._in_turn(part))

    async def _groups(
        self, documents: AsyncIterator[IndexedDocuments]
    ) -> AsyncGenerator[IndexedDocuments, None]:
        if self._traits.comparable_across_requests:
            async for group in documents:
                yield group
        else:
            yield [indexed async for group in documents for indexed in group]

    def _answerable(self, group: IndexedDocuments) -> IndexedDocuments:
        """Settle the documents that the server would refuse a whole call for."""
        if self._traits.takes_empty:
            return group
        empty = [index for index, document in group if not document.text.strip()]
        if empty:
            error = InvalidField("the remote takes no empty documents")
            self._events.put_nowait([(index, error) for index in empty])
        return [(index, document) for index, document in group if document.text.strip()]

    def _in_calls(self, group: IndexedDocuments) -> Sequence[IndexedDocuments]:
        if not self._traits.comparable_across_requests:
            return [group] if group else []
        return list(in_calls(group, self._portions))

    async def _in_turn(self, part: IndexedDocuments) -> None:
        try:
            await self._ask(part)
        finally:
            self._turns.release()

    async def _ask(self, part: IndexedDocuments) -> None:
        refusals, waiting = Refusals(), deque([part])
        while waiting:
            part = waiting.popleft()
            try:
                self._tell(part, await self._answer(self._question(part)))
            except CallFailed as failure:
                if not (failure.is_refusal and self._traits.comparable_across_requests):
                    raise failure.error from failure
                await self._doubt_the_query()
                halves = refusals.halves(part)
                waiting.extend(halves)
                if not halves:
                    self._events.put_nowait([(index, failure.error) for index, _ in part])

    async def _answer(self, question: Question) -> Answer:
        began, meter = time.monotonic(), self._options.meter
        answer = await self._calls.ask(question, self._deadline(), meter)
        self._is_query_taken = True
        meter.tokens += answer.tokens
        meter.infer_s += time.monotonic() - began
        meter.query_truncated |= self._query_was_cut or answer.query_truncated
        return answer

    async def _doubt_the_query(self) -> None:
        """Find out whether it is the query, or the request, that the server will not have.

        Raises:
            RerankError: it is: a document that nobody could mind is refused, too.
        """
        async with self._doubting:  # calls that are refused at the same time doubt once
            if not self._is_query_taken:
                try:
                    await self._answer(replace(self._question([]), texts=(HARMLESS,)))
                except CallFailed as failure:
                    raise failure.error from failure

    def _question(self, part: IndexedDocuments) -> Question:
        options, most = self._options, self._traits.max_characters
        return Question(
            query=self._query,
            texts=tuple(_sendable(document.text[:most]) for _, document in part),
            timeout_s=self._calls.timeout_s,
            truncation=options.truncation,
            policy=options.long_document_policy,
            priority=options.priority,
        )

    def _check_alike(self, answer: Answer) -> None:
        """Say who answered, if it is another model than was asked; raise if it is two of them."""
        first = self._first_answer = self._first_answer or answer
        if answer.stand_in != first.stand_in:
            raise RemoteFailed("the remote answered parts of the request by different models")
        if answer.stand_in is not None:
            told = {each.name: getattr(answer.stand_in, each.name) for each in fields(StandIn)}
            self._options.meter.answered_by = replace(self._info, **told)

    def _tell(self, part: IndexedDocuments, answer: Answer) -> None:
        self._check_alike(answer)
        most, meter = self._traits.max_characters, self._options.meter
        told = []
        for place, outcome in answer.outcomes:
            index, document = part[place]
            was_cut = most is not None and len(document.text) > most
            told.append((index, _marked(outcome, was_cut)))
            meter.pairs += isinstance(outcome, Score)
        self._events.put_nowait(told)

    def _deadline(self) -> float:
        """Give the request's deadline; without one, a call waits as long as it may take itself.

        Raises:
            DeadlineExceeded: it has passed.
        """
        deadline, now = self._options.deadline, time.monotonic()
        if deadline is None:
            return now + 2 * self._calls.timeout_s
        if now >= deadline:
            raise DeadlineExceeded("the deadline passed before every score was known")
        return deadline


def _check_reading(traits: Traits, options: ScoreOptions) -> None:
    policy, truncation = options.long_document_policy, options.truncation
    if policy is not None and policy not in traits.policies:
        raise NotSupportedByModel(
            f"the remote cannot be told to {policy.value} long documents; it takes "
            f"{', '.join(sorted(each.value for each in traits.policies))}"
        )
    if truncation.max_tokens_per_document is not None and not traits.limits_tokens:
        raise NotSupportedByModel("the remote cannot be told how much of a document to read")
    if truncation.side is TruncationSide.LEFT and not traits.cuts_left:
        raise NotSupportedByModel("the remote cannot cut the beginning of a text")


def _sendable(text: str) -> str:
    # Half of a surrogate pair cannot be encoded, and would fail the whole call.
    sendable: str = without_lone_surrogates(text)
    return sendable


def _marked(outcome: Outcome, was_cut: bool) -> Outcome:
    return replace(outcome, truncated=True) if was_cut and isinstance(outcome, Score) else outcome
