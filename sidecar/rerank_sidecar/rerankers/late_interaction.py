"""Late interaction: query and document are encoded apart, their token vectors meet at the end.

The score is MaxSim, averaged over the query's tokens: for each query token the best cosine with
any token of the document (Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search
via Contextualized Late Interaction over BERT", SIGIR 2020, section 3.3, who sum where we average).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.scheduler import Completion, Scheduler
from rerank_sidecar.batching.tokenization import SpecialTokens, TextTokenizer
from rerank_sidecar.batching.windows import WindowRules, plan_windows
from rerank_sidecar.errors import NonFiniteScore
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.flow import DocumentFlow
from rerank_sidecar.rerankers.reading import DocumentReading, Finish, WindowLimits, read_windows

Vectors = npt.NDArray[np.float32]

# OpenBLAS, which numpy brings, multiplies larger matrices on threads of its own. Those fight with
# the workers for the same cores: one product of a usual window takes ten times as long.
_PRODUCTS_AT_ONCE = 4 * 65536


@dataclass(frozen=True, slots=True)
class LateInteractionConfig:
    """What a model reads and how its vectors are compared; part of the model: scores depend on it.

    Special tokens take part in MaxSim where the switches say so; a text that has no other tokens
    keeps them. With a `cosine_weight` of w the score is (maxsim + w * cosine) / (1 + w), where the
    cosine is that of the mean token vectors, special tokens included.
    """

    limits: WindowLimits
    keep_query_special_tokens: bool = True
    keep_document_special_tokens: bool = True
    cosine_weight: float = 0.0


class LateInteractionReranker:
    """Scores by MaxSim over the token vectors of one encoder, whose backend gives hidden states.

    `executor` runs the tokeniser; None is the event loop's own.

    Raises:
        ModelNotServable: the limits leave no room for a document.
    """

    def __init__(
        self,
        info: RerankerInfo,
        tokenizer: TextTokenizer,
        scheduler: Scheduler,
        config: LateInteractionConfig,
        executor: Executor | None = None,
    ) -> None:
        config.limits.check(tokenizer.single)
        self._info = info
        self._tokenizer = tokenizer
        self._scheduler = scheduler
        self._limits = config.limits
        self._maxsim = _MaxSim(config, tokenizer.single)
        self._executor = executor

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._info

    def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents as they arrive and yield each outcome once, as soon as it is known.

        Raises:
            CallEnded: the deadline passed.
            Unavailable: the scheduler is closing.
            ServerFault: the query could not be encoded.
        """
        flow = DocumentFlow(self._scheduler, options, self._executor)
        return flow.outcomes(partial(self._read_query, query, options, flow), documents)

    async def _read_query(
        self, query: str, options: ScoreOptions, flow: DocumentFlow
    ) -> _ReadQuery:
        [encoded] = await flow.in_thread(self._tokenizer.encode, [query])
        kept = encoded.token_ids[: self._limits.max_query_tokens]
        options.meter.query_truncated = len(kept) < len(encoded)
        sequence = self._tokenizer.single.wrap(kept)
        # Before documents of its own priority: they wait for this short sequence, and would
        # otherwise stand in the queue twice.
        [future] = self._scheduler.submit(
            [sequence],
            self._maxsim.encode_query,
            priority=options.priority + 1,
            deadline=options.deadline,
        )
        future.add_done_callback(partial(_count, flow, sequence))
        read = partial(self._read, self._limits.rules(options, self._info))
        return _ReadQuery(read, self._maxsim, future)

    def _read(self, rules: WindowRules, texts: Sequence[str]) -> list[DocumentReading]:
        single = self._tokenizer.single
        capacity = self._limits.max_tokens - single.count
        return [
            read_windows(document, plan_windows(len(document), capacity, rules), single.wrap)
            for document in self._tokenizer.encode(texts)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class _QueryVectors:
    """An encoded query: unit vectors [tokens, dimension] and the unit mean [dimension]."""

    tokens: Vectors
    mean: Vectors


@dataclass(frozen=True, slots=True)
class _MaxSim:
    """Turns hidden states [tokens, dimension] into vectors and scores; runs on worker threads."""

    config: LateInteractionConfig
    special_tokens: SpecialTokens

    def encode_query(self, _position: int, hidden: Vectors) -> _QueryVectors:
        kept = self._without_special(hidden, keep=self.config.keep_query_special_tokens)
        return _QueryVectors(_unit(kept), _unit(hidden.mean(axis=0)))

    def score(self, query: _QueryVectors, _position: int, hidden: Vectors) -> float:
        kept = self._without_special(hidden, keep=self.config.keep_document_special_tokens)
        score = float(_best_cosines(query.tokens, _unit(kept)).mean(dtype=np.float64))
        weight = self.config.cosine_weight
        if weight:
            cosine = float(query.mean @ _unit(hidden.mean(axis=0)))
            score = (score + weight * cosine) / (1 + weight)
        return min(1.0, max(-1.0, score))  # rounding leaves the range of a cosine

    def _without_special(self, hidden: Vectors, *, keep: bool) -> Vectors:
        before, after = (len(run) for run in self.special_tokens.runs)
        text = hidden[before : len(hidden) - after]
        return hidden if keep or len(text) == 0 else text


@dataclass(frozen=True, slots=True)
class _ReadQuery:
    """A query on its way through the encoder, and how its documents are read meanwhile."""

    read: Callable[[Sequence[str]], list[DocumentReading]]
    maxsim: _MaxSim
    future: asyncio.Future[Completion[_QueryVectors]]

    async def finish(self) -> Finish:
        return partial(self.maxsim.score, (await self.future).value)

    def close(self) -> None:
        self.future.cancel()


def _best_cosines(query: Vectors, document: Vectors) -> Vectors:
    """Give each query token's best cosine with any token of the document; all vectors are unit."""
    step = max(1, _PRODUCTS_AT_ONCE // query.size)
    best = np.full(len(query), -1.0, dtype=np.float32)
    for start in range(0, len(document), step):
        cosines = query @ document[start : start + step].T
        np.maximum(best, cosines.max(axis=1), out=best)
    return best


def _unit(vectors: Vectors) -> Vectors:
    """Scale vectors, along the last axis, to length 1; zeros stay zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise NonFiniteScore("the model gave numbers that are not finite")
    unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _count(
    flow: DocumentFlow, sequence: TokenSequence, future: asyncio.Future[Completion[_QueryVectors]]
) -> None:
    if not future.cancelled() and future.exception() is None:
        flow.count(future.result(), sequence)
