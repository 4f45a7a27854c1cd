"""`Rerank`: what an application adds to its query, the same for every store."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from rerank_adapters.vectors import VectorsLike, packed

OnError = Literal["raise", "passthrough"]
"""What happens when the sidecar fails: its error is raised, or the store's order comes back."""

Prop = str | Sequence[str] | Callable[[Any], str]
"""What the model reads of a row: a field, several joined by newlines, or what a function makes."""

STORE_SCALES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "unit": lambda score: score,
        "cosine": lambda score: (score + 1) / 2,
        "cosine_distance": lambda distance: 1 - distance / 2,
        "distance": lambda distance: 1 / (1 + distance),
        "logistic": lambda score: 1 / (1 + math.exp(-max(-700.0, score))),
    }
)
"""How a store's score becomes a number in [0, 1], by the name of its scale."""


def store_score_to_unit(scale: str, score: float) -> float:
    """Bring a store's score to [0, 1]; what is no number counts as the worst.

    pgvector gives NaN for the cosine distance of a zero vector, and rounding leads out of a range.
    """
    unit = STORE_SCALES[scale](score)
    return 0.0 if math.isnan(unit) else min(1.0, max(0.0, unit))


StoreScale = Literal["unit", "cosine", "cosine_distance", "distance", "logistic"]


@dataclass(frozen=True, slots=True)
class ReciprocalRank:
    """Adds 1 / (k + rank) over the store's order and the reranked one.

    Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009, whose k is 60.
    """

    k: int = 60

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError("k: must be at least 0")


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Adds `weight` times the reranked score in [0, 1] to 1 - `weight` times the store's.

    `store_scale` says what the store's score is, so that it can be brought to [0, 1]: `unit` is in
    it already, `cosine` is in [-1, 1], `cosine_distance` in [0, 2] with 0 the best, `distance` any
    other distance, `logistic` an unbounded score such as an inner product.
    """

    weight: float
    store_scale: StoreScale

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError("weight: must be within [0, 1]")
        if self.store_scale not in STORE_SCALES:
            raise ValueError(f"store_scale: must be one of {', '.join(STORE_SCALES)}")


Fuse = Literal["none", "reciprocal_rank"] | ReciprocalRank | WeightedSum


@dataclass(frozen=True, slots=True)
class Rerank:
    """How the candidates of a query are reranked.

    `prop` is what the model reads of each row. `query` is what it compares that with; None means
    the text of the store's own query, where there is one. `top_n` is how many rows come back; None
    means as many as the query asks for. `model` names one of the sidecar's models. With an
    `oversample` of 10 a query for 10 rows has the store find 100 and the sidecar choose. `fuse`
    says whether the store's order counts, too. `on_error` None is the sidecar client's own.

    `vectors`, in place of `prop`, names vectors that the store has of each row, one for each token
    or one in all: they are compared, and nothing is encoded but the query. `query_vectors` stand
    for the query, too.

    Raises:
        TypeError: `query_vectors` are no numbers.
        ValueError: a value is out of range; the message names it.
    """

    prop: Prop | None = None
    query: str | None = None
    top_n: int | None = None
    model: str | None = None
    oversample: float | None = None
    fuse: Fuse = "none"
    on_error: OnError | None = None
    vectors: str | None = None
    query_vectors: VectorsLike | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._check_what_is_read()
        object.__setattr__(self, "query_vectors", packed(self.query_vectors))
        if self.top_n is not None and self.top_n < 1:
            raise ValueError("top_n: must be at least 1; leave it out for no limit")
        if self.oversample is not None and not 1 <= self.oversample < math.inf:
            raise ValueError("oversample: must be a number of at least 1")
        if self.on_error not in {None, "raise", "passthrough"}:
            raise ValueError('on_error: must be "raise" or "passthrough"')
        is_object = isinstance(self.fuse, ReciprocalRank | WeightedSum)
        if not is_object and self.fuse not in ("none", "reciprocal_rank"):
            raise ValueError('fuse: must be "none", "reciprocal_rank" or a WeightedSum')

    def _check_what_is_read(self) -> None:
        if self.vectors is None:
            if not (callable(self.prop) or _names(self.prop)):
                raise ValueError("prop: must name a field, or several, or be a function")
        elif self.prop is not None:
            raise ValueError("vectors: they are read in place of prop, so give one of the two")
        elif not isinstance(self.vectors, str):
            raise ValueError("vectors: must be a name")

    def query_text(self, of_store: str | None = None) -> str:
        """Give what the documents are compared with; nothing if there are `query_vectors`.

        Raises:
            ValueError: there is none here, and the store's query has no text.
        """
        text = of_store if self.query is None else self.query
        if text is None and self.query_vectors is not None:
            return ""
        if text is None:
            raise ValueError("query: the store's query has no text, so Rerank needs one")
        return text

    def candidates(self, limit: int, offset: int = 0) -> int:
        """Count how many rows the store is asked for, from its first one on."""
        wanted = (limit + offset) * (self.oversample or 1)
        return math.ceil(round(wanted, 6))  # 10 times 1.1 is a little more than 11


def _names(prop: object) -> Sequence[str]:
    """Give the fields that `prop` names, none if it is not of that form."""
    names = [prop] if isinstance(prop, str) else prop
    if not isinstance(names, Sequence) or not all(isinstance(each, str) for each in names):
        return []
    return names if all(names) else []


def fields(prop: Prop | None) -> Sequence[str]:
    """Give the fields that `prop` names; a function names none."""
    if prop is None or callable(prop):
        return ()
    return (prop,) if isinstance(prop, str) else prop


def render(prop: Prop | None, row: Any, field: Callable[[Any, str], object]) -> str | None:  # noqa: ANN401
    """Make the text of a row; `field` reads one of its fields.

    Gives None when no field holds a text: such a row is scored as an empty one, and counted.
    """
    if callable(prop):
        return prop(row)
    texts = [value for name in fields(prop) if isinstance(value := field(row, name), str)]
    return "\n".join(texts) if texts else None
