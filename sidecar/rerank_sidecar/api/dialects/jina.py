"""Jina's rerank API, as its clients since autumn 2025 know it.

Since then a returned document is a bare string (Weaviate's client reads no other form since its
commit e0621c6), and documents come back only if asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import UNSET, Struct, UnsetType

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.fields import (
    UNPROCESSABLE,
    DetailError,
    TokenUsage,
    as_bool,
    detail_error,
    placed,
    positive,
    text_document,
    token_usage,
)
from rerank_sidecar.api.dialects.ranking import UNIT, Candidates, RankingRequest, ask
from rerank_sidecar.errors import RerankError
from rerank_sidecar.types import RerankRequest, RerankResult


class JinaRequest(RankingRequest, frozen=True, kw_only=True):
    """A query with its documents, each of them a text or `{"text"}`."""


class JinaResult(Struct, frozen=True):
    """A document's place and its score in [0, 1]."""

    index: int
    relevance_score: float
    document: str | UnsetType = UNSET


class JinaAnswer(Struct, frozen=True):
    """The documents, best first."""

    model: str
    usage: TokenUsage
    results: list[JinaResult]


class JinaDialect(Dialect[JinaRequest]):
    """Reads texts only: a document that is an image is refused."""

    name: ClassVar[str] = "jina"
    summary: ClassVar[str] = "Rank documents as Jina's API does"
    mount: ClassVar[str] = "/jina"
    paths: ClassVar[tuple[str, ...]] = ("/v1/rerank",)
    message_type = JinaRequest
    answer_type: ClassVar[type] = JinaAnswer
    error_type: ClassVar[type] = DetailError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "jina-reranker-v3",
        "query": "red fruit",
        "documents": ["sky", {"text": "apple"}],
        "return_documents": True,
    }

    def parse(self, message: JinaRequest) -> RerankRequest:
        """Take the texts."""
        return ask(message, Candidates(message.documents), UNIT)

    def render(self, message: JinaRequest, result: RerankResult) -> JinaAnswer:
        """Give the documents, best first.

        Raises:
            RerankError: the error of the first document, if all of them failed.
        """
        wants_documents = as_bool(message.return_documents, "return_documents")
        results = [
            JinaResult(
                each.index,
                each.score,
                text_document(message.documents[each.index], "documents").text
                if wants_documents
                else UNSET,
            )
            for each in placed(result, positive(message.top_n))
        ]
        return JinaAnswer(result.summary.model.name, token_usage(result), results)

    def render_error(self, error: RerankError) -> tuple[int, DetailError]:
        """Give the message as a string; a body that does not fit is a 422."""
        return detail_error(error, UNPROCESSABLE)
