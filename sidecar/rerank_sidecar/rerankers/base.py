"""The seam to a family of rerankers: a query and arriving documents in, outcomes out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from rerank_sidecar.errors import RerankError
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, LongDocumentPolicy, Score, Truncation, Vectors

IndexedDocuments = Sequence[tuple[int, Document]]
"""Some documents with their positions in the request: what arrived together."""

Outcome = Score | RerankError
"""What became of one document: a score on the model's own scale, or its own error."""


@dataclass(frozen=True, slots=True)
class RerankerInfo:
    """What a reranker is and what its scores mean.

    `max_tokens` is what it reads at once, special tokens included; None means no limit.
    `comparable_across_requests` is true when a score means the same in every request.
    `scripts` are the Unicode scripts that it reads; None means all of them. `max_windows` is how
    many windows of one document it reads at most, None where it reads no windows. Scores that
    `keep_scores` forbids to cache cost next to nothing, or depend on more than query and document.
    `vector_dimension` is the length of the vectors that callers may send in place of texts, None
    where it reads none.
    """

    name: str
    version: str
    family: str
    score_kind: ScoreKind
    engine: str
    source: str
    max_tokens: int | None = None
    comparable_across_requests: bool = True
    default_long_document_policy: LongDocumentPolicy = LongDocumentPolicy.TRUNCATE
    scripts: frozenset[str] | None = None
    max_windows: int | None = None
    keep_scores: bool = True
    vector_dimension: int | None = None


@dataclass(slots=True)
class Meter:
    """What one request has cost so far; filled in by the reranker while it scores.

    `tokens` are those whose forward pass is done, `shared_tokens` those of them that were read for
    another request and are counted there. `cache_hits` are scores that were known already;
    `matrix_hits` are documents that were scored from a cached token matrix. `remote_calls` are
    calls to other servers, repeated ones included. `answered_by` is set where another model took
    the place of the one that was asked.
    """

    tokens: int = 0
    shared_tokens: int = 0
    pairs: int = 0
    cache_hits: int = 0
    matrix_hits: int = 0
    queue_s: float = 0.0
    tokenise_s: float = 0.0
    infer_s: float = 0.0
    query_truncated: bool = False
    remote_calls: int = 0
    answered_by: RerankerInfo | None = None


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How a request wants its documents scored.

    `deadline` is on the clock of `time.monotonic`, in seconds. `meter` is written to.
    `query_vectors` are those that the caller sent for the query, float32 [rows, dimension].
    `is_chunk` tells that other documents of the same search may come as requests of their own.
    Without a `long_document_policy` the model's own default holds.
    """

    truncation: Truncation = field(default_factory=Truncation)
    long_document_policy: LongDocumentPolicy | None = None
    priority: int = 0
    deadline: float | None = None
    meter: Meter = field(default_factory=Meter)
    query_vectors: Vectors | None = None
    is_chunk: bool = False


@runtime_checkable
class TokenCounter(Protocol):
    """A reranker that can tell what it reads for each document."""

    def count_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> list[int]:
        """Count the tokens of the sequences of each document, 0 if it may not be read.

        Computes, so call it in a thread. Raises what scoring the query would raise.
        """
        ...


class Reranker(Protocol):
    """Scores documents against a query; knows what its scores mean, not who asks or in what order.

    Start-up and shutdown of what it runs on belong to whoever built it.
    """

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        ...

    @property
    def tokens_per_s(self) -> float:
        """How fast tokens are read when there is enough to do; infinity without a forward pass."""
        ...

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """Estimate how many tokens the forward passes of a request read, special ones included.

        Told from the lengths of texts, in microseconds a document, from any thread. A document that
        needs no forward pass, yet costs time, counts as many tokens as are read in that time.
        """
        ...

    def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents as they arrive and yield each outcome once, as soon as it is known.

        An error that is raised, rather than yielded, concerns the whole request. It runs on the
        event loop of all requests, so what computes for long belongs in a thread.
        """
        ...
