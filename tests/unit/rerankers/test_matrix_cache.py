"""Encoded documents in memory: keys, bounds, the order in which they go."""

from __future__ import annotations

import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from rerank_sidecar.batching.windows import WindowRules
from rerank_sidecar.rerankers.document_keys import document_keys
from rerank_sidecar.rerankers.matrix_bytes import from_bytes, to_bytes
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache, size_of
from rerank_sidecar.rerankers.token_matrix import EncodedDocument
from rerank_sidecar.types import LongDocumentPolicy, TruncationSide
from tests.unit.rerankers.toy_documents import MEGABYTE, document, found, key, same


def test_what_was_put_is_found_and_nothing_else() -> None:
    cache = TokenMatrixCache(MEGABYTE)
    one, two = document(1), document(2, 10, 20)
    cache.put(key(1), one)
    cache.put(key(2), two)
    assert cache.find([key(2), key(3), key(1), key(2)]) == [two, None, one, two]
    assert cache.holds([key(2), key(3), key(1)]) == [True, False, True]


def test_the_least_recently_used_go_first() -> None:
    cache = TokenMatrixCache(3 * size_of(document()))
    for number in range(3):
        cache.put(key(number), document(number))
    cache.find([key(0)])
    cache.holds([key(1)])  # asking is not using
    cache.put(key(3), document(3))
    assert found(cache, range(4)) == [0, 2, 3]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 60)), max_size=60))
def test_the_bound_holds_and_the_latest_are_kept(puts: list[tuple[int, int]]) -> None:
    cache = TokenMatrixCache(100_000)
    last: dict[int, EncodedDocument] = {}
    for number, tokens in puts:
        last.pop(number, None)
        last[number] = document(number, tokens)
        cache.put(key(number), last[number])
        while sum(map(size_of, last.values())) > 100_000:
            del last[next(iter(last))]
        assert cache.size_bytes == sum(map(size_of, last.values()))
    assert found(cache, range(21)) == sorted(last)


def test_a_document_that_does_not_fit_drives_out_nothing() -> None:
    cache = TokenMatrixCache(2 * size_of(document()))
    cache.put(key(1), document(1))
    cache.put(key(2), document(2, 250, 250))
    assert found(cache, range(3)) == [1]


def test_bytes_are_counted_as_memory_has_them() -> None:
    cache = TokenMatrixCache(64 * MEGABYTE)
    tracemalloc.start()
    try:
        for number in range(400):
            cache.put(key(number), document(number, *(8, 5) * (1 + number % 2)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * cache.size_bytes < taken < 1.05 * cache.size_bytes


def test_threads_may_use_it_at_once() -> None:
    cache = TokenMatrixCache(20 * size_of(document()))
    documents = [document(number) for number in range(40)]
    wrong: list[int] = []

    def use(first: int) -> None:
        for step in range(2_000):
            number = (first + 7 * step) % 40
            cache.put(key(number), documents[number])
            [hit] = cache.find([key((number + 1) % 40)])
            if hit is not None and hit is not documents[(number + 1) % 40]:
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.size_bytes <= 20 * size_of(document())
    assert len(cache) == 20


def test_lookups_and_bytes_are_metered() -> None:
    def lookups(result: str) -> float:
        labels = {"cache": "token_matrix", "result": result}
        return REGISTRY.get_sample_value("rerank_sidecar_cache_lookups_total", labels) or 0.0

    cache = TokenMatrixCache(MEGABYTE)
    cache.put(key(1), document(1))
    before = lookups("hit"), lookups("miss")
    cache.find([key(1), key(2), key(3)])
    cache.holds([key(1), key(2)])
    assert (lookups("hit") - before[0], lookups("miss") - before[1]) == (1, 2)
    gauge = REGISTRY.get_sample_value("rerank_sidecar_cache_bytes", {"cache": "token_matrix"})
    assert gauge == cache.size_bytes == size_of(document(1))


def test_keys_tell_texts_models_and_rules_apart() -> None:
    texts = ["", "a", "b", "a ", "\ud800", "ü"]
    rules = [
        WindowRules(),
        WindowRules(side=TruncationSide.LEFT),
        WindowRules(overlap_tokens=3),
        WindowRules(max_windows=3),
        WindowRules(max_tokens_per_document=3),
        WindowRules(LongDocumentPolicy.TRUNCATE),
    ]
    keys = {
        document_keys(model, rule)(text) for model in ("1", "2") for rule in rules for text in texts
    }
    assert len(keys) == 2 * len(rules) * len(texts)
    assert {len(each) for each in keys} == {16}


def test_rules_that_do_not_matter_do_not_change_the_key() -> None:
    one = WindowRules(LongDocumentPolicy.TRUNCATE, overlap_tokens=3, max_windows=3)
    other = WindowRules(LongDocumentPolicy.TRUNCATE, overlap_tokens=5, max_windows=8)
    assert document_keys("1", one)("text") == document_keys("1", other)("text")


@settings(deadline=None)
@given(
    st.integers(0, 99), st.lists(st.integers(1, 300), max_size=16), st.sampled_from([1, 63, 384])
)
def test_bytes_say_all(seed: int, tokens: list[int], dimension: int) -> None:
    written = document(seed, *tokens, dimension=dimension)
    assert same(from_bytes(to_bytes(written)), written)


@settings(deadline=None)
@given(st.data())
def test_bytes_that_changed_are_noticed(data: st.DataObject) -> None:
    written = bytearray(to_bytes(document(1, 3, 4, dimension=16)))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="damaged"):
        from_bytes(bytes(written))
    with pytest.raises(ValueError, match="damaged"):
        from_bytes(bytes(written[:place]))
