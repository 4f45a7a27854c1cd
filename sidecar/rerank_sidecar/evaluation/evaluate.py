"""Reranking a first-stage run with an engine, and measuring what that gained and cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rerank_sidecar.errors import UnreadableInput
from rerank_sidecar.evaluation.collection import (
    Judgements,
    Run,
    read_judgements,
    read_passages,
    read_queries,
    read_run,
)
from rerank_sidecar.evaluation.measures import measure
from rerank_sidecar.evaluation.report import Coverage, EvaluationReport, ModelShare, Speed
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, ModelReference, RerankRequest, RerankResult


class Reranks(Protocol):
    """What an evaluation needs of an engine."""

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Score all documents of a request and put them in order."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """A judged collection and the candidates that are to be reranked, all in memory.

    `candidates` holds, for each query that is both judged and in the run, all of its documents,
    best first; `passages` holds the texts of the first `top_k` of each.
    """

    dataset: str
    run: str
    top_k: int
    queries: Mapping[str, str]
    passages: Mapping[str, str]
    judgements: Judgements
    candidates: Run
    run_queries_without_judgements: int


@dataclass(slots=True)
class _Tally:
    rankings: dict[str, list[str]] = field(default_factory=dict)
    models: Counter[tuple[ModelReference, ScoreKind]] = field(default_factory=Counter)
    elapsed_s: float = 0.0
    pairs: int = 0
    failed: int = 0


def read_task(dataset: Path, run: Path, top_k: int) -> Task:
    """Read what an evaluation needs; of the corpus only the passages that it reranks.

    Raises:
        UnreadableInput: a file is missing or malformed, or no query of the run is judged.
    """
    judgements, ranked = read_judgements(dataset), read_run(run)
    candidates = {query: ranking for query, ranking in ranked.items() if query in judgements}
    if not candidates:
        raise UnreadableInput(f"no query of {run} has judgements in {dataset}")
    wanted = {document for ranking in candidates.values() for document in ranking[:top_k]}
    return Task(
        dataset=dataset.resolve().name,
        run=run.name,
        top_k=top_k,
        queries=read_queries(dataset, candidates),
        passages=read_passages(dataset, wanted),
        judgements=judgements,
        candidates=candidates,
        run_queries_without_judgements=len(ranked) - len(candidates),
    )


async def evaluate(
    engine: Reranks, task: Task, *, min_grade: int = 1, advance: Callable[[], None] = lambda: None
) -> EvaluationReport:
    """Rerank the first `top_k` candidates of each query, one query after the other, and report.

    Candidates below `top_k` stay below, in their order, and so do documents that failed alone.
    `min_grade` is the least grade that counts as relevant in the binary measures. `advance` is
    called after each query.

    Raises:
        RerankError: a whole query could not be answered.
    """
    tally = _Tally()
    for query, ranking in task.candidates.items():
        head = ranking[: task.top_k]
        result = await _timed_rerank(engine, task, query, head, tally)
        order = [head[ranked.index] for ranked in result.results]
        tally.rankings[query] = order + ranking[task.top_k :]
        advance()
    return _report(task, tally, min_grade)


async def _timed_rerank(
    engine: Reranks, task: Task, query: str, candidates: Sequence[str], tally: _Tally
) -> RerankResult:
    documents = tuple(Document(task.passages[each], each) for each in candidates)
    request = RerankRequest(task.queries[query], documents)
    began = time.perf_counter()
    result = await engine.rerank(request)
    tally.elapsed_s += time.perf_counter() - began
    tally.pairs += len(documents)
    tally.failed += sum(ranked.error is not None for ranked in result.results)
    tally.models[(result.summary.model, result.summary.score_kind)] += 1
    return result


def _report(task: Task, tally: _Tally, min_grade: int) -> EvaluationReport:
    queries = len(task.candidates)
    return EvaluationReport(
        dataset=task.dataset,
        run=task.run,
        top_k=task.top_k,
        min_grade=min_grade,
        models=tuple(
            ModelShare(model.name, model.version, kind, count)
            for (model, kind), count in tally.models.most_common()
        ),
        before=measure(task.candidates, task.judgements, min_grade),
        after=measure(tally.rankings, task.judgements, min_grade),
        speed=Speed(1000 * tally.elapsed_s / queries, tally.pairs / tally.elapsed_s),
        coverage=Coverage(
            queries=queries,
            run_queries_without_judgements=task.run_queries_without_judgements,
            judged_queries_not_in_run=len(task.judgements) - queries,
            pairs=tally.pairs,
            failed_documents=tally.failed,
        ),
    )
