"""Cross-encoders: query and document are read together and a classifier gives one number.

Under the policy `truncate`, pairs are cut as Hugging Face's fast tokenizers cut them, so that
scores equal those of sentence-transformers' `CrossEncoder.predict`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import EncodedText, TextTokenizer, TokenIds
from rerank_sidecar.batching.windows import WindowRules, longest_first, plan_windows
from rerank_sidecar.errors import NonFiniteScore
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.flow import DocumentFlow
from rerank_sidecar.rerankers.reading import DocumentReading, Finish, WindowLimits, read_windows
from rerank_sidecar.types import LongDocumentPolicy

Activation = Literal["identity", "sigmoid"]


@dataclass(frozen=True, slots=True)
class CrossEncoderConfig:
    """What a model reads and how its logit becomes its score: as it is, or as a probability."""

    limits: WindowLimits
    activation: Activation = "identity"


class CrossEncoderReranker:
    """Scores pairs by a classifier with one label, whose backend gives logits [1].

    `info.score_kind` must fit the activation: RAW_LOGIT for identity, PROBABILITY for sigmoid.
    `executor` runs the tokeniser; None is the event loop's own.

    Raises:
        ModelNotServable: the limits leave no room for a document.
    """

    def __init__(
        self,
        info: RerankerInfo,
        tokenizer: TextTokenizer,
        scheduler: Scheduler,
        config: CrossEncoderConfig,
        executor: Executor | None = None,
    ) -> None:
        config.limits.check(tokenizer.pair)
        self._info = info
        self._tokenizer = tokenizer
        self._scheduler = scheduler
        self._limits = config.limits
        self._finish: Finish = _logit if config.activation == "identity" else _probability
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
        """
        flow = DocumentFlow(self._scheduler, options, self._executor)
        return flow.outcomes(partial(self._read_query, query, options, flow), documents)

    async def _read_query(
        self, query: str, options: ScoreOptions, flow: DocumentFlow
    ) -> _ReadQuery:
        [encoded] = await flow.in_thread(self._tokenizer.encode, [query])
        rules = self._limits.rules(options, self._info)
        return _ReadQuery(encoded.token_ids, self._tokenizer, self._limits, rules, self._finish)


@dataclass(frozen=True, slots=True, eq=False)
class _ReadQuery:
    """A query's tokens, and how documents are read beside them."""

    token_ids: TokenIds
    tokenizer: TextTokenizer
    limits: WindowLimits
    rules: WindowRules
    logit_to_score: Finish

    def read(self, texts: Sequence[str]) -> list[DocumentReading]:
        return [self._read(document) for document in self.tokenizer.encode(texts)]

    async def finish(self) -> Finish:
        return self.logit_to_score

    def close(self) -> None:
        """Nothing runs for the query alone."""

    def _read(self, document: EncodedText) -> DocumentReading:
        query_tokens, capacity = self._share(len(document))
        query = self.token_ids[:query_tokens]
        return read_windows(
            document,
            plan_windows(len(document), capacity, self.rules),
            partial(self.tokenizer.pair.wrap, query),
            query_truncated=query_tokens < len(self.token_ids),
        )

    def _share(self, document_tokens: int) -> tuple[int, int]:
        """Give how many tokens of the query are read, and the most of a window of the document."""
        budget = self.limits.max_tokens - self.tokenizer.pair.count
        if self.rules.policy is LongDocumentPolicy.CHUNK:
            query_tokens = min(len(self.token_ids), self.limits.max_query_tokens)
            return query_tokens, budget - query_tokens
        most = self.rules.max_tokens_per_document
        readable = document_tokens if most is None else min(document_tokens, most)
        return longest_first(len(self.token_ids), readable, budget)


def _logit(_position: int, logits: npt.NDArray[np.float32]) -> float:
    [logit] = logits.tolist()
    if not math.isfinite(logit):
        raise NonFiniteScore("the model gave a logit that is not finite")
    return float(logit)


def _probability(position: int, logits: npt.NDArray[np.float32]) -> float:
    logit = _logit(position, logits)
    # The exponent is never positive, so that it cannot overflow.
    decay = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else decay) / (1.0 + decay)
