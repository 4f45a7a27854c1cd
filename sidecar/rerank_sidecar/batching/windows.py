"""Which tokens of a text a model reads, and in which windows; pure functions of lengths."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_sidecar.types import LongDocumentPolicy, TruncationSide


@dataclass(frozen=True, slots=True)
class WindowRules:
    """How a text that does not fit is read; lengths are in tokens without special ones.

    `max_windows` and `overlap_tokens` matter under CHUNK alone. An overlap of more than half a
    window counts as half a window. `side` is the end that is cut.
    """

    policy: LongDocumentPolicy = LongDocumentPolicy.CHUNK
    side: TruncationSide = TruncationSide.RIGHT
    overlap_tokens: int = 64
    max_windows: int = 16
    max_tokens_per_document: int | None = None

    def wanted(self, token_count: int) -> int:
        """Tell how many tokens of a text should be read, whether or not they fit."""
        limit = self.max_tokens_per_document
        return token_count if limit is None else min(token_count, limit)

    def refuses(self, token_count: int, capacity: int) -> bool:
        """Tell whether a text may not be read, for it would have to be cut to fit."""
        return self.policy is LongDocumentPolicy.REJECT and self.wanted(token_count) > capacity


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The windows of a text as token ranges [start, end), and whether any token is in none."""

    ranges: tuple[tuple[int, int], ...]
    truncated: bool


def plan_windows(token_count: int, capacity: int, rules: WindowRules) -> WindowPlan:
    """Decide which windows of at most `capacity` tokens of a text are read.

    Windows of one text differ in length by nothing, so that none is a scrap at the end: a best
    score over windows is fair only among windows of a size. A text of no tokens has one empty
    window.
    """
    start, end = _readable(token_count, most_tokens(capacity, rules), rules.side)
    ranges = _spread(start, end, capacity, _overlap(capacity, rules))
    return WindowPlan(ranges, truncated=end - start < token_count)


def most_tokens(capacity: int, rules: WindowRules) -> int:
    """Tell how many tokens of a text are read at most, in windows of `capacity`."""
    windows = rules.max_windows if rules.policy is LongDocumentPolicy.CHUNK else 1
    return rules.wanted(capacity + (windows - 1) * (capacity - _overlap(capacity, rules)))


def longest_first(first: int, second: int, budget: int) -> tuple[int, int]:
    """Cut two texts that share a budget of tokens; give how many tokens of each are kept.

    This is the `longest_first` rule of Hugging Face's fast tokenizers (`truncate_encodings` in
    tokenizers/src/utils/truncation.rs), step by step, because scores must equal those of
    sentence-transformers: only the longer text is cut while it stays the longer one; otherwise
    the shorter gets half of the budget, rounded down.
    """
    if first + second <= budget:
        return first, second
    shorter, longer = min(first, second), max(first, second)
    longer = shorter if shorter > budget else max(shorter, budget - shorter)
    if shorter + longer > budget:
        shorter = budget // 2
        longer = shorter + budget % 2
    return (longer, shorter) if first > second else (shorter, longer)


def _overlap(capacity: int, rules: WindowRules) -> int:
    return min(rules.overlap_tokens, capacity // 2)


def _readable(token_count: int, most: int, side: TruncationSide) -> tuple[int, int]:
    kept = min(token_count, most)
    return (token_count - kept, token_count) if side is TruncationSide.LEFT else (0, kept)


def _spread(start: int, end: int, capacity: int, overlap: int) -> tuple[tuple[int, int], ...]:
    length = end - start
    if length <= capacity:
        return ((start, end),)
    count = -(-(length - overlap) // (capacity - overlap))
    size = -(-(length + (count - 1) * overlap) // count)
    steps = count - 1
    firsts = (start + step * (length - size) // steps for step in range(count))
    return tuple((first, first + size) for first in firsts)
