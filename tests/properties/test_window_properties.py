from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.batching.windows import WindowRules, longest_first, plan_windows
from rerank_sidecar.types import LongDocumentPolicy, TruncationSide

TOKEN_COUNTS = st.integers(0, 3000)
CAPACITIES = st.integers(1, 300)
RULES = st.builds(
    WindowRules,
    policy=st.sampled_from(LongDocumentPolicy),
    side=st.sampled_from(TruncationSide),
    overlap_tokens=st.integers(0, 200),
    max_windows=st.integers(1, 20),
    max_tokens_per_document=st.none() | st.integers(1, 3000),
)


@given(TOKEN_COUNTS, CAPACITIES, RULES)
def test_windows_fit_the_model_and_the_document(
    token_count: int, capacity: int, rules: WindowRules
) -> None:
    ranges = plan_windows(token_count, capacity, rules).ranges
    assert all(0 <= start <= end <= token_count for start, end in ranges)
    assert all(end - start <= capacity for start, end in ranges)
    most = rules.max_windows if rules.policy is LongDocumentPolicy.CHUNK else 1
    assert 1 <= len(ranges) <= most


@given(TOKEN_COUNTS, CAPACITIES, RULES)
def test_windows_leave_no_gap_and_overlap_as_asked(
    token_count: int, capacity: int, rules: WindowRules
) -> None:
    ranges = plan_windows(token_count, capacity, rules).ranges
    overlap = min(rules.overlap_tokens, capacity // 2)
    for (start, end), (next_start, next_end) in pairwise(ranges):
        assert start < next_start <= end - overlap
        assert end < next_end
    assert len({end - start for start, end in ranges}) == 1


@given(TOKEN_COUNTS, CAPACITIES, RULES)
def test_the_flag_is_set_exactly_when_a_token_is_not_read(
    token_count: int, capacity: int, rules: WindowRules
) -> None:
    plan = plan_windows(token_count, capacity, rules)
    read = {token for start, end in plan.ranges for token in range(start, end)}
    assert plan.truncated == (len(read) < token_count)
    assert len(read) <= (rules.max_tokens_per_document or token_count)


@given(TOKEN_COUNTS, CAPACITIES, RULES)
def test_the_side_that_is_not_cut_is_read_to_its_end(
    token_count: int, capacity: int, rules: WindowRules
) -> None:
    ranges = plan_windows(token_count, capacity, rules).ranges
    if rules.side is TruncationSide.LEFT:
        assert ranges[-1][1] == token_count
    else:
        assert ranges[0][0] == 0


@given(TOKEN_COUNTS, CAPACITIES, RULES)
def test_no_window_is_wasted(token_count: int, capacity: int, rules: WindowRules) -> None:
    ranges = plan_windows(token_count, capacity, rules).ranges
    overlap = min(rules.overlap_tokens, capacity // 2)
    reach_of_one_less = capacity + (len(ranges) - 2) * (capacity - overlap)
    assert len(ranges) == 1 or ranges[-1][1] - ranges[0][0] > reach_of_one_less


@given(TOKEN_COUNTS, TOKEN_COUNTS, st.integers(2, 600))
def test_longest_first_spends_the_budget_and_cuts_the_shorter_only_if_both_are_long(
    first: int, second: int, budget: int
) -> None:
    kept_first, kept_second = longest_first(first, second, budget)
    assert 0 <= kept_first <= first
    assert 0 <= kept_second <= second
    assert kept_first + kept_second == min(first + second, budget)
    if min(first, second) <= budget // 2:
        assert min(kept_first, kept_second) == min(first, second)
