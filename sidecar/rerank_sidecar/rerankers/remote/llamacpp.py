"""llama.cpp's server, started with `--reranking`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Question
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind

_TOO_LONG = b"is too large to process"


class LlamaCppWire(HttpWire):
    """`POST /v1/rerank`; logits, but for models with two classes, whose scores are probabilities.

    A pair longer than its physical batch (`-ub`, 512 tokens) fails the whole call, with status 500:
    https://github.com/ggml-org/llama.cpp/blob/master/tools/server/server-context.cpp.
    """

    default_path = "/v1/rerank"
    usual_kind = ScoreKind.RAW_LOGIT
    max_documents = 64

    def is_refusal(self, status: int, body: bytes) -> bool:
        """Tell whether an error is about what was sent: a text that is too long is, too."""
        return super().is_refusal(status, body) or (status == 500 and _TOO_LONG in body)

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        body = {
            "query": question.query,
            "documents": list(question.texts),
            "top_n": len(question.texts),
        }
        return {**body, "model": self.target.model} if self.target.model else body

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "results"), "relevance_score")
