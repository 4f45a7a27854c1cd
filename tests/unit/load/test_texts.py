"""Texts are as long as they should be and differ, or are those of the file."""

import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rerank_sidecar.errors import UnreadableInput
from rerank_sidecar.load.requests import Repeat, make_requests
from rerank_sidecar.load.texts import MadeTexts, read_texts


def _rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_made_documents_are_as_long_as_passages_and_differ() -> None:
    documents = MadeTexts(_rng()).documents(3000)
    words = [len(document.split()) for document in documents]
    assert 54 < np.mean(words) < 58
    assert (min(words) >= 5, max(words) <= 224) == (True, True)
    assert len(set(documents)) == len(documents)


@pytest.mark.parametrize("mean", [1, 7, 20_000])
def test_made_documents_of_any_length(mean: int) -> None:
    words = [len(text.split()) for text in MadeTexts(_rng(), mean).documents(60)]
    assert all(words)
    assert 0.8 * mean < np.mean(words) < 1.25 * mean


def test_made_queries_differ() -> None:
    texts = MadeTexts(_rng())
    queries = [texts.query() for _ in range(500)]
    assert all(queries)
    assert len(set(queries)) > 450


def test_given_texts_come_as_they_are_and_then_again(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("red apple\n\nblue sky\ngreen grass\n")
    texts = read_texts(file, _rng())
    first, again = texts.documents(3), texts.documents(3)
    assert sorted(first) == ["blue sky", "green grass", "red apple"]
    assert again == first
    assert texts.source == "3 texts of texts.txt"
    assert set(texts.query().split()) <= set(" ".join(first).split())


def test_json_lines_gzipped(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl.gz"
    lines = ({"_id": 1, "text": "apple", "title": "Red"}, {"text": "sky"})
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    assert sorted(read_texts(file, _rng()).documents(2)) == ["Red apple", "sky"]


def test_a_folder_has_its_own_queries(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "apple"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "what is red"}\n')
    texts = read_texts(tmp_path, _rng())
    assert texts.documents(1) == ("apple",)
    assert set(texts.query().split()) <= {"what", "is", "red"}


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\n", b'{"text": "a"}\nb\n', b'{"a": 1}\n'])
def test_bad_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "texts"
    file.write_bytes(content)
    with pytest.raises(UnreadableInput, match=r"texts"):
        read_texts(file, _rng())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="cannot read"):
        read_texts(tmp_path / "none", _rng())


def test_nothing_comes_again_unless_asked() -> None:
    found = list(islice(make_requests(MadeTexts(_rng()), 4, _rng()), 50))
    assert len({text for request in found for text in request.documents}) == 200


def test_documents_come_again_under_new_queries() -> None:
    made = make_requests(MadeTexts(_rng()), 4, _rng(), repeat=Repeat.DOCUMENTS, distinct=3)
    found = list(islice(made, 60))
    assert len({request.documents for request in found}) == 3
    assert len({request.query for request in found}) > 50


def test_requests_come_again() -> None:
    made = make_requests(MadeTexts(_rng()), 4, _rng(), repeat=Repeat.REQUESTS, distinct=3)
    assert len(set(islice(made, 60))) == 3
