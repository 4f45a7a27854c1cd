"""Xinference's rerank API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows, whole_number
from rerank_sidecar.rerankers.remote.base import Question
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind


class XinferenceWire(HttpWire):
    """`POST /v1/rerank`; what a score means depends on the model."""

    default_path = "/v1/rerank"
    usual_kind = ScoreKind.PROBABILITY
    max_documents = 256

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        return {
            "model": self.target.model,
            "query": question.query,
            "documents": list(question.texts),
            "top_n": len(question.texts),
            "return_documents": False,
            "return_len": True,
        }

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "results"), "relevance_score")

    def tokens(self, answer: object) -> int:
        """Find how many tokens it read."""
        return whole_number(answer, "meta", "tokens", "input_tokens")
