"""LangChain: a retriever over a store in memory, and the same one with reranking.

    pip install 'rerank-sidecar[server,langchain]' langchain-classic
    python -m examples.langchain

The reranker runs in this process; with a server it is SidecarRerank(target="localhost:50051").
"""

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore

from examples.labelled_set import DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters.langchain import SidecarRerank
from rerank_sidecar.in_process import InProcessRerankClient


class WordVectors(Embeddings):
    """The vectors of the labelled set; an application has those of a model here."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Give a vector for each text."""
        return [vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Give the vector of a question."""
        return vector(text)


def show(title: str, retriever: BaseRetriever) -> None:
    """Print the first answer to one question, and how often the first answer is right."""
    print(f"{title}: {retriever.invoke(QUERIES[0][0])[0].page_content}")
    best = [retriever.invoke(query)[0].metadata["position"] for query, _ in QUERIES]
    print(f"{title}: P@1 {precision_at_1(best):.2f}")


def main() -> None:
    """Ask the same questions without and with the reranker."""
    store = InMemoryVectorStore(WordVectors())
    store.add_texts(DOCUMENTS, [{"position": at} for at in range(len(DOCUMENTS))])
    retriever = store.as_retriever(search_kwargs={"k": 20})
    with InProcessRerankClient() as sidecar:
        reranked = ContextualCompressionRetriever(
            base_retriever=retriever, base_compressor=SidecarRerank(sidecar=sidecar, top_n=3)
        )
        print(QUERIES[0][0])
        show("before", retriever)
        show("after", reranked)


if __name__ == "__main__":
    main()
