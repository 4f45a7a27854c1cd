"""Failures are remembered for some seconds, and searches for as long as they last."""

from __future__ import annotations

from rerank_sidecar.rerankers.stickiness import Stickiness


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_chunks_that_follow_one_another_keep_a_search_where_it_is() -> None:
    clock = Clock()
    memory = Stickiness(5.0, 5.0, clock)
    memory.turn("search", 1)
    for _ in range(10):
        clock.now += 4
        assert memory.first_of("search") == 1
    clock.now += 5
    assert memory.first_of("search") == 0


def test_a_query_that_is_always_asked_comes_back_after_the_longest_search() -> None:
    clock = Clock()
    memory = Stickiness(5.0, 5.0, clock)
    memory.turn("hot", 1)
    asked = 0
    while memory.first_of("hot") == 1:
        clock.now += 1
        asked += 1
    assert asked == 50


def test_a_query_is_turned_further_and_never_back() -> None:
    memory = Stickiness(5.0, 5.0, Clock())
    memory.turn("search", 2)
    memory.turn("search", 1)
    assert memory.first_of("search") == 2
    assert memory.first_of("another") == 0


def test_the_oldest_queries_are_forgotten() -> None:
    memory = Stickiness(5.0, 5.0, Clock())
    for number in range(10_001):
        memory.turn(str(number), 1)
    assert memory.first_of("0") == 0
    assert memory.first_of("1") == 1


def test_each_member_rests_for_its_own_time() -> None:
    clock = Clock()
    memory = Stickiness(5.0, 5.0, clock)
    memory.failed(0, 30.0)
    memory.failed(1, 5.0)
    clock.now += 6
    assert memory.rests(0)
    assert not memory.rests(1)


def test_after_a_rest_one_tries_and_the_others_wait_for_it() -> None:
    clock = Clock()
    memory = Stickiness(5.0, 5.0, clock)
    memory.failed(0, 5.0)
    assert not memory.may_try(0)
    clock.now += 5
    assert [memory.may_try(0), memory.may_try(0)] == [True, False]
    memory.answered(0)
    assert [memory.may_try(0), memory.may_try(0)] == [True, True]


def test_a_search_is_its_members_while_chunks_follow_one_another() -> None:
    clock = Clock()
    memory = Stickiness(5.0, 5.0, clock)
    assert memory.keeper("search", clock.now) is None
    arrived = clock.now
    clock.now += 9
    memory.keep("search", 1)
    assert memory.keeper("search", arrived) == 1  # it came while the other one was being answered
    assert memory.keeper("search", clock.now + 0.9) == 1
    assert memory.keeper("search", clock.now + 1.1) is None
    assert memory.keeper("another", clock.now) is None


def test_nothing_is_kept_that_is_not_sticky() -> None:
    clock = Clock()
    memory = Stickiness(0.0, 5.0, clock)
    memory.keep("search", 1)
    assert memory.keeper("search", clock.now) is None
