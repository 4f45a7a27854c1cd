"""vLLM's rerank API, as of its versions 0.13 to 0.32, and what its score API shares with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import uuid4

from msgspec import Struct

from rerank_sidecar import __version__
from rerank_sidecar.api.dialects.base import Dialect, Info, ServerState
from rerank_sidecar.api.dialects.fields import (
    TokenUsage,
    as_bool,
    placed,
    positive,
    text_document,
    token_usage,
)
from rerank_sidecar.api.dialects.openai_forms import (
    ModelCard,
    OpenAIError,
    list_models,
    model_card,
    show_model,
)
from rerank_sidecar.errors import (
    InvalidField,
    NotSupportedByModel,
    RequestError,
    RerankError,
    Unauthenticated,
    error_row,
)
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

VllmInput = str | dict[str, Any]
"""A text, or vLLM's multi-modal form `{"content": [{"type": "text", "text": …}]}`."""

_ERROR_TYPES: Mapping[int, str] = {
    400: "BadRequestError",
    404: "NotFoundError",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class VllmOptions(Struct, frozen=True, kw_only=True):
    """What rerank and score requests have in common.

    `softmax` and `activation` are earlier names of `use_activation`. `priority` is the lower the
    sooner. `truncate_prompt_tokens` -1 means what the model reads at once; 0 is no limit here.
    """

    model: str | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: str | None = None
    max_tokens_per_doc: int | None = None
    priority: int | None = None
    use_activation: bool | str | None = None
    softmax: bool | str | None = None
    activation: bool | str | None = None


class VllmRequest(VllmOptions, frozen=True, kw_only=True):
    """A query and its documents, of which one may stand alone."""

    query: VllmInput
    documents: str | dict[str, Any] | list[VllmInput]
    top_n: int | None = None


class VllmDocument(Struct, frozen=True):
    """A document as it was sent: a text, or the parts of one in the multi-modal form."""

    text: str | None
    multi_modal: list[Any] | None


class VllmResult(Struct, frozen=True):
    """A document's place in the request, the document itself, and its score."""

    index: int
    document: VllmDocument
    relevance_score: float


class VllmAnswer(Struct, frozen=True):
    """The results, best first."""

    id: str
    model: str
    usage: TokenUsage
    results: list[VllmResult]


class VllmError(Struct, frozen=True):
    """Why a call failed; just a text if a token is missing."""

    error: OpenAIError | str


class VllmDialect(Dialect[VllmRequest]):
    """Always gives the documents back, and all of them unless `top_n` is positive."""

    name: ClassVar[str] = "vllm"
    summary: ClassVar[str] = "Score documents as vLLM does"
    mount: ClassVar[str] = "/vllm"
    paths: ClassVar[tuple[str, ...]] = ("/rerank", "/v1/rerank", "/v2/rerank")
    message_type = VllmRequest
    answer_type: ClassVar[type] = VllmAnswer
    error_type: ClassVar[type] = VllmError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "default",
        "query": "red fruit",
        "documents": ["sky", "apple"],
        "top_n": 1,
    }

    def parse(self, message: VllmRequest) -> RerankRequest:
        """Take the documents; none at all is an error, as it is in vLLM."""
        documents = read_inputs(message.documents, "documents")
        options = read_options(message, positive(message.top_n))
        return RerankRequest(read_input(message.query, "query").text, documents, options)

    def render(self, message: VllmRequest, result: RerankResult) -> VllmAnswer:
        """List the results, best first, ties in input order."""
        sent = as_list(message.documents)
        results = [
            VllmResult(each.index, _echo(sent[each.index]), each.score)
            for each in placed(result, positive(message.top_n))
        ]
        return VllmAnswer(new_id(), result.summary.model.name, token_usage(result), results)

    def render_error(self, error: RerankError) -> tuple[int, VllmError]:
        """Tell an error as vLLM does, whose requests are wrong with 400 and never 422."""
        return render_vllm_error(error)

    def info(self) -> Mapping[str, Info]:
        """Tell models, version and health."""
        return {
            "/v1/models": list_models(_card),
            "/v1/models/{model:path}": show_model(_card),
            "/version": lambda _state, _model: (200, {"version": __version__}),
            "/health": _tell_health,
        }


