"""The order for prompts, on every list that hypothesis can think of."""

from hypothesis import given
from hypothesis import strategies as st

from rerank_adapters.lost_in_the_middle import lost_in_the_middle

counts = st.integers(0, 200)


@given(st.lists(st.text(max_size=3)))
def test_it_loses_and_adds_nothing_and_leaves_its_input_alone(rows: list[str]) -> None:
    before = list(rows)
    assert sorted(lost_in_the_middle(rows)) == sorted(before)
    assert rows == before


@given(counts)
def test_each_end_is_better_than_all_that_stands_inside(count: int) -> None:
    ranks = lost_in_the_middle(range(count))
    for expected in range(count):
        at_the_end = expected % 2 == 1
        assert ranks.pop(-1 if at_the_end else 0) == expected


@given(counts)
def test_the_ranks_fall_to_the_middle_and_rise_from_it(count: int) -> None:
    ranks = lost_in_the_middle(range(count))
    worst = ranks.index(max(ranks)) if ranks else 0
    assert ranks[: worst + 1] == sorted(ranks[: worst + 1])
    assert ranks[worst:] == sorted(ranks[worst:], reverse=True)


@given(st.lists(st.integers(), max_size=2))
def test_two_or_fewer_stay_as_they_are(rows: list[int]) -> None:
    assert lost_in_the_middle(rows) == rows
