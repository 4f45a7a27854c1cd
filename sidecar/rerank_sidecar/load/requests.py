"""The requests that a load is made of: all different, or some over and over to meet the caches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from rerank_sidecar.load.texts import Texts


class Repeat(StrEnum):
    """What comes again: nothing, sets of documents under new queries, or whole requests."""

    NONE = "none"
    DOCUMENTS = "documents"
    REQUESTS = "requests"


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A query and its candidates."""

    query: str
    documents: tuple[str, ...]


def make_requests(
    texts: Texts,
    documents: int,
    rng: np.random.Generator,
    *,
    repeat: Repeat = Repeat.NONE,
    distinct: int = 1,
) -> Iterator[LoadRequest]:
    """Yield requests of so many documents, without end.

    With `repeat`, `distinct` of them are made beforehand and drawn from evenly.
    """
    if repeat is Repeat.NONE:
        while True:
            yield LoadRequest(texts.query(), texts.documents(documents))
    stock = [LoadRequest(texts.query(), texts.documents(documents)) for _ in range(distinct)]
    while True:
        drawn = stock[int(rng.integers(distinct))]
        again = repeat is Repeat.REQUESTS
        yield drawn if again else LoadRequest(texts.query(), drawn.documents)
