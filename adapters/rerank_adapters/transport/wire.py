"""How requests and answers travel over gRPC: between the clients' values and rerank.proto."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rerank_adapters.messages import (
    Document,
    DocumentError,
    Model,
    RerankOptions,
    RerankResponse,
    RerankResult,
    Timing,
    Usage,
    Window,
)
from rerank_adapters.vectors import Vectors, packed
from rerank_sidecar.v1 import rerank_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_SCORE_KINDS = {number: name.removeprefix("SCORE_KIND_") for name, number in pb.ScoreKind.items()}
_NORMALIZATIONS = {
    number: name.removeprefix("NORMALIZATION_").lower() for name, number in pb.Normalization.items()
}
_POLICIES = {
    number: name.removeprefix("LONG_DOCUMENT_POLICY_").lower()
    for name, number in pb.LongDocumentPolicy.items()
}


def check_documents(documents: Iterable[str | Document]) -> tuple[str | Document, ...]:
    """Take the documents of a call, whatever they come in.

    Raises:
        TypeError: `documents` is one string, or one of them is neither a text nor a `Document`.
    """
    if isinstance(documents, str):
        raise TypeError("documents must be several texts, not one string")
    taken = tuple(documents)
    for index, document in enumerate(taken):
        if isinstance(document, str):
            continue
        if not isinstance(document, Document):
            given = type(document).__name__
            raise TypeError(f"documents[{index}] must be a text or a Document, not {given}")
        if not (isinstance(document.text, str) and isinstance(document.id, str | None)):
            raise TypeError(f"documents[{index}]: text and id must be texts")
    return taken


def build_request(
    query: str, documents: Iterable[str | Document], options: RerankOptions
) -> pb.RerankRequest:
    """Write a request; `documents` are those that `check_documents` gave.

    Raises:
        TypeError: an argument is unknown or of the wrong type.
        ValueError: an option has a value that the contract does not know, or a text is none.
    """
    message = pb.RerankRequest(query=check_text(query, "query"), options=build_options(options))
    add_vectors(message.query_vectors, packed(options.get("query_vectors")))
    add_documents(message.documents, documents)
    return message


def build_options(options: RerankOptions) -> pb.RerankOptions:
    """Write the options of a request, without the query's vectors, which are none in the proto.

    Raises:
        TypeError: an option is unknown or of the wrong type.
        ValueError: an option has a value that the contract does not know.
    """
    unknown = options.keys() - RerankOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"there is no option {', '.join(sorted(unknown))}")
    return pb.RerankOptions(
        model=options.get("model"),
        top_n=options.get("top_n"),
        return_documents=options.get("return_documents", False),
        score_threshold=options.get("score_threshold"),
        truncation=pb.Truncation(
            max_tokens_per_document=options.get("max_tokens_per_document"),
            side=_label(
                "truncation_side", options.get("truncation_side"), pb.TruncationSide.keys()
            ),
        ),
        long_document_policy=_label(
            "long_document_policy",
            options.get("long_document_policy"),
            pb.LongDocumentPolicy.keys(),
        ),
        priority=options.get("priority"),
        normalization=_label(
            "normalization", options.get("normalization"), pb.Normalization.keys()
        ),
    )


def add_documents(
    messages: RepeatedCompositeFieldContainer[pb.Document], documents: Iterable[str | Document]
) -> None:
    """Write documents in place, which takes a fraction of copying them.

    Raises:
        ValueError: a text has a lone surrogate, which UTF-8 cannot carry.
    """
    for index, document in enumerate(documents):
        try:
            if isinstance(document, str):
                messages.add(text=document)
            else:
                message = messages.add(text=document.text, id=document.id)
                add_vectors(message.vectors, packed(document.vectors))
        except UnicodeEncodeError:
            raise ValueError(f"documents[{index}]: has half of a surrogate pair") from None


def add_vectors(message: pb.Vectors, vectors: Vectors | None) -> None:
    """Write vectors in place, if there are any."""
    if vectors is not None:
        message.dimension = vectors.dimension
        message.values = vectors.values


def check_text(text: str, name: str) -> str:
    """Give a text back if it is one.

    Raises:
        TypeError: it is something else.
        ValueError: it has a lone surrogate, which UTF-8 cannot carry.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a text, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: has half of a surrogate pair") from None
    return text


def parse_response(message: pb.RerankResponse) -> RerankResponse:
    """Read an answer."""
    return parse_summary(message.summary, map(parse_result, message.results))


def parse_summary(message: pb.RerankSummary, results: Iterable[RerankResult]) -> RerankResponse:
    """Read the totals of an answer whose results are known."""
    usage, timing = message.usage, message.timing
    return RerankResponse(
        results=tuple(results),
        model=message.model.name,
        model_version=message.model.version,
        score_kind=_name(_SCORE_KINDS, message.score_kind),
        normalization=_name(_NORMALIZATIONS, message.normalization),
        query_truncated=message.query_truncated,
        usage=Usage(usage.tokens, usage.pairs, usage.cache_hits, usage.remote_calls),
        timing=Timing(timing.queue_us, timing.tokenise_us, timing.infer_us, timing.total_us),
        fallback_for=message.fallback_for if message.HasField("fallback_for") else None,
    )


def parse_result(message: pb.RerankResult) -> RerankResult:
    """Read what became of one document."""
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


def parse_models(message: pb.ListModelsResponse) -> tuple[Model, ...]:
    """Read the list of models, the default first."""
    return tuple(_parse_model(model) for model in message.models)


def _label(name: str, value: str | None, labels: Iterable[str]) -> str | None:
    if value is None:
        return None
    known = [each.removeprefix(f"{name}_".upper()).lower() for each in labels][1:]
    if value not in known:  # the first is for what is not set
        raise ValueError(f"{name}: must be one of {', '.join(known)}")
    return f"{name}_{value}".upper()


def _name(names: Mapping[int, str], number: int) -> str:
    # A newer server may know values that this client does not: those keep their number.
    return names.get(number, str(number))


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
        aliases=tuple(message.aliases),
        is_loaded=message.is_loaded,
        vector_dimension=message.vector_dimension if message.HasField("vector_dimension") else None,
    )
