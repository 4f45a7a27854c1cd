"""What an evaluation found, as a value that the command prints as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rerank_sidecar.score_kinds import ScoreKind


@dataclass(frozen=True, slots=True)
class ModelShare:
    """A model that scored, and how many of the queries it answered."""

    name: str
    version: str
    score_kind: ScoreKind
    queries: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was counted and what was left out.

    `run_queries_without_judgements` and `judged_queries_not_in_run` take no part in the averages.
    `failed_documents` could not be scored and stand below all that could.
    """

    queries: int
    run_queries_without_judgements: int
    judged_queries_not_in_run: int
    pairs: int
    failed_documents: int


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the queries were answered, one after the other, model loading left out."""

    ms_per_query: float
    pairs_per_second: float


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Quality before and after reranking the first `top_k` of each query, and the speed of it.

    `before` and `after` map the names in `measures.MEASURES` to averages over the queries.
    """

    dataset: str
    run: str
    top_k: int
    min_grade: int
    models: tuple[ModelShare, ...]
    before: Mapping[str, float]
    after: Mapping[str, float]
    speed: Speed
    coverage: Coverage

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain values, named as in this class."""
        return asdict(self)
