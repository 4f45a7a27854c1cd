"""Pinecone's inference API: documents are objects, `data` with `score` comes back.

The SDK (10.2) sends a text as `{"text"}`, always sends `rank_fields` and `return_documents`, and
cannot read an answer without `usage.rerank_units`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Meta, Struct, UnsetType

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.fields import (
    as_bool,
    placed,
    refuse_too_long,
)
from rerank_sidecar.api.dialects.ranking import (
    Candidates,
    RankFields,
    Text,
    billed_units,
)
from rerank_sidecar.errors import InvalidField, RerankError, error_row
from rerank_sidecar.types import (
    LongDocumentPolicy,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
)

_POLICIES: Mapping[str | None, LongDocumentPolicy | None] = MappingProxyType(
    {None: None, "END": LongDocumentPolicy.TRUNCATE, "NONE": LongDocumentPolicy.REJECT}
)


class PineconeParameters(Struct, frozen=True):
    """What a model may be told besides; others are ignored."""

    truncate: Annotated[
        str | None,
        Meta(
            description="`END` cuts long documents, `NONE` fails the call for them. Unset: what "
            "the model does by itself."
        ),
    ] = None


class PineconeRequest(Struct, frozen=True):
    """A query with its documents."""

    query: Annotated[str, Meta(description="What the user asked.")]
    documents: Annotated[list[Text], Meta(description="The candidates.")]
    model: Annotated[str | None, Meta(description="Unset: the server's default.")] = None
    rank_fields: RankFields = None
    top_n: Annotated[
        int | None, Meta(description="How many results to return, at least 1. Unset: all.")
    ] = None
    return_documents: Annotated[
        bool | str | None, Meta(description="Whether results carry their document. Unset: yes.")
    ] = None
    parameters: PineconeParameters | None = None


class PineconeResult(Struct, frozen=True):
    """A document's place and its score in [0, 1]; `document` is as it was sent."""

    index: int
    score: float
    document: dict[str, Any] | UnsetType = UNSET


class PineconeUsage(Struct, frozen=True):
    """What a call cost: one unit for each hundred documents begun."""

    rerank_units: int


class PineconeAnswer(Struct, frozen=True):
    """The documents, best first."""

    model: str
    data: list[PineconeResult]
    usage: PineconeUsage


class PineconeErrorDetails(Struct, frozen=True):
    """Why a call failed; `code` is the name of a gRPC code."""

    code: str
    message: str


class PineconeError(Struct, frozen=True):
    """A failed call."""

    error: PineconeErrorDetails
    status: int


class PineconeDialect(Dialect[PineconeRequest]):
    """Returns documents unless it is told not to."""

    name: ClassVar[str] = "pinecone"
    summary: ClassVar[str] = "Rank documents as Pinecone's API does"
    mount: ClassVar[str] = "/pinecone"
    paths: ClassVar[tuple[str, ...]] = ("/rerank",)
    key_headers: ClassVar[tuple[str, ...]] = ("api-key", "authorization")
    message_type = PineconeRequest
    answer_type: ClassVar[type] = PineconeAnswer
    error_type: ClassVar[type] = PineconeError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "bge-reranker-v2-m3",
        "query": "red fruit",
        "documents": [{"id": "a", "text": "sky"}, {"id": "b", "text": "apple"}],
        "top_n": 1,
        "rank_fields": ["text"],
        "return_documents": True,
        "parameters": {"truncate": "END"},
    }

    def parse(self, message: PineconeRequest) -> RerankRequest:
        """Take the texts of the documents' `rank_fields`; a `top_n` below 1 is refused."""
        documents = Candidates(message.documents, message.rank_fields).documents()
        options = RerankOptions(
            model=message.model or None,
            top_n=message.top_n,
            return_documents=_wants_documents(message),
            long_document_policy=_policy(message),
            normalization=Normalization.UNIT,
        )
        return RerankRequest(message.query, documents, options)

    def render(self, message: PineconeRequest, result: RerankResult) -> PineconeAnswer:
        """Give the documents, best first.

        Raises:
            LimitExceeded: `truncate` is NONE, and a document was too long.
            RerankError: the error of the first document, if all of them failed.
        """
        if _policy(message) is LongDocumentPolicy.REJECT:
            refuse_too_long(result)
        wants_documents = _wants_documents(message)
        data = [
            PineconeResult(
                each.index,
                each.score,
                _as_object(message.documents[each.index]) if wants_documents else UNSET,
            )
            for each in placed(result, message.top_n)
        ]
        usage = PineconeUsage(billed_units(len(message.documents)))
        return PineconeAnswer(result.summary.model.name, data, usage)

    def render_error(self, error: RerankError) -> tuple[int, PineconeError]:
        """Give the message and the name of the gRPC code, as all of Pinecone's APIs do."""
        row = error_row(error)
        details = PineconeErrorDetails(row.grpc_code, error.message)
        return row.http_status, PineconeError(details, row.http_status)


def _policy(message: PineconeRequest) -> LongDocumentPolicy | None:
    given = message.parameters.truncate if message.parameters else None
    if given not in _POLICIES:
        field = "parameters.truncate"
        raise InvalidField(f"{field}: must be END or NONE", field)
    return _POLICIES[given]


def _wants_documents(message: PineconeRequest) -> bool:
    return as_bool(message.return_documents, "return_documents", default=True)


def _as_object(given: Text) -> dict[str, Any]:
    return {"text": given} if isinstance(given, str) else given
