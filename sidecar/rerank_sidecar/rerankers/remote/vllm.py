"""vLLM's rerank and score APIs.

Cross-encoders, late-interaction models and bi-encoders answer at the same paths on scales of their
own, which the server does not tell: the option `score_kind` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Question
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind

_MOST = -1
"""As many tokens as the model reads; without it, a pair that is longer fails the whole call."""


class VllmRerankWire(HttpWire):
    """`POST /rerank`, which older versions have as `/v1/rerank`, too."""

    default_path = "/rerank"
    usual_kind = ScoreKind.PROBABILITY
    max_documents = 256

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question; every document is sent back, whatever is asked."""
        return {
            **self.asked(),
            "query": question.query,
            "documents": list(question.texts),
        }

    def asked(self) -> dict[str, Any]:
        """Give what both of its APIs are told."""
        asked: dict[str, Any] = {"truncate_prompt_tokens": _MOST}
        if self.target.model:
            asked["model"] = self.target.model
        if self.score_kind is ScoreKind.RAW_LOGIT:
            asked["use_activation"] = False
        return asked

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "results"), "relevance_score")


class VllmScoreWire(VllmRerankWire):
    """`POST /score`, which sends no documents back and keeps their order."""

    default_path = "/score"

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        return {**self.asked(), "text_1": question.query, "text_2": list(question.texts)}

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "data"), "score")
