"""What the clients take and give, the same for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from rerank_adapters.errors import RerankCallError
from rerank_adapters.vectors import VectorsLike, packed


@dataclass(frozen=True, slots=True)
class Document:
    """One candidate: the text that the model reads and the caller's own identifier.

    `vectors` stand for the text where the caller has them, for models that have a
    `vector_dimension`; the text is then not read and may be empty. They are packed at once.

    Raises:
        TypeError: `vectors` are no numbers.
        ValueError: there is no vector, they differ in length, or a number is too large.
    """

    text: str
    id: str | None = None
    vectors: VectorsLike | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", packed(self.vectors))


class RerankOptions(TypedDict, total=False):
    """The keyword arguments of `rerank`; one that is left out or None means the server's default.

    `top_n` is how many results come back, `score_threshold` leaves out lower scores (compared as
    they are returned). `normalization` "unit" maps scores into [0, 1]; "logit" turns probabilities
    back into logits. Of `long_document_policy`, "reject" lets a document fail alone that does not
    fit. A higher `priority` runs sooner; the default is 0. `query_vectors` stand for the query,
    which is then not read and may be empty, as `vectors` do for a document.
    """

    model: str | None
    top_n: int | None
    return_documents: bool
    score_threshold: float | None
    max_tokens_per_document: int | None
    truncation_side: Literal["left", "right"] | None
    long_document_policy: Literal["chunk", "truncate", "reject"] | None
    priority: int
    normalization: Literal["none", "unit", "logit"] | None
    query_vectors: VectorsLike | None


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a document, as offsets in characters: `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DocumentError:
    """Why one document has no score: a stable reason and a sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RerankResult:
    """What became of one document: either `score` or `error` is set.

    `index` is its position in the request, from 0. `best_window` is the part that earned the
    score, when the document was read in windows or cut. `document` is set on request.
    """

    index: int
    id: str | None
    score: float | None
    error: DocumentError | None
    best_window: Window | None
    truncated: bool
    window_count: int
    document: Document | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the request cost: tokens through the model, scored pairs, pairs found in a cache.

    `remote_calls` are those that the sidecar made to other servers, repeated ones included.
    """

    tokens: int
    pairs: int
    cache_hits: int
    remote_calls: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the server's time went, in microseconds."""

    queue_us: int
    tokenise_us: int
    infer_us: int
    total_us: int


@dataclass(frozen=True, slots=True)
class RerankResponse:
    """A whole answer: scored documents best first, ties in input order, then the failed ones.

    `model` and `model_version` name the model that scored. `score_kind` says what its scores
    mean (RAW_LOGIT, PROBABILITY, MAXSIM, COSINE, LEXICAL or RANK), and `normalization` whether
    they come as they are ("none"), mapped into [0, 1] ("unit") or, if they are probabilities, as
    logits ("logit"). `fallback_for` names the model that should have answered, where another did in
    its place. `passed_through` is the error for which the documents came back as they were,
    in the caller's order and without scores; None: they were reranked.
    """

    results: tuple[RerankResult, ...]
    model: str
    model_version: str
    score_kind: str
    normalization: str
    query_truncated: bool
    usage: Usage
    timing: Timing
    passed_through: RerankCallError | None = None
    fallback_for: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the server can answer with.

    `max_tokens` is what it reads at once; None means no limit. `score_kind` and the policies are
    named as in `RerankResponse` and `RerankOptions`, and UNSPECIFIED or empty of a model that has
    not been loaded yet. `aliases` are other names that `model` may give, with `*` and `?`.
    `vector_dimension` is how many numbers the vectors have that may stand for texts; None: it
    reads texts only.
    """

    name: str
    version: str
    family: str
    score_kind: str
    max_tokens: int | None
    comparable_across_requests: bool
    is_default: bool
    default_long_document_policy: str
    aliases: tuple[str, ...]
    is_loaded: bool
    vector_dimension: int | None = None
