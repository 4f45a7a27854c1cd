"""LlamaIndex: a query engine over an index in memory, and the same one with reranking.

    pip install 'rerank-sidecar[server,llama-index]'
    python -m examples.llama_index

The reranker runs in this process; with a server it is SidecarRerank(target="localhost:50051").
"""

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms.mock import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import TextNode

from examples.labelled_set import DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters.llama_index import SidecarRerank
from rerank_sidecar.in_process import InProcessRerankClient


class WordVectors(BaseEmbedding):
    """The vectors of the labelled set; an application has those of a model here."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vector(query)


def engine(
    index: VectorStoreIndex, node_postprocessors: list[BaseNodePostprocessor]
) -> BaseQueryEngine:
    """Make a query engine without a language model, since only what it finds is looked at."""
    return index.as_query_engine(
        llm=MockLLM(), similarity_top_k=20, node_postprocessors=node_postprocessors
    )


def show(title: str, asked: BaseQueryEngine) -> None:
    """Print the first source for one question, and how often the first source is right."""
    print(f"{title}: {asked.query(QUERIES[0][0]).source_nodes[0].text}")
    best = [int(asked.query(query).source_nodes[0].node_id) for query, _ in QUERIES]
    print(f"{title}: P@1 {precision_at_1(best):.2f}")


def main() -> None:
    """Ask the same questions without and with the reranker."""
    nodes = [TextNode(text=text, id_=str(at)) for at, text in enumerate(DOCUMENTS)]
    index = VectorStoreIndex(nodes, embed_model=WordVectors())
    with InProcessRerankClient() as sidecar:
        print(QUERIES[0][0])
        show("before", engine(index, []))
        show("after", engine(index, [SidecarRerank(sidecar=sidecar, top_n=3)]))


if __name__ == "__main__":
    main()
