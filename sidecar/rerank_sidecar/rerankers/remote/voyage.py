"""Voyage's rerank API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Question
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind


class VoyageWire(HttpWire):
    """`POST /v1/rerank`; scores are in [0, 1].

    A call may have 1000 documents and 600,000 tokens, the query's counted once for each document.
    """

    default_path = "/v1/rerank"
    usual_kind = ScoreKind.PROBABILITY
    max_documents = 1000

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question; what is too long is cut, or the whole call would fail."""
        return {
            "model": self.target.model,
            "query": question.query,
            "documents": list(question.texts),
            "truncation": True,
        }

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "data"), "relevance_score")
