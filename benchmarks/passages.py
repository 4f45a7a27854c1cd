"""Real requests to time: queries of TREC DL19 with the passages that BM25 found for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from rerank_sidecar.evaluation import collection
from rerank_sidecar.models.builtin import EMBEDDED_FOLDER

COLLECTION = "trec-dl19"
DATA_VARIABLE = "RERANK_SIDECAR_DATA"

_MIX = (1, 1, 1, 1, 1, 1, 1, 2, 2, 6)
"""Passages that are joined to one document, in turn: seven short, two middling, one long."""


@dataclass(frozen=True)
class Request:
    """A query, its documents, and how many tokens each pair has when it is cut at 512."""

    query: str
    documents: list[str]
    lengths: list[int]

    @property
    def tokens(self) -> int:
        """Count the tokens of all pairs, special ones included, padding not."""
        return sum(self.lengths)


def has_collection(folder: Path) -> bool:
    """Tell whether the folder holds the collection."""
    return (folder / COLLECTION / "bm25.trec").is_file()


def read_requests(data: Path, queries: int, documents: int) -> list[Request]:
    """Read the first judged queries, each with its first passages."""
    return [_request(*each) for each in _texts(data, queries, documents)]


def read_long_requests(data: Path, queries: int, documents: int) -> list[Request]:
    """Read the same, with some documents made of several passages joined."""
    return [
        _request(query, list(_joined(passages, documents)))
        for query, passages in _texts(data, queries, documents)
    ]


def _texts(data: Path, queries: int, documents: int) -> Iterator[tuple[str, list[str]]]:
    folder = data / COLLECTION
    judged = collection.read_judgements(folder)
    run = collection.read_run(folder / "bm25.trec")
    chosen = {
        query: ids[:documents]
        for query, ids in islice(((q, ids) for q, ids in run.items() if q in judged), queries)
    }
    texts = collection.read_queries(folder, list(chosen))
    passages = collection.read_passages(folder, {i for ids in chosen.values() for i in ids})
    for query, ids in chosen.items():
        yield texts[query], [passages[i] for i in ids]


def _joined(passages: Sequence[str], documents: int) -> Iterator[str]:
    start = 0
    for index in range(documents):
        count = _MIX[index % len(_MIX)]
        yield " ".join(passages[i % len(passages)] for i in range(start, start + count))
        start += count


def _request(query: str, documents: list[str]) -> Request:
    tokenizer = Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    encodings = tokenizer.encode_batch([(query, document) for document in documents])
    return Request(query, documents, [len(encoding.ids) for encoding in encodings])
