"""Cohere's rerank API, version 2, and whoever speaks it.

It refuses fields that it does not know. Without `top_n` it returns every document.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows, whole_number
from rerank_sidecar.rerankers.remote.base import Question, Traits
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind


class CohereWire(HttpWire):
    """`POST /v2/rerank`; scores are in [0, 1].

    A search unit is billed for up to 100 documents of a call; up to 1000 are recommended.
    """

    default_path = "/v2/rerank"
    usual_kind = ScoreKind.PROBABILITY
    max_documents = 1000

    @property
    def traits(self) -> Traits:
        """Tell what is known of the server without asking it."""
        return replace(super().traits, limits_tokens=True)

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        body = {
            "model": self.target.model,
            "query": question.query,
            "documents": list(question.texts),
        }
        most = question.truncation.max_tokens_per_document
        return body if most is None else {**body, "max_tokens_per_doc": most}

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "results"), "relevance_score")

    def tokens(self, answer: object) -> int:
        """Find how many tokens it read, which only some models tell."""
        return whole_number(answer, "meta", "tokens", "input_tokens")
