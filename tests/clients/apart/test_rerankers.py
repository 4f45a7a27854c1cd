"""The rerankers library's API ranker, with each of its providers and a `url` of ours."""

import pytest
from rerankers import Reranker

from tests.clients.running_door import KEY, QUERY, TEXTS, RunningDoor


@pytest.mark.parametrize(
    ("provider", "path", "door"),
    [
        ("text-embeddings-inference", "/tei/rerank", "tei"),
        ("text-embeddings-inference", "/rerank", "tei"),
        ("cohere", "/cohere/v1/rerank", "cohere_v1"),
        ("cohere", "/v1/rerank", "generic"),
        ("jina", "/jina/v1/rerank", "jina"),
        ("jina", "/v1/rerank", "generic"),
        ("voyage", "/voyage/v1/rerank", "voyage"),
        ("voyage", "/v1/rerank", "voyage"),
        ("mixedbread.ai", "/mixedbread/v1/reranking", "mixedbread"),
        ("mixedbread.ai", "/v1/reranking", "mixedbread"),
        ("pinecone", "/pinecone/rerank", "pinecone"),
        ("pinecone", "/rerank", "pinecone"),
    ],
)
def test_rank(guarded: RunningDoor, provider: str, path: str, door: str) -> None:
    ranker = Reranker(
        "any-model",
        model_type="APIRanker",
        api_key=KEY,
        api_provider=provider,
        url=guarded.url + path,
        verbose=0,
    )
    with guarded.hears(door):
        answer = ranker.rank(QUERY, TEXTS)
    guarded.expects([(each.doc_id, each.score) for each in answer.results])
