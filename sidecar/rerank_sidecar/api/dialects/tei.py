"""Hugging Face Text Embeddings Inference (TEI) over HTTP, as of its version 1.9."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from msgspec import UNSET, Struct, UnsetType

from rerank_sidecar import __version__
from rerank_sidecar.api.dialects.base import Dialect, Headers, Info, ServerState
from rerank_sidecar.api.dialects.fields import as_bool, placed, refuse_too_long
from rerank_sidecar.errors import (
    BackendFailed,
    BodyTooLarge,
    InvalidField,
    LimitExceeded,
    NonFiniteScore,
    NotSupportedByModel,
    Overloaded,
    RequestError,
    RerankError,
    Unauthenticated,
    Unavailable,
    error_row,
)
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    ModelDescription,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
    Truncation,
    TruncationSide,
)

_NO_TEXTS = "texts: must not be empty"
"""The one error about a field for which TEI has a status and a word of its own."""

_RERANKER = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
"""A model with one label; clients look at the key alone."""


class TeiRequest(Struct, frozen=True):
    """A query and its texts; `truncate` unset means true, the default since TEI 1.9."""

    query: str
    texts: list[str]
    truncate: bool | str | None = None
    truncation_direction: str | None = None
    raw_scores: bool | str | None = None
    return_text: bool | str | None = None
    model: str | None = None


class TeiRank(Struct, frozen=True, kw_only=True):
    """A text's place in the request and its score; the text itself if it was asked for."""

    index: int
    text: str | UnsetType = UNSET
    score: float


class TeiError(Struct, frozen=True):
    """Why a call failed; `error_type` is one of the words that TEI knows."""

    error: str
    error_type: str


class TeiDialect(Dialect[TeiRequest]):
    """Answers a bare list, best first, and tells in headers what the call cost."""

    name: ClassVar[str] = "tei"
    summary: ClassVar[str] = "Score texts as Text Embeddings Inference does"
    mount: ClassVar[str] = "/tei"
    paths: ClassVar[tuple[str, ...]] = ("/rerank", "/", "/invocations")
    field_names: ClassVar[Mapping[str, str]] = MappingProxyType({"documents": "texts"})
    message_type = TeiRequest
    answer_type: ClassVar[Any] = list[TeiRank]
    error_type: ClassVar[type] = TeiError
    example: ClassVar[Mapping[str, Any]] = {
        "query": "red fruit",
        "texts": ["sky", "apple"],
        "return_text": True,
    }

    def parse(self, message: TeiRequest) -> RerankRequest:
        """Take the texts; no text at all is an error, as it is in TEI."""
        if not message.texts:
            raise InvalidField(_NO_TEXTS, "texts")
        documents = tuple(Document(text) for text in message.texts)
        return RerankRequest(message.query, documents, _options(message))

    def render(self, message: TeiRequest, result: RerankResult) -> list[TeiRank]:
        """List every text, best first; ties are in input order, in TEI in the reverse of it.

        Raises:
            LimitExceeded: a text is too long and was not to be cut.
        """
        if not _may_cut(message):
            refuse_too_long(result)
        with_text = as_bool(message.return_text, "return_text")
        return [
            TeiRank(
                index=each.index,
                text=message.texts[each.index] if with_text else UNSET,
                score=each.score,
            )
            for each in placed(result)
        ]

    def encode(self, message: TeiRequest, answer: Any) -> tuple[bytes, Headers]:  # noqa: ANN401
        """Add the header that counts the characters of every pair."""
        content, headers = super().encode(message, answer)
        characters = sum(len(message.query) + len(text) for text in message.texts)
        return content, {**headers, "x-compute-characters": str(characters)}

    def headers(self, result: RerankResult) -> Headers:
        """Tell times in milliseconds, those of stages as the mean of a pair, and the tokens."""
        timing, pairs = result.summary.timing, max(1, len(result.results))
        total_ms = timing.total_us // 1000
        return {
            # TEI sends these words whatever it runs on.
            "x-compute-type": "gpu+optimized",
            "x-compute-time": str(total_ms),
            "x-compute-tokens": str(result.summary.usage.tokens),
            "x-total-time": str(total_ms),
            "x-tokenization-time": str(timing.tokenise_us // pairs // 1000),
            "x-queue-time": str(timing.queue_us // 1000),
            "x-inference-time": str(timing.infer_us // pairs // 1000),
        }

    def render_error(self, error: RerankError) -> tuple[int, TeiError | None]:
        """Give TEI's own status and word; nothing but the status when a token is missing."""
        if isinstance(error, Unauthenticated):
            return 401, None
        return _status(error), TeiError(error.message, _word(error))

    def info(self) -> Mapping[str, Info]:
        """Describe the model, from which Dify reads that it is a reranker, and tell the health."""
        return {"/info": _tell_info, "/health": _tell_health, "/ping": _tell_health}


def _may_cut(message: TeiRequest) -> bool:
    return as_bool(message.truncate, "truncate", default=True)


def _options(message: TeiRequest) -> RerankOptions:
    raw = as_bool(message.raw_scores, "raw_scores")
    as_bool(message.return_text, "return_text")  # refused before anything is scored
    may_cut = _may_cut(message)
    return RerankOptions(
        model=message.model,
        truncation=Truncation(side=_side(message.truncation_direction)),
        long_document_policy=LongDocumentPolicy.TRUNCATE if may_cut else LongDocumentPolicy.REJECT,
        normalization=Normalization.LOGIT if raw else Normalization.UNIT,
    )


def _side(direction: str | None) -> TruncationSide:
    try:
        return TruncationSide((direction or "right").lower())
    except ValueError:
        field = "truncation_direction"
        raise InvalidField(f"{field}: must be left or right", field) from None


def _status(error: RerankError) -> int:
    match error:
        case InvalidField() if error.message == _NO_TEXTS:
            return 400
        case BodyTooLarge():
            return 413
        case InvalidField() | LimitExceeded():
            return 422
        case BackendFailed() | NonFiniteScore() | NotSupportedByModel():
            return 424
    return error_row(error).http_status


def _word(error: RerankError) -> str:
    match error:
        case InvalidField() if error.message == _NO_TEXTS:
            return "empty"
        case NotSupportedByModel():
            return "backend"
        case RequestError():
            return "validation"
        case Overloaded():
            return "overloaded"
        case Unavailable():
            return "unhealthy"
    return "backend"


def _tell_health(state: ServerState, _model: str | None) -> tuple[int, None]:
    state.describe(None)  # raises while the server is not ready
    return 200, None


def _tell_info(state: ServerState, model: str | None) -> tuple[int, Any]:
    return 200, _info_of(state.describe(model), state.settings_of(model))


def _info_of(model: ModelDescription, settings: Settings) -> dict[str, Any]:
    # TEI's numbers are never null. No text has more tokens than bytes, and a batch that is sized by
    # measurement holds at least the longest input.
    max_tokens = model.max_tokens or settings.max_document_bytes
    return {
        "model_id": model.model.name,
        "model_sha": model.model.version,
        "model_dtype": model.engine,
        "served_model_name": model.model.name,
        "model_type": _RERANKER,
        "max_concurrent_requests": settings.max_documents,  # TEI counts pairs
        "max_input_length": max_tokens,
        "max_batch_tokens": settings.max_batch_tokens or max_tokens,
        "max_batch_requests": settings.max_batch_size,
        "max_client_batch_size": settings.max_documents,
        "auto_truncate": True,
        "tokenization_workers": os.cpu_count() or 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
