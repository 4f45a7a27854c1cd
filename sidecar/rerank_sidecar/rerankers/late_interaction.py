"""Late interaction: query and document are encoded apart, their token vectors meet at the end.

The score is MaxSim, averaged over the query's tokens: for each query token the best cosine with
any token of the document (Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search
via Contextualized Late Interaction over BERT", SIGIR 2020, section 3.3, who sum where we average).
A document is encoded without knowing the query, so its matrices can be kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.batching.windows import WindowRules
from rerank_sidecar.models.encoder import Expansion
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.documents import DocumentModel
from rerank_sidecar.rerankers.encoded_query import EncodedQuery, GivenQuery, QueryEncoder
from rerank_sidecar.rerankers.flow import DocumentFlow, Outcomes
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.rerankers.maxsim import MaxSim
from rerank_sidecar.rerankers.reading import (
    DocumentReading,
    Finish,
    TooLong,
    WindowLimits,
    token_counts,
    too_long,
)
from rerank_sidecar.rerankers.sharing import Lease
from rerank_sidecar.rerankers.threads import in_thread
from rerank_sidecar.rerankers.token_matrix import EncodedDocument, QueryMatrix
from rerank_sidecar.types import Document, LongDocumentPolicy


@dataclass(frozen=True, slots=True)
class LateInteractionConfig:
    """What a model reads and how its vectors are compared; part of the model: scores depend on it.

    Special tokens take part in MaxSim where the switches say so; a text that has no other tokens
    keeps them. With a `cosine_weight` of w the score is (maxsim + w * cosine) / (1 + w), where the
    cosine is that of the mean token vectors, special tokens included. `max_query_tokens` is how
    much of a query is read, special tokens not counted, None being what the limits say. Of
    documents, the vectors of `skipped_token_ids` take no part.
    """

    limits: WindowLimits
    keep_query_special_tokens: bool = True
    keep_document_special_tokens: bool = True
    cosine_weight: float = 0.0
    max_query_tokens: int | None = None
    expansion: Expansion | None = None
    skipped_token_ids: frozenset[int] = frozenset()


class LateInteractionReranker:
    """Scores by MaxSim over the token vectors of one encoder, whose backend gives hidden states.

    `executor` runs what computes besides the encoder; None is the event loop's own. `cache` keeps
    encoded documents; no bit of a score depends on what it holds. `query_tokenizer` reads queries
    where they are not read as documents are. Without a `cosine_weight` callers may send the vectors
    of queries and documents: those that the encoder would give.

    Raises:
        ModelNotServable: the limits leave no room for a document.
    """

    def __init__(  # noqa: PLR0913 - the parts that it is put together from
        self,
        info: RerankerInfo,
        tokenizer: TextTokenizer,
        scheduler: Scheduler,
        config: LateInteractionConfig,
        executor: Executor | None = None,
        *,
        cache: TokenMatrixCache | None = None,
        query_tokenizer: TextTokenizer | None = None,
    ) -> None:
        config.limits.check(tokenizer.single)
        self._info = info
        self._scheduler = scheduler
        self._limits = config.limits
        self._executor = executor
        maxsim = MaxSim(
            tokenizer.single,
            config.keep_query_special_tokens,
            config.keep_document_special_tokens,
            config.cosine_weight,
        )
        self._query_tokenizer = query_tokenizer or tokenizer
        self._max_query_tokens = config.max_query_tokens or config.limits.max_query_tokens
        self._expansion = config.expansion
        self._queries = QueryEncoder(
            self._query_tokenizer,
            scheduler,
            maxsim.encode_query,
            self._max_query_tokens,
            executor,
            expansion=config.expansion,
        )
        self._documents = DocumentModel(
            name=f"{info.version}\n{info.engine}\n{config}",
            tokenizer=tokenizer,
            maxsim=maxsim,
            capacity=config.limits.max_tokens - tokenizer.single.count,
            cache=cache,
            skipped_token_ids=config.skipped_token_ids,
        )

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
        """Estimate how many tokens the forward passes of a request read, special ones included.

        Documents whose matrices are kept in memory, or were sent, count a small share of theirs.
        """
        rules = self._limits.rules(options, self._info)
        document_tokens = self._documents.estimate_tokens(documents, rules)
        if options.query_vectors is not None:
            return document_tokens
        return self._estimate_query_tokens(query) + document_tokens

    def _estimate_query_tokens(self, query: str) -> int:
        own = min(self._documents.ratio.tokens(query), self._max_query_tokens)
        tokens = own + self._query_tokenizer.single.count
        return tokens if self._expansion is None else max(tokens, self._expansion.length)

    def count_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> list[int]:
        """Count what is read for each document; the query is read once for all of them."""
        rules, model = self._limits.rules(options, self._info), self._documents
        texts = [document.text for document in documents if document.vectors is None]
        counts = iter(token_counts(model.read(model.key_of(rules), rules, texts)))
        return [next(counts) if document.vectors is None else 0 for document in documents]

    def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents as they arrive and yield each outcome once, as soon as it is known.

        Raises:
            CallEnded: the deadline passed.
            LimitExceeded: the query is too long and may not be cut.
            Unavailable: the scheduler is closing.
            ServerFault: the query could not be encoded.
        """
        flow = DocumentFlow(self._scheduler, options)
        return flow.outcomes(partial(self._read_query, query, options), documents)

    def _read_query(self, query: str, options: ScoreOptions) -> _ReadQuery:
        rules = self._limits.rules(options, self._info)
        lease: Lease[EncodedQuery] | GivenQuery
        if options.query_vectors is None:
            lease = self._queries.lease(query, options.priority)
        else:
            lease = GivenQuery(options.query_vectors, self._executor)
        return _ReadQuery(lease, self._documents, rules, options, self._executor)


