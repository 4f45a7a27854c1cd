"""Weaviate's reranker-transformers module, as its stock inference container is spoken to.

The module cuts a search into chunks of 32 documents, reads `scores[i].score` by position, sends
no header that it was not forced to, and can tell an error only by a string under `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Meta, Struct, UnsetType

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.fields import placed
from rerank_sidecar.errors import InvalidField, NotSupportedByModel, RerankError, error_row
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    Document,
    RerankOptions,
    RerankRequest,
    RerankResult,
)


class WeaviateRequest(Struct, frozen=True):
    """A query with its documents, or in the old form with one text under `property`."""

    query: Annotated[str, Meta(description="What the user asked.")]
    documents: Annotated[
        list[str] | None, Meta(description="The candidates; scored in this order.")
    ] = None
    property: Annotated[
        str | None, Meta(description="The one text to score when `documents` is absent or null.")
    ] = None


class DocumentScore(Struct, frozen=True):
    """A document and its score on the model's own scale; always finite."""

    document: str
    score: float


class FailedDocument(Struct, frozen=True):
    """A document that failed alone; its score in `scores` is the floor of the score kind."""

    index: int
    reason: str
    message: str


class WeaviateAnswer(Struct, frozen=True):
    """One score per document in input order, or the one score of the old form."""

    query: str
    scores: list[DocumentScore] | None
    property: str | None
    score: float | None
    errors: Annotated[
        list[FailedDocument] | UnsetType, Meta(description="Present when documents failed alone.")
    ] = UNSET


class WeaviateError(Struct, frozen=True):
    """Why a call failed; a string, because the module reads no other form."""

    error: str


class WeaviateDialect(Dialect[WeaviateRequest]):
    """Answers by position alone, so that a document that fails has to have a score, too."""

    name: ClassVar[str] = "weaviate"
    summary: ClassVar[str] = "Score documents for Weaviate's reranker-transformers module"
    mount: ClassVar[str] = "/weaviate"
    paths: ClassVar[tuple[str, ...]] = ("/rerank",)
    message_type = WeaviateRequest
    answer_type: ClassVar[type] = WeaviateAnswer
    error_type: ClassVar[type] = WeaviateError
    example: ClassVar[Mapping[str, Any]] = {
        "query": "red fruit",
        "documents": ["apple", "sky"],
        "property": "",
    }

    def parse(self, message: WeaviateRequest) -> RerankRequest:
        """Take the documents, or the property as the only one."""
        documents = tuple(Document(text) for text in _texts(message))
        return RerankRequest(message.query, documents, RerankOptions(is_chunk=True))

    def render(self, message: WeaviateRequest, result: RerankResult) -> WeaviateAnswer:
        """Put one finite score per document in input order.

        Raises:
            RerankError: the error of the first document, if all of them failed.
            NotSupportedByModel: the model ranks whole lists, and a chunk is not one.
        """
        if result.summary.score_kind is ScoreKind.RANK:
            raise NotSupportedByModel("the model ranks whole lists, Weaviate sends parts of them")
        in_input_order = sorted(placed(result), key=lambda each: each.index)
        failed = [
            FailedDocument(each.index, error_row(each.error).reason, each.error.message)
            for each in in_input_order
            if each.error is not None
        ]
        values = [each.score for each in in_input_order]
        if message.documents is None:
            return WeaviateAnswer(message.query, None, message.property, values[0])
        scores = [DocumentScore(*pair) for pair in zip(message.documents, values, strict=True)]
        return WeaviateAnswer(message.query, scores, None, None, errors=failed or UNSET)

    def render_error(self, error: RerankError) -> tuple[int, WeaviateError]:
        """Give the message as the string that the module shows to its user."""
        return error_row(error).http_status, WeaviateError(error.message)


def _texts(message: WeaviateRequest) -> list[str]:
    if message.documents is not None:
        return message.documents
    if message.property is None:
        raise InvalidField("documents: missing, and so is property", "documents")
    return [message.property]
