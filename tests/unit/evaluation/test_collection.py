"""Collections and runs are read as BEIR and TREC write them; what is wrong is named by its line."""

import gzip
import json
from pathlib import Path

import pytest

from rerank_sidecar.errors import UnreadableInput
from rerank_sidecar.evaluation.collection import (
    read_judgements,
    read_passages,
    read_queries,
    read_run,
)


def _jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_run_is_ordered_by_score_and_ties_as_trec_eval_breaks_them(tmp_path: Path) -> None:
    run = tmp_path / "run.trec"
    run.write_text(
        "q1 Q0 low 1 0.5 t\n\nq1\tQ0\ta\t2\t7\tt\nq1 Q0 b 3 7.0 t\nq2 Q0 a 1 -1e-3 t x\n"
    )
    assert read_run(run) == {"q1": ["b", "a", "low"], "q2": ["a"]}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("q1 Q0 d 1 0.5", "line 2: not `query Q0 document rank score tag`"),
        ("q1 Q0 d 1 high t", "line 2: not `query"),
        ("q1 Q0 d 1 nan t", "with a finite score"),
        ("q1 Q0 first 2 0.1 t", "line 2: the document was listed before"),
    ],
)
def test_malformed_run_is_refused(tmp_path: Path, line: str, complaint: str) -> None:
    run = tmp_path / "run.trec"
    run.write_text(f"q1 Q0 first 1 1.0 t\n{line}\n")
    with pytest.raises(UnreadableInput, match=complaint):
        read_run(run)


def test_judgements_in_the_three_usual_layouts(tmp_path: Path) -> None:
    expected = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}
    layouts = {
        "qrels.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n\nq2\td1\t1\n",
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\n",
        "trec/qrels.tsv": "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 1\n",
    }
    for place, (name, content) in enumerate(layouts.items()):
        folder = tmp_path / str(place)
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
        assert read_judgements(path.parent if name.startswith("trec") else folder) == expected


@pytest.mark.parametrize("line", ["q1\td1", "q1\td1\thigh", "q1\t0\td1\t1\tx"])
def test_malformed_judgement_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}\n")
    with pytest.raises(UnreadableInput, match=r"qrels\.tsv, line 2: not a query id"):
        read_judgements(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_passages_that_are_asked_for_with_their_titles(tmp_path: Path, packed: bool) -> None:
    corpus = _jsonl(
        {"_id": "1", "text": "alone"},
        {"_id": "2", "title": "A title", "text": "and a text", "metadata": {}},
        {"_id": "3", "title": "", "text": "untitled"},
        {"_id": 4, "title": None, "text": "числа"},
    ).encode()
    name, content = (
        ("corpus.jsonl.gz", gzip.compress(corpus)) if packed else ("corpus.jsonl", corpus)
    )
    (tmp_path / name).write_bytes(content)
    assert read_passages(tmp_path, {"2", "3", "4"}) == {
        "2": "A title and a text",
        "3": "untitled",
        "4": "числа",
    }


def test_the_corpus_is_read_no_further_than_needed(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(_jsonl({"_id": "1", "text": "x"}) + "not JSON\n")
    assert read_passages(tmp_path, {"1"}) == {"1": "x"}
    with pytest.raises(UnreadableInput, match=r"corpus\.jsonl, line 2: not a JSON object"):
        read_passages(tmp_path, {"2"})


def test_missing_documents_are_counted_and_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(_jsonl({"_id": "1", "text": "x"}))
    with pytest.raises(UnreadableInput, match=r"2 of 3 documents of the run are not in .*'8'"):
        read_passages(tmp_path, {"1", "9", "8"})


def test_queries_are_read_and_missing_ones_counted(tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text("\ufeff" + _jsonl({"_id": "1", "text": "x"}), "utf-8")
    assert read_queries(tmp_path, ["1"]) == {"1": "x"}
    with pytest.raises(UnreadableInput, match="1 of 2 judged queries are not in"):
        read_queries(tmp_path, ["1", "2"])


def test_half_an_emoji_is_read(tmp_path: Path) -> None:
    record = r'{"_id": "1", "title": "\udc00", "text": "a\ud83d"}'
    (tmp_path / "corpus.jsonl").write_text(record)
    (tmp_path / "queries.jsonl").write_text(record)
    assert read_passages(tmp_path, {"1"}) == {"1": "\ufffd a\ufffd"}
    assert read_queries(tmp_path, ["1"]) == {"1": "a\ufffd"}


@pytest.mark.parametrize(
    "record",
    [
        b'{"_id": "1", "text": NaN}',
        b'{"_id": "1", "text": "\xff"}',
        b'{"_id": "1", "text": 5, "title": "\\ud800"}',
        b'{"_id": "1", "text": "\\ud800"',
        b'{"_id": "1", "text": "a", "n": ' + b"[" * 100_000,
    ],
    ids=["NaN", "not UTF-8", "not a text", "cut short", "nested"],
)
def test_malformed_record_is_refused(tmp_path: Path, record: bytes) -> None:
    (tmp_path / "corpus.jsonl").write_bytes(record)
    with pytest.raises(UnreadableInput, match=r"corpus\.jsonl, line 1: not a JSON object"):
        read_passages(tmp_path, {"1"})


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match=r"has no corpus\.jsonl or corpus\.jsonl\.gz"):
        read_passages(tmp_path, {"1"})
    with pytest.raises(UnreadableInput, match=r"cannot read .*run\.trec: No such file"):
        read_run(tmp_path / "run.trec")
    (tmp_path / "corpus.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(UnreadableInput, match=r"cannot read .*corpus\.jsonl\.gz"):
        read_passages(tmp_path, {"1"})
    (tmp_path / "qrels.tsv").write_bytes(b"q\td\xff\t1\n")
    with pytest.raises(UnreadableInput, match=r"qrels\.tsv, line 1: not UTF-8 text"):
        read_judgements(tmp_path)


def test_complaints_never_quote_texts(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "a secret"\n')
    with pytest.raises(UnreadableInput) as caught:
        read_passages(tmp_path, {"1"})
    assert "secret" not in caught.value.message
