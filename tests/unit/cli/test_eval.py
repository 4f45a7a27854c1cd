"""`eval` prints the measures of a judged collection as a table or JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rerank_sidecar.cli.commands import commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = {"d1": "the sky is blue", "d2": "an apple is a red fruit", "d3": "green grass"}
    corpus = "".join(json.dumps({"_id": id, "text": text}) + "\n" for id, text in texts.items())
    (tmp_path / "corpus.jsonl").write_text(corpus)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "red fruit"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\nq7\td1\t1\n")
    (tmp_path / "run.trec").write_text("".join(f"q1 Q0 d{n} {n} {-n} bm25\n" for n in (1, 2, 3)))
    return tmp_path


def _arguments(folder: Path, *more: str) -> list[str]:
    where = ["--dataset", str(folder), "--run", str(folder / "run.trec")]
    return ["eval", *where, "--model", "lexical", *more]


def test_table(folder: Path) -> None:
    ran = CliRunner().invoke(commands, _arguments(folder))
    assert ran.exit_code == 0, ran.output
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert rows[:5] == [
        ["before", "after", "change"],
        ["nDCG@10", "0.6309", "1.0000", "+0.3691"],
        ["MRR@10", "0.5000", "1.0000", "+0.5000"],
        ["P@1", "0.0000", "1.0000", "+1.0000"],
        ["recall@10", "1.0000", "1.0000", "+0.0000"],
    ]
    assert "ms per query" in ran.stdout
    assert "pairs per second" in ran.stdout
    assert "judged queries without candidates, not counted: 1" in ran.stdout


def test_json_is_all_that_goes_to_standard_output(folder: Path) -> None:
    command = [sys.executable, "-m", "rerank_sidecar", *_arguments(folder, "--json")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert found["after"]["nDCG@10"] == 1.0
    assert found["before"]["MRR@10"] == 0.5
    assert found["models"][0]["name"] == "lexical"
    assert found["speed"].keys() == {"ms_per_query", "pairs_per_second"}


def test_least_grade_and_depth_are_passed_on(folder: Path) -> None:
    arguments = _arguments(folder, "--json", "--min-grade", "2", "--top-k", "1")
    found = json.loads(CliRunner().invoke(commands, arguments).stdout)
    assert (found["min_grade"], found["top_k"]) == (2, 1)
    assert found["after"]["MRR@10"] == 0.0
    assert found["after"]["nDCG@10"] == found["before"]["nDCG@10"]


def test_missing_documents_are_one_clear_line(folder: Path) -> None:
    (folder / "run.trec").write_text("q1 Q0 d1 1 1 t\nq1 Q0 d8 2 0 t\n")
    ran = CliRunner().invoke(commands, _arguments(folder))
    assert ran.exit_code == 2
    assert "1 of 2 documents of the run are not in" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(("collection", "least"), [("trec-dl19", 0.654), ("trec-dl20", 0.632)])
def test_embedded_model_on_trec_deep_learning(collection: str, least: float) -> None:
    data = os.environ.get("RERANK_SIDECAR_DATA")
    if data is None:
        pytest.skip("RERANK_SIDECAR_DATA names no folder with trec-dl19/ and trec-dl20/")
    folder = Path(data) / collection
    run = folder / "bm25.trec"
    command = ["eval", "--dataset", str(folder), "--run", str(run), "--model", "embedded", "--json"]
    ran = subprocess.run(
        [sys.executable, "-m", "rerank_sidecar", *command], stdout=subprocess.PIPE, check=True
    )
    assert json.loads(ran.stdout)["after"]["nDCG@10"] >= least
