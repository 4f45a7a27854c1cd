"""One request at the door of the admission: judged when its first work arrives, counted after."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from rerank_sidecar.engine.admission import Admission, Newcomer
from rerank_sidecar.engine.ledger import Ticket
from rerank_sidecar.engine.searches import Chunk
from rerank_sidecar.engine.validation import check_tokens
from rerank_sidecar.rerankers.base import Reranker, ScoreOptions
from rerank_sidecar.types import Document

_ESTIMATED_AT_ONCE = 512
"""Documents; an estimate takes some microseconds for each."""

_CHARACTERS_AT_ONCE = 65_536
"""An estimate may hash the texts, which takes a tenth of a millisecond for so many characters."""


class Entry:
    """A request's ticket, once it has one.

    A request is judged by the first documents that cost work, which of one message are all of
    them. What a stream brings later is refused if the stream itself cannot end in time with it or
    if it would overfill the queue; others' work is no reason any more.
    """

    def __init__(  # noqa: PLR0913 - what a request is judged by
        self,
        admission: Admission,
        reranker: Reranker,
        query: str,
        options: ScoreOptions,
        *,
        is_chunk: bool,
        max_tokens: int,
    ) -> None:
        self._admission = admission
        self._reranker = reranker
        self._query = query
        self._options = options
        self._is_chunk = is_chunk
        self._max_tokens = max_tokens
        self._tokens = 0
        self._ticket: Ticket | None = None
        self._has_left = False

    @property
    def priority(self) -> int:
        """At which priority the request runs."""
        return self._options.priority if self._ticket is None else self._ticket.priority

    async def admit(self, documents: Sequence[Document], arrived: int) -> None:
        """Ask for documents to be let in, of the `arrived` ones those that cost work.

        Raises:
            LimitExceeded: with what came before, they are more tokens than one request may cost.
            Overloaded: they cannot be scored in time.
            DeadlineExceeded: their time is over.
        """
        if math.isinf(self._reranker.tokens_per_s):
            return
        tokens = await self._estimate(documents)
        self._tokens += tokens
        check_tokens(self._tokens, self._max_tokens)
        if self._has_left:
            return  # nobody would give the ticket back
        if self._ticket is None:
            self._ticket = self._admission.admit(self._newcomer(documents, arrived, tokens))
        else:
            self._admission.check_more(self._ticket, tokens, self._deadline)
            self._ticket.add(tokens)

    def progress(self) -> None:
        """Take note of how much has been read."""
        if self._ticket is not None:
            self._ticket.progress(self._options.meter.tokens)

    def leave(self) -> None:
        """Give the ticket back; there will be no other."""
        self._has_left = True
        if self._ticket is not None:
            self._ticket.close()

    async def _estimate(self, documents: Sequence[Document]) -> int:
        estimate = self._reranker.estimate_tokens
        if len(documents) <= _ESTIMATED_AT_ONCE and _characters(documents) <= _CHARACTERS_AT_ONCE:
            return estimate(self._query, documents, self._options)
        return await asyncio.to_thread(estimate, self._query, documents, self._options)

    def _newcomer(self, documents: Sequence[Document], arrived: int, tokens: int) -> Newcomer:
        info, options = self._reranker.info, self._options
        chunk = Chunk.of(info.name, self._query, documents, arrived) if self._is_chunk else None
        return Newcomer(
            info.name, tokens, self._reranker.tokens_per_s, options.priority, self._deadline, chunk
        )

    @property
    def _deadline(self) -> float:
        return math.inf if self._options.deadline is None else self._options.deadline


def _characters(documents: Sequence[Document]) -> int:
    return sum(len(document.text) for document in documents)
