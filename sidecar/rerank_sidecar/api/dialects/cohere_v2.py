"""Cohere's rerank API of version 2: the `cohere` SDK's `ClientV2`, and Weaviate's reranker-cohere.

Weaviate's module takes a `baseURL`, sends up to 1,000 documents with `return_documents` false and
looks results up by `index` in a list of as many, so that every document has to come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.ranking import (
    UNIT,
    Candidates,
    CohereAnswer,
    CohereError,
    RankFields,
    RankingRequest,
    ask,
    cohere_answer,
    cohere_error,
)
from rerank_sidecar.errors import RerankError
from rerank_sidecar.types import RerankRequest, RerankResult, Truncation


class CohereV2Request(RankingRequest, frozen=True, kw_only=True):
    """A query with its documents; objects and `return_documents` are version 1's, and understood.

    LiteLLM sends them to version 2, too.
    """

    rank_fields: RankFields = None
    max_tokens_per_doc: Annotated[
        int | None, Meta(description="How much of a document is read. Unset: what the model can.")
    ] = None
    priority: Annotated[
        int | None, Meta(description="Requests with a lower number run sooner. Unset: 0.")
    ] = None


class CohereV2Dialect(Dialect[CohereV2Request]):
    """Gives places and scores alone, unless it is asked for the documents."""

    name: ClassVar[str] = "cohere_v2"
    summary: ClassVar[str] = "Rank documents as Cohere's API does, version 2"
    mount: ClassVar[str] = "/cohere"
    paths: ClassVar[tuple[str, ...]] = ("/v2/rerank",)
    field_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"truncation.max_tokens_per_document": "max_tokens_per_doc"}
    )
    message_type = CohereV2Request
    answer_type: ClassVar[type] = CohereAnswer
    error_type: ClassVar[type] = CohereError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "rerank-v3.5",
        "query": "red fruit",
        "documents": ["sky", "apple"],
        "top_n": 1,
    }

    def parse(self, message: CohereV2Request) -> RerankRequest:
        """Take the texts; Cohere's highest priority is the lowest number, ours the highest."""
        options = replace(
            UNIT,
            truncation=Truncation(message.max_tokens_per_doc),
            priority=-(message.priority or 0),
        )
        return ask(message, Candidates(message.documents, message.rank_fields), options)

    def render(self, message: CohereV2Request, result: RerankResult) -> CohereAnswer:
        """Give the documents, best first.

        Raises:
            RerankError: the error of the first document, if all of them failed.
        """
        candidates = Candidates(message.documents, message.rank_fields)
        return cohere_answer(message, candidates, result, version="2")

    def render_error(self, error: RerankError) -> tuple[int, CohereError]:
        """Give the message and an id."""
        return cohere_error(error)
