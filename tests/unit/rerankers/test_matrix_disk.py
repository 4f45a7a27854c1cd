"""Encoded documents on disk: restarts, bounds, sharing, damage."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from rerank_sidecar.errors import MissingExtra
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.rerankers.matrix_disk import DiskMatrices
from tests.unit.rerankers.toy_documents import MEGABYTE, document, found, key, same

PATIENCE_S = 30


@contextmanager
def cache_on(
    folder: Path, *, memory_bytes: int = 0, disk_bytes: int = 64 * MEGABYTE
) -> Iterator[TokenMatrixCache]:
    store = DiskMatrices(folder, disk_bytes)
    with closing(TokenMatrixCache(memory_bytes, store)) as cache:
        yield cache


def wait_for(cache: TokenMatrixCache, number: int) -> None:
    for _ in range(PATIENCE_S * 100):
        if found(cache, range(number, number + 1)):
            return
        time.sleep(0.01)
    raise AssertionError("it was not stored")


def test_a_restart_finds_what_was_stored(tmp_path: Path) -> None:
    documents = [document(number, *(number + 1,) * (number % 3)) for number in range(100)]
    with cache_on(tmp_path / "new" / "folder") as cache:
        for number, each in enumerate(documents):
            cache.put(key(number), each)
    file = tmp_path / "new" / "folder" / "data.mdb"
    assert file.stat().st_mode & 0o077 == 0
    with cache_on(file.parent, memory_bytes=MEGABYTE) as cache:
        keys = [key(number) for number in range(101)]
        assert cache.holds(keys) == [False] * 101  # it does not ask the disk
        hits = cache.find(keys)
        assert cache.holds(keys[-2:]) == [True, False]
        assert hits.pop() is None
        assert all(map(same, hits, documents))
        assert 0 < cache.size_bytes <= MEGABYTE  # they moved up into memory
        [again] = cache.find([key(99)])
        assert again is hits[99]


def test_the_disk_is_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    with cache_on(tmp_path, disk_bytes=4 * MEGABYTE) as cache:
        for number in range(600):  # some 18 MB
            cache.put(key(number), document(number))
            if number % 100 == 99:
                wait_for(cache, number)
        kept = found(cache, range(600))
    assert 60 < len(kept) < 140
    assert kept == list(range(kept[0], 600))
    assert (tmp_path / "data.mdb").stat().st_size <= 4 * MEGABYTE


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    other = f"""
from pathlib import Path
from tests.unit.rerankers.test_matrix_disk import cache_on, document, key
with cache_on(Path({str(tmp_path)!r})) as cache:
    print(cache.find([key(1)])[0] is not None)
    cache.put(key(2), document(2))
"""
    with cache_on(tmp_path) as cache:
        cache.put(key(1), document(1))
        wait_for(cache, 1)
        ran = subprocess.run(
            [sys.executable, "-c", other], check=True, capture_output=True, text=True
        )
        assert ran.stdout.strip() == "True"
        [hit] = cache.find([key(2)])
        assert same(hit, document(2))


def foreign(file: Path) -> None:
    file.write_bytes(b"something else entirely\n" * 10_000)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_to_the_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:4096])


def cut_in_the_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def a_folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


def scratched(file: Path) -> None:
    content = np.frombuffer(file.read_bytes(), np.uint8).copy()
    levels = slice(3 * 4096, None)
    content[levels][content[levels] == 17] = 18
    file.write_bytes(content.tobytes())


@pytest.mark.parametrize(
    "damage",
    [foreign, cut_short, cut_to_the_header, cut_in_the_header, a_folder_instead, scratched],
)
def test_a_damaged_file_is_gone_without_after_one_warning(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with cache_on(tmp_path) as cache:
        for number in range(50):
            cache.put(key(number), document(number))
    damage(tmp_path / "data.mdb")
    with caplog.at_level(logging.WARNING), cache_on(tmp_path, memory_bytes=MEGABYTE) as cache:
        for number in range(50):
            [hit] = cache.find([key(number)])
            assert hit is None or same(hit, document(number))
        cache.put(key(60), document(60))
        assert cache.holds([key(60)]) == [True]
        assert found(cache, range(60, 61)) == [60]
    assert len(caplog.records) == 1
    assert "going on without stored token matrices" in caplog.text


def test_a_document_that_cannot_be_written_ends_neither_the_writer_nor_the_close(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), cache_on(tmp_path) as cache:
        cache.put("no bytes", document(1))  # type: ignore[arg-type]
        cache.put(key(2), document(2))
    assert len(caplog.records) == 1


def test_a_folder_that_cannot_be_made_is_gone_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING), cache_on(tmp_path / "file" / "folder") as cache:
        cache.put(key(1), document(1))
        assert cache.find([key(1)]) == [None]
    assert len(caplog.records) == 1


def test_the_extra_is_named_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MissingExtra, match="disk-cache"):
        DiskMatrices(tmp_path, MEGABYTE)
