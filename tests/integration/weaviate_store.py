"""Collections in memory: a real search over real vectors and texts, as Weaviate's gRPC asks."""

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from weaviate.proto.v1 import base_pb2, base_search_pb2, batch_pb2, search_get_pb2

Vectorize = Callable[[str], Sequence[float]]
Vector = NDArray[np.float32]


class QueryError(Exception):
    """What Weaviate answers to a query that it cannot perform."""


@dataclass(frozen=True)
class Stored:
    """An object."""

    uuid: UUID
    properties: Mapping[str, Any]
    vector: Vector | None
    tenant: str
    created_ms: int = field(default_factory=lambda: int(time.time() * 1000))


@dataclass(frozen=True)
class Hit:
    """An object that a search found: its distance, or its score."""

    stored: Stored
    distance: float | None = None
    score: float | None = None


@dataclass
class StoredCollection:
    """A collection: its class in the schema, and its objects."""

    schema: dict[str, Any]
    objects: list[Stored] = field(default_factory=list)

    @property
    def name(self) -> str:
        name: str = self.schema["class"]
        return name

    def add(self, each: batch_pb2.BatchObject) -> None:
        vector = np.frombuffer(each.vector_bytes or _named(each.vectors), np.float32)
        self.objects.append(
            Stored(
                UUID(each.uuid) if each.uuid else uuid4(),
                _properties(each.properties),
                vector if vector.size else None,
                each.tenant,
            )
        )

    def search(
        self, request: search_get_pb2.SearchRequest, vectorize: Vectorize | None
    ) -> list[Hit]:
        """Find all objects that match, best first."""
        rows = [
            each
            for each in self.objects
            if each.tenant == request.tenant and _passes(each, request.filters)
        ]
        if request.HasField("near_vector"):
            given = request.near_vector
            vector = np.frombuffer(given.vector_bytes or _named(given.vectors), np.float32)
            return _within(_nearest(rows, vector), given)
        if request.HasField("near_object"):
            wanted = UUID(request.near_object.id)
            found = next((each for each in rows if each.uuid == wanted), None)
            if found is None or found.vector is None:
                raise QueryError("explorer: get class: vectorize params: vector not found")
            return _within(_nearest(rows, found.vector), request.near_object)
        if request.HasField("near_text"):
            text = " ".join(request.near_text.query)
            return _within(_nearest(rows, _vector(text, vectorize)), request.near_text)
        if request.HasField("bm25_search"):
            asked = request.bm25_search
            return _keywords(rows, asked.query, list(asked.properties))
        if request.HasField("hybrid_search"):
            return _hybrid(rows, request.hybrid_search, vectorize)
        if request.HasField("near_image"):
            raise QueryError("could not vectorize input: no vectorizer module for images")
        return [Hit(each) for each in rows]


def _nearest(rows: Iterable[Stored], vector: Vector) -> list[Hit]:
    """Rank by cosine distance, exactly."""
    having = [(each, each.vector) for each in rows if each.vector is not None]
    if not having:
        return []
    matrix = np.stack([own for _, own in having]).astype(np.float32)
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
    distances = 1 - matrix @ vector / np.where(norms == 0, 1, norms)
    order = np.argsort(distances, kind="stable")
    return [Hit(having[at][0], distance=float(distances[at])) for at in order]


def _within(
    hits: list[Hit],
    asked: base_search_pb2.NearVector | base_search_pb2.NearObject | base_search_pb2.NearTextSearch,
) -> list[Hit]:
    if asked.HasField("distance"):
        return [hit for hit in hits if (hit.distance or 0.0) <= asked.distance + 1e-6]
    if asked.HasField("certainty"):
        return [hit for hit in hits if 1 - (hit.distance or 0.0) / 2 >= asked.certainty]
    return hits


def _keywords(rows: Sequence[Stored], query: str, properties: Sequence[str]) -> list[Hit]:
    """Rank by BM25 (k1 1.2, b 0.75), leaving out what shares no word with the query."""
    if not query:
        raise QueryError("keyword search (bm25) must have query set")
    words = [Counter(_words(_text(each, properties))) for each in rows]
    mean = sum(sum(each.values()) for each in words) / max(1, len(words))
    scores = [0.0] * len(rows)
    for word in set(_words(query)):
        having = sum(1 for each in words if word in each)
        weight = math.log(1 + (len(rows) - having + 0.5) / (having + 0.5))
        for at, each in enumerate(words):
            length = sum(each.values()) / (mean or 1)
            scores[at] += weight * 2.2 * each[word] / (each[word] + 1.2 * (0.25 + 0.75 * length))
    order = sorted(range(len(rows)), key=lambda at: -scores[at])
    return [Hit(rows[at], score=scores[at]) for at in order if scores[at] > 0]


def _hybrid(
    rows: Sequence[Stored], asked: base_search_pb2.Hybrid, vectorize: Vectorize | None
) -> list[Hit]:
    """Fuse both by relative score: each scaled to [0, 1], weighted with alpha."""
    given = np.frombuffer(asked.vector_bytes or _named(asked.vectors), np.float32)
    vector = given if given.size else _vector(asked.query, vectorize)
    # Clients since 4.17 have a field that tells 0 from unset.
    has_param = getattr(asked, "use_alpha_param", False)
    alpha: float = getattr(asked, "alpha_param", 0.0) if has_param else asked.alpha
    by_vector = {hit.stored.uuid: -(hit.distance or 0.0) for hit in _nearest(rows, vector)}
    words = _keywords(rows, asked.query, list(asked.properties))
    by_words = {hit.stored.uuid: hit.score or 0.0 for hit in words}
    parts = [(alpha, _scaled(by_vector)), (1 - alpha, _scaled(by_words))]
    score = {
        each.uuid: sum(share * scaled.get(each.uuid, 0.0) for share, scaled in parts)
        for each in rows
    }
    order = sorted(rows, key=lambda each: -score[each.uuid])
    return [Hit(each, score=score[each.uuid]) for each in order]


def _scaled(scores: Mapping[UUID, float]) -> dict[UUID, float]:
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    return {key: (each - low) / (high - low) if high > low else 1.0 for key, each in scores.items()}


def _vector(text: str, vectorize: Vectorize | None) -> Vector:
    if vectorize is None:
        raise QueryError("could not vectorize input: make sure a vectorizer module is configured")
    return np.asarray(vectorize(text), np.float32)


def _named(vectors: Sequence[base_pb2.Vectors]) -> bytes:
    return vectors[0].vector_bytes if vectors else b""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _text(each: Stored, properties: Sequence[str]) -> str:
    named = [each.properties.get(name) for name in properties] or each.properties.values()
    return " ".join(value for value in named if isinstance(value, str))


def _passes(each: Stored, asked: base_pb2.Filters) -> bool:
    operator = base_pb2.Filters.Operator.Name(asked.operator)
    if operator == "OPERATOR_UNSPECIFIED":
        return True
    if operator == "OPERATOR_AND":
        return all(_passes(each, one) for one in asked.filters)
    if operator == "OPERATOR_OR":
        return any(_passes(each, one) for one in asked.filters)
    if operator != "OPERATOR_EQUAL":
        raise QueryError(f"the stand-in has no {operator}")
    value = getattr(asked, asked.WhichOneof("test_value") or "")
    own = each.properties.get(asked.target.property)
    return bool(own == value)


def _properties(given: batch_pb2.BatchObject.Properties) -> dict[str, Any]:
    found: dict[str, Any] = dict(given.non_ref_properties.items())
    for listed in (given.text_array_properties, given.number_array_properties):
        found |= {each.prop_name: list(each.values) for each in listed}
    return found
