"""Infinity's rerank API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Question, Traits
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind

_MOST_CHARACTERS = 122_880
"""A longer text fails the whole call; no model here reads as much."""


class InfinityWire(HttpWire):
    """`POST /rerank`; logits, or probabilities if the options want them.

    It may be told to take 2048 documents a call, and queues them itself. Its usage counts
    characters, so that no tokens are taken from it.
    """

    default_path = "/rerank"
    usual_kind = ScoreKind.RAW_LOGIT
    max_documents = 256

    @property
    def traits(self) -> Traits:
        """Tell what is known of the server without asking it."""
        return replace(super().traits, max_characters=_MOST_CHARACTERS)

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        body = {
            "query": question.query,
            "documents": list(question.texts),
            "return_documents": False,
            "raw_scores": self.score_kind is ScoreKind.RAW_LOGIT,
        }
        return {**body, "model": self.target.model} if self.target.model else body

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "results"), "relevance_score")

    def tokens(self, answer: object) -> int:
        """It tells characters."""
        return 0
