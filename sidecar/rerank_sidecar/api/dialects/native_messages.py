"""The messages of our own JSON form: those of rerank.proto under the same names."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    LongDocumentPolicy,
    ModelReference,
    Normalization,
    RerankSummary,
    Score,
    TruncationSide,
)

E = TypeVar("E", bound=StrEnum)


def enum_names(choices: type[E]) -> dict[str, E | None]:
    """Map the short names and those of the proto to our values, `..._UNSPECIFIED` to None."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", choices.__name__).upper()
    short = {choice.value: choice for choice in choices}
    long = {f"{prefix}_{choice.name}": choice for choice in choices}
    return {**short, **long, f"{prefix}_UNSPECIFIED": None}


POLICIES = enum_names(LongDocumentPolicy)
SIDES = enum_names(TruncationSide)
NORMALIZATIONS = enum_names(Normalization)


class NativeTruncation(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of each document is read at all."""

    max_tokens_per_document: Annotated[
        int | None, Meta(description="Tokens of each document that are read; at least 1.")
    ] = None
    side: Annotated[
        str | None,
        Meta(
            description="Which end is cut. Unset: right.",
            extra_json_schema={"enum": [*SIDES, None]},
        ),
    ] = None


class NativeOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything about a request but its query and documents."""

    model: Annotated[
        str | None, Meta(description="Name of the model. Unset: the server's default.")
    ] = None
    top_n: Annotated[
        int | None, Meta(description="How many results to return; at least 1. Unset: all.")
    ] = None
    return_documents: Annotated[
        bool | None, Meta(description="Whether results carry their document.")
    ] = None
    score_threshold: Annotated[
        float | None, Meta(description="Results below this returned score are left out.")
    ] = None
    truncation: NativeTruncation | None = None
    long_document_policy: Annotated[
        str | None,
        Meta(
            description="What happens to documents longer than the model reads at once. Unset: as "
            "the server or the model has it.",
            extra_json_schema={"enum": [*POLICIES, None]},
        ),
    ] = None
    priority: Annotated[
        int | None, Meta(description="Requests with a higher priority run sooner. Default 0.")
    ] = None
    normalization: Annotated[
        str | None,
        Meta(
            description="The scale of returned scores: the model's own, [0, 1], or the model's own "
            "with probabilities as logits. Unset: as the server has it for the model.",
            extra_json_schema={"enum": [*NORMALIZATIONS, None]},
        ),
    ] = None


class NativeDocument(Struct, frozen=True, forbid_unknown_fields=True):
    """One candidate: its text, and the caller's own identifier if there is one."""

    text: str
    id: str | None = None
    vectors: Annotated[
        list[list[float]] | None,
        Meta(
            description="Stand for the text, which is then not read: one for each token, or one in "
            "all. For models with a `vector_dimension`."
        ),
    ] = None


class NativeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A query and all of its candidates; a document may be a mere string."""

    query: Annotated[str, Meta(description="What the user asked.")]
    documents: Annotated[
        list[str | NativeDocument], Meta(description="The candidates, in the caller's order.")
    ]
    options: NativeOptions | None = None
    query_vectors: Annotated[
        list[list[float]] | None,
        Meta(description="Stand for the query, which is then not read."),
    ] = None


class NativeDocumentError(Struct, frozen=True):
    """Why one document has no score while its neighbours have theirs."""

    reason: str
    message: str


class NativeAnswerDocument(Struct, frozen=True):
    """A candidate as it was sent, without its vectors."""

    text: str
    id: str | None


class NativeResult(Struct, frozen=True):
    """What became of one document: a score, or its own error."""

    index: int
    id: str | UnsetType = UNSET
    document: NativeAnswerDocument | UnsetType = UNSET
    score: Score | UnsetType = UNSET
    error: NativeDocumentError | UnsetType = UNSET


class NativeAnswer(Struct, frozen=True):
    """Scored documents best first, ties in input order; then those that failed."""

    results: list[NativeResult]
    summary: RerankSummary


class NativeErrorDetails(Struct, frozen=True):
    """What went wrong: a stable reason, a sentence, and where or when to try again."""

    reason: str
    message: str
    field: str | UnsetType = UNSET
    retry_after_s: float | UnsetType = UNSET


class NativeError(Struct, frozen=True):
    """The body of every answer that is an error."""

    error: NativeErrorDetails


class NativeModel(Struct, frozen=True):
    """A model that the server can answer with; until it is loaded, little is known of it."""

    model: ModelReference
    family: str
    score_kind: ScoreKind | None
    max_tokens: int | None
    comparable_across_requests: bool
    is_default: bool
    default_long_document_policy: LongDocumentPolicy | None
    aliases: tuple[str, ...]
    is_loaded: bool
    vector_dimension: int | None


class NativeModels(Struct, frozen=True):
    """The models, the default first."""

    models: list[NativeModel]
