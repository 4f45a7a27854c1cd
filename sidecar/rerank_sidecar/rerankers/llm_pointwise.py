"""Language models that are asked whether a document answers a query, one document at a time.

The score comes from the logits of the two answers at the end of the prompt, as the `LogitScore` of
sentence-transformers takes it: the logit of yes less that of no, which is the log of the odds, or
the logit of yes alone. Where a document is cut, the end of the prompt stays in its place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.prompt_tokens import PromptText, PromptTokenizer
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import TokenIds
from rerank_sidecar.batching.windows import WindowRules, plan_windows
from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.estimates import TokenRatio, tokens_in_windows
from rerank_sidecar.rerankers.flow import DocumentFlow
from rerank_sidecar.rerankers.pair_scoring import PairReading, logit_score, probability_score
from rerank_sidecar.rerankers.reading import (
    DocumentReading,
    Finish,
    TooLong,
    WindowLimits,
    token_counts,
    too_long,
)
from rerank_sidecar.rerankers.sharing import Shared
from rerank_sidecar.rerankers.threads import in_thread
from rerank_sidecar.types import Document, LongDocumentPolicy


@dataclass(frozen=True, slots=True)
class LlmPointwiseConfig:
    """What a model reads, and whether the log of the odds becomes a probability."""

    limits: WindowLimits
    is_probability: bool


class LlmPointwiseReranker:
    """Scores documents by a causal model whose backend gives the logits of yes [1] or yes, no [2].

    `info.score_kind` must fit the config: PROBABILITY or RAW_LOGIT. `executor` runs the tokeniser;
    None is the event loop's own.

    Raises:
        ModelNotServable: the limits leave no room for a query and a document in the prompt.
    """

    def __init__(
        self,
        info: RerankerInfo,
        tokenizer: PromptTokenizer,
        scheduler: Scheduler,
        config: LlmPointwiseConfig,
        executor: Executor | None = None,
    ) -> None:
        self._info = info
        self._scheduler = scheduler
        self._executor = executor
        self._limits = config.limits
        self._tokenizer = tokenizer
        self._room = config.limits.max_tokens - tokenizer.tokens_around
        if self._room < 2:
            raise ModelNotServable(
                f"a model that reads {config.limits.max_tokens} tokens reads too few: the prompt "
                f"alone has {tokenizer.tokens_around}"
            )
        self._finish: Finish = probability_score if config.is_probability else logit_score
        self._ratio = TokenRatio()
        self._queries: Shared[PromptText] = Shared()

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
        prompts = self._prompts(options)
        return sum(prompts.estimate_tokens(query, document.text) for document in documents)

    def count_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> list[int]:
        """Count what is read for each document, the prompt's and the query's tokens included.

        Raises:
            LimitExceeded: the query is too long and may not be cut.
        """
        [encoded] = self._tokenizer.encode_queries([query])
        texts = [document.text for document in documents]
        return token_counts(self._prompts(options).read(encoded, texts))

    def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents as they arrive and yield each outcome once, as soon as it is known.

        Raises:
            CallEnded: the deadline passed.
            LimitExceeded: the query is too long and may not be cut.
            Unavailable: the scheduler is closing.
        """
        flow = DocumentFlow(self._scheduler, options)
        return flow.outcomes(partial(self._read_query, query, options), documents)

    def _read_query(self, query: str, options: ScoreOptions) -> PairReading[PromptText]:
        lease = self._queries.lease(query, partial(self._tokenise, query))
        read = self._prompts(options).read
        return PairReading(lease, read, self._finish, options, self._executor)

    async def _tokenise(self, query: str) -> PromptText:
        [encoded], _ = await in_thread(self._executor, self._tokenizer.encode_queries, [query])
        return encoded

    def _prompts(self, options: ScoreOptions) -> _Prompts:
        rules = self._limits.rules(options, self._info)
        limits = self._limits.max_tokens, self._room // 2
        return _Prompts(self._tokenizer, *limits, rules, self._ratio)


@dataclass(frozen=True, slots=True)
class _Prompts:
    """How a request's documents are read within the prompt; all of it computes."""

    tokenizer: PromptTokenizer
    max_tokens: int
    max_query_tokens: int
    rules: WindowRules
    ratio: TokenRatio

    def read(self, query: PromptText, texts: Sequence[str]) -> list[DocumentReading | TooLong]:
        is_cut = len(query) > self.max_query_tokens
        if is_cut and self.rules.policy is LongDocumentPolicy.REJECT:
            raise too_long("query", len(query), self.max_query_tokens)
        head = self.tokenizer.head(query, self.max_query_tokens)
        documents = self.tokenizer.encode_documents(texts)
        self.ratio.learn(documents)
        return [self._read(head, document, query_truncated=is_cut) for document in documents]

    def estimate_tokens(self, query: str, document: str) -> int:
        query_tokens = min(self.ratio.tokens(query), self.max_query_tokens)
        beside = query_tokens + self.tokenizer.tokens_around
        capacity = self.max_tokens - beside
        return tokens_in_windows(self.ratio.tokens(document), capacity, self.rules, beside)

    def _read(
        self, head: TokenIds, document: PromptText, *, query_truncated: bool
    ) -> DocumentReading | TooLong:
        length = len(document)
        sequence = partial(self._sequence, head, document)
        whole = sequence(0, length)
        if len(whole) <= self.max_tokens and self.rules.wanted(length) == length:
            return DocumentReading((whole,), query_truncated=query_truncated)
        # Of a document that is cut, the tokens around it are what they are by themselves.
        capacity = self.max_tokens - self.tokenizer.tokens_around_part(head, document)
        if self.rules.refuses(length, capacity):
            return TooLong(self.rules.wanted(length), capacity)
        plan = plan_windows(length, max(1, min(capacity, length - 1)), self.rules)
        return DocumentReading(
            sequences=tuple(sequence(start, end) for start, end in plan.ranges),
            windows=tuple(document.window(start, end) for start, end in plan.ranges),
            truncated=plan.truncated,
            query_truncated=query_truncated,
        )

    def _sequence(
        self, head: TokenIds, document: PromptText, start: int, end: int
    ) -> TokenSequence:
        tokens = self.tokenizer.sequence(head, document, start, end)
        return TokenSequence(tokens, np.zeros_like(tokens))
