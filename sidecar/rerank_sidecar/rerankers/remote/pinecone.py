"""Pinecone's inference API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Access, Question
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind

_API_VERSION = "2025-10"

_CUT = {"truncate": "END"}
"""A parameter of Pinecone's own models: https://docs.pinecone.io/guides/search/rerank-results."""


class PineconeWire(HttpWire):
    """`POST /rerank`; documents are objects, scores are in [0, 1].

    Its own models take 100 documents a call, Cohere's takes 200.
    """

    default_path = "/rerank"
    usual_kind = ScoreKind.PROBABILITY
    max_documents = 100

    def headers(self, access: Access) -> dict[str, str]:
        """Show the key in a header of its own, beside the version of the API."""
        key = {} if access.key is None else {"Api-Key": access.key}
        return {"X-Pinecone-Api-Version": _API_VERSION, **key}

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question; bge-reranker-v2-m3 refuses what is too long unless told to cut it."""
        return {
            **({} if self.target.model.startswith("cohere-") else {"parameters": _CUT}),
            "model": self.target.model,
            "query": question.query,
            "documents": [{"text": text} for text in question.texts],
            "rank_fields": ["text"],
            "top_n": len(question.texts),
            "return_documents": False,
        }

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "data"), "score")
