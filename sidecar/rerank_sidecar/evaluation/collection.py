"""Reading a judged collection (a BEIR-style folder) and a first-stage run (TREC format).

Formats: https://github.com/beir-cellar/beir/wiki and https://github.com/usnistgov/trec_eval.
"""

from __future__ import annotations

import ctypes
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from rerank_sidecar.errors import UnreadableInput
from rerank_sidecar.evaluation.files import (
    first_existing,
    malformed,
    numbered_lines,
    numbered_rows,
)
from rerank_sidecar.json_text import read_json

Judgements = dict[str, dict[str, int]]
"""Query id -> document id -> grade; a document that is not listed counts as not relevant."""

Run = dict[str, list[str]]
"""Query id -> document ids, best first."""


class _Record(msgspec.Struct, rename={"id": "_id"}):
    id: str | int
    text: str
    title: str | None = None


def read_passages(folder: Path, ids: Collection[str]) -> dict[str, str]:
    """Read the texts of these documents from `corpus.jsonl[.gz]`, and keep no others in memory.

    A title comes before the text with a space between, as in BEIR.

    Raises:
        UnreadableInput: a line is malformed, or the corpus lacks some of the documents.
    """
    path = first_existing(folder, "corpus.jsonl", "corpus.jsonl.gz")
    passages: dict[str, str] = {}
    missing = set(ids)
    for record in _records(path):
        if str(record.id) in missing:
            missing.discard(str(record.id))
            passages[str(record.id)] = f"{record.title or ''} {record.text}".lstrip()
        if not missing:
            break
    _refuse_missing(missing, len(ids), f"documents of the run are not in {path}")
    return passages


def read_queries(folder: Path, ids: Collection[str]) -> dict[str, str]:
    """Read the texts of these queries from `queries.jsonl[.gz]`.

    Raises:
        UnreadableInput: a line is malformed, or the file lacks some of the queries.
    """
    path = first_existing(folder, "queries.jsonl", "queries.jsonl.gz")
    texts = {str(record.id): record.text for record in _records(path)}
    _refuse_missing(set(ids) - texts.keys(), len(ids), f"judged queries are not in {path}")
    return {query: texts[query] for query in ids}


def read_judgements(folder: Path) -> Judgements:
    """Read the grades from `qrels.tsv` or, as BEIR has it, `qrels/test.tsv`.

    Reads BEIR's three columns (query, document, grade, after a header) and TREC's four (query,
    iteration, document, grade).

    Raises:
        UnreadableInput: a line has other columns or a grade that is no whole number.
    """
    path = first_existing(folder, "qrels.tsv", "qrels/test.tsv")
    judgements: Judgements = defaultdict(dict)
    for number, columns in numbered_rows(path):
        if number == 1 and columns[-1] in {"score", "grade", "relevance", "label"}:
            continue
        if len(columns) not in {3, 4} or not columns[-1].lstrip("-").isdecimal():
            raise malformed(path, number, "a query id, a document id and a whole-number grade")
        judgements[columns[0]][columns[-2]] = int(columns[-1])
    return dict(judgements)


def read_run(path: Path) -> Run:
    """Read a TREC run and put each query's documents in the order in which trec_eval sees them.

    That is: by score, descending, in single precision; ties by document id, descending. The rank
    column and the order of lines do not count.

    Raises:
        UnreadableInput: a line is malformed, or a document occurs twice for one query.
    """
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for number, columns in numbered_rows(path):
        score = _single_precision(columns[4]) if len(columns) >= 6 else math.nan
        if not math.isfinite(score):
            raise malformed(path, number, "`query Q0 document rank score tag` with a finite score")
        if columns[2] in scores[columns[0]]:
            raise UnreadableInput(f"{path}, line {number}: the document was listed before")
        scores[columns[0]][columns[2]] = score
    return {query: _trec_order(scored) for query, scored in scores.items()}


def _trec_order(scored: dict[str, float]) -> list[str]:
    by_id = sorted(scored, reverse=True)
    return sorted(by_id, key=lambda document: -scored[document])


def _single_precision(text: str) -> float:
    try:
        return ctypes.c_float(float(text)).value
    except ValueError:
        return math.nan


def _records(path: Path) -> Iterator[_Record]:
    decoder = msgspec.json.Decoder(_Record)
    for number, line in numbered_lines(path):
        try:
            yield _record(decoder, line)
        except (msgspec.ValidationError, ValueError, RecursionError) as error:
            raise malformed(path, number, 'a JSON object with "_id" and "text"') from error


def _record(decoder: msgspec.json.Decoder[_Record], line: bytes) -> _Record:
    try:
        return decoder.decode(line)
    except msgspec.DecodeError:
        # The fast parser refuses escaped lone surrogates; see `json_text`.
        return msgspec.convert(read_json(line.decode()), _Record)


def _refuse_missing(missing: set[str], wanted: int, complaint: str) -> None:
    if missing:
        raise UnreadableInput(f"{len(missing)} of {wanted} {complaint} (one is {min(missing)!r})")
