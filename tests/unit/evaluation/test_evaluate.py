"""An evaluation reranks the right candidates, keeps the rest in place and reports what it did."""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

import pytest

from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.errors import BackendFailed, UnreadableInput
from rerank_sidecar.evaluation.evaluate import evaluate, read_task
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import read_settings
from rerank_sidecar.types import Document, Score

CORPUS = {"d1": "1", "d2": "2", "d3": "3", "d4": "broken", "d5": "2", "d6": "never read"}
JUDGEMENTS = {"q1": {"d3": 2, "d1": 1}, "q2": {"d5": 1}, "q9": {"d1": 1}}
RUN = {"q1": ["d1", "d2", "d4", "d3"], "q2": ["d2", "d5", "d1"], "q3": ["d6"]}


class NumberReranker:
    """Scores a text by the number that it is, whatever the query; fails on other texts."""

    info = RerankerInfo("numbers", "7", "numbers", ScoreKind.RAW_LOGIT, "python", "test")

    @property
    def tokens_per_s(self) -> float:
        return math.inf  # it runs no model

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        return 0

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        async for batch in documents:
            for index, document in batch:
                number = document.text
                yield (
                    index,
                    Score(float(number)) if number.isdigit() else BackendFailed("no number"),
                )


@pytest.fixture
def engine() -> Engine:
    engine = Engine(read_settings())
    engine.open(Registry([NumberReranker()], NumberReranker()))
    return engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = [json.dumps({"_id": id, "text": text}) for id, text in CORPUS.items()]
    queries = [json.dumps({"_id": query, "text": "how many?"}) for query in ("q1", "q2", "q3")]
    qrels = [
        f"{q}\t{d}\t{grade}" for q, judged in JUDGEMENTS.items() for d, grade in judged.items()
    ]
    run = [
        f"{query} Q0 {document} {rank} {-rank} t"
        for query, ranking in RUN.items()
        for rank, document in enumerate(ranking, start=1)
    ]
    files = {"corpus.jsonl": corpus, "queries.jsonl": queries, "qrels.tsv": qrels, "run.trec": run}
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


async def test_report_before_and_after(engine: Engine, folder: Path) -> None:
    steps: list[None] = []
    task = read_task(folder, folder / "run.trec", top_k=100)
    report = await evaluate(engine, task, min_grade=2, advance=lambda: steps.append(None))

    # q1: d1 d2 d4 d3 becomes d3 d2 d1 d4; q2: d2 d5 d1 stays, its two 2s in input order.
    assert report.before["MRR@10"] == pytest.approx((1 / 4 + 0) / 2)
    assert report.after["MRR@10"] == pytest.approx((1 + 0) / 2)
    assert (report.before["P@1"], report.after["P@1"]) == (0.0, 0.5)
    assert report.after["recall@10"] == 0.5
    assert report.after["nDCG@10"] > report.before["nDCG@10"]
    assert (report.dataset, report.run) == (folder.name, "run.trec")
    (share,) = report.models
    assert (share.name, share.version, share.queries) == ("numbers", "7", 2)
    assert len(steps) == 2


async def test_report_tells_what_was_left_out(engine: Engine, folder: Path) -> None:
    report = await evaluate(engine, read_task(folder, folder / "run.trec", top_k=100))
    counted = report.coverage
    assert (counted.queries, counted.pairs, counted.failed_documents) == (2, 7, 1)
    assert counted.run_queries_without_judgements == 1
    assert counted.judged_queries_not_in_run == 1
    assert report.speed.ms_per_query > 0
    assert report.speed.pairs_per_second > 0


async def test_candidates_below_top_k_stay_where_they_are(engine: Engine, folder: Path) -> None:
    task = read_task(folder, folder / "run.trec", top_k=2)
    report = await evaluate(engine, task, min_grade=2)
    assert report.coverage.pairs == 4
    assert report.before["MRR@10"] == report.after["MRR@10"] == pytest.approx((1 / 4) / 2)


def test_only_passages_to_rerank_are_kept(folder: Path) -> None:
    task = read_task(folder, folder / "run.trec", top_k=2)
    assert set(task.passages) == {"d1", "d2", "d5"}


def test_a_run_without_judged_queries_is_refused(folder: Path) -> None:
    (folder / "qrels.tsv").write_text("q9\td1\t1\n")
    with pytest.raises(UnreadableInput, match=r"no query of .*run\.trec has judgements in"):
        read_task(folder, folder / "run.trec", top_k=2)


async def test_report_is_json(engine: Engine, folder: Path) -> None:
    report = await evaluate(engine, read_task(folder, folder / "run.trec", top_k=2))
    found = json.loads(json.dumps(report.to_json()))
    assert (
        found["after"].keys() == found["before"].keys() == {"nDCG@10", "MRR@10", "P@1", "recall@10"}
    )
    assert found["models"][0]["score_kind"] == "RAW_LOGIT"
