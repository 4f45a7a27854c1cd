"""Haystack: a pipeline with a store in memory, its retriever and the reranker.

    pip install 'rerank-sidecar[server,haystack]'
    python -m examples.haystack

The reranker runs in this process; with a server it is SidecarRanker("localhost:50051").
"""

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from examples.labelled_set import DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters.haystack import SidecarRanker
from rerank_sidecar.in_process import InProcessRerankClient


def build(sidecar: InProcessRerankClient) -> Pipeline:
    """Make the pipeline, with documents whose vectors an application would have from a model."""
    store = InMemoryDocumentStore()
    store.write_documents(
        [
            Document(id=str(at), content=text, embedding=vector(text))
            for at, text in enumerate(DOCUMENTS)
        ]
    )
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=20))
    pipeline.add_component("ranker", SidecarRanker(sidecar=sidecar, top_k=3))
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def main() -> None:
    """Ask questions and show what both components put first."""
    found: dict[str, list[Document]] = {"retriever": [], "ranker": []}
    with InProcessRerankClient() as sidecar:
        pipeline = build(sidecar)
        for query, _ in QUERIES:
            asked = {"retriever": {"query_embedding": vector(query)}, "ranker": {"query": query}}
            answer = pipeline.run(asked, include_outputs_from={"retriever"})
            for name, best in found.items():
                best.append(answer[name]["documents"][0])
    print(QUERIES[0][0])
    for title, name in (("before", "retriever"), ("after", "ranker")):
        print(f"{title}: {found[name][0].content}")
        right = precision_at_1([int(document.id) for document in found[name]])
        print(f"{title}: P@1 {right:.2f}")


if __name__ == "__main__":
    main()
