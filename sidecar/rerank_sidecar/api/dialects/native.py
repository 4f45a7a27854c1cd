"""Our own JSON form: the messages of rerank.proto under the same names, in snake_case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

from msgspec import UNSET, UnsetType

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.native_messages import (
    NORMALIZATIONS,
    POLICIES,
    SIDES,
    NativeAnswer,
    NativeAnswerDocument,
    NativeDocument,
    NativeDocumentError,
    NativeError,
    NativeErrorDetails,
    NativeModel,
    NativeModels,
    NativeOptions,
    NativeRequest,
    NativeResult,
    NativeTruncation,
)
from rerank_sidecar.api.vectors import read_rows
from rerank_sidecar.errors import (
    InvalidField,
    MalformedBody,
    RequestError,
    RerankError,
    Unavailable,
    error_row,
)
from rerank_sidecar.types import (
    Document,
    ModelDescription,
    RankedDocument,
    RerankOptions,
    RerankRequest,
    RerankResult,
    Truncation,
    TruncationSide,
)

E = TypeVar("E", bound=StrEnum)


class NativeDialect(Dialect[NativeRequest]):
    """The contract of rerank.proto for those who would rather speak JSON."""

    name: ClassVar[str] = "native"
    summary: ClassVar[str] = "Score documents and return them best first"
    mount: ClassVar[str] = "/api"
    paths: ClassVar[tuple[str, ...]] = ("/v1/rerank",)
    message_type = NativeRequest
    answer_type: ClassVar[type] = NativeAnswer
    error_type: ClassVar[type] = NativeError
    example: ClassVar[Mapping[str, Any]] = {
        "query": "red fruit",
        "documents": ["sky", {"id": "a", "text": "apple"}],
        "options": {"top_n": 1, "return_documents": True, "normalization": "unit"},
    }

    def parse(self, message: NativeRequest) -> RerankRequest:
        """Take the message field by field."""
        documents = tuple(_document(*each) for each in enumerate(message.documents))
        options = _options(message.options or NativeOptions())
        if message.query_vectors is not None:
            vectors = read_rows(message.query_vectors, "query_vectors")
            options = replace(options, query_vectors=vectors)
        return RerankRequest(message.query, documents, options)

    def render(self, message: NativeRequest, result: RerankResult) -> NativeAnswer:
        """Give the result as it is, best first."""
        return NativeAnswer([_result(each) for each in result.results], result.summary)

    def render_error(self, error: RerankError) -> tuple[int, NativeError]:
        """Give reason and message, and the field or the time to wait if there is one."""
        row = error_row(error)
        wait_s = error.retry_after_s if isinstance(error, Unavailable) else UNSET
        details = NativeErrorDetails(row.reason, error.message, _field(error), wait_s)
        return row.http_status, NativeError(details)


def render_models(models: list[ModelDescription]) -> NativeModels:
    """Describe the models as ListModels does."""
    fields = NativeModel.__struct_fields__
    return NativeModels(
        [NativeModel(**{name: getattr(each, name) for name in fields}) for each in models]
    )


def _document(index: int, given: str | NativeDocument) -> Document:
    if isinstance(given, str):
        return Document(given)
    if given.vectors is None:
        return Document(given.text, given.id)
    vectors = read_rows(given.vectors, f"documents[{index}].vectors")
    return Document(given.text, given.id, vectors)


def _options(given: NativeOptions) -> RerankOptions:
    cut = given.truncation or NativeTruncation()
    side = _choose(SIDES, cut.side, "options.truncation.side")
    normalization = _choose(NORMALIZATIONS, given.normalization, "options.normalization")
    return RerankOptions(
        model=given.model or None,
        top_n=given.top_n,
        return_documents=given.return_documents or False,
        score_threshold=given.score_threshold,
        truncation=Truncation(cut.max_tokens_per_document, side or TruncationSide.RIGHT),
        long_document_policy=_choose(
            POLICIES, given.long_document_policy, "options.long_document_policy"
        ),
        priority=given.priority or 0,
        normalization=normalization,
    )


def _choose(names: Mapping[str, E | None], given: str | None, field: str) -> E | None:
    if given is None:
        return None
    if given not in names:
        raise InvalidField(f"{field}: must be one of {', '.join(names)}", field)
    return names[given]


def _result(ranked: RankedDocument) -> NativeResult:
    return NativeResult(
        index=ranked.index,
        id=UNSET if ranked.id is None else ranked.id,
        document=UNSET if ranked.document is None else _answer_document(ranked.document),
        score=ranked.score or UNSET,
        error=UNSET if ranked.error is None else _document_error(ranked.error),
    )


def _answer_document(document: Document) -> NativeAnswerDocument:
    return NativeAnswerDocument(document.text, document.id)


def _document_error(error: RerankError) -> NativeDocumentError:
    return NativeDocumentError(error_row(error).reason, error.message)


def _field(error: RerankError) -> str | UnsetType:
    """Name the field as a path in this dialect: the engine says `top_n` for `options.top_n`."""
    if not isinstance(error, RequestError) or error.field is None:
        return UNSET
    # What the parser did not know is wherever the caller put it.
    is_option = error.field.partition(".")[0] in NativeOptions.__struct_fields__
    return (
        f"options.{error.field}"
        if is_option and not isinstance(error, MalformedBody)
        else error.field
    )
