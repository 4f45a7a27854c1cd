"""What the Open Inference Protocol (KServe v2) asks of a reranker, whichever wire it comes over.

Inputs are `query` and `passage`, a query for each passage or one for all; outputs have one row for
each passage, in input order. The names, `truncate` and the outputs besides `score` are those of
NVIDIA NIM for text reranking (2.x, over gRPC); `priority` and `timeout` are Triton's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rerank_sidecar.api.dialects.fields import Placed, placed, refuse_too_long
from rerank_sidecar.api.dialects.nim_truncate import read_truncate
from rerank_sidecar.api.tensors import FP32, INT32, NumberTensor, TextTensor
from rerank_sidecar.errors import InvalidField, NotSupportedByModel
from rerank_sidecar.score_kinds import ScoreKind, to_unit
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    Normalization,
    PairRequest,
    RerankOptions,
    RerankResult,
    Truncation,
)

INPUTS = ("query", "passage")

OUTPUTS: Mapping[str, str] = MappingProxyType(
    {"score": FP32, "logit": FP32, "index": INT32, "token_count": INT32}
)
"""What may be asked for, with its datatype; `score` is given when nothing is asked for."""

_NOT_DONE = frozenset({"classification", "shared_memory_region"})
"""Parameters that change what an output is or where it goes; to ignore them would mislead."""

_MOST_INT64 = 2**63 - 1

FIELD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "documents": "passage",
        "priority": "parameters.priority",
        "model": "model_name",
    }
)
"""What the protocol calls the fields of our requests."""


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that is asked for, with its own parameters."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inference:
    """One inference request: its rows, what is wanted of them, and its parameters.

    `shape` is the one in which the passages came.
    """

    queries: Sequence[str]
    passages: Sequence[str]
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        inputs: Sequence[TextTensor],
        outputs: Sequence[WantedOutput],
        parameters: Mapping[str, Any],
    ) -> Inference:
        """Put rows together.

        Raises:
            InvalidField: an input is missing, twice there or unknown, or their lengths do not fit;
                or an output is unknown, or wanted in a way that is not known.
        """
        query, passage = _named(inputs)
        queries, count = query.texts, len(passage.texts)
        if len(queries) == 1:
            queries = [queries[0]] * count
        if len(queries) != count:
            raise InvalidField(
                f"{query.field}.shape: query must have one element, or as many as passage",
                f"{query.field}.shape",
            )
        return cls(queries, passage.texts, passage.shape, _wanted(outputs), parameters)

    def request(self, model: str | None) -> PairRequest:
        """Say it in our words.

        Raises:
            InvalidField: a parameter has a value that means nothing.
        """
        (policy, truncation), timeout_us = self._truncate(), self._whole("timeout")
        options = RerankOptions(
            model=model or None,
            truncation=truncation,
            long_document_policy=policy,
            priority=_priority(self._whole("priority")),
            normalization=Normalization.LOGIT if "logit" in self.outputs else Normalization.UNIT,
            timeout_s=timeout_us / 1_000_000 if timeout_us else None,
            count_tokens="token_count" in self.outputs,
        )
        return PairRequest(tuple(self.queries), tuple(map(Document, self.passages)), options)

    def answer(self, result: RerankResult) -> list[NumberTensor]:
        """Give the outputs that are wanted; a passage that failed alone has the lowest score.

        Raises:
            LimitExceeded: a passage is too long and was not to be cut.
            NotSupportedByModel: a logit is wanted of a model that ranks whole lists.
        """
        if self._truncate()[0] is LongDocumentPolicy.REJECT:
            refuse_too_long(result)
        if "logit" in self.outputs and result.summary.score_kind is ScoreKind.RANK:
            raise NotSupportedByModel("the model ranks whole lists, and a rank is no logit")
        places = sorted(placed(result), key=lambda each: each.index)
        return [
            NumberTensor.of(name, OUTPUTS[name], self._shape(name), _values(name, places, result))
            for name in self.outputs
        ]

    def _shape(self, name: str) -> tuple[int, ...]:
        # NIM gives token counts as [n] even where all else is [n, 1].
        return self.shape[:1] if name == "token_count" else self.shape

    def _truncate(self) -> tuple[LongDocumentPolicy | None, Truncation]:
        return read_truncate(self.parameters.get("truncate"), "parameters.truncate")

    def _whole(self, name: str) -> int:
        given = self.parameters.get(name, 0)
        if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= _MOST_INT64:
            field = f"parameters.{name}"
            raise InvalidField(f"{field}: must be a whole number, 0 or more", field)
        return given


def _named(inputs: Sequence[TextTensor]) -> tuple[TextTensor, TextTensor]:
    found: dict[str, TextTensor] = {}
    for each in inputs:
        if each.name not in INPUTS or each.name in found:
            raise InvalidField(f"{each.field}.name: {_WANTED_INPUTS}", f"{each.field}.name")
        found[each.name] = each
    if len(found) < len(INPUTS):
        raise InvalidField(f"inputs: {_WANTED_INPUTS}", "inputs")
    return found["query"], found["passage"]


_WANTED_INPUTS = "must be query and passage, each once, as BYTES"


def _wanted(outputs: Sequence[WantedOutput]) -> tuple[str, ...]:
    for at, each in enumerate(outputs):
        if each.name not in OUTPUTS:
            field = f"outputs[{at}].name"
            raise InvalidField(f"{field}: must be one of {', '.join(OUTPUTS)}", field)
        for name in _NOT_DONE & each.parameters.keys():
            field = f"outputs[{at}].parameters.{name}"
            raise InvalidField(f"{field}: outputs are given as they are, in the answer", field)
    return tuple(dict.fromkeys(each.name for each in outputs)) or ("score",)


def _priority(level: int) -> int:
    # Triton's level 1 is the highest, 0 the default. How many levels there are is a matter of its
    # configuration; we take it for two, of which the lower is the default.
    return 2 - level if level else 0


def _values(name: str, places: Sequence[Placed], result: RerankResult) -> list[float]:
    match name:
        case "index":
            return [each.index for each in places]
        case "token_count":
            counts = {each.index: each.token_count for each in result.results}
            return [counts[each.index] or 0 for each in places]
        case "score":
            return [_unit(each.score, result, len(places)) for each in places]
    return [each.score for each in places]


def _unit(score: float, result: RerankResult, count: int) -> float:
    summary = result.summary
    if summary.normalization is Normalization.UNIT:
        return score
    is_probability = summary.score_kind is ScoreKind.PROBABILITY
    return to_unit(ScoreKind.RAW_LOGIT if is_probability else summary.score_kind, score, count)
