"""The one answer for all who send `documents` to a bare path and cannot be told apart.

It is meant for clients of Cohere's version 1, Jina, vLLM, Infinity, Xinference and llama.cpp, and
for Open WebUI, Dify, RAGFlow, LibreChat and LiteLLM, which send some mixture of their fields. So
it understands the fields of all of them and answers what each of them needs:

- `results` with `index` and `relevance_score`, best first; all of them, unless `top_n` is positive.
  Scores are in [0, 1], but for those who ask for raw ones as Infinity's or vLLM's clients do.
- `document` is `{"text"}` and is there only if asked for. LiteLLM (1.83) fails on a null, for
  vLLM also on a string; Go clients that decode a string fail on an object they did not ask for.
- `object` is `rerank`, the only value that infinity-client (0.0.78) takes; `usage` has both of
  its numbers, which it needs, too.
- `meta` is Cohere's.
- An error is told three times: as the object `error` (vLLM, Infinity, llama.cpp), as `message`
  (Cohere, LibreChat) and as the string `detail` (Jina, Xinference).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.fields import TokenUsage, as_bool, token_usage
from rerank_sidecar.api.dialects.openai_forms import OpenAIError
from rerank_sidecar.api.dialects.ranking import (
    Candidates,
    MaxChunks,
    RankFields,
    RankingMeta,
    RankingResult,
    ReturnDocuments,
    Text,
    TopN,
    ask,
    new_id,
    policy_of_chunks,
    ranking,
    ranking_meta,
)
from rerank_sidecar.api.dialects.vllm import VllmOptions, read_options
from rerank_sidecar.errors import RequestError, RerankError, error_row
from rerank_sidecar.types import Normalization, RerankOptions, RerankRequest, RerankResult


class GenericRequest(VllmOptions, frozen=True, kw_only=True):
    """A query with its documents, and what any of the clients may add; the rest is ignored."""

    query: Annotated[Text, Meta(description="What the user asked.")]
    documents: Annotated[
        list[Text] | str, Meta(description="The candidates, texts or objects; or a single text.")
    ]
    top_n: TopN = None
    return_documents: ReturnDocuments = None
    rank_fields: RankFields = None
    max_chunks_per_doc: MaxChunks = None
    raw_scores: Annotated[
        bool | str | None,
        Meta(description="Scores on the model's own scale, as `use_activation` false."),
    ] = None


class GenericAnswer(Struct, frozen=True):
    """The documents, best first; `created` is in seconds since 1970."""

    id: str
    object: str
    created: int
    model: str
    results: list[RankingResult]
    usage: TokenUsage
    meta: RankingMeta


class GenericError(Struct, frozen=True):
    """Why a call failed, said in each of the places where clients look for it.

    `error.type` is a reason of docs/errors.md.
    """

    error: OpenAIError
    message: str
    detail: str


class GenericDialect(Dialect[GenericRequest]):
    """Has no mount: only bare paths lead to it."""

    name: ClassVar[str] = "generic"
    summary: ClassVar[str] = "Rank documents for most clients of most products"
    mount: ClassVar[str] = ""
    paths: ClassVar[tuple[str, ...]] = ()
    message_type = GenericRequest
    answer_type: ClassVar[type] = GenericAnswer
    error_type: ClassVar[type] = GenericError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "default",
        "query": "red fruit",
        "documents": ["sky", "apple"],
        "top_n": 1,
        "return_documents": True,
    }

    def parse(self, message: GenericRequest) -> RerankRequest:
        """Take the texts of the documents, or of their `rank_fields`."""
        return ask(message, _candidates(message), _options(message))

    def render(self, message: GenericRequest, result: RerankResult) -> GenericAnswer:
        """Give the documents, best first.

        Raises:
            RerankError: the error of the first document, if all of them failed.
        """
        candidates = _candidates(message)
        return GenericAnswer(
            id=new_id(),
            object="rerank",
            created=int(time.time()),
            model=result.summary.model.name,
            results=ranking(message, candidates, result),
            usage=token_usage(result),
            meta=ranking_meta(candidates, result, version="1"),
        )

    def render_error(self, error: RerankError) -> tuple[int, GenericError]:
        """Give the message three times, so that each client finds it."""
        row = error_row(error)
        field = error.field if isinstance(error, RequestError) else None
        details = OpenAIError(error.message, row.reason, field, row.http_status)
        return row.http_status, GenericError(details, error.message, error.message)


def _candidates(message: GenericRequest) -> Candidates:
    given = message.documents
    return Candidates([given] if isinstance(given, str) else given, message.rank_fields)


def _options(message: GenericRequest) -> RerankOptions:
    options = read_options(message)
    if as_bool(message.raw_scores, "raw_scores"):
        options = replace(options, normalization=Normalization.LOGIT)
    policy = policy_of_chunks(message.max_chunks_per_doc) or options.long_document_policy
    return replace(options, long_document_policy=policy)
