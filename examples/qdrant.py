"""Qdrant: a collection in memory, and the same queries with reranking.

    pip install 'rerank-sidecar[server,qdrant]'
    python -m examples.qdrant

The reranker runs in this process; with a server it is RerankClient("localhost:50051"), and with a
Qdrant server the client is QdrantClient("http://localhost:6333").
"""

from qdrant_client import QdrantClient, models

from examples.labelled_set import DIMENSIONS, DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters import Rerank
from rerank_adapters.qdrant import RerankedQdrantClient
from rerank_sidecar.in_process import InProcessRerankClient

COLLECTION = "documents"


def fill(client: QdrantClient) -> None:
    """Store the documents and their vectors; an application has those of a model here."""
    params = models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)
    client.create_collection(COLLECTION, vectors_config=params)
    client.upsert(
        COLLECTION,
        [
            models.PointStruct(id=at, vector=vector(text), payload={"body": text})
            for at, text in enumerate(DOCUMENTS)
        ],
    )


def nearest(client: QdrantClient, query: str) -> models.ScoredPoint:
    """Find one document by its vector alone."""
    return client.query_points(COLLECTION, vector(query), limit=1).points[0]


def best(client: RerankedQdrantClient, query: str) -> models.ScoredPoint:
    """Find 20 documents, and have the sidecar choose one of them."""
    rerank = Rerank("body", query=query, oversample=20)
    return client.query_points(COLLECTION, vector(query), limit=1, rerank=rerank).points[0]


def show(title: str, found: list[models.ScoredPoint]) -> None:
    """Print the answer to the first question, and how often the first answer is right."""
    print(f"{title}: {(found[0].payload or {})['body']}")
    print(f"{title}: P@1 {precision_at_1([int(each.id) for each in found]):.2f}")


def main() -> None:
    """Ask the same questions without and with the reranker."""
    client = QdrantClient(":memory:")
    fill(client)
    with InProcessRerankClient() as sidecar:
        reranked = RerankedQdrantClient(client, sidecar)
        print(QUERIES[0][0])
        show("before", [nearest(client, query) for query, _ in QUERIES])
        show("after", [best(reranked, query) for query, _ in QUERIES])
    client.close()


if __name__ == "__main__":
    main()
