"""Objects of a finished query, reranked by the vectors that came with them."""

import uuid
from typing import Any

import pytest
from weaviate.outputs.query import MetadataReturn, Object, QueryReturn

from rerank_adapters import AsyncRerankClient, Rerank, RerankClient
from rerank_adapters.candidates import MISSING_VECTORS
from rerank_adapters.weaviate import rerank_query_return, rerank_query_return_async
from rerank_adapters.weaviate.search import Search
from tests.unit.adapters.every_client import Sidecar

VECTORS: list[dict[str, Any]] = [
    {"colbert": [[0.6, 0.8], [0.8, 0.6]], "default": [0.1, 1.0]},
    {"default": [0.3, 1.0]},
    {"colbert": [[1.0, 0.0], [0.0, 1.0]], "default": [0.2, 1.0]},
]


def found() -> QueryReturn[Any, Any]:
    objects: list[Object[Any, Any]] = [
        Object(
            uuid=uuid.UUID(int=at),
            metadata=MetadataReturn(),
            properties={},
            references=None,
            vector=vector,
            collection="Passage",
        )
        for at, vector in enumerate(VECTORS)
    ]
    return QueryReturn(objects=objects)


def order(returned: QueryReturn[Any, Any]) -> list[int]:
    return [each.uuid.int for each in returned.objects]


@pytest.mark.parametrize(
    ("name", "query", "best_first", "missing"),
    [("colbert", "red fruit", [2, 0, 1], [1]), ("default", "red", [1, 2, 0], [])],
)
async def test_objects_are_reranked_by_their_vectors(
    reads_vectors: Sidecar, name: str, query: str, best_first: list[int], missing: list[int]
) -> None:
    rerank = Rerank(vectors=name, query=query)
    with RerankClient(reads_vectors.target) as client:
        best = rerank_query_return(found(), rerank, client)
    async with AsyncRerankClient(reads_vectors.target) as waiting:
        waited = await rerank_query_return_async(found(), rerank, waiting)
    assert order(best) == order(waited) == best_first
    assert best.errors == {uuid.UUID(int=at): MISSING_VECTORS for at in missing}
    assert best.missing_vectors == len(missing)
    assert [each.vector for each in best.objects] == [VECTORS[at] for at in best_first]


def test_searches_refuse_vectors() -> None:
    with pytest.raises(ValueError, match=r"^vectors: .* rerank_query_return"):
        Search.of("bm25", Rerank(vectors="colbert"), ["red fruit"], {})


def test_weaviates_module_refuses_vectors_of_the_query() -> None:
    asked = Search.of("bm25", Rerank("body", query_vectors=[1.0]), ["red fruit"], {})
    with pytest.raises(ValueError, match=r"^query_vectors: "):
        asked.for_module()
