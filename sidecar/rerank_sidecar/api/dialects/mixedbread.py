"""Mixedbread's rerank API: `input` and `top_k` in, `data` with `score` out.

Both SDKs (`mixedbread` 0.54 and the older `mixedbread-ai` 2.2) post to `/v1/reranking`; the body
of an error is the older one's, whose types are read here from its models. The newer one takes any.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.fields import (
    TokenUsage,
    as_bool,
    placed,
    positive,
    ranked_document,
    text_document,
    token_usage,
)
from rerank_sidecar.api.dialects.ranking import RankFields, ReturnDocuments, Text, TopN
from rerank_sidecar.errors import InvalidField, RerankError, error_row
from rerank_sidecar.types import (
    Document,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
)

Input: TypeAlias = str | dict[str, Any] | list[Text]
"""A document: a text, an object, or the parts of a text."""

_STATUSES: Mapping[type[RerankError], int] = MappingProxyType({InvalidField: 422})

_TYPES: Mapping[int, str] = MappingProxyType(
    {
        400: "bad_request_error",
        401: "unauthorized_error",
        404: "not_found_error",
        413: "bad_request_error",
        422: "validation_error",
        429: "too_many_requests_error",
    }
)


class MixedbreadRequest(Struct, frozen=True):
    """A query with its documents, which are called `input`."""

    query: Annotated[Text, Meta(description="What the user asked.")]
    input: Annotated[list[Input], Meta(description="The candidates.")]
    model: Annotated[str | None, Meta(description="Unset: the server's default.")] = None
    rank_fields: RankFields = None
    top_k: TopN = None
    return_input: ReturnDocuments = None


class MixedbreadResult(Struct, frozen=True):
    """A document's place and its score in [0, 1]; `input` is the document as it was sent."""

    index: int
    score: float
    input: Input | UnsetType = UNSET
    object: str = "rank_result"


class MixedbreadAnswer(Struct, frozen=True):
    """The documents, best first; `top_k` is how many were asked for."""

    object: str
    model: str
    usage: TokenUsage
    data: list[MixedbreadResult]
    top_k: int
    return_input: bool


class MixedbreadError(Struct, frozen=True):
    """Why a call failed."""

    type: str
    message: str
    url: str | None = None
    details: dict[str, str] | None = None


class MixedbreadDialect(Dialect[MixedbreadRequest]):
    """Does not rewrite queries: `rewrite_query` is ignored."""

    name: ClassVar[str] = "mixedbread"
    summary: ClassVar[str] = "Rank documents as Mixedbread's API does"
    mount: ClassVar[str] = "/mixedbread"
    paths: ClassVar[tuple[str, ...]] = ("/v1/reranking",)
    field_names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"documents": "input", "top_n": "top_k"}
    )
    message_type = MixedbreadRequest
    answer_type: ClassVar[type] = MixedbreadAnswer
    error_type: ClassVar[type] = MixedbreadError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "mixedbread-ai/mxbai-rerank-large-v2",
        "query": "red fruit",
        "input": ["sky", {"title": "apple", "text": "a red fruit"}],
        "rank_fields": ["title", "text"],
        "top_k": 1,
        "return_input": False,
    }

    def parse(self, message: MixedbreadRequest) -> RerankRequest:
        """Take the texts of the documents, or of their `rank_fields`."""
        inputs = enumerate(message.input)
        documents = (_document(each, f"input[{at}]", message.rank_fields) for at, each in inputs)
        options = RerankOptions(
            model=message.model or None,
            top_n=positive(message.top_k),
            return_documents=_wants_input(message),
            normalization=Normalization.UNIT,
        )
        query = text_document(message.query, "query").text
        return RerankRequest(query, tuple(documents), options)

    def render(self, message: MixedbreadRequest, result: RerankResult) -> MixedbreadAnswer:
        """Give the documents, best first.

        Raises:
            RerankError: the error of the first document, if all of them failed.
        """
        top_k, wants_input = positive(message.top_k), _wants_input(message)
        data = [
            MixedbreadResult(
                each.index, each.score, message.input[each.index] if wants_input else UNSET
            )
            for each in placed(result, top_k)
        ]
        return MixedbreadAnswer(
            object="list",
            model=result.summary.model.name,
            usage=token_usage(result),
            data=data,
            top_k=top_k or len(message.input),
            return_input=wants_input,
        )

    def render_error(self, error: RerankError) -> tuple[int, MixedbreadError]:
        """Give the message, and the field in `details` if there is one."""
        status = _STATUSES.get(type(error), error_row(error).http_status)
        field = getattr(error, "field", None)
        details = None if field is None else {"field": field}
        return status, MixedbreadError(
            _TYPES.get(status, "server_error"), error.message, details=details
        )


def _wants_input(message: MixedbreadRequest) -> bool:
    return as_bool(message.return_input, "return_input")


def _document(given: Input, field: str, rank_fields: list[str] | None) -> Document:
    if not isinstance(given, list):
        return ranked_document(given, field, rank_fields)
    parts = (text_document(part, f"{field}[{at}]").text for at, part in enumerate(given))
    return Document("\n".join(parts))
