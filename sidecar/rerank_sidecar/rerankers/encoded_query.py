"""A query's way through the encoder, once for all requests that ask the same at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.models.encoder import Expansion
from rerank_sidecar.rerankers.base import Meter
from rerank_sidecar.rerankers.sharing import Lease, Shared
from rerank_sidecar.rerankers.threads import in_thread
from rerank_sidecar.rerankers.token_matrix import QueryMatrix, Vectors


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query's matrix and what it cost to make.

    `length` is how many tokens the query has and `kept` how many of them were read, special ones
    not counted; `tokens` counts all that were read.
    """

    matrix: QueryMatrix
    length: int
    kept: int
    tokens: int
    tokenise_s: float
    queue_s: float
    infer_s: float
    shared: bool

    @property
    def truncated(self) -> bool:
        """Tell whether some of the query was not read."""
        return self.kept < self.length

    def count(self, meter: Meter, *, is_first: bool) -> None:
        """Meter the query; its time is told to the request that it was first encoded for."""
        meter.query_truncated |= self.truncated
        meter.tokens += self.tokens
        if is_first:
            meter.tokenise_s += self.tokenise_s
            meter.queue_s = max(meter.queue_s, self.queue_s)
            meter.infer_s += self.infer_s
        if self.shared or not is_first:
            meter.shared_tokens += self.tokens


class GivenQuery:
    """A query whose vectors the caller has sent: like a lease on one that is encoded."""

    is_first = True

    def __init__(self, vectors: Vectors, executor: Executor | None) -> None:
        self._vectors = vectors
        self._executor = executor
        self._encoded: EncodedQuery | None = None

    async def value(self, _deadline: float | None = None) -> EncodedQuery:
        """Make the query's matrix, once."""
        if self._encoded is None:
            matrix, _ = await in_thread(self._executor, QueryMatrix.of, self._vectors)
            self._encoded = EncodedQuery(matrix, 0, 0, 0, 0.0, 0.0, 0.0, shared=False)
        return self._encoded

    def close(self) -> None:
        """There is nothing to give up."""


class QueryEncoder:
    """Encodes queries of at most `max_tokens`, special ones not counted."""

    def __init__(  # noqa: PLR0913 - the parts that it is put together from
        self,
        tokenizer: TextTokenizer,
        scheduler: Scheduler,
        to_matrix: Callable[[int, npt.NDArray[np.float32]], QueryMatrix],
        max_tokens: int,
        executor: Executor | None,
        *,
        expansion: Expansion | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._scheduler = scheduler
        self._to_matrix = to_matrix
        self._max_tokens = max_tokens
        self._executor = executor
        self._expansion = expansion
        self._shared: Shared[EncodedQuery] = Shared()

    def lease(self, query: str, priority: int) -> Lease[EncodedQuery]:
        """Begin to encode a query unless that is being done, or is done, for somebody else."""
        return self._shared.lease((query, priority), lambda: self._encode(query, priority))

    async def _encode(self, query: str, priority: int) -> EncodedQuery:
        [encoded], tokenise_s = await in_thread(self._executor, self._tokenizer.encode, [query])
        kept = encoded.token_ids[: self._max_tokens]
        sequence = self._tokenizer.single.wrap(kept)
        if self._expansion is not None:
            sequence = expanded(sequence, self._expansion)
        # Before documents of its own priority: they wait for this short sequence, and would
        # otherwise stand in the queue twice. Without a deadline, for those who share it differ in
        # theirs; it is dropped when the last of them has given up.
        [future] = self._scheduler.submit([sequence], self._to_matrix, priority=priority + 1)
        done = await future
        return EncodedQuery(
            matrix=done.value,
            length=len(encoded),
            kept=len(kept),
            tokens=len(sequence),
            tokenise_s=tokenise_s,
            queue_s=done.queue_s,
            infer_s=done.infer_s,
            shared=done.shared,
        )


def expanded(sequence: TokenSequence, expansion: Expansion) -> TokenSequence:
    """Fill a query up, if it is shorter than it should be."""
    missing = expansion.length - len(sequence)
    if missing <= 0:
        return sequence
    return TokenSequence(
        np.pad(sequence.token_ids, (0, missing), constant_values=expansion.token_id),
        np.pad(sequence.type_ids, (0, missing)),
        attended=None if expansion.attended else len(sequence),
    )
