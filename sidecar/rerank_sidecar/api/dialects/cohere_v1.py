"""Cohere's rerank API of version 1, as the `cohere` SDK's `Client` and its followers call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.ranking import (
    UNIT,
    Candidates,
    CohereAnswer,
    CohereError,
    MaxChunks,
    RankFields,
    RankingRequest,
    ask,
    cohere_answer,
    cohere_error,
    policy_of_chunks,
)
from rerank_sidecar.errors import RerankError
from rerank_sidecar.types import RerankRequest, RerankResult


class CohereV1Request(RankingRequest, frozen=True, kw_only=True):
    """A query with its documents, which are texts or objects."""

    rank_fields: RankFields = None
    max_chunks_per_doc: MaxChunks = None


class CohereV1Dialect(Dialect[CohereV1Request]):
    """Echoes documents as they were sent, and a long one is worth its best chunk."""

    name: ClassVar[str] = "cohere_v1"
    summary: ClassVar[str] = "Rank documents as Cohere's API does, version 1"
    mount: ClassVar[str] = "/cohere"
    paths: ClassVar[tuple[str, ...]] = ("/v1/rerank",)
    message_type = CohereV1Request
    answer_type: ClassVar[type] = CohereAnswer
    error_type: ClassVar[type] = CohereError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "rerank-v3.5",
        "query": "red fruit",
        "documents": ["sky", {"title": "apple", "text": "a red fruit"}],
        "rank_fields": ["title", "text"],
        "top_n": 1,
        "return_documents": True,
    }

    def parse(self, message: CohereV1Request) -> RerankRequest:
        """Take the texts of the documents, or of their `rank_fields`."""
        policy = policy_of_chunks(message.max_chunks_per_doc)
        options = replace(UNIT, long_document_policy=policy)
        return ask(message, Candidates(message.documents, message.rank_fields), options)

    def render(self, message: CohereV1Request, result: RerankResult) -> CohereAnswer:
        """Give the documents, best first.

        Raises:
            RerankError: the error of the first document, if all of them failed.
        """
        candidates = Candidates(message.documents, message.rank_fields)
        return cohere_answer(message, candidates, result, version="1")

    def render_error(self, error: RerankError) -> tuple[int, CohereError]:
        """Give the message and an id."""
        return cohere_error(error)
