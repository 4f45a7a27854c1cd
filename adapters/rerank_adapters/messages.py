"""What the clients take and give, and how it travels; pure, and shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict

from rerank_sidecar.v1 import rerank_pb2 as pb

_SCORE_KINDS = {number: name.removeprefix("SCORE_KIND_") for name, number in pb.ScoreKind.items()}
_NORMALIZATIONS = {
    number: name.removeprefix("NORMALIZATION_").lower() for name, number in pb.Normalization.items()
}
_POLICIES = {
    number: name.removeprefix("LONG_DOCUMENT_POLICY_").lower()
    for name, number in pb.LongDocumentPolicy.items()
}


@dataclass(frozen=True, slots=True)
class Document:
    """One candidate: the text that the model reads and the caller's own identifier."""

    text: str
    id: str | None = None


class RerankOptions(TypedDict, total=False):
    """The keyword arguments of `rerank`; one that is left out or None means the server's default.

    `top_n` is how many results come back, `score_threshold` leaves out lower scores (compared as
    they are returned), and `normalization` "unit" maps scores into [0, 1]. A higher `priority`
    runs sooner; the default is 0.
    """

    model: str | None
    top_n: int | None
    return_documents: bool
    score_threshold: float | None
    max_tokens_per_document: int | None
    truncation_side: Literal["left", "right"] | None
    long_document_policy: Literal["chunk", "truncate"] | None
    priority: int
    normalization: Literal["none", "unit"] | None


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a document, as offsets in characters: `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DocumentError:
    """Why one document has no score: a stable reason and a sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RerankResult:
    """What became of one document: either `score` or `error` is set.

    `index` is its position in the request, from 0. `best_window` is the part that earned the
    score, when the document was read in windows or cut. `document` is set on request.
    """

    index: int
    id: str | None
    score: float | None
    error: DocumentError | None
    best_window: Window | None
    truncated: bool
    window_count: int
    document: Document | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the request cost: tokens through the model, scored pairs, pairs found in a cache."""

    tokens: int
    pairs: int
    cache_hits: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the server's time went, in microseconds."""

    queue_us: int
    tokenise_us: int
    infer_us: int
    total_us: int


@dataclass(frozen=True, slots=True)
class RerankResponse:
    """A whole answer: scored documents best first, ties in input order, then the failed ones.

    `model` and `model_version` name the model that scored. `score_kind` says what its scores
    mean (RAW_LOGIT, PROBABILITY, MAXSIM, COSINE, LEXICAL or RANK), and `normalization` whether
    they come as they are ("none") or mapped into [0, 1] ("unit").
    """

    results: tuple[RerankResult, ...]
    model: str
    model_version: str
    score_kind: str
    normalization: str
    query_truncated: bool
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the server can answer with.

    `max_tokens` is what it reads at once; None means no limit. `score_kind` and the policies are
    named as in `RerankResponse` and `RerankOptions`.
    """

    name: str
    version: str
    family: str
    score_kind: str
    max_tokens: int | None
    comparable_across_requests: bool
    is_default: bool
    default_long_document_policy: str


def build_request(
    query: str, documents: Iterable[str | Document], options: RerankOptions
) -> pb.RerankRequest:
    """Write a request.

    Raises:
        TypeError: `documents` is one string, or an option is unknown or of the wrong type.
        ValueError: an option has a value that the contract does not know.
    """
    if isinstance(documents, str):
        raise TypeError("documents must be several texts, not one string")
    return pb.RerankRequest(
        query=query,
        documents=[_build_document(document) for document in documents],
        options=_build_options(options),
    )


def parse_response(message: pb.RerankResponse) -> RerankResponse:
    """Read an answer."""
    summary = message.summary
    usage, timing = summary.usage, summary.timing
    return RerankResponse(
        results=tuple(_parse_result(result) for result in message.results),
        model=summary.model.name,
        model_version=summary.model.version,
        score_kind=_name(_SCORE_KINDS, summary.score_kind),
        normalization=_name(_NORMALIZATIONS, summary.normalization),
        query_truncated=summary.query_truncated,
        usage=Usage(usage.tokens, usage.pairs, usage.cache_hits),
        timing=Timing(timing.queue_us, timing.tokenise_us, timing.infer_us, timing.total_us),
    )


def parse_models(message: pb.ListModelsResponse) -> tuple[Model, ...]:
    """Read the list of models, the default first."""
    return tuple(_parse_model(model) for model in message.models)


def _build_document(document: str | Document) -> pb.Document:
    if isinstance(document, str):
        return pb.Document(text=document)
    return pb.Document(text=document.text, id=document.id)


def _build_options(options: RerankOptions) -> pb.RerankOptions:
    unknown = options.keys() - RerankOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"rerank() has no argument {', '.join(sorted(unknown))}")
    return pb.RerankOptions(
        model=options.get("model"),
        top_n=options.get("top_n"),
        return_documents=options.get("return_documents", False),
        score_threshold=options.get("score_threshold"),
        truncation=pb.Truncation(
            max_tokens_per_document=options.get("max_tokens_per_document"),
            side=_label("TRUNCATION_SIDE_", options.get("truncation_side")),
        ),
        long_document_policy=_label("LONG_DOCUMENT_POLICY_", options.get("long_document_policy")),
        priority=options.get("priority"),
        normalization=_label("NORMALIZATION_", options.get("normalization")),
    )


def _label(prefix: str, value: str | None) -> str | None:
    return None if value is None else prefix + value.upper()


def _name(names: Mapping[int, str], number: int) -> str:
    # A newer server may know values that this client does not: those keep their number.
    return names.get(number, str(number))


def _parse_result(message: pb.RerankResult) -> RerankResult:
    score, error, document = message.score, message.error, message.document
    window = Window(score.best_window.start, score.best_window.end)
    return RerankResult(
        index=message.index,
        id=message.id if message.HasField("id") else None,
        score=score.value if message.HasField("score") else None,
        error=DocumentError(error.reason, error.message) if message.HasField("error") else None,
        best_window=window if score.HasField("best_window") else None,
        truncated=score.truncated,
        window_count=score.window_count,
        document=_parse_document(document) if message.HasField("document") else None,
    )


def _parse_document(message: pb.Document) -> Document:
    return Document(message.text, message.id if message.HasField("id") else None)


def _parse_model(message: pb.Model) -> Model:
    return Model(
        name=message.model.name,
        version=message.model.version,
        family=message.family,
        score_kind=_name(_SCORE_KINDS, message.score_kind),
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        comparable_across_requests=message.comparable_across_requests,
        is_default=message.is_default,
        default_long_document_policy=_name(_POLICIES, message.default_long_document_policy),
    )
