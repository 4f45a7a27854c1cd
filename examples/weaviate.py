"""Weaviate: a collection whose module asks the sidecar, for more objects than come back.

    pip install 'rerank-sidecar[server,weaviate]'
    python -m examples.weaviate

There is no Weaviate to install from PyPI, so the tests' stand-in takes its place: a real search
over real vectors, whose reranker module calls the sidecar as Weaviate's does. With a server, all
but the first two lines of `main` are the same, and the client is `weaviate.connect_to_local()`.
"""

from typing import Any

from weaviate.classes.config import Configure, DataType, Property
from weaviate.classes.data import DataObject
from weaviate.collections import Collection

from examples.labelled_set import DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters import Rerank
from rerank_adapters.weaviate import RerankedCollection, check_weaviate, reranker_config
from tests.contract.running import running_sidecar
from tests.integration.weaviate_stand_in import modules_for, weaviate_stand_in


def fill(articles: Collection[Any, Any]) -> None:
    """Insert the documents, with vectors that an application would have from a model."""
    articles.data.insert_many(
        [
            DataObject(properties={"body": text, "at": at}, vector=vector(text))
            for at, text in enumerate(DOCUMENTS)
        ]
    )


def show(title: str, best: list[dict[str, Any]]) -> None:
    """Print what came first for the first question, and how often that was right for all."""
    right = precision_at_1([int(each["at"]) for each in best])
    print(f"{title}: {best[0]['body']}")
    print(f"{title}: P@1 {right:.2f}")


def main() -> None:
    """Ask questions with and without reranking."""
    with running_sidecar() as sidecar, weaviate_stand_in(*modules_for(sidecar.http_port)) as server:
        with server.connect() as client:
            check_weaviate(client, f"http://127.0.0.1:{sidecar.http_port}")
            articles = client.collections.create(
                "Article",
                properties=[
                    Property(name="body", data_type=DataType.TEXT),
                    Property(name="at", data_type=DataType.INT),
                ],
                vector_config=Configure.Vectors.self_provided(),
                reranker_config=reranker_config("transformers"),
            )
            fill(articles)
            reranked = RerankedCollection(articles)
            before, after = [], []
            for query, _ in QUERIES:
                found = articles.query.near_vector(vector(query), limit=1)
                before.append(dict(found.objects[0].properties))
                wanted = Rerank("body", query, oversample=20)
                better = reranked.query.near_vector(vector(query), limit=1, rerank=wanted)
                after.append(better.objects[0].properties)
        print(QUERIES[0][0])
        show("before", before)
        show("after", after)


if __name__ == "__main__":
    main()