def read_options(message: VllmOptions, top_n: int | None = None) -> RerankOptions:
    """Take what is common to rerank and score requests.

    Raises:
        InvalidField: a value is none of those that vLLM takes.
    """
    cut = message.truncate_prompt_tokens or 0
    if cut < -1:
        raise InvalidField("truncate_prompt_tokens: must be at least -1", "truncate_prompt_tokens")
    limits = [each for each in (cut, message.max_tokens_per_doc or 0) if each > 0]
    return RerankOptions(
        model=message.model,
        top_n=top_n,
        truncation=Truncation(min(limits, default=None), _side(message.truncation_side)),
        long_document_policy=LongDocumentPolicy.TRUNCATE if cut else None,
        priority=-(message.priority or 0),
        normalization=Normalization.UNIT if _activates(message) else Normalization.LOGIT,
    )


def read_inputs(given: VllmInput | list[VllmInput], field: str) -> tuple[Document, ...]:
    """Read texts, of which there has to be one.

    Raises:
        InvalidField: there is none, or one has parts that are no texts.
    """
    inputs = as_list(given)
    if not inputs:
        raise InvalidField(f"{field}: must not be empty", field)
    several = isinstance(given, list)
    return tuple(
        read_input(each, f"{field}[{i}]" if several else field) for i, each in enumerate(inputs)
    )


def as_list(given: VllmInput | list[VllmInput]) -> list[VllmInput]:
    """Take one text for a list of one."""
    return given if isinstance(given, list) else [given]


def read_input(given: VllmInput, field: str) -> Document:
    """Read a text; the parts of the multi-modal form are joined by line breaks, as vLLM does.

    Raises:
        InvalidField: it has parts that are no texts.
    """
    if isinstance(given, str) or "content" not in given:
        return text_document(given, field)
    parts = given["content"]
    if not isinstance(parts, list):
        raise InvalidField(f"{field}.content: expected an array", f"{field}.content")
    texts = (_part(part, f"{field}.content[{i}]") for i, part in enumerate(parts))
    return Document("\n".join(texts))


def new_id() -> str:
    """Make the id of an answer."""
    return f"score-{uuid4().hex}"


def render_vllm_error(error: RerankError) -> tuple[int, VllmError]:
    """Give status and body of an error."""
    if isinstance(error, Unauthenticated):
        return 401, VllmError("Unauthorized")
    status = 400 if isinstance(error, NotSupportedByModel) else error_row(error).http_status
    field = error.field if isinstance(error, RequestError) else None
    kind = _ERROR_TYPES.get(status, "InternalServerError")
    return status, VllmError(OpenAIError(error.message, kind, field, status))


def _part(part: Any, field: str) -> str:  # noqa: ANN401
    if isinstance(part, dict) and part.get("type") == "text":
        return text_document(part, field).text
    raise InvalidField(f"{field}: must be of type text; this server reads no other", field)


def _echo(sent: VllmInput) -> VllmDocument:
    if isinstance(sent, str):
        return VllmDocument(sent, None)
    if "content" in sent:
        return VllmDocument(None, sent["content"])
    return VllmDocument(sent["text"], None)


def _side(side: str | None) -> TruncationSide:
    try:
        return TruncationSide(side or "right")
    except ValueError:
        raise InvalidField("truncation_side: must be left or right", "truncation_side") from None


def _activates(message: VllmOptions) -> bool:
    for field in ("use_activation", "softmax", "activation"):
        given = getattr(message, field)
        if given is not None:
            return as_bool(given, field)
    return True


def _card(model: ModelDescription) -> ModelCard:
    # Xinference's clients look for `model_type` at the same path if they have no mount.
    return model_card(
        model,
        "vllm",
        root=model.model.name,
        parent=None,
        max_model_len=model.max_tokens,
        permission=[],
        model_type="rerank",
    )


def _tell_health(state: ServerState, _model: str | None) -> tuple[int, None]:
    return (200 if state.is_ready else 503), None
