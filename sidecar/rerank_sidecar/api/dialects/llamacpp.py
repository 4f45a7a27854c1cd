"""llama.cpp's server, as of 2026: Jina's form, or TEI's as soon as a body has `texts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import UNSET, Struct, UnsetType

from rerank_sidecar.api.dialects.base import Dialect, Info, ServerState
from rerank_sidecar.api.dialects.fields import (
    Placed,
    TokenUsage,
    as_bool,
    placed,
    token_usage,
)
from rerank_sidecar.api.dialects.openai_forms import (
    ModelCard,
    list_models,
    model_card,
)
from rerank_sidecar.errors import (
    CallEnded,
    InvalidField,
    ModelNotFound,
    NotSupportedByModel,
    RequestError,
    RerankError,
    RouteNotFound,
    Unauthenticated,
    Unavailable,
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


class LlamaCppRequest(Struct, frozen=True):
    """A query and its documents, which TEI's clients call `texts`."""

    query: str
    documents: list[str] | None = None
    texts: list[str] | UnsetType | None = UNSET
    model: str | None = None
    top_n: int | None = None
    return_text: bool | str | None = None


class LlamaCppResult(Struct, frozen=True):
    """A document's place in the request and its score."""

    index: int
    relevance_score: float


class LlamaCppAnswer(Struct, frozen=True):
    """Jina's form of the results, best first."""

    model: str
    object: str
    usage: TokenUsage
    results: list[LlamaCppResult]


class LlamaCppRank(Struct, frozen=True):
    """TEI's form of a result; the text itself if it was asked for."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class LlamaCppFault(Struct, frozen=True):
    """What went wrong; `code` is the HTTP status."""

    code: int
    message: str
    type: str


class LlamaCppError(Struct, frozen=True):
    """Why a call failed."""

    error: LlamaCppFault


class LlamaCppDialect(Dialect[LlamaCppRequest]):
    """Scores are logits; a `top_n` of zero leaves nothing."""

    name: ClassVar[str] = "llamacpp"
    summary: ClassVar[str] = "Score documents as llama.cpp's server does"
    mount: ClassVar[str] = "/llamacpp"
    paths: ClassVar[tuple[str, ...]] = ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")
    key_headers: ClassVar[tuple[str, ...]] = ("authorization", "x-api-key")
    message_type = LlamaCppRequest
    answer_type: ClassVar[Any] = LlamaCppAnswer | list[LlamaCppRank]
    error_type: ClassVar[type] = LlamaCppError
    example: ClassVar[Mapping[str, Any]] = {
        "query": "red fruit",
        "documents": ["sky", "apple"],
        "top_n": 1,
    }

    def parse(self, message: LlamaCppRequest) -> RerankRequest:
        """Take the documents or the texts; none at all is an error, as it is in llama.cpp."""
        as_bool(message.return_text, "return_text")  # refused before anything is scored
        texts = _texts(message)
        if not texts:
            raise InvalidField("documents: must be a non-empty string array", "documents")
        options = RerankOptions(
            model=message.model,
            top_n=_top_n(message) or None,
            normalization=Normalization.LOGIT,
        )
        return RerankRequest(message.query, tuple(map(Document, texts)), options)

    def render(
        self, message: LlamaCppRequest, result: RerankResult
    ) -> LlamaCppAnswer | list[LlamaCppRank]:
        """List the results in the form that was asked in, best first, ties in input order."""
        places = placed(result, _top_n(message))
        if message.texts is not UNSET:
            return _ranks(message, places)
        return LlamaCppAnswer(
            result.summary.model.name,
            "list",
            token_usage(result),
            [LlamaCppResult(each.index, each.score) for each in places],
        )

    def render_error(self, error: RerankError) -> tuple[int, LlamaCppError]:
        """Give llama.cpp's own words for what went wrong."""
        status = error_row(error).http_status
        if isinstance(error, NotSupportedByModel):
            status = 400
        return status, LlamaCppError(LlamaCppFault(status, error.message, _kind(error)))

    def info(self) -> Mapping[str, Info]:
        """Tell health and models."""
        return {"/health": _tell_health, "/v1/models": list_models(_card)}


def _texts(message: LlamaCppRequest) -> list[str]:
    if message.documents is not None:
        return message.documents
    return message.texts or []


def _top_n(message: LlamaCppRequest) -> int | None:
    return message.top_n if message.top_n is not None and message.top_n >= 0 else None


def _ranks(message: LlamaCppRequest, places: list[Placed]) -> list[LlamaCppRank]:
    texts, echoes = _texts(message), as_bool(message.return_text, "return_text")
    return [
        LlamaCppRank(each.index, each.score, texts[each.index] if echoes else UNSET)
        for each in places
    ]


def _kind(error: RerankError) -> str:
    match error:
        case Unauthenticated():
            return "authentication_error"
        case ModelNotFound() | RouteNotFound():
            return "not_found_error"
        case RequestError():
            return "invalid_request_error"
        case Unavailable() | CallEnded():
            return "unavailable_error"
    return "server_error"


def _card(model: ModelDescription) -> ModelCard:
    return model_card(model, "llamacpp", meta={"n_ctx_train": model.max_tokens})


def _tell_health(state: ServerState, _model: str | None) -> tuple[int, Any]:
    state.describe(None)  # raises while the server is not ready
    return 200, {"status": "ok"}
