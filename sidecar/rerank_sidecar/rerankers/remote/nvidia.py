"""NVIDIA's reranking NIMs, hosted by NVIDIA or in a container of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Question, Traits
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.score_kinds import ScoreKind


class NvidiaWire(HttpWire):
    """`POST /v1/ranking`, and a path for each model where NVIDIA hosts them; scores are logits.

    A passage without text fails the whole call, and so does one that is too long unless the call
    says that it may be cut.
    """

    default_path = "/v1/ranking"
    usual_kind = ScoreKind.RAW_LOGIT
    max_documents = 512

    @property
    def path(self) -> str:
        """Give where questions go: NVIDIA's host has a path for each model."""
        if self.options.path is None and self.target.is_default:
            owner, _, name = self.target.model.rpartition("/")
            return f"/v1/retrieval/{owner or 'nvidia'}/{name.replace('.', '_')}/reranking"
        return super().path

    @property
    def traits(self) -> Traits:
        """Tell what is known of the server without asking it."""
        return replace(super().traits, takes_empty=False)

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        return {
            "model": self.target.model,
            "query": {"text": question.query},
            "passages": [{"text": text} for text in question.texts],
            "truncate": "END",
        }

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "rankings"), "logit")
