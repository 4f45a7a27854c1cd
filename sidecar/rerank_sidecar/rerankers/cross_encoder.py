"""Cross-encoders: query and document are read together and a classifier gives one number.

Under the policy `truncate`, pairs are cut as Hugging Face's fast tokenizers cut them, so that
scores equal those of sentence-transformers' `CrossEncoder.predict`. Under `reject`, no pair is
read that they would cut.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import EncodedText, TextTokenizer, TokenIds
from rerank_sidecar.batching.windows import WindowRules, longest_first, most_tokens, plan_windows
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.estimates import TokenRatio, tokens_in_windows
from rerank_sidecar.rerankers.flow import DocumentFlow
from rerank_sidecar.rerankers.pair_scoring import PairReading, logit_score, probability_score
from rerank_sidecar.rerankers.reading import (
    DocumentReading,
    Finish,
    TooLong,
    WindowLimits,
    read_windows,
    token_counts,
    too_long,
)
from rerank_sidecar.rerankers.sharing import Shared
from rerank_sidecar.rerankers.threads import in_thread
from rerank_sidecar.types import Document, LongDocumentPolicy, TruncationSide

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
        self._finish: Finish = logit_score if config.activation == "identity" else probability_score
        self._executor = executor
        self._ratio = TokenRatio()
        self._queries: Shared[TokenIds] = Shared()

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._info

    @property
    def tokens_per_s(self) -> float:
        """How fast tokens are read when there is enough to do, as measured."""
        return self._scheduler.tokens_per_s

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """Estimate how many tokens the forward passes of a request read, special ones included."""
        pairs = self._pairs(options)
        return sum(pairs.estimate_tokens(query, document.text) for document in documents)

    def count_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> list[int]:
        """Count what is read for each document, the query's tokens included.

        Raises:
            LimitExceeded: the query fits beside no document and may not be cut.
        """
        [encoded] = self._tokenizer.encode([query])
        texts = [document.text for document in documents]
        return token_counts(self._pairs(options).read(encoded.token_ids, texts))

    def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents as they arrive and yield each outcome once, as soon as it is known.

        Raises:
            CallEnded: the deadline passed.
            LimitExceeded: the query fits beside no document and may not be cut.
            Unavailable: the scheduler is closing.
        """
        flow = DocumentFlow(self._scheduler, options)
        return flow.outcomes(partial(self._read_query, query, options), documents)

    def _read_query(self, query: str, options: ScoreOptions) -> PairReading[TokenIds]:
        lease = self._queries.lease(query, partial(self._tokenise, query))
        read = self._pairs(options).read
        return PairReading(lease, read, self._finish, options, self._executor)

    async def _tokenise(self, query: str) -> TokenIds:
        [encoded], _ = await in_thread(self._executor, self._tokenizer.encode, [query])
        return encoded.token_ids

    def _pairs(self, options: ScoreOptions) -> _Pairs:
        rules = self._limits.rules(options, self._info)
        return _Pairs(self._tokenizer, self._limits, rules, self._ratio)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """How a request's documents are read beside its query; all of it computes."""

    tokenizer: TextTokenizer
    limits: WindowLimits
    rules: WindowRules
    ratio: TokenRatio

    def read(self, query: TokenIds, texts: Sequence[str]) -> list[DocumentReading | TooLong]:
        if self.rules.policy is LongDocumentPolicy.REJECT and len(query) > self._budget:
            raise too_long("query", len(query), self._budget)
        documents = self._encode(len(query), texts)
        self.ratio.learn(documents)
        return [self._read(query, document) for document in documents]

    def estimate_tokens(self, query: str, document: str) -> int:
        document_tokens = self.ratio.tokens(document)
        query_tokens, capacity = self._share(self.ratio.tokens(query), document_tokens)
        beside = query_tokens + self.tokenizer.pair.count
        return tokens_in_windows(document_tokens, capacity, self.rules, beside)

    def _encode(self, query_tokens: int, texts: Sequence[str]) -> list[EncodedText]:
        if self.rules.side is TruncationSide.LEFT or self.rules.policy is LongDocumentPolicy.REJECT:
            return self.tokenizer.encode(texts)
        # A document of more tokens than these is read as if it had any number of them.
        most = max(self.limits.max_tokens, query_tokens)
        _, capacity = self._share(query_tokens, most)
        enough = max(most, most_tokens(capacity, self.rules))
        return self.tokenizer.encode_beginnings(texts, enough)

    def _read(self, query: TokenIds, document: EncodedText) -> DocumentReading | TooLong:
        beside_query = self._budget - len(query)
        if self.rules.refuses(len(document), beside_query):
            return TooLong(self.rules.wanted(len(document)), beside_query)
        query_tokens, capacity = self._share(len(query), len(document))
        return read_windows(
            document,
            plan_windows(len(document), capacity, self.rules),
            partial(self.tokenizer.pair.wrap, query[:query_tokens]),
            query_truncated=query_tokens < len(query),
        )

    def _share(self, query_tokens: int, document_tokens: int) -> tuple[int, int]:
        """Give how many tokens of the query are read, and the most of a window of the document."""
        if self.rules.policy is LongDocumentPolicy.CHUNK:
            kept = min(query_tokens, self.limits.max_query_tokens)
            return kept, self._budget - kept
        return longest_first(query_tokens, self.rules.wanted(document_tokens), self._budget)

    @property
    def _budget(self) -> int:
        return self.limits.max_tokens - self.tokenizer.pair.count
