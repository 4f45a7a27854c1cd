"""What the stand-in for Weaviate answers to a search, in the messages of weaviate-client."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from weaviate.proto.v1 import properties_pb2, search_get_pb2

from tests.integration.weaviate_modules import ModuleError, RerankModule
from tests.integration.weaviate_store import Hit, QueryError, StoredCollection, Vectorize

VERSION = "1.36.0"
DEFAULT_LIMIT = 10
"""QUERY_DEFAULTS_LIMIT, which no client can see."""


@dataclass
class StandIn:
    """A Weaviate with these modules: its collections, and the searches that it was asked for."""

    modules: dict[str, RerankModule]
    vectorize: Vectorize | None = None
    maximum_results: int = 10_000
    collections: dict[str, StoredCollection] = field(default_factory=dict)
    searches: list[search_get_pb2.SearchRequest] = field(default_factory=list)

    def meta(self) -> dict[str, Any]:
        about = {name: module.meta() for name, module in self.modules.items()}
        return {"hostname": "http://[::]:8080", "version": VERSION, "modules": about}

    def search(self, request: search_get_pb2.SearchRequest) -> search_get_pb2.SearchReply:
        self.searches.append(request)
        collection = self.collections.get(request.collection)
        if collection is None:
            raise QueryError(f"could not find class {request.collection} in schema")
        limit = request.limit or DEFAULT_LIMIT
        if request.offset + limit > self.maximum_results:
            raise QueryError("explorer: get class: search: query maximum results exceeded")
        hits = collection.search(request, self.vectorize)
        if request.HasField("group_by"):
            return self._grouped(request, collection, hits[:limit])
        rows = [[hit] for hit in hits[request.offset : request.offset + limit]]
        ranked = self._reranked(request, collection, rows)
        results = [result(request, row[0], collection, score) for row, score in ranked]
        return search_get_pb2.SearchReply(results=results)

    def _grouped(
        self,
        request: search_get_pb2.SearchRequest,
        collection: StoredCollection,
        hits: Sequence[Hit],
    ) -> search_get_pb2.SearchReply:
        asked = request.group_by
        groups: dict[str, list[Hit]] = {}
        for hit in hits:
            name = str(hit.stored.properties.get(asked.path[0], ""))
            if name not in groups and len(groups) >= asked.number_of_groups:
                continue
            if len(groups.setdefault(name, [])) < asked.objects_per_group:
                groups[name].append(hit)
        ranked = self._reranked(request, collection, list(groups.values())[request.offset :])
        return search_get_pb2.SearchReply(
            group_by_results=[
                search_get_pb2.GroupByResult(
                    name=str(row[0].stored.properties.get(asked.path[0], "")),
                    min_distance=row[0].distance or 0.0,
                    max_distance=row[-1].distance or 0.0,
                    number_of_objects=len(row),
                    objects=[result(request, hit, collection) for hit in row],
                    rerank=None if score is None else search_get_pb2.RerankReply(score=score),
                )
                for row, score in ranked
            ]
        )

    def _reranked(
        self,
        request: search_get_pb2.SearchRequest,
        collection: StoredCollection,
        rows: list[list[Hit]],
    ) -> list[tuple[list[Hit], float | None]]:
        """Sort rows by what the collection's module brings; a group by its first object."""
        if not request.HasField("rerank") or not rows:
            return [(row, None) for row in rows]
        settings: dict[str, Any] = collection.schema.get("moduleConfig") or {}
        name = next((each for each in settings if each in self.modules), None)
        if name is None:
            raise QueryError("explorer: get class: extend: unknown capability: rerank")
        values = [row[0].stored.properties.get(request.rerank.property) for row in rows]
        documents = [value if isinstance(value, str) else "" for value in values]
        try:
            scores = self.modules[name].rank(request.rerank.query, documents, settings[name])
        except ModuleError as error:
            words = f"explorer: get class: extend: extend rerank: client rank: {error}"
            raise QueryError(words) from error
        # Go reads scores by position, and its sort is not stable: ties come out otherwise.
        order = sorted(range(len(rows)), key=lambda at: (-scores[at], -at))
        return [(rows[at], scores[at]) for at in order]


def result(
    request: search_get_pb2.SearchRequest,
    hit: Hit,
    collection: StoredCollection,
    rerank_score: float | None = None,
) -> search_get_pb2.SearchResult:
    """Write an object with what was asked for of it."""
    asked, stored = request.metadata, hit.stored
    metadata = search_get_pb2.MetadataResult(id=str(stored.uuid), id_as_bytes=stored.uuid.bytes)
    if asked.distance and hit.distance is not None:
        metadata.distance, metadata.distance_present = hit.distance, True
    if asked.certainty and hit.distance is not None:
        metadata.certainty, metadata.certainty_present = 1 - hit.distance / 2, True
    if asked.score and hit.score is not None:
        metadata.score, metadata.score_present = hit.score, True
    if asked.creation_time_unix:
        metadata.creation_time_unix = stored.created_ms
        metadata.creation_time_unix_present = True
    if rerank_score is not None:
        metadata.rerank_score, metadata.rerank_score_present = rerank_score, True
    if asked.vector and stored.vector is not None:
        metadata.vector_bytes = stored.vector.tobytes()
    names = list(request.properties.non_ref_properties)
    if request.properties.return_all_nonref_properties or not request.HasField("properties"):
        names = list(stored.properties)
    shown = {name: stored.properties[name] for name in names if name in stored.properties}
    fields = {name: _value(value) for name, value in shown.items()}
    properties = search_get_pb2.PropertiesResult(
        target_collection=collection.name, non_ref_props=properties_pb2.Properties(fields=fields)
    )
    return search_get_pb2.SearchResult(metadata=metadata, properties=properties)


def _value(value: Any) -> properties_pb2.Value:
    if value is None:
        return properties_pb2.Value(null_value="NULL_VALUE")
    if isinstance(value, bool):
        return properties_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return properties_pb2.Value(number_value=value)
    if isinstance(value, list):
        texts = properties_pb2.TextValues(values=value)
        return properties_pb2.Value(list_value=properties_pb2.ListValue(text_values=texts))
    return properties_pb2.Value(text_value=value)
