"""LibreChat's own rerank form, which it sends to its rag_api: `candidates` in, `id`s out.

`RagApiReranker` of @librechat/agents sends at most 50 candidates, waits for 10 s and falls back to
the order in which it had them. An index that is out of range or comes twice, or a score that is
not finite, makes it drop the whole answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.fields import (
    UNPROCESSABLE,
    DetailError,
    detail_error,
    placed,
    positive,
)
from rerank_sidecar.api.dialects.ranking import TopN
from rerank_sidecar.errors import RerankError
from rerank_sidecar.types import (
    Document,
    Normalization,
    RerankOptions,
    RerankRequest,
    RerankResult,
)


class LibreChatCandidate(Struct, frozen=True):
    """A document; what it scored before, `base_score`, is ignored."""

    text: str
    id: Annotated[str | int | None, Meta(description="Unset: its place as a string.")] = None


class LibreChatRequest(Struct, frozen=True):
    """A query with its candidates."""

    query: Annotated[str, Meta(description="What the user asked.")]
    candidates: Annotated[list[LibreChatCandidate], Meta(description="The documents.")]
    profile: Annotated[
        str | None, Meta(description="Given back as it is; names no model of this server.")
    ] = None
    top_n: TopN = None


class LibreChatResult(Struct, frozen=True):
    """A candidate's place and its score in [0, 1]."""

    id: str | int
    index: int
    score: float


class LibreChatAnswer(Struct, frozen=True):
    """The candidates, best first."""

    profile: str | None
    model: str
    results: list[LibreChatResult]


class LibreChatDialect(Dialect[LibreChatRequest]):
    """Takes as many candidates as any other door."""

    name: ClassVar[str] = "librechat"
    summary: ClassVar[str] = "Rank candidates as LibreChat's rag_api does"
    mount: ClassVar[str] = "/librechat"
    paths: ClassVar[tuple[str, ...]] = ("/v1/rerank",)
    field_names: ClassVar[Mapping[str, str]] = MappingProxyType({"documents": "candidates"})
    message_type = LibreChatRequest
    answer_type: ClassVar[type] = LibreChatAnswer
    error_type: ClassVar[type] = DetailError
    example: ClassVar[Mapping[str, Any]] = {
        "profile": "fast-v1",
        "query": "red fruit",
        "candidates": [
            {"id": "0", "text": "sky", "base_score": 0},
            {"id": "1", "text": "apple", "base_score": 0},
        ],
        "top_n": 1,
    }

    def parse(self, message: LibreChatRequest) -> RerankRequest:
        """Take the texts of the candidates."""
        documents = tuple(Document(each.text) for each in message.candidates)
        options = RerankOptions(top_n=positive(message.top_n), normalization=Normalization.UNIT)
        return RerankRequest(message.query, documents, options)

    def render(self, message: LibreChatRequest, result: RerankResult) -> LibreChatAnswer:
        """Give the candidates, best first.

        Raises:
            RerankError: the error of the first candidate, if all of them failed.
        """
        results = [
            LibreChatResult(_id(message, each.index), each.index, each.score)
            for each in placed(result, positive(message.top_n))
        ]
        return LibreChatAnswer(message.profile, result.summary.model.name, results)

    def render_error(self, error: RerankError) -> tuple[int, DetailError]:
        """Give the message as a string; a body that does not fit is a 422."""
        return detail_error(error, UNPROCESSABLE)


def _id(message: LibreChatRequest, index: int) -> str | int:
    given = message.candidates[index].id
    return str(index) if given is None else given
