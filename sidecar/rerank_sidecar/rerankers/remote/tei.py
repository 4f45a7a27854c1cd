"""Hugging Face's text-embeddings-inference (TEI) over HTTP, and what speaks like it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.rerankers.remote.answers import indexed, rows, whole_number
from rerank_sidecar.rerankers.remote.base import CallFailed, Question, Target, Traits
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.rerankers.remote.http_client import HttpClient
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import TruncationSide

_LOG = logging.getLogger(__name__)


class TeiWire(HttpWire):
    """`POST /rerank`; logits, or probabilities if the options want them.

    It takes 32 texts a call unless its own settings say otherwise, which `GET /info` tells.
    """

    default_path = "/rerank"
    usual_kind = ScoreKind.RAW_LOGIT
    max_documents = 32

    @property
    def traits(self) -> Traits:
        """Tell what is known of the server without asking it."""
        return replace(super().traits, cuts_left=True)

    async def learn(self, client: HttpClient) -> Traits:
        """Read its limits and which model it runs, if it tells.

        Raises:
            ModelNotServable: it runs no reranker.
        """
        try:
            info = await client.get("/info")
        except CallFailed as failure:
            return usual(self.traits, failure, self.target)
        told = info if isinstance(info, dict) else {}
        if "reranker" not in str(told.get("model_type", "reranker")):
            raise ModelNotServable(f"the server at {self.target.url} runs no reranker")
        texts = {key: value for key, value in told.items() if isinstance(value, str)}
        model = "@".join(filter(None, (texts.get("model_id"), texts.get("model_sha"))))
        return replace(
            self.traits,
            max_documents=whole_number(info, "max_client_batch_size") or self.max_documents,
            max_tokens=whole_number(info, "max_input_length") or None,
            version=model or self.traits.version,
        )

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question.

        Versions before 1.9 did not cut what is too long unless told. Up to 1.8 they refused `left`
        and `right` in lower case: https://github.com/huggingface/text-embeddings-inference/issues/754.
        """
        body = {
            "query": question.query,
            "texts": list(question.texts),
            "raw_scores": self.score_kind is ScoreKind.RAW_LOGIT,
            "truncate": True,
        }
        left = question.truncation.side is TruncationSide.LEFT
        return {**body, "truncation_direction": "Left"} if left else body

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer), "score")


def usual(traits: Traits, failure: CallFailed, target: Target) -> Traits:
    """Say in the log that a server did not tell its limits, and take the usual ones."""
    _LOG.warning(
        "%s does not tell about itself (%s); up to %d documents go there in one call",
        target.url,
        failure.error.message,
        traits.max_documents,
    )
    return traits
