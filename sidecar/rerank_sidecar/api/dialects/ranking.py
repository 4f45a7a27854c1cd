"""What the dialects that grew out of Cohere's share: how they ask, and the parts of their answers.

Cohere's form of 2023 (`documents`, `top_n`, `results` with `index` and `relevance_score`) is what
most products took over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeAlias
from uuid import uuid4

from msgspec import UNSET, Meta, Struct, UnsetType

from rerank_sidecar.api.dialects.fields import (
    as_bool,
    placed,
    positive,
    ranked_document,
    text_document,
)
from rerank_sidecar.errors import RerankError, error_row
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
)

Text: TypeAlias = str | dict[str, Any]
"""A text, or an object that has one."""

DOCUMENTS_PER_UNIT = 100
"""Cohere and Pinecone bill a query with up to so many documents as one unit."""

UNIT = RerankOptions(normalization=Normalization.UNIT)
"""The options of a dialect that promises scores in [0, 1]."""

RankFields = Annotated[
    list[str] | None,
    Meta(description="The fields that objects are ranked by, in this order. Unset: `text`."),
]

MaxChunks = Annotated[
    int | None,
    Meta(
        description="1: only the beginning of a long document is read. Otherwise the server's own "
        "limit holds."
    ),
]

TopN = Annotated[
    int | None, Meta(description="How many results to return; unset or not positive: all.")
]

ReturnDocuments = Annotated[
    bool | str | None, Meta(description="Whether results carry their document. Unset: no.")
]


class Asks(Protocol):
    """What is read of a request besides its documents."""

    @property
    def query(self) -> Text:
        """Give what the user asked."""

    @property
    def model(self) -> str | None:
        """Name the model; None and an empty name mean the default."""

    @property
    def top_n(self) -> int | None:
        """Tell how many results to return; unset or not positive means all."""

    @property
    def return_documents(self) -> bool | str | None:
        """Tell whether results carry their document."""


class RankingRequest(Struct, frozen=True, kw_only=True):
    """What Cohere and Jina are asked."""

    query: Annotated[Text, Meta(description="What the user asked.")]
    documents: Annotated[list[Text], Meta(description="The candidates.")]
    model: Annotated[str | None, Meta(description="Unset: the server's default.")] = None
    top_n: TopN = None
    return_documents: ReturnDocuments = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Documents as they were sent, and by which of their fields they are ranked."""

    given: Sequence[Text]
    rank_fields: Sequence[str] | None = None

    def documents(self) -> tuple[Document, ...]:
        """Give their texts.

        Raises:
            InvalidField: one has none.
        """
        return tuple(map(self._document, range(len(self.given))))

    def echo(self, index: int) -> dict[str, Any]:
        """Give one back: all its fields, and the text that was read if it has no `text`."""
        given = self.given[index]
        fields = {} if isinstance(given, str) else given
        return {"text": self._document(index).text, **fields}

    def _document(self, index: int) -> Document:
        return ranked_document(self.given[index], f"documents[{index}]", self.rank_fields)


class RankingResult(Struct, frozen=True):
    """A document's place and its score in [0, 1]."""

    index: int
    relevance_score: float
    document: Annotated[
        dict[str, Any] | UnsetType, Meta(description="The document with its `text`, if asked for.")
    ] = UNSET


class ApiVersion(Struct, frozen=True):
    """The version of Cohere's API that is spoken."""

    version: str


class BilledUnits(Struct, frozen=True):
    """What Cohere would have billed: one unit for each hundred documents begun."""

    search_units: int


class MetaTokens(Struct, frozen=True):
    """The tokens that the model read and wrote."""

    input_tokens: int
    output_tokens: int = 0


class RankingMeta(Struct, frozen=True):
    """What Cohere tells besides the results; `warnings` names the documents that failed alone."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: MetaTokens
    warnings: list[str] | UnsetType = UNSET


class CohereAnswer(Struct, frozen=True):
    """The documents, best first."""

    id: str
    results: list[RankingResult]
    meta: RankingMeta


class CohereError(Struct, frozen=True):
    """Why a call failed."""

    id: str
    message: str


def ask(message: Asks, candidates: Candidates, options: RerankOptions) -> RerankRequest:
    """Say a request in our words.

    Raises:
        InvalidField: a document has no text, or a boolean is neither true nor false.
    """
    asked = replace(
        options,
        model=message.model or None,
        top_n=positive(message.top_n),
        return_documents=_wants_documents(message),
    )
    query = text_document(message.query, "query").text
    return RerankRequest(query, candidates.documents(), asked)


def ranking(message: Asks, candidates: Candidates, result: RerankResult) -> list[RankingResult]:
    """Give the results, best first and none lost, as Cohere does.

    Raises:
        RerankError: the error of the first document, if all of them failed.
    """
    echoes = _wants_documents(message)
    return [
        RankingResult(each.index, each.score, candidates.echo(each.index) if echoes else UNSET)
        for each in placed(result, positive(message.top_n))
    ]


def cohere_answer(
    message: Asks, candidates: Candidates, result: RerankResult, version: str
) -> CohereAnswer:
    """Give the documents, best first, as Cohere's API of that version does.

    Raises:
        RerankError: the error of the first document, if all of them failed.
    """
    results = ranking(message, candidates, result)
    return CohereAnswer(new_id(), results, ranking_meta(candidates, result, version))


def cohere_error(error: RerankError) -> tuple[int, CohereError]:
    """Say an error with a status of which Cohere's SDK makes an exception."""
    return error_row(error).http_status, CohereError(new_id(), error.message)


def ranking_meta(candidates: Candidates, result: RerankResult, version: str) -> RankingMeta:
    """Tell what Cohere's API of that version tells besides the results."""
    warnings = [
        f"documents[{each.index}]: not scored and put last: {error_row(each.error).reason}"
        for each in result.results
        if each.error is not None
    ]
    return RankingMeta(
        ApiVersion(version),
        BilledUnits(billed_units(len(candidates.given))),
        MetaTokens(result.summary.usage.tokens),
        warnings or UNSET,
    )


def policy_of_chunks(max_chunks_per_doc: int | None) -> LongDocumentPolicy | None:
    """Understand how many chunks of a document are read: one, or as many as the server does."""
    return LongDocumentPolicy.TRUNCATE if max_chunks_per_doc == 1 else None


def billed_units(document_count: int) -> int:
    """Give the units that a hosted product bills for a query with so many documents."""
    return -(-document_count // DOCUMENTS_PER_UNIT)


def new_id() -> str:
    """Make up the id of an answer or of an error."""
    return str(uuid4())


def _wants_documents(message: Asks) -> bool:
    return as_bool(message.return_documents, "return_documents")
