"""A fallback: the first model that can answers, in the order in which they are named.

No answer mixes the scores of two models: what a member said before it failed is thrown away. The
meter's `answered_by` tells that another than the first member answered.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from rerank_sidecar.errors import (
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
    RequestError,
    RerankError,
    ServerFault,
    Unavailable,
    as_rerank_error,
    error_row,
)
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    Reranker,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.rerankers.deadlines import before
from rerank_sidecar.rerankers.members import Answer, ask, gathered
from rerank_sidecar.rerankers.scripts import reads_query
from rerank_sidecar.rerankers.stickiness import Stickiness
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.telemetry.crashes import log_crash
from rerank_sidecar.types import Document

_LOG = logging.getLogger(__name__)

_LONGEST_REST_S = 60.0
"""However long a member asks to be left alone."""

_SPARE_S = 0.05
"""For the last member to begin and to answer; what it computes is an estimate, too."""


@dataclass(frozen=True, slots=True)
class FallbackConfig:
    """How long each member but the last may take, and for how long a failure is remembered.

    For `sticky_s` after it was turned to another member, a query stays with that one, so that the
    chunks of one search agree. For `rest_s` a member that failed is not asked; the last always is.
    A chunk of a search that a member has begun to answer is asked of that one alone: a search that
    fails is better than one in a wrong order.
    """

    timeout_s: float = 10.0
    sticky_s: float = 5.0
    rest_s: float = 5.0


class FallbackReranker:
    """Scores by the first member that can, whose scores are all of the answer.

    `info` is that of the first member, but for the name and what it is made of.
    """

    def __init__(
        self, info: RerankerInfo, members: Sequence[Reranker], config: FallbackConfig
    ) -> None:
        self._info = info
        self._members = members
        self._config = config
        self._memory = Stickiness(config.sticky_s, config.rest_s)

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._info

    @property
    def tokens_per_s(self) -> float:
        """How fast the fastest member reads that is well: what it cannot do in time, none can."""
        return self._fastest().tokens_per_s

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """Estimate what the fastest member reads that is well."""
        return self._fastest().estimate_tokens(query, documents, options)

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents by one member and yield the outcomes, once it has given them all.

        Raises:
            RerankError: what the last member raised, or the one that the search began with; or
                what is the caller's own fault.
            RemoteUnavailable: the last one cannot stand in for what was asked of the first.
        """
        asked = _Asked(query, await gathered(documents), options)
        answer = await self._answer(asked)
        for outcome in answer.outcomes.items():
            yield outcome

    async def _answer(self, asked: _Asked) -> Answer:
        query = asked.query
        *others, last = able = self._able(query)
        keeper = self._keeper(asked)
        if keeper is not None:
            others, last = [], keeper
        for place in others:
            if place < self._memory.first_of(query):
                self._count(place, "STICKY")
                continue
            left_s = await self._left_s(place, last, asked)
            answer = await self._try(place, left_s, asked, stands_in=place != able[0])
            if answer is None and self._keeper(asked) == place:
                last = place
                break
            if answer is None:
                self._memory.turn(query, place + 1)
            elif place < self._memory.first_of(query):
                # Another part of the search was turned away from this member meanwhile, and its
                # scores are not to meet these.
                self._count(place, "STICKY")
            else:
                return self._taken(place, answer, asked)
        return self._taken(last, await self._of_last(able[0], last, asked), asked)

    async def _of_last(self, first: int, last: int, asked: _Asked) -> Answer:
        """Ask the last member; that it cannot stand in is no fault of who asked the first."""
        try:
            return await asked.of(self._members[last])
        except RequestError as error:
            if last == first:
                raise
            names = [self._members[place].info.name for place in (first, last)]
            raise RemoteUnavailable(
                f"{names[0]} cannot answer now, and {names[1]} cannot stand in: {error.message}",
                max(1.0, self._config.rest_s),
            ) from error

    def _keeper(self, asked: _Asked) -> int | None:
        """Give the member that answers the search of which the documents are a chunk, if any."""
        return self._memory.keeper(asked.query, asked.began) if asked.options.is_chunk else None

    async def _left_s(self, place: int, last: int, asked: _Asked) -> float:
        """Give how long a member may take; 0 if it needs longer than that.

        The last member keeps the time that it needs, but for half of all: else a slow one would
        leave the first nothing. One of which nobody knows what it needs keeps a quarter.
        """
        left_s, deadline = self._config.timeout_s, asked.options.deadline
        if deadline is not None:
            all_s = deadline - time.monotonic()
            last_s = await asked.seconds(self._members[last])
            kept_s = 2 * last_s + _SPARE_S if last_s else all_s / 4
            left_s = min(left_s, max(all_s - kept_s, all_s / 2) if last_s < all_s else all_s)
        needed_s = await asked.seconds(self._members[place])
        return left_s if needed_s < left_s else 0.0

    async def _try(
        self, place: int, left_s: float, asked: _Asked, *, stands_in: bool
    ) -> Answer | None:
        """Ask a member; None if the next one has to be asked."""
        if left_s <= 0 or not self._memory.may_try(place):
            self._count(place, "TOO_SLOW" if left_s <= 0 else "RESTING")
            return None
        deadline = time.monotonic() + left_s
        try:
            async with before(deadline):
                answer = await asked.of(self._members[place], deadline)
            _check(answer)
        except Exception as error:  # whatever it is, the next member can answer
            if self._keeper(asked) == place or _is_callers(error, stands_in=stands_in):
                raise
            self._failed(place, error, left_s)
            return None
        self._memory.answered(place)
        return answer

    def _failed(self, place: int, error: Exception, had_s: float) -> None:
        shown, name = as_rerank_error(error), self._members[place].info.name
        if shown is not error:
            log_crash(_LOG, f"{name}, a member of {self._info.name},", error)
        reason = error_row(shown).reason
        self._count(place, reason)
        _LOG.warning("%s: %s failed (%s), and the next one answers", self._info.name, name, reason)
        if isinstance(shown, DeadlineExceeded) and had_s < self._config.timeout_s / 2:
            return  # it was given so little time that others may fare better
        if isinstance(shown, RequestError) or (
            isinstance(shown, RemoteFailed) and shown.is_refusal
        ):
            return  # other requests ask for less
        self._memory.failed(place, self._rest_s(shown))

    def _rest_s(self, error: RerankError) -> float:
        usual_s = self._config.rest_s
        if isinstance(error, Overloaded):
            return min(usual_s, error.retry_after_s)  # it may have meant this request alone
        asked_s = error.retry_after_s if isinstance(error, Unavailable) else 0.0
        return max(usual_s, min(_LONGEST_REST_S, asked_s))

    def _able(self, query: str) -> list[int]:
        """Give the members that read the script of a query; all, if none does."""
        members = enumerate(self._members)
        able = [place for place, each in members if reads_query(query, each.info.scripts)]
        return able or list(range(len(self._members)))

    def _taken(self, place: int, answer: Answer, asked: _Asked) -> Answer:
        if asked.options.is_chunk:
            self._memory.keep(asked.query, place)
        if answer.info != self._members[0].info:
            asked.options.meter.answered_by = answer.info
        return answer

    def _fastest(self) -> Reranker:
        *others, last = self._members
        well = [each for place, each in enumerate(others) if not self._memory.rests(place)]
        return max((*well, last), key=lambda member: member.tokens_per_s)

    def _count(self, place: int, reason: str) -> None:
        member = self._members[place].info.name
        metrics.FALLBACKS.labels(model=self._info.name, member=member, reason=reason).inc()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request: all that a member is asked, and when it came, on the clock of `time.monotonic`."""

    query: str
    documents: IndexedDocuments
    options: ScoreOptions
    began: float = field(default_factory=time.monotonic)

    async def of(self, member: Reranker, deadline: float | None = None) -> Answer:
        """Ask a member, by a deadline of its own if there is one."""
        options = self.options if deadline is None else replace(self.options, deadline=deadline)
        return await ask(member, self.query, self.documents, options)

    async def seconds(self, member: Reranker) -> float:
        """Estimate how long a member computes; 0 if that is not done here."""
        rate = member.tokens_per_s
        if math.isinf(rate):
            return 0.0
        texts = [document for _, document in self.documents]
        estimate = member.estimate_tokens
        return await asyncio.to_thread(estimate, self.query, texts, self.options) / rate


def _is_callers(error: Exception, *, stands_in: bool) -> bool:
    """Tell whether an error is the caller's own; what a stand-in cannot do is not."""
    return isinstance(error, Cancelled) or (isinstance(error, RequestError) and not stands_in)


def _check(answer: Answer) -> None:
    """Raise what keeps a member from scoring anything, such as a backend that fails each time."""
    faults = [each for each in answer.outcomes.values() if isinstance(each, ServerFault)]
    if faults and not answer.scores():
        raise faults[0]
