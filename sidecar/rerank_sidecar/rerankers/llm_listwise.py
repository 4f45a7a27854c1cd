"""LLM listwise: a chat model is shown some documents at a time and says their order.

The sliding window of RankGPT: Sun et al., "Is ChatGPT Good at Search? Investigating Large Language
Models as Re-Ranking Agents", EMNLP 2023. A score is a place, 1 being the best; it means nothing
outside its request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from rerank_sidecar.errors import LimitExceeded, RemoteFailed
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.rerankers.deadlines import before
from rerank_sidecar.rerankers.listwise.answers import completed, read_order
from rerank_sidecar.rerankers.listwise.call_queue import CallQueue, Calls
from rerank_sidecar.rerankers.listwise.chat_endpoint import ChatEndpoint
from rerank_sidecar.rerankers.listwise.prompt import (
    count_words,
    cut,
    estimate_call,
    estimate_tokens,
    messages,
    quiet,
)
from rerank_sidecar.rerankers.listwise.sliding_window import SlidingWindow, Span
from rerank_sidecar.rerankers.members import gathered
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.types import Document, LongDocumentPolicy, Score, TruncationSide, Window

_LEARNING_RATE = 0.3


@dataclass(frozen=True, slots=True)
class ListwiseConfig:
    """What the model is shown, and what one request may cost.

    Words are counted as by `prompt.count_words`. No call is begun that would go over
    `max_calls`, or over `max_total_tokens` by its estimate, which but for the first call counts on
    what calls have cost so far. Documents that are out of reach keep
    their places.
    """

    window: SlidingWindow = field(default_factory=SlidingWindow)
    max_words_per_document: int = 300
    max_calls: int = 20
    max_total_tokens: int = 250_000


class ListwiseReranker:
    """Puts documents in the order that a chat model gives; `info.score_kind` must be RANK.

    Under the policy `chunk` documents are cut as under `truncate`. Where an answer names none of
    the documents of a window, or the server refuses to answer, they keep their order.
    """

    def __init__(
        self,
        info: RerankerInfo,
        endpoint: ChatEndpoint,
        queue: CallQueue,
        config: ListwiseConfig,
    ) -> None:
        self._info = info
        self._endpoint = endpoint
        self._queue = queue
        self._config = config
        self._tokens_per_estimate = 1.0

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._info

    @property
    def tokens_per_s(self) -> float:
        """There is no forward pass here: infinity."""
        return math.inf

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """There are no forward passes here: 0."""
        return 0

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Put documents in order and yield the place of each, once all are known.

        Raises:
            LimitExceeded: not even one window is within `max_total_tokens`.
            DeadlineExceeded: the deadline passed.
            Overloaded: the model could not answer by then, or says that it has too much to do.
            RemoteFailed: it failed, or refused or named no document for every window.
            RemoteUnavailable: it cannot be reached.
        """
        given = await gathered(documents)
        shown, refused = await asyncio.to_thread(self._read, given, options)
        for outcome in refused:
            yield outcome
        async with before(options.deadline):
            ordered = await self._order(query, shown, options)
        for place, passage in enumerate(ordered, 1):
            window = passage.window
            yield passage.index, Score(float(place), window, truncated=window is not None)

    def _read(
        self, documents: IndexedDocuments, options: ScoreOptions
    ) -> tuple[list[_Passage], list[tuple[int, LimitExceeded]]]:
        """Cut the documents to what the model is shown of them; refuse those it may not be."""
        asked = options.truncation.max_tokens_per_document
        most = min(filter(None, (asked, self._config.max_words_per_document)))
        may_cut = options.long_document_policy is not LongDocumentPolicy.REJECT or asked == most
        shown, refused = [], []
        for index, document in documents:
            window = cut(document.text, most, options.truncation.side)
            if window is None or may_cut:
                shown.append(_Passage.of(index, document.text, window))
            else:
                refused.append((index, _too_long(index, document.text, most)))
        return shown, refused

    async def _order(
        self, query: str, passages: list[_Passage], options: ScoreOptions
    ) -> list[_Passage]:
        """Slide the window over the passages, each time putting those within it in order."""
        window = cut(query, self._config.max_words_per_document, TruncationSide.RIGHT)
        options.meter.query_truncated |= window is not None
        asked = quiet(query if window is None else query[: window.end])
        spans = self._spans(asked, passages)
        self._count("unasked", len(self._config.window.spans(len(passages))) - len(spans))
        with self._queue.admitted(len(spans), options.deadline) as calls:
            return await self._slide(asked, passages, spans, calls, options)

    async def _slide(
        self,
        query: str,
        passages: list[_Passage],
        spans: Sequence[Span],
        calls: Calls,
        options: ScoreOptions,
    ) -> list[_Passage]:
        order, spent, read = list(passages), 0, 0
        failure = RemoteFailed("the chat model gave no order in any of its answers")
        for done, (start, end) in enumerate(spans):
            cost = self._cost(query, order[start:end])
            if done and spent + cost > self._config.max_total_tokens:
                self._count("unasked", len(spans) - done)
                break
            try:
                async with calls.turn():
                    named, tokens = await self._ask(query, order[start:end], options)
            except RemoteFailed as error:
                if not error.is_refusal:
                    raise
                failure, named, tokens = error, [], 0
                self._count("refused", 1)
            spent += tokens
            read += bool(named)
            order[start:end] = [order[start + place] for place in completed(named, end - start)]
        options.meter.queue_s += calls.waited_s
        options.meter.infer_s += calls.called_s
        if spans and not read:
            raise failure
        return order

    async def _ask(
        self, query: str, passages: Sequence[_Passage], options: ScoreOptions
    ) -> tuple[list[int], int]:
        """Ask for the order of one window; give the places named, best first, and the tokens."""
        question = messages(query, [each.text for each in passages])
        answer = await self._endpoint.ask(question, options.deadline, options.meter)
        # A server that does not tell is taken to have read what was sent.
        tokens = _estimate(query, passages) if answer.tokens is None else answer.tokens
        self._learn(tokens / _estimate(query, passages))
        options.meter.tokens += tokens
        options.meter.pairs += len(passages)
        named = await asyncio.to_thread(read_order, answer.text, len(passages))
        self._count(_result(len(named), len(passages)), 1)
        return named, tokens

    def _spans(self, query: str, passages: Sequence[_Passage]) -> list[Span]:
        """Give the windows that a request may pay for, were all of them like its dearest."""
        config, size = self._config, self._config.window.size
        dearest = sorted(passages, key=lambda each: each.tokens)[-size:]
        if len(passages) > 1 and _estimate(query, dearest) > config.max_total_tokens:
            raise LimitExceeded(
                f"documents: {len(dearest)} of them are more than max_total_tokens, which is "
                f"{config.max_total_tokens}",
                "documents",
            )
        # One call is always made: without any, nothing would be learned but that calls are dear.
        affordable = max(1, int(config.max_total_tokens / self._cost(query, dearest)))
        return config.window.affordable_spans(len(passages), min(config.max_calls, affordable))

    def _cost(self, query: str, passages: Sequence[_Passage]) -> float:
        return self._tokens_per_estimate * _estimate(query, passages)

    def _learn(self, tokens_per_estimate: float) -> None:
        """Learn how much dearer calls are than estimated: a model that thinks aloud uses more."""
        self._tokens_per_estimate += _LEARNING_RATE * (
            tokens_per_estimate - self._tokens_per_estimate
        )

    def _count(self, result: str, windows: int) -> None:
        if windows:
            metrics.LISTWISE_WINDOWS.labels(model=self._info.name, result=result).inc(windows)


@dataclass(frozen=True, slots=True)
class _Passage:
    """A document as the model is shown it."""

    index: int
    text: str
    tokens: int
    window: Window | None

    @classmethod
    def of(cls, index: int, text: str, window: Window | None) -> _Passage:
        shown = quiet(text if window is None else text[window.start : window.end])
        return cls(index, shown, estimate_tokens(shown), window)


def _estimate(query: str, passages: Sequence[_Passage]) -> int:
    return estimate_call(estimate_tokens(query), [each.tokens for each in passages])


def _result(named: int, count: int) -> str:
    if named == count:
        return "ordered"
    return "partly" if named else "unreadable"


def _too_long(index: int, text: str, most: int) -> LimitExceeded:
    field = f"documents[{index}]"
    message = f"{field}: {count_words(text)} words long, and the model is shown at most {most}"
    return LimitExceeded(message, field)
