"""Bi-encoders: one vector for a query, one for a document, and the cosine between them.

This is late interaction with matrices of a single row: the best cosine of the only query vector
with the only document vector is their cosine. So documents are read, kept, sent by callers and
scored as there. Reimers and Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese
BERT-Networks", EMNLP 2019.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from rerank_sidecar.errors import InvalidField
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, ScoreOptions
from rerank_sidecar.rerankers.late_interaction import LateInteractionReranker


class BiEncoderReranker(LateInteractionReranker):
    """Scores by the cosine of the vectors of an encoder whose backend gives [dimension].

    Of several vectors that a caller sends for one document the best counts, as the best window of a
    long text does.
    """

    def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents as they arrive and yield each outcome once, as soon as it is known.

        Raises:
            InvalidField: more than one vector was sent for the query.
            CallEnded: the deadline passed.
            LimitExceeded: the query is too long and may not be cut.
            Unavailable: the scheduler is closing.
            ServerFault: the query could not be encoded.
        """
        vectors = options.query_vectors
        if vectors is not None and len(vectors) > 1:
            raise InvalidField(
                f"query_vectors: must be one vector for {self.info.name}, not {len(vectors)}",
                "query_vectors",
            )
        return super().score(query, documents, options)
