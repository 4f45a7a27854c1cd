"""Infinity (michaelfeil/infinity), as of its version 0.0.77."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import uuid4

from msgspec import UNSET, Struct, UnsetType

from rerank_sidecar.api.dialects.base import Dialect, Info, ServerState
from rerank_sidecar.api.dialects.fastapi_errors import FieldFault, field_faults
from rerank_sidecar.api.dialects.fields import (
    TokenUsage,
    as_bool,
    placed,
    positive,
    token_usage,
)
from rerank_sidecar.api.dialects.openai_forms import (
    ModelCard,
    OpenAIError,
    list_models,
    model_card,
)
from rerank_sidecar.errors import (
    BodyTooLarge,
    InvalidField,
    LimitExceeded,
    MalformedBody,
    ModelNotFound,
    NotSupportedByModel,
    RerankError,
    RouteNotFound,
    Unauthenticated,
    error_row,
)
from rerank_sidecar.types import (
    Document,
    ModelDescription,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
)

_NOT_SPECIFIED = "default/not-specified"
"""What Infinity's own client sends for a model if its user names none."""


class InfinityRequest(Struct, frozen=True):
    """A query and its documents."""

    query: str
    documents: list[str]
    return_documents: bool | str | None = None
    raw_scores: bool | str | None = None
    model: str | None = None
    top_n: int | None = None


class InfinityResult(Struct, frozen=True):
    """A document's place in the request and its score; the document is null if not asked for."""

    relevance_score: float
    index: int
    document: str | None


class InfinityAnswer(Struct, frozen=True):
    """The results, best first; `created` is in seconds since 1970."""

    object: str
    results: list[InfinityResult]
    model: str
    usage: TokenUsage
    id: str
    created: int


class InfinityError(Struct, frozen=True):
    """Why a call failed: `detail` if its fields or its token are at fault, `error` otherwise."""

    error: OpenAIError | UnsetType = UNSET
    detail: str | list[FieldFault] | UnsetType = UNSET


class InfinityDialect(Dialect[InfinityRequest]):
    """Counts tokens, where Infinity counts characters unless told otherwise."""

    name: ClassVar[str] = "infinity"
    summary: ClassVar[str] = "Score documents as Infinity does"
    mount: ClassVar[str] = "/infinity"
    paths: ClassVar[tuple[str, ...]] = ("/rerank",)
    message_type = InfinityRequest
    answer_type: ClassVar[type] = InfinityAnswer
    error_type: ClassVar[type] = InfinityError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "default",
        "query": "red fruit",
        "documents": ["sky", "apple"],
        "top_n": 1,
    }

    def parse(self, message: InfinityRequest) -> RerankRequest:
        """Take the documents; none at all is an error, as it is in Infinity."""
        if not message.documents:
            raise InvalidField("documents: must not be empty", "documents")
        as_bool(message.return_documents, "return_documents")  # refused before anything is scored
        raw = as_bool(message.raw_scores, "raw_scores")
        options = RerankOptions(
            model=None if message.model == _NOT_SPECIFIED else message.model,
            top_n=positive(message.top_n),
            normalization=Normalization.LOGIT if raw else Normalization.UNIT,
        )
        documents = tuple(Document(text) for text in message.documents)
        return RerankRequest(message.query, documents, options)

    def render(self, message: InfinityRequest, result: RerankResult) -> InfinityAnswer:
        """List the results, best first, ties in input order."""
        echoes = as_bool(message.return_documents, "return_documents")
        results = [
            InfinityResult(
                each.score, each.index, message.documents[each.index] if echoes else None
            )
            for each in placed(result, positive(message.top_n))
        ]
        return InfinityAnswer(
            "rerank",
            results,
            result.summary.model.name,
            token_usage(result),
            f"infinity-{uuid4()}",
            int(time.time()),
        )

    def render_error(self, error: RerankError) -> tuple[int, InfinityError]:
        """Tell wrong fields as FastAPI does, with 422, and all else in OpenAI's form."""
        status = error_row(error).http_status
        match error:
            case BodyTooLarge():
                pass
            case InvalidField() | MalformedBody() | LimitExceeded():
                return 422, InfinityError(detail=field_faults(error))
            case Unauthenticated():
                return status, InfinityError(detail="Unauthorized")
            case RouteNotFound():
                return status, InfinityError(detail=error.message)
            case ModelNotFound() | NotSupportedByModel():
                status = 400
        return status, InfinityError(error=OpenAIError(error.message, None, None, status))

    def info(self) -> Mapping[str, Info]:
        """List the models and tell the time, which is all that Infinity's health is."""
        return {"/models": list_models(_card), "/health": _tell_health}


def _card(model: ModelDescription) -> ModelCard:
    # `stats` is about a queue per model, and there is one queue for all of them.
    return model_card(model, "infinity", stats={}, backend=model.engine, capabilities=["rerank"])


def _tell_health(_state: ServerState, _model: str | None) -> tuple[int, Any]:
    return 200, {"unix": time.time()}
