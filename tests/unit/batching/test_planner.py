from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Sequence
from types import FrameType

import pytest

from rerank_sidecar.batching.planner import Backlog, BatchLimits, PendingItem
from tests.unit.batching.backlogs import plan_batch

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


def test_padding_to_a_multiple_is_no_reason_to_part() -> None:
    # 65 and 96 cost the same, 97 costs 32 more for each of the others.
    in_steps = BatchLimits(1024, 8, 0.5, pass_cost_tokens=0, length_multiple=32)
    anchor = item(65, deadline=NOW + 1)
    assert planned([anchor, item(97), item(96)], in_steps) == [anchor, item(96)]


def test_the_token_budget_counts_what_a_length_is_rounded_up_to() -> None:
    in_steps = BatchLimits(max_batch_tokens=256, max_batch_size=64, max_wait_s=0.5)
    assert len(planned([item(33)] * 20, in_steps)) == 7
    in_steps = BatchLimits(256, 64, 0.5, length_multiple=32)
    assert len(planned([item(33)] * 20, in_steps)) == 4
    assert len(planned([item(0)] * 20, in_steps)) == 8


def test_idle_workers_part_what_waits_evenly() -> None:
    two_workers = BatchLimits(4096, 64, 0.5, workers=2)
    backlog = Backlog(two_workers)
    for _ in range(20):
        backlog.add(item(100))
    assert len(backlog.take_batch(NOW)) == 10
    assert len(backlog.take_batch(NOW, running_tokens=1000)) == 10


def test_a_worker_takes_more_the_more_the_others_still_have_to_run() -> None:
    two_workers = BatchLimits(4096, 64, 0.5, workers=2)
    pending = [item(100)] * 10
    taken = [len(plan_batch(pending, two_workers, NOW, left)) for left in (0, 400, 1000, 9000)]
    assert taken == [5, 7, 10, 10]


def test_a_share_is_never_less_than_one_sequence() -> None:
    many_workers = BatchLimits(4096, 64, 0.5, workers=64)
    assert planned([item(300), item(300)], many_workers) == [item(300)]


def test_batches_fill_up_when_much_waits() -> None:
    many_workers = BatchLimits(4096, 8, 0.5, workers=8)
    assert len(planned([item(100)] * 100, many_workers)) == 8


@pytest.mark.parametrize("max_wait_s", [0.0, 1000.0], ids=["by age", "by deadline"])
def test_what_is_left_keeps_its_order_when_most_have_gone(max_wait_s: float) -> None:
    backlog = Backlog(BatchLimits(1024, 1, max_wait_s))
    order = [n * 37 % 101 for n in range(101)]
    numbers = {n: backlog.add(item(10, deadline=NOW + n, waited_s=200 - n)) for n in order}
    for n in range(101):
        if n % 3:
            backlog.remove(numbers[n])
    left = [backlog.take_batch(NOW) for _ in range(len(backlog))]
    assert left == [[numbers[n]] for n in range(0, 101, 3)]


def calls_of_one_plan(waiting: int, distinct_lengths: int) -> int:
    """Count the Python functions that are entered while one batch is taken."""
    backlog = Backlog(LIMITS)
    for n in range(waiting):
        backlog.add(item(1 + n % distinct_lengths, deadline=NOW + n % 7))
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        assert backlog.take_batch(NOW)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("distinct_lengths", [1, 10, 100])
def test_a_plan_takes_no_longer_when_much_more_waits(distinct_lengths: int) -> None:
    few, many = (calls_of_one_plan(waiting, distinct_lengths) for waiting in (1_000, 20_000))
    assert many <= 1.5 * few


def test_what_has_run_leaves_nothing_behind() -> None:
    # What has a deadline comes before what has none, whose entries never come up again.
    backlog = Backlog(BatchLimits(1024, 1, max_wait_s=1.0))

    def pass_through(count: int) -> int:
        for n in range(count):
            backlog.add(item(10, deadline=NOW + n))
            backlog.remove(backlog.add(item(10)))
            backlog.take_batch(NOW)
        return tracemalloc.get_traced_memory()[0]

    backlog.add(item(10, deadline=NOW))
    tracemalloc.start()
    try:
        assert pass_through(5000) <= 2 * pass_through(500)
    finally:
        tracemalloc.stop()
    assert len(backlog) == 1
