"""What holds for every plan, whatever waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.batching.planner import Backlog, BatchLimits, PendingItem
from tests.unit.batching.backlogs import plan_batch

NOW = 10.0

# Few distinct values, so that ties and near misses are common.
items = st.builds(
    PendingItem,
    length=st.integers(0, 12) | st.integers(0, 600),
    priority=st.integers(-1, 2),
    deadline=st.none() | st.sampled_from([9.0, 10.5, 11.0, 20.0]),
    enqueued_at=st.sampled_from([5.0, 9.0, 9.5, 9.75, 10.0]) | st.floats(0, NOW),
)
backlogs = st.lists(items, max_size=60)
limits_values = st.builds(
    BatchLimits,
    max_batch_tokens=st.integers(1, 100) | st.integers(1, 4096),
    max_batch_size=st.integers(1, 16),
    max_wait_s=st.sampled_from([0.0, 0.25, 0.5, 100.0]),
    pass_cost_tokens=st.integers(0, 100),
    length_multiple=st.sampled_from([1, 1, 3, 8, 32]),
    workers=st.integers(1, 4),
)


def plan_items(pending: Sequence[PendingItem], limits: BatchLimits) -> list[PendingItem]:
    return [pending[position] for position in plan_batch(pending, limits, NOW)]


def padded(length: int, limits: BatchLimits) -> int:
    """The least multiple that holds the length; even an empty sequence takes a place."""
    multiples = range(limits.length_multiple, 1000, limits.length_multiple)
    return next(multiple for multiple in multiples if multiple >= length)


def is_within_limits(batch: Sequence[PendingItem], limits: BatchLimits) -> bool:
    longest = max(padded(item.length, limits) for item in batch)
    padding = sum(longest - padded(item.length, limits) for item in batch)
    return (
        len(batch) <= limits.max_batch_size
        and len(batch) * longest <= limits.max_batch_tokens
        and padding <= limits.pass_cost_tokens
    )


def fair_size(
    batch: Sequence[PendingItem], pending: Sequence[PendingItem], limits: BatchLimits
) -> float:
    if limits.workers == 1:
        return inf
    longest = max(padded(item.length, limits) for item in batch)
    return sum(padded(item.length, limits) for item in pending) / limits.workers / longest


def is_fair(
    batch: Sequence[PendingItem], pending: Sequence[PendingItem], limits: BatchLimits
) -> bool:
    return len(batch) <= fair_size(batch, pending, limits) + 0.5


def fits_surely(
    batch: Sequence[PendingItem], pending: Sequence[PendingItem], limits: BatchLimits
) -> bool:
    # Exactly between two sizes either is as near to the share.
    is_surely_fair = len(batch) < fair_size(batch, pending, limits) + 0.5
    return is_within_limits(batch, limits) and is_surely_fair


@given(backlogs, limits_values)
def test_positions_are_distinct_and_exist(pending: list[PendingItem], limits: BatchLimits) -> None:
    positions = plan_batch(pending, limits, NOW)
    assert len(set(positions)) == len(positions)
    assert set(positions) <= set(range(len(pending)))
    assert bool(positions) == bool(pending)


@given(backlogs, limits_values)
def test_a_batch_is_within_its_limits_or_a_single_sequence(
    pending: list[PendingItem], limits: BatchLimits
) -> None:
    batch = plan_items(pending, limits)
    assert len(batch) <= 1 or (is_within_limits(batch, limits) and is_fair(batch, pending, limits))


@given(backlogs.filter(len), limits_values)
def test_the_anchor_is_included(pending: list[PendingItem], limits: BatchLimits) -> None:
    batch = plan_items(pending, limits)
    top_priority = max(item.priority for item in pending)
    candidates = [item for item in pending if item.priority == top_priority]
    overdue = [item for item in candidates if NOW - item.enqueued_at >= limits.max_wait_s]
    if overdue:
        oldest = min(item.enqueued_at for item in overdue)
        assert any(item.enqueued_at == oldest for item in batch if item in overdue)
    else:
        earliest = min(inf if item.deadline is None else item.deadline for item in candidates)
        first = [i for i in candidates if (inf if i.deadline is None else i.deadline) == earliest]
        oldest = min(item.enqueued_at for item in first)
        assert any(item.enqueued_at == oldest for item in batch if item in first)


@given(backlogs.filter(len), limits_values)
def test_nothing_that_would_still_fit_is_left_behind(
    pending: list[PendingItem], limits: BatchLimits
) -> None:
    positions = plan_batch(pending, limits, NOW)
    batch = [pending[position] for position in positions]
    left_behind = [item for p, item in enumerate(pending) if p not in set(positions)]
    assert not any(fits_surely([*batch, item], pending, limits) for item in left_behind)


@given(backlogs.filter(len), limits_values)
def test_a_lower_priority_never_takes_the_place_of_a_higher_one(
    pending: list[PendingItem], limits: BatchLimits
) -> None:
    positions = plan_batch(pending, limits, NOW)
    batch = [pending[position] for position in positions]
    left_behind = [item for p, item in enumerate(pending) if p not in set(positions)]
    for item in left_behind:
        at_least_as_high = [other for other in batch if other.priority >= item.priority]
        assert not at_least_as_high or not fits_surely([*at_least_as_high, item], pending, limits)


@given(st.data(), backlogs, limits_values)
def test_the_order_of_what_waits_does_not_matter(
    data: st.DataObject, pending: list[PendingItem], limits: BatchLimits
) -> None:
    shuffled = data.draw(st.permutations(pending))
    assert Counter(plan_items(pending, limits)) == Counter(plan_items(shuffled, limits))


# What arrives between two batches: lengths, and deadlines from the moment of arrival.
streams = st.lists(
    st.lists(st.tuples(st.integers(1, 300), st.none() | st.floats(-1, 5)), min_size=0, max_size=6),
    min_size=1,
    max_size=25,
)


@given(streams, limits_values, st.floats(0.01, 1.0))
def test_the_wait_is_bounded_for_any_stream_of_arrivals(
    stream: list[list[tuple[int, float | None]]], limits: BatchLimits, batch_s: float
) -> None:
    now = 0.0
    pending: list[PendingItem] = []
    batches_left: dict[PendingItem, int] = {}
    while stream or pending:
        for length, allowed_s in stream.pop(0) if stream else []:
            deadline = None if allowed_s is None else now + allowed_s
            # A moment later each, so that every item differs and has its own age.
            now += 1e-3
            pending.append(PendingItem(length, 0, deadline, now))
        for item in pending:
            if item not in batches_left and now - item.enqueued_at >= limits.max_wait_s:
                no_younger = [other for other in pending if other.enqueued_at <= item.enqueued_at]
                batches_left[item] = len(no_younger)
        positions = set(plan_batch(pending, limits, now))
        pending = [item for p, item in enumerate(pending) if p not in positions]
        for item in pending:
            if item in batches_left:
                batches_left[item] -= 1
                assert batches_left[item] > 0
        now += batch_s


events = st.lists(
    st.one_of(
        items,
        st.floats(0, 1).map(lambda part: ("remove", part)),
        st.floats(0, 0.3).map(lambda seconds: ("take", seconds)),
    ),
    max_size=80,
)


@given(events, limits_values)
def test_what_comes_and_goes_is_planned_as_if_it_were_all_new(
    history: list[PendingItem | tuple[str, float]], limits: BatchLimits
) -> None:
    now = NOW
    backlog = Backlog(limits)
    waiting: dict[int, PendingItem] = {}
    added = 0
    ended: Counter[int] = Counter()
    for event in [*history, *[("take", 0.1)] * len(history)]:
        if isinstance(event, PendingItem):
            waiting[backlog.add(event)] = event
            added += 1
        elif event[0] == "remove" and waiting:
            number = sorted(waiting)[round(event[1] * (len(waiting) - 1))]
            backlog.remove(number)
            ended[number] += 1
            del waiting[number]
        elif event[0] == "take":
            now += event[1]
            anew = list(waiting.values())
            expected = Counter(anew[position] for position in plan_batch(anew, limits, now))
            numbers = backlog.take_batch(now)
            assert Counter(waiting.pop(number) for number in numbers) == expected
            ended.update(numbers)
        assert len(backlog) == len(waiting)
    assert not waiting
    assert len(ended) == ended.total() == added
