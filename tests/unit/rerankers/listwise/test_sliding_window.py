"""Windows slide from the back to the front, and calls bound how far back they begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.rerankers.listwise.sliding_window import SlidingWindow

WINDOWS = st.integers(2, 30).flatmap(
    lambda size: st.builds(SlidingWindow, st.just(size), st.integers(1, size), st.integers(1, 3))
)


def test_a_hundred_documents_take_nine_windows_of_twenty() -> None:
    spans = SlidingWindow(20, 10).spans(100)
    assert spans == [(start, start + 20) for start in range(80, -1, -10)]


@pytest.mark.parametrize(
    ("count", "spans"),
    [(0, []), (1, []), (2, [(0, 2)]), (20, [(0, 20)]), (25, [(5, 25), (0, 20)])],
)
def test_few_documents(count: int, spans: list[tuple[int, int]]) -> None:
    assert SlidingWindow(20, 10).spans(count) == spans


@given(window=WINDOWS, count=st.integers(2, 200))
def test_each_pass_sees_every_document_and_ends_at_the_top(
    window: SlidingWindow, count: int
) -> None:
    spans = window.spans(count)
    one_pass = spans[: len(spans) // window.passes]
    assert spans == one_pass * window.passes
    assert {place for start, end in one_pass for place in range(start, end)} == set(range(count))
    assert one_pass[0][1] == count
    assert one_pass[-1][0] == 0
    assert {end - start for start, end in spans} == {min(count, window.size)}


@given(window=WINDOWS, count=st.integers(2, 200))
def test_with_an_overlap_the_best_document_comes_to_the_top(
    window: SlidingWindow, count: int
) -> None:
    window = SlidingWindow(window.size, min(window.step, window.size - 1))
    order = list(range(count))
    for start, end in window.spans(count):
        order[start:end] = sorted(order[start:end], reverse=True)
    assert order[0] == count - 1


@given(window=WINDOWS, count=st.integers(0, 200), calls=st.integers(0, 40))
def test_never_more_windows_than_calls_and_always_the_front(
    window: SlidingWindow, count: int, calls: int
) -> None:
    spans = window.affordable_spans(count, calls)
    assert len(spans) <= calls
    if spans:
        assert spans[-1][0] == 0
    if calls >= len(window.spans(count)):
        assert spans == window.spans(count)