class _ReadQuery:
    """A query on its way through the encoder, and how its documents are read meanwhile."""

    def __init__(
        self,
        lease: Lease[EncodedQuery] | GivenQuery,
        documents: DocumentModel,
        rules: WindowRules,
        options: ScoreOptions,
        executor: Executor | None,
    ) -> None:
        self._lease = lease
        self._documents = documents
        self._rules = rules
        self._options = options
        self._executor = executor
        self._key_of = documents.key_of(rules)
        self._is_counted = False

    async def recall(self, group: IndexedDocuments) -> tuple[Outcomes, IndexedDocuments]:
        given = sum(document.vectors is not None for _, document in group)
        if self._documents.cache is None and not given:
            return [], group
        recalled, seconds = await in_thread(
            self._executor,
            self._documents.recall,
            self._key_of,
            [document for _, document in group],
        )
        self._options.meter.tokenise_s += seconds
        known = [
            (index, encoded)
            for (index, _), encoded in zip(group, recalled, strict=True)
            if encoded is not None
        ]
        unknown = [
            indexed for indexed, encoded in zip(group, recalled, strict=True) if encoded is None
        ]
        self._options.meter.matrix_hits += len(known) - given
        return (await self._score(known) if known else []), unknown

    async def read(self, texts: Sequence[str]) -> list[DocumentReading | TooLong]:
        readings, seconds = await in_thread(
            self._executor, self._documents.read, self._key_of, self._rules, texts
        )
        self._options.meter.tokenise_s += seconds
        return readings

    async def finish(self) -> Finish:
        return partial(self._documents.score_window, await self._matrix())

    def close(self) -> None:
        self._lease.close()

    async def _score(self, known: Sequence[tuple[int, EncodedDocument]]) -> Outcomes:
        query = await self._matrix()
        scores, seconds = await in_thread(
            self._executor, self._documents.score, query, [encoded for _, encoded in known]
        )
        meter = self._options.meter
        meter.infer_s += seconds
        meter.pairs += sum(score.window_count for score in scores)
        return [(index, score) for (index, _), score in zip(known, scores, strict=True)]

    async def _matrix(self) -> QueryMatrix:
        encoded = await self._lease.value(self._options.deadline)
        if encoded.truncated and self._rules.policy is LongDocumentPolicy.REJECT:
            raise too_long("query", encoded.length, encoded.kept)
        if not self._is_counted:
            self._is_counted = True
            encoded.count(self._options.meter, is_first=self._lease.is_first)
        return encoded.matrix
