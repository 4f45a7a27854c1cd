"""A document as a transformer reads it: wrapped windows of tokens and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.tokenization import EncodedText, SpecialTokens, TokenIds
from rerank_sidecar.batching.windows import WindowPlan, WindowRules
from rerank_sidecar.errors import LimitExceeded, ModelNotServable
from rerank_sidecar.rerankers.base import RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.token_matrix import TokenMatrix
from rerank_sidecar.types import Score, Window


@dataclass(frozen=True, slots=True)
class WindowScore:
    """A window's score and, in late interaction, the matrix that it was computed from."""

    value: float
    matrix: TokenMatrix | None = None


Finish = Callable[[int, npt.NDArray[np.float32]], WindowScore]
"""A window's score from the backend's array for it; runs on a worker thread."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """How much a model reads at once and how long documents are cut; lengths in tokens.

    `max_tokens` counts special tokens and, where both are read together, the query's.
    `max_windows` is how many windows of one document are scored under CHUNK.
    """

    max_tokens: int
    overlap_tokens: int = 64
    max_windows: int = 16

    @property
    def max_query_tokens(self) -> int:
        """How much of a query is read, without special tokens: half of what the model reads."""
        return self.max_tokens // 2

    def check(self, special_tokens: SpecialTokens) -> None:
        """Make sure that a document fits beside special tokens and the longest query.

        Raises:
            ModelNotServable: it does not.
        """
        if self.max_tokens - self.max_query_tokens - special_tokens.count < 1:
            raise ModelNotServable(f"a model that reads {self.max_tokens} tokens reads too few")

    def rules(self, options: ScoreOptions, info: RerankerInfo) -> WindowRules:
        """Say how a request's long documents are read."""
        return WindowRules(
            policy=options.long_document_policy or info.default_long_document_policy,
            side=options.truncation.side,
            overlap_tokens=self.overlap_tokens,
            max_windows=self.max_windows,
            max_tokens_per_document=options.truncation.max_tokens_per_document,
        )


@dataclass(frozen=True, slots=True)
class DocumentReading:
    """A document as the model reads it: a sequence for each window, in the order of the text.

    `windows` are the characters of each, or empty when the document was read whole. `keep` is told
    the scores of all windows when the last of them is known.
    """

    sequences: tuple[TokenSequence, ...]
    windows: tuple[Window, ...] = ()
    truncated: bool = False
    query_truncated: bool = False
    keep: Callable[[Sequence[WindowScore]], None] | None = None


@dataclass(frozen=True, slots=True)
class TooLong:
    """A document that may not be cut and does not fit; lengths in tokens, special ones not counted.

    `limit` is what the model reads of it: where both are read together, beside this query.
    """

    tokens: int
    limit: int

    def error(self, index: int) -> LimitExceeded:
        """Give the error of the document at that position of the request."""
        return too_long(f"documents[{index}]", self.tokens, self.limit)


def token_counts(readings: Sequence[DocumentReading | TooLong]) -> list[int]:
    """Count the tokens of every window of each document; one that may not be read has none."""
    return [0 if isinstance(each, TooLong) else sum(map(len, each.sequences)) for each in readings]


def too_long(field: str, tokens: int, limit: int) -> LimitExceeded:
    """Give the error of a text that may not be cut and is longer than the model reads."""
    message = f"{field}: {tokens} tokens long, and the model reads at most {limit}"
    return LimitExceeded(message, field)


def best_of(values: Sequence[float], windows: Sequence[Window], *, truncated: bool) -> Score:
    """Fold the scores of a document's windows into its own: the best; the earliest of equals.

    `windows` are the characters of each, or empty when the document was read whole.
    """
    best = max(range(len(values)), key=values.__getitem__)
    return Score(
        value=values[best],
        best_window=windows[best] if windows else None,
        truncated=truncated,
        window_count=len(values),
    )


def read_windows(
    document: EncodedText,
    plan: WindowPlan,
    wrap: Callable[[TokenIds], TokenSequence],
    *,
    query_truncated: bool = False,
) -> DocumentReading:
    """Cut a document as planned and wrap each window in special tokens."""
    is_whole = len(plan.ranges) == 1 and not plan.truncated
    return DocumentReading(
        sequences=tuple(wrap(document.token_ids[start:end]) for start, end in plan.ranges),
        windows=() if is_whole else tuple(document.window(*each) for each in plan.ranges),
        truncated=plan.truncated,
        query_truncated=query_truncated,
    )
