"""Jina's rerank API, which many servers have taken over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Question, Target, Traits
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.rerankers.remote.options import HttpOptions
from rerank_sidecar.score_kinds import ScoreKind


class JinaWire(HttpWire):
    """`POST /v1/rerank`; scores are in [0, 1], those of jina-reranker-v3 cosines.

    jina-reranker-v3 reads all documents of a call together, and scores each by what it is beside:
    https://arxiv.org/abs/2509.25085.

    Whether documents come back has had either default, so that it is always said. `top_n` has, too:
    at some servers the one that is left out means fewer than all.
    """

    default_path = "/v1/rerank"
    usual_kind = ScoreKind.PROBABILITY
    max_documents = 1000

    def __init__(self, target: Target, options: HttpOptions) -> None:
        super().__init__(target, options)
        self._is_listwise = target.model.startswith("jina-reranker-v3")
        if self._is_listwise:
            self.score_kind = options.score_kind or ScoreKind.COSINE

    @property
    def traits(self) -> Traits:
        """Tell what is known of the server without asking it."""
        return replace(super().traits, comparable_across_requests=not self._is_listwise)

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        return {
            "model": self.target.model,
            "query": question.query,
            "documents": list(question.texts),
            "top_n": len(question.texts),
            "return_documents": False,
        }

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "results"), "relevance_score")
