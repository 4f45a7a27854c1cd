"""A shadow: one model answers, and another scores some of the same requests, to be compared.

Nobody waits for the shadow, and nothing that it does reaches an answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from rerank_sidecar.errors import as_rerank_error, error_row
from rerank_sidecar.rerankers.agreement import kendall_tau, overlap
from rerank_sidecar.rerankers.arrivals import closing
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Meter,
    Outcome,
    Reranker,
    RerankerInfo,
    ScoreOptions,
    TokenCounter,
)
from rerank_sidecar.rerankers.deadlines import before
from rerank_sidecar.rerankers.members import Answer, ask
from rerank_sidecar.rerankers.scripts import reads_query
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.telemetry.crashes import log_crash
from rerank_sidecar.types import Document

_LOG = logging.getLogger(__name__)

_LAST_PRIORITY = -(2**31) + 1
"""Whatever else the shadow's scheduler has goes first."""


@dataclass(frozen=True, slots=True)
class ShadowConfig:
    """Which share of requests the shadow scores, 0 to 1, how many at once, and for how long each.

    A request that comes while `max_running` are being scored is not.
    """

    share: float = 0.1
    max_running: int = 1
    timeout_s: float = 60.0


class ShadowReranker:
    """Answers with one model's scores and logs how a second one would have ordered the documents.

    `info` is that of the first, but for the name and what it is made of. It is a TokenCounter if
    the first one is. `close` has to be called.
    """

    def __init__(
        self, info: RerankerInfo, first: Reranker, second: Reranker, config: ShadowConfig
    ) -> None:
        self._info = info
        self._first = first
        self._second = second
        self._config = config
        self._running: set[asyncio.Task[None]] = set()
        if isinstance(first, TokenCounter):
            self.count_tokens = first.count_tokens

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._info

    @property
    def tokens_per_s(self) -> float:
        """How fast the model reads that answers."""
        return self._first.tokens_per_s

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """Estimate what the model reads that answers."""
        return self._first.estimate_tokens(query, documents, options)

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Yield the outcomes of the first model as they come; the second begins after the last.

        Raises whatever the first model raises.
        """
        seen: list[tuple[int, Document]] = []
        found: dict[int, Outcome] = {}
        is_chosen = random.random() < self._config.share  # noqa: S311 - a sample, not a secret
        source = _noting(documents, seen) if is_chosen else documents
        async with aclosing(self._first.score(query, source, options)) as outcomes:
            async for index, outcome in outcomes:
                if is_chosen:
                    found[index] = outcome
                yield index, outcome
        if is_chosen:
            in_order = {index: found[index] for index, _ in seen if index in found}
            first = Answer(in_order, options.meter.answered_by or self._first.info)
            self._begin(query, seen, options, first)

    async def close(self) -> None:
        """Give up what the shadow is scoring."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _begin(
        self, query: str, documents: IndexedDocuments, options: ScoreOptions, first: Answer
    ) -> None:
        if len(self._running) >= self._config.max_running:
            self._count("busy")
            return
        own = replace(
            options,
            meter=Meter(),
            priority=_LAST_PRIORITY,
            deadline=time.monotonic() + self._config.timeout_s,
        )
        task = asyncio.create_task(self._compare(query, documents, own, first))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _compare(
        self, query: str, documents: IndexedDocuments, options: ScoreOptions, first: Answer
    ) -> None:
        try:
            if not reads_query(query, self._second.info.scripts):
                self._count("other_script")
                return
            async with before(options.deadline):
                second = await ask(self._second, query, documents, options)
            await asyncio.to_thread(self._tell, first, second)
        except Exception as error:  # noqa: BLE001 - a task that nobody awaits tells it to the log
            self._count("failed")
            shown = as_rerank_error(error)
            if shown is error:
                reason = error_row(shown).reason
                _LOG.warning("the shadow %s failed: %s", self._second.info.name, reason)
            else:
                log_crash(_LOG, "a shadow", error)

    def _tell(self, first: Answer, second: Answer) -> None:
        """Compare two answers about the documents that both scored; computes."""
        agreement = _agreement(first, second)
        for measure, value in agreement.items():
            # A histogram of Prometheus has no sum where values may be negative, as tau's are.
            share = (1 + value) / 2 if measure == "kendall_tau" else value
            metrics.SHADOW_AGREEMENT.labels(model=self._info.name, measure=measure).observe(share)
        told = ", ".join(f"{measure} {value:.3f}" for measure, value in agreement.items())
        _LOG.info(
            "%s: %s agrees with its shadow %s about %d documents: %s",
            *(self._info.name, first.info.name, second.info.name, len(first.outcomes)),
            told or "nothing to compare",
        )
        self._count("compared" if agreement else "alike")

    def _count(self, result: str) -> None:
        metrics.SHADOW_REQUESTS.labels(model=self._info.name, result=result).inc()


def _agreement(first: Answer, second: Answer) -> dict[str, float]:
    """Compare the orders of the documents that both scored; empty where that means nothing."""
    one, other = first.goodness(), second.goodness()
    common = [index for index in one if index in other]
    tau = kendall_tau([one[index] for index in common], [other[index] for index in common])
    if tau is None:
        return {}
    first_order, second_order = (
        [index for index in each.best_first() if index in one and index in other]
        for each in (first, second)
    )
    return {"kendall_tau": tau, "overlap_at_10": overlap(first_order, second_order)}


async def _noting(
    documents: AsyncIterator[IndexedDocuments], seen: list[tuple[int, Document]]
) -> AsyncGenerator[IndexedDocuments, None]:
    async with closing(documents):
        async for group in documents:
            seen.extend(group)
            yield group
