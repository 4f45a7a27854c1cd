"""Voyage's rerank API, as the `voyageai` SDK calls it: `top_k` in, `data` out.

The SDK (0.5) makes its exceptions of the status, and of a 4xx without `detail` an APIError.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Meta, Struct, UnsetType

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.fields import (
    DetailError,
    as_bool,
    detail_error,
    placed,
    positive,
    refuse_too_long,
)
from rerank_sidecar.api.dialects.ranking import ReturnDocuments, TopN
from rerank_sidecar.errors import (
    MalformedBody,
    ModelNotFound,
    NotSupportedByModel,
    RerankError,
)
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
)

_STATUSES: Mapping[type[RerankError], int] = MappingProxyType(
    {MalformedBody: 422, ModelNotFound: 400, NotSupportedByModel: 400}
)


class VoyageRequest(Struct, frozen=True):
    """A query with its documents."""

    query: Annotated[str, Meta(description="What the user asked.")]
    documents: Annotated[list[str], Meta(description="The candidates.")]
    model: Annotated[str | None, Meta(description="Unset: the server's default.")] = None
    top_k: TopN = None
    return_documents: ReturnDocuments = None
    truncation: Annotated[
        bool | str | None,
        Meta(description="Whether long texts are cut; if not, they fail the call. Unset: yes."),
    ] = None


class VoyageResult(Struct, frozen=True):
    """A document's place and its score in [0, 1]."""

    index: int
    relevance_score: float
    document: str | UnsetType = UNSET


class VoyageUsage(Struct, frozen=True):
    """What a call cost."""

    total_tokens: int


class VoyageAnswer(Struct, frozen=True):
    """The documents, best first."""

    object: str
    data: list[VoyageResult]
    model: str
    usage: VoyageUsage


class VoyageDialect(Dialect[VoyageRequest]):
    """Cuts long documents, or fails the call for them."""

    name: ClassVar[str] = "voyage"
    summary: ClassVar[str] = "Rank documents as Voyage's API does"
    mount: ClassVar[str] = "/voyage"
    paths: ClassVar[tuple[str, ...]] = ("/v1/rerank",)
    field_names: ClassVar[Mapping[str, str]] = MappingProxyType({"top_n": "top_k"})
    message_type = VoyageRequest
    answer_type: ClassVar[type] = VoyageAnswer
    error_type: ClassVar[type] = DetailError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "rerank-2.5",
        "query": "red fruit",
        "documents": ["sky", "apple"],
        "top_k": 1,
        "truncation": True,
    }

    def parse(self, message: VoyageRequest) -> RerankRequest:
        """Take the texts."""
        policy = LongDocumentPolicy.TRUNCATE if _cuts(message) else LongDocumentPolicy.REJECT
        options = RerankOptions(
            model=message.model or None,
            top_n=positive(message.top_k),
            return_documents=as_bool(message.return_documents, "return_documents"),
            long_document_policy=policy,
            normalization=Normalization.UNIT,
        )
        return RerankRequest(message.query, tuple(map(Document, message.documents)), options)

    def render(self, message: VoyageRequest, result: RerankResult) -> VoyageAnswer:
        """Give the documents, best first.

        Raises:
            LimitExceeded: `truncation` is off, and a document was too long.
            RerankError: the error of the first document, if all of them failed.
        """
        if not _cuts(message):
            refuse_too_long(result)
        wants_documents = as_bool(message.return_documents, "return_documents")
        data = [
            VoyageResult(
                each.index,
                each.score,
                message.documents[each.index] if wants_documents else UNSET,
            )
            for each in placed(result, positive(message.top_k))
        ]
        usage = VoyageUsage(result.summary.usage.tokens)
        return VoyageAnswer("list", data, result.summary.model.name, usage)

    def render_error(self, error: RerankError) -> tuple[int, DetailError]:
        """Give the message as a string."""
        return detail_error(error, _STATUSES)


def _cuts(message: VoyageRequest) -> bool:
    return as_bool(message.truncation, "truncation", default=True)
