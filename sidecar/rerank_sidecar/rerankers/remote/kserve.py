"""KServe v2 servers such as Triton whose model takes texts, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rerank_sidecar.rerankers.remote.base import Garbled, Question
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.rerankers.remote.options import KserveHttpOptions, KserveOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.third_party.kserve_tensors import Numbers, numbers_of_json, text_input

ReadOutput = Callable[[str], Numbers]
"""Gives the numbers of an output by its name; ValueError if there are none."""

CUT = "END"
"""The word with which NVIDIA's models are told to cut what is too long; others ignore it."""


class KserveWire(HttpWire):
    """`POST /v2/models/{model}/infer` with two tensors of strings; scores come in their order.

    The query is repeated for each document. The options name the tensors.
    """

    usual_kind = ScoreKind.RAW_LOGIT
    max_documents = 64
    options: KserveHttpOptions

    @property
    def path(self) -> str:
        """Give where the model is."""
        return self.options.path or f"/v2/models/{self.target.model}/infer"

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""
        names, texts = self.options, question.texts
        return {
            "inputs": [
                text_input(names.query_tensor, [question.query] * len(texts)),
                text_input(names.document_tensor, texts),
            ],
            "outputs": [{"name": name} for name in outputs_wanted(names)],
            "parameters": {"truncate": CUT},
        }

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find the score of each row, and its index where the model sorts them."""
        return tensor_scores(self.options, lambda name: numbers_of_json(answer, name))


def outputs_wanted(options: KserveOptions) -> list[str]:
    """Name the tensors that are asked for."""
    return [each for each in (options.score_tensor, options.index_tensor) if each is not None]


def tensor_scores(options: KserveOptions, read: ReadOutput) -> Iterable[tuple[object, object]]:
    """Pair the rows of the score tensor with their indexes.

    Raises:
        Garbled: a tensor is missing, or does not hold what it says.
    """
    try:
        scores = read(options.score_tensor).tolist()
        if options.index_tensor is None:
            return list(enumerate(scores))
        indexes = read(options.index_tensor).astype(int).tolist()
        return list(zip(indexes, scores, strict=True))
    except ValueError as error:
        raise Garbled(str(error)) from None
