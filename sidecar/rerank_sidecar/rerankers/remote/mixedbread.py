"""Mixedbread's reranking API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Question
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind


class MixedbreadWire(HttpWire):
    """`POST /v1/reranking`. `top_k` is always sent: what is meant without it is the server's."""

    default_path = "/v1/reranking"
    usual_kind = ScoreKind.PROBABILITY
    max_documents = 1000

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        return {
            "model": self.target.model,
            "query": question.query,
            "input": list(question.texts),
            "top_k": len(question.texts),
            "return_input": False,
        }

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "data"), "score")
