"""The values that travel between the rooms: requests, outcomes and results, all frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from rerank_sidecar.errors import RerankError
from rerank_sidecar.score_kinds import ScoreKind

if TYPE_CHECKING:  # an application reads these types without the server's packages
    import numpy as np
    import numpy.typing as npt

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""Vectors that a caller sends in place of having a text encoded: [rows, dimension], all finite.

One row for each token in late interaction, one row in all for a bi-encoder.
"""


class LongDocumentPolicy(StrEnum):
    """What happens to a document that is longer than the model reads at once.

    Under REJECT it fails alone, with LimitExceeded.
    """

    CHUNK = "chunk"
    TRUNCATE = "truncate"
    REJECT = "reject"


class TruncationSide(StrEnum):
    """Which end of an over-long text is cut."""

    RIGHT = "right"
    LEFT = "left"


class Normalization(StrEnum):
    """The scale of returned scores.

    NONE is the model's own, UNIT is [0, 1]. LOGIT is the model's own but for probabilities, which
    are turned back into the logit that they were made of, and ranks, which become negative. A rank
    is better when it is lower, but only under NONE.
    """

    NONE = "none"
    UNIT = "unit"
    LOGIT = "logit"


@dataclass(frozen=True, slots=True)
class Document:
    """One candidate: the text that the model reads and the caller's own identifier.

    `vectors` stand for the text where the caller has them; it may then be empty.
    """

    text: str
    id: str | None = None
    vectors: Vectors | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of each document is read: at most so many tokens, cut at one side.

    `max_tokens_per_document` counts the model's own tokens without special ones; None means as
    many as the model and the long-document policy read.
    """

    max_tokens_per_document: int | None = None
    side: TruncationSide = TruncationSide.RIGHT


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """Everything about a request but its texts; every default is what an unset field means.

    `timeout_s` is how long the caller will wait, in seconds from the arrival of the request.
    `is_chunk` tells that the documents may be a part of a search whose other parts come as
    requests of their own, and that one refused part fails them all. `count_tokens` asks for the
    tokens of each document. Without a `normalization` the scale is the one that the settings have
    for the model. `query_vectors` stand for the query where the caller has them.
    """

    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    score_threshold: float | None = None
    truncation: Truncation = field(default_factory=Truncation)
    long_document_policy: LongDocumentPolicy | None = None
    priority: int = 0
    normalization: Normalization | None = None
    timeout_s: float | None = None
    is_chunk: bool = False
    count_tokens: bool = False
    query_vectors: Vectors | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A query and all of its candidates, in the caller's order."""

    query: str
    documents: tuple[Document, ...]
    options: RerankOptions = field(default_factory=RerankOptions)


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Rows of a query and a document of its own: `queries[i]` belongs to `documents[i]`.

    Without top_n; engine/pairs.py makes a request of the rows of each query.
    """

    queries: tuple[str, ...]
    documents: tuple[Document, ...]
    options: RerankOptions = field(default_factory=RerankOptions)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text, as offsets in characters (code points): [start, end)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Score:
    """A document's score and how it came about; `value` is always finite."""

    value: float
    best_window: Window | None = None
    truncated: bool = False
    window_count: int = 1


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """What became of one document: a score, or the error that struck it alone.

    `index` is its position in the request, from 0. Exactly one of `score` and `error` is set.
    `token_count` is what the model reads for it, whether or not a cache knew the score: special
    tokens, the query where both are read together, and overlaps count. None if nobody asked.
    """

    index: int
    score: Score | None = None
    error: RerankError | None = None
    id: str | None = None
    document: Document | None = None
    token_count: int | None = None


@dataclass(frozen=True, slots=True)
class ModelReference:
    """The model that scored; `version` changes whenever scores may change."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost: tokens without padding, scored pairs, pairs answered by a cache.

    `remote_calls` are calls to other servers, repeated ones included.
    """

    tokens: int = 0
    pairs: int = 0
    cache_hits: int = 0
    remote_calls: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time went, in microseconds; the proto tells how each is counted."""

    queue_us: int = 0
    tokenise_us: int = 0
    infer_us: int = 0
    total_us: int = 0


@dataclass(frozen=True, slots=True)
class RerankSummary:
    """Totals that hold for a whole request.

    `fallback_for` names the model that should have answered, where another did in its place.
    """

    model: ModelReference
    score_kind: ScoreKind
    normalization: Normalization = Normalization.NONE
    query_truncated: bool = False
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    fallback_for: str | None = None


@dataclass(frozen=True, slots=True)
class RerankResult:
    """A whole answer: scored documents best first, ties in input order, then the failed ones."""

    results: tuple[RankedDocument, ...]
    summary: RerankSummary


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """The end of a stream: the indexes that top_n and the threshold leave, best first."""

    order: tuple[int, ...]
    summary: RerankSummary


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a client may know of a model that the server can answer with.

    Until a model has been loaded for the first time, all that its files tell is unknown: empty,
    False or None.
    """

    model: ModelReference
    family: str
    score_kind: ScoreKind | None
    max_tokens: int | None
    comparable_across_requests: bool
    default_long_document_policy: LongDocumentPolicy | None
    engine: str
    source: str
    is_default: bool = False
    aliases: tuple[str, ...] = ()
    is_loaded: bool = True
    vector_dimension: int | None = None
