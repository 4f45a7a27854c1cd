"""vLLM's score API, as of its versions 0.13 to 0.32: pairs of texts, scores in input order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.fields import placed
from rerank_sidecar.api.dialects.vllm import (
    VllmError,
    VllmInput,
    VllmOptions,
    new_id,
    read_inputs,
    read_options,
    render_vllm_error,
)
from rerank_sidecar.errors import InvalidField, RerankError
from rerank_sidecar.types import PairRequest, RerankResult

_NAMES = (
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
)
"""What the two sides are called, newest first; `text_1` and `text_2` are the oldest names."""

_Side = str | dict[str, Any] | list[VllmInput] | None


class VllmScoreRequest(VllmOptions, frozen=True, kw_only=True):
    """Queries and documents under one of their pairs of names: 1:1, 1:N or N:N."""

    queries: _Side = None
    documents: _Side = None
    items: _Side = None
    data_1: _Side = None
    data_2: _Side = None
    text_1: _Side = None
    text_2: _Side = None


class VllmScore(Struct, frozen=True):
    """The score of one pair; `object` is always `score`."""

    index: int
    object: str
    score: float


class VllmScoreUsage(Struct, frozen=True):
    """What the call cost; nothing is ever completed."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: None = None


class VllmScoreAnswer(Struct, frozen=True):
    """A score for every pair, in input order; `created` is in seconds since 1970."""

    id: str
    object: str
    created: int
    model: str
    data: list[VllmScore]
    usage: VllmScoreUsage


class VllmScoreDialect(Dialect[VllmScoreRequest]):
    """One query is scored against every document, or each against its own."""

    name: ClassVar[str] = "vllm_score"
    summary: ClassVar[str] = "Score pairs of texts as vLLM does"
    mount: ClassVar[str] = "/vllm"
    paths: ClassVar[tuple[str, ...]] = ("/score", "/v1/score")
    message_type = VllmScoreRequest
    answer_type: ClassVar[type] = VllmScoreAnswer
    error_type: ClassVar[type] = VllmError
    example: ClassVar[Mapping[str, Any]] = {
        "model": "default",
        "text_1": "red fruit",
        "text_2": ["sky", "apple"],
    }

    def parse(self, message: VllmScoreRequest) -> PairRequest:
        """Pair the two sides.

        Raises:
            InvalidField: a side is missing or empty, or their lengths do not fit.
        """
        one, other = _names(message)
        queries = read_inputs(getattr(message, one), one)
        documents = read_inputs(getattr(message, other), other)
        if len(queries) == 1:
            queries *= len(documents)
        if len(queries) != len(documents):
            raise InvalidField(f"{one}: must be one, or as many as {other}", one)
        texts = tuple(each.text for each in queries)
        return PairRequest(texts, documents, read_options(message))

    def render(self, message: VllmScoreRequest, result: RerankResult) -> VllmScoreAnswer:
        """List the scores in input order."""
        places = sorted(placed(result), key=lambda each: each.index)
        tokens = result.summary.usage.tokens
        return VllmScoreAnswer(
            new_id(),
            "list",
            int(time.time()),
            result.summary.model.name,
            [VllmScore(each.index, "score", each.score) for each in places],
            VllmScoreUsage(tokens, tokens),
        )

    def render_error(self, error: RerankError) -> tuple[int, VllmError]:
        """Tell an error as the rerank API does."""
        return render_vllm_error(error)


def _names(message: VllmScoreRequest) -> tuple[str, str]:
    for one, other in _NAMES:
        if getattr(message, one) is not None and getattr(message, other) is not None:
            return one, other
    pairs = ", ".join(" and ".join(names) for names in _NAMES)
    raise InvalidField(f"body: two fields are missing, either of {pairs}", "body")
