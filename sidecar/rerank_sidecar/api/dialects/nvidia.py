"""NVIDIA NIM for text reranking: passages in, raw logits out, as of its 2.x documentation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from msgspec import Struct

from rerank_sidecar.api.dialects.base import Dialect, Info, ServerState
from rerank_sidecar.api.dialects.fastapi_errors import FieldFault, field_faults
from rerank_sidecar.api.dialects.fields import placed, refuse_too_long
from rerank_sidecar.api.dialects.nim_truncate import read_truncate
from rerank_sidecar.api.dialects.openai_forms import ModelCard, list_models, model_card
from rerank_sidecar.errors import InvalidField, RequestError, RerankError, error_row
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    ModelDescription,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
)


class NvidiaText(Struct, frozen=True):
    """A query or passage; `image` is there to be refused."""

    text: str | None = None
    image: str | None = None


class NvidiaRequest(Struct, frozen=True):
    """A query and its passages; `truncate` is `NONE`, `END` or `START`."""

    query: NvidiaText
    passages: list[NvidiaText]
    model: str | None = None
    truncate: str | None = None


class NvidiaRanking(Struct, frozen=True):
    """A passage's place in the request and its logit."""

    index: int
    logit: float


class NvidiaAnswer(Struct, frozen=True):
    """Every passage, best first."""

    rankings: list[NvidiaRanking]


class NvidiaError(Struct, frozen=True):
    """Why a call failed; a list if its fields are at fault."""

    detail: str | list[FieldFault]


class NvidiaDialect(Dialect[NvidiaRequest]):
    """Returns every passage: NIM's clients cut the list themselves."""

    name: ClassVar[str] = "nvidia"
    summary: ClassVar[str] = "Score passages as an NVIDIA NIM does"
    mount: ClassVar[str] = "/nvidia"
    paths: ClassVar[tuple[str, ...]] = (
        "/v1/ranking",
        "/v1/retrieval/nvidia/reranking",
        "/v1/retrieval/nvidia/{model:path}/reranking",
    )
    field_names: ClassVar[Mapping[str, str]] = MappingProxyType({"documents": "passages"})
    message_type = NvidiaRequest
    answer_type: ClassVar[type] = NvidiaAnswer
    error_type: ClassVar[type] = NvidiaError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "default",
        "query": {"text": "red fruit"},
        "passages": [{"text": "sky"}, {"text": "apple"}],
        "truncate": "END",
    }

    def parse(self, message: NvidiaRequest) -> RerankRequest:
        """Take the texts of the passages.

        Raises:
            InvalidField: one has an image or no text, or `truncate` is none of its words.
        """
        documents = tuple(
            Document(_text(each, f"passages[{i}]")) for i, each in enumerate(message.passages)
        )
        policy, truncation = read_truncate(message.truncate, "truncate")
        options = RerankOptions(
            model=message.model,
            truncation=truncation,
            long_document_policy=policy,
            normalization=Normalization.LOGIT,
        )
        return RerankRequest(_text(message.query, "query"), documents, options)

    def render(self, message: NvidiaRequest, result: RerankResult) -> NvidiaAnswer:
        """List every passage, best first, ties in input order.

        Raises:
            LimitExceeded: a passage is too long and was not to be cut.
        """
        if read_truncate(message.truncate, "truncate")[0] is LongDocumentPolicy.REJECT:
            refuse_too_long(result)
        return NvidiaAnswer([NvidiaRanking(each.index, each.score) for each in placed(result)])

    def render_error(self, error: RerankError) -> tuple[int, NvidiaError]:
        """Tell wrong requests as a list, with 422, and all else as a text."""
        status = error_row(error).http_status
        if isinstance(error, RequestError) and status in (400, 422):
            return 422, NvidiaError(field_faults(error))
        return status, NvidiaError(error.message)

    def info(self) -> Mapping[str, Info]:
        """Tell models and health."""
        return {
            "/v1/models": list_models(_card),
            "/v1/health/live": lambda _state, _model: _health(200, "live"),
            "/v1/health/ready": _tell_ready,
        }


def _text(given: NvidiaText, field: str) -> str:
    if given.image is not None:
        raise InvalidField(f"{field}.image: this server reads texts only", f"{field}.image")
    if given.text is None:
        raise InvalidField(f"{field}.text: missing", f"{field}.text")
    return given.text


def _card(model: ModelDescription) -> ModelCard:
    # LangChain's client takes those for base models whose `root` is their own name.
    return model_card(model, "system", root=model.model.name, parent=None)


def _tell_ready(state: ServerState, _model: str | None) -> tuple[int, Any]:
    return _health(200, "ready") if state.is_ready else _health(503, "not ready")


def _health(status: int, word: str) -> tuple[int, Any]:
    return status, {"object": "health.response", "message": word, "status": word}
