from __future__ import annotations

import pytest

from rerank_sidecar.batching.windows import (
    WindowRules,
    longest_first,
    most_tokens,
    plan_windows,
)
from rerank_sidecar.types import LongDocumentPolicy, TruncationSide

TRUNCATE = LongDocumentPolicy.TRUNCATE
REJECT = LongDocumentPolicy.REJECT
LEFT = TruncationSide.LEFT


@pytest.mark.parametrize("policy", list(LongDocumentPolicy))
@pytest.mark.parametrize("token_count", [0, 1, 10])
def test_a_document_that_fits_is_one_window(token_count: int, policy: LongDocumentPolicy) -> None:
    plan = plan_windows(token_count, 10, WindowRules(policy))
    assert plan.ranges == ((0, token_count),)
    assert not plan.truncated


def test_chunk_covers_the_document_with_overlapping_windows_of_one_size() -> None:
    plan = plan_windows(25, 10, WindowRules(overlap_tokens=2))
    assert plan.ranges == ((0, 10), (7, 17), (15, 25))
    assert not plan.truncated


def test_chunk_stops_at_max_windows_and_says_so() -> None:
    plan = plan_windows(1000, 10, WindowRules(overlap_tokens=2, max_windows=3))
    assert plan.ranges == ((0, 10), (8, 18), (16, 26))
    assert plan.truncated


def test_chunk_that_cuts_the_left_side_reads_the_end() -> None:
    plan = plan_windows(1000, 10, WindowRules(side=LEFT, overlap_tokens=2, max_windows=2))
    assert plan.ranges == ((982, 992), (990, 1000))
    assert plan.truncated


def test_truncate_reads_the_first_window() -> None:
    plan = plan_windows(25, 10, WindowRules(TRUNCATE))
    assert plan.ranges == ((0, 10),)
    assert plan.truncated


def test_truncate_that_cuts_the_left_side_reads_the_last_window() -> None:
    plan = plan_windows(25, 10, WindowRules(TRUNCATE, side=LEFT))
    assert plan.ranges == ((15, 25),)
    assert plan.truncated


@pytest.mark.parametrize(
    ("side", "expected"),
    [(TruncationSide.RIGHT, ((0, 8), (6, 14))), (LEFT, ((11, 19), (17, 25)))],
)
def test_max_tokens_per_document_cuts_first(
    side: TruncationSide, expected: tuple[tuple[int, int], ...]
) -> None:
    rules = WindowRules(side=side, overlap_tokens=2, max_tokens_per_document=14)
    plan = plan_windows(25, 10, rules)
    assert plan.ranges == expected
    assert plan.truncated


def test_max_tokens_per_document_that_does_not_cut_sets_no_flag() -> None:
    assert not plan_windows(25, 10, WindowRules(max_tokens_per_document=25)).truncated


def test_an_overlap_of_more_than_half_a_window_counts_as_half() -> None:
    rules = WindowRules(overlap_tokens=50, max_windows=3)
    assert plan_windows(20, 10, rules).ranges == ((0, 10), (5, 15), (10, 20))


@pytest.mark.parametrize(
    ("token_count", "most", "refused"),
    [(10, None, False), (11, None, True), (11, 10, False), (11, 11, True), (1000, 3, False)],
)
def test_reject_refuses_what_would_have_to_be_cut_to_fit(
    token_count: int, most: int | None, refused: bool
) -> None:
    rules = WindowRules(REJECT, max_tokens_per_document=most)
    assert rules.refuses(token_count, 10) == refused
    others = (WindowRules(policy) for policy in LongDocumentPolicy if policy is not REJECT)
    assert not any(each.refuses(token_count, 10) for each in others)


def test_reject_reads_one_window_at_most() -> None:
    assert most_tokens(10, WindowRules(REJECT)) == most_tokens(10, WindowRules(TRUNCATE)) == 10
    assert plan_windows(10, 10, WindowRules(REJECT)).ranges == ((0, 10),)


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [
        ((4, 6), (4, 6)),
        ((3, 90), (3, 7)),
        ((90, 3), (7, 3)),
        ((90, 90), (5, 5)),
        ((90, 80), (5, 5)),
        ((0, 90), (0, 10)),
    ],
)
def test_longest_first_cuts_the_longer_text(
    lengths: tuple[int, int], kept: tuple[int, int]
) -> None:
    assert longest_first(*lengths, 10) == kept


def test_longest_first_gives_the_odd_token_to_the_longer_text() -> None:
    assert longest_first(80, 90, 11) == (5, 6)
    assert longest_first(90, 80, 11) == (6, 5)
