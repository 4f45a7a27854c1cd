"""Xinference, as of August 2026; its clients send booleans as strings and nulls for defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import uuid4

from msgspec import Struct

from rerank_sidecar.api.dialects.base import Dialect, Info, ServerState
from rerank_sidecar.api.dialects.fields import (
    DetailError,
    as_bool,
    placed,
    positive,
    text_document,
)
from rerank_sidecar.api.dialects.openai_forms import (
    ModelCard,
    list_models,
    model_card,
    show_model,
)
from rerank_sidecar.errors import (
    InvalidField,
    ModelNotFound,
    NotSupportedByModel,
    RerankError,
    error_row,
)
from rerank_sidecar.json_text import UnreadableJson, read_json
from rerank_sidecar.types import (
    ModelDescription,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
)

_Text = str | dict[str, Any]


class XinferenceRequest(Struct, frozen=True):
    """A query and its documents; `kwargs` is a JSON object, written as a string.

    `max_chunks_per_doc` and what is in `kwargs` are for engines of Xinference and change nothing.
    """

    query: _Text
    documents: list[_Text]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | str | None = None
    return_len: bool | str | None = None
    max_chunks_per_doc: int | None = None
    kwargs: str | dict[str, Any] | None = None


class XinferenceDocument(Struct, frozen=True):
    """The text of a document."""

    text: str


class XinferenceResult(Struct, frozen=True):
    """A document's place in the request and its score; the document is null if not asked for."""

    index: int
    relevance_score: float
    document: XinferenceDocument | None


class XinferenceTokens(Struct, frozen=True):
    """The tokens that were read, twice: Xinference gives the same number for both."""

    input_tokens: int
    output_tokens: int


class XinferenceMeta(Struct, frozen=True):
    """Nulls, but for `tokens` if the request has `return_len`."""

    api_version: None
    billed_units: None
    tokens: XinferenceTokens | None
    warnings: None


class XinferenceAnswer(Struct, frozen=True):
    """The results, best first."""

    id: str
    results: list[XinferenceResult]
    meta: XinferenceMeta


class XinferenceDialect(Dialect[XinferenceRequest]):
    """Scores are in [0, 1]; in Xinference their scale depends on the model's engine."""

    name: ClassVar[str] = "xinference"
    summary: ClassVar[str] = "Score documents as Xinference does"
    mount: ClassVar[str] = "/xinference"
    paths: ClassVar[tuple[str, ...]] = ("/v1/rerank",)
    message_type = XinferenceRequest
    answer_type: ClassVar[type] = XinferenceAnswer
    error_type: ClassVar[type] = DetailError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "default",
        "query": "red fruit",
        "documents": ["sky", "apple"],
        "return_documents": True,
    }

    def parse(self, message: XinferenceRequest) -> RerankRequest:
        """Take the documents, each a text or an object with one."""
        # What is wrong is refused before anything is scored.
        as_bool(message.return_documents, "return_documents")
        as_bool(message.return_len, "return_len")
        _check_kwargs(message.kwargs)
        documents = tuple(
            text_document(each, f"documents[{i}]") for i, each in enumerate(message.documents)
        )
        options = RerankOptions(
            model=message.model,
            top_n=positive(message.top_n),
            normalization=Normalization.UNIT,
        )
        return RerankRequest(text_document(message.query, "query").text, documents, options)

    def render(self, message: XinferenceRequest, result: RerankResult) -> XinferenceAnswer:
        """List the results, best first, ties in input order."""
        echoes = as_bool(message.return_documents, "return_documents")
        results = [
            XinferenceResult(
                each.index,
                each.score,
                _document(message.documents[each.index]) if echoes else None,
            )
            for each in placed(result, positive(message.top_n))
        ]
        tokens = result.summary.usage.tokens
        counted = as_bool(message.return_len, "return_len")
        meta = XinferenceMeta(
            None, None, XinferenceTokens(tokens, tokens) if counted else None, None
        )
        return XinferenceAnswer(str(uuid4()), results, meta)

    def render_error(self, error: RerankError) -> tuple[int, DetailError]:
        """Give `detail`, always a text; a model that is not there is a wrong request."""
        status = error_row(error).http_status
        if isinstance(error, ModelNotFound | NotSupportedByModel):
            status = 400
        return status, DetailError(error.message)

    def info(self) -> Mapping[str, Info]:
        """Tell the models, and whether the client has to send its key: it asks before it does."""
        return {
            "/v1/cluster/auth": _tell_auth,
            "/v1/models": list_models(_card),
            "/v1/models/{model:path}": show_model(_card),
        }


def _check_kwargs(given: str | dict[str, Any] | None) -> None:
    if isinstance(given, str):
        try:
            read = read_json(given or "{}")
        except (UnreadableJson, RecursionError):
            read = None
        if not isinstance(read, dict):
            raise InvalidField("kwargs: must be a JSON object, written as a string", "kwargs")


def _document(sent: _Text) -> XinferenceDocument:
    return XinferenceDocument(sent if isinstance(sent, str) else sent["text"])


def _card(model: ModelDescription) -> ModelCard:
    name = model.model.name
    return model_card(
        model,
        "xinference",
        model_type="rerank",
        model_name=name,
        model_ability=["rerank"],
        max_tokens=model.max_tokens,
    )


def _tell_auth(state: ServerState, _model: str | None) -> tuple[int, Any]:
    settings = state.settings
    return 200, {"auth": bool(settings.auth_tokens or settings.auth_tokens_file)}
