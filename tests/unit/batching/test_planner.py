from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import pytest

from rerank_sidecar.batching.planner import BatchLimits, PendingItem, plan_batch

NOW = 100.0
LIMITS = BatchLimits(max_batch_tokens=1024, max_batch_size=8, max_wait_s=0.5, pass_cost_tokens=64)


def item(
    length: int, *, priority: int = 0, deadline: float | None = None, waited_s: float = 0.0
) -> PendingItem:
    return PendingItem(length, priority, deadline, NOW - waited_s)


def planned(pending: Sequence[PendingItem], limits: BatchLimits = LIMITS) -> list[PendingItem]:
    return [pending[position] for position in plan_batch(pending, limits, NOW)]


def test_nothing_pending_plans_nothing() -> None:
    assert plan_batch([], LIMITS, NOW) == []


@pytest.mark.parametrize(
    ("urgent", "other"),
    [
        (item(50, priority=1), item(50, priority=0, deadline=NOW + 1, waited_s=9)),
        (item(50, waited_s=0.5), item(50, deadline=NOW + 0.1, waited_s=0.4)),
        (item(50, waited_s=0.9), item(50, deadline=NOW + 0.1, waited_s=0.8)),
        (item(50, deadline=NOW + 1), item(50, deadline=NOW + 2, waited_s=0.4)),
        (item(50, deadline=NOW + 1), item(50, waited_s=0.4)),
        (item(50, waited_s=0.2), item(50, waited_s=0.1)),
        (item(60), item(50)),
    ],
    ids=[
        "higher priority",
        "waited too long",
        "waited too long and is older",
        "earlier deadline",
        "has a deadline",
        "older",
        "longer",
    ],
)
def test_the_most_urgent_is_the_anchor(urgent: PendingItem, other: PendingItem) -> None:
    assert planned([other, urgent])[0] == urgent
    assert planned([urgent, other])[0] == urgent


def test_neighbours_in_length_fill_the_batch() -> None:
    anchor = item(100, deadline=NOW + 1)
    near = [item(96), item(98), item(100), item(103)]
    far = [item(20), item(300), item(400)]
    batch = planned([*far, *near, anchor])
    assert batch[0] == anchor
    assert sorted(neighbour.length for neighbour in batch[1:]) == [96, 98, 100, 103]


def test_no_more_padding_than_one_more_pass_would_cost() -> None:
    # 120 beside the anchor costs 20 tokens of padding; a third sequence of 170 would add 2 x 50.
    anchor = item(100, deadline=NOW + 1)
    assert planned([anchor, item(120), item(170)]) == [anchor, item(120)]


def test_padding_of_shorter_neighbours_adds_up() -> None:
    anchor = item(100, deadline=NOW + 1)
    assert planned([anchor, item(60), item(55)]) == [anchor, item(60)]


def test_the_cheapest_neighbour_joins_first() -> None:
    anchor = item(100, deadline=NOW + 1)
    assert planned([anchor, item(50), item(120)]) == [anchor, item(120)]
    assert planned([anchor, item(80), item(150)]) == [anchor, item(80)]


def test_a_dearer_pass_is_worth_more_padding() -> None:
    dear_pass = BatchLimits(1024, 8, 0.5, pass_cost_tokens=128)
    assert len(planned([item(100), item(120), item(170)], dear_pass)) == 3


def test_the_token_budget_counts_padding() -> None:
    # Eleven of 100 hold 1,100 real tokens; ten of them with one of 104 would be padded to 1,144.
    many_small = BatchLimits(max_batch_tokens=1100, max_batch_size=64, max_wait_s=0.5)
    pending = [item(100, deadline=NOW + 1), *[item(100)] * 9, item(104)]
    assert len(planned(pending, many_small)) == 10
    assert len(planned([*pending[:-1], item(100)], many_small)) == 11


def test_the_size_bounds_the_batch() -> None:
    assert len(planned([item(10)] * 20)) == 8


def test_a_sequence_over_the_budget_runs_alone() -> None:
    huge = item(5000, waited_s=1)
    assert planned([item(4999), huge, item(10)]) == [huge]


def test_equal_lengths_join_by_urgency() -> None:
    late = [item(100, deadline=NOW + 50 + n) for n in range(20)]
    assert planned(late[::-1]) == late[:8]


def test_lower_priorities_take_only_the_room_that_is_left() -> None:
    high = [item(100, priority=2)] * 5
    low = [item(100, priority=1)] * 2
    lowest = [item(100, priority=0)] * 9
    assert planned([*lowest, *low, *high]) == [*high, *low, lowest[0]]


def test_lower_priorities_do_not_break_the_budget() -> None:
    tight = BatchLimits(max_batch_tokens=300, max_batch_size=8, max_wait_s=0.5)
    high = item(100, priority=1)
    assert planned([item(101), item(110), high, item(95), item(100)], tight) == [
        high,
        item(100),
        item(95),
    ]


class CountedReads(Sequence[PendingItem]):
    """Counts how often an item is looked at, whichever way."""

    def __init__(self, items: list[PendingItem]) -> None:
        self.items = items
        self.reads = 0

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> PendingItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PendingItem]: ...
    def __getitem__(self, index: int | slice) -> PendingItem | Sequence[PendingItem]:
        assert isinstance(index, int)
        self.reads += 1
        return self.items[index]

    def __iter__(self) -> Iterator[PendingItem]:
        for one in self.items:
            self.reads += 1
            yield one


@pytest.mark.parametrize("distinct_lengths", [1, 10, 500, 10_000])
def test_ten_thousand_pending_are_looked_at_a_few_times_each(distinct_lengths: int) -> None:
    pending = CountedReads([item(1 + n % distinct_lengths) for n in range(10_000)])
    assert plan_batch(pending, LIMITS, NOW)
    assert pending.reads <= 4 * len(pending)
