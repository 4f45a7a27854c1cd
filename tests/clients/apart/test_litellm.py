"""LiteLLM's rerank, with the providers that take an `api_base`."""

from typing import Any

import pytest
from litellm import arerank, rerank
from litellm.exceptions import AuthenticationError

from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

PROVIDERS = [
    ("cohere/rerank-v3.5", "/cohere", "cohere_v2"),
    ("cohere/rerank-v3.5", "", "cohere_v2"),
    ("cohere/rerank-v3.5", "/cohere/v1/rerank", "cohere_v1"),
    ("jina_ai/jina-reranker-v2-base-multilingual", "", "generic"),  # it replaces the path
    ("voyage/rerank-2.5", "/voyage/v1", "voyage"),
    ("voyage/rerank-2.5", "/v1", "voyage"),  # known by `top_k`; without `top_n` use the mount
    ("infinity/any", "/infinity", "infinity"),  # wants documents as texts: only under the mount
    ("hosted_vllm/any", "/vllm", "vllm"),
    ("hosted_vllm/any", "", "generic"),
    ("huggingface/any", "/tei", "tei"),
    ("huggingface/any", "", "tei"),
    ("nvidia_nim/nvidia/any", "/nvidia", "nvidia"),
    ("nvidia_nim/nvidia/any", "", "nvidia"),
    ("nvidia_nim/ranking/nvidia/any", "", "nvidia"),
]
"""LiteLLM's name of a model, what its `api_base` ends with, and the door that it comes to."""

TOP_N = 3

every = pytest.mark.parametrize(("model", "mount", "door"), PROVIDERS)


def ranking(answer: Any) -> Ranking:
    return [(each["index"], each["relevance_score"]) for each in answer.results]


def expect(guarded: RunningDoor, model: str, door: str, answer: Any) -> None:
    # TEI and NIM return all documents, and LiteLLM cuts only what its provider `ranking` gets.
    cuts = door not in ("tei", "nvidia") or "/ranking/" in model
    top_n = TOP_N if cuts else len(TEXTS)
    guarded.expects(ranking(answer), "logit" if door == "nvidia" else "unit", top_n)


@every
def test_rerank(guarded: RunningDoor, model: str, mount: str, door: str) -> None:
    asked = {"model": model, "query": QUERY, "documents": TEXTS, "top_n": TOP_N}
    with guarded.hears(door):
        answer = rerank(**asked, api_key=KEY, api_base=guarded.url + mount)
    expect(guarded, model, door, answer)
    # Documents come back unless they are switched off, and are shown if the provider sends them.
    found = [each["document"]["text"] for each in answer.results if "document" in each]
    assert found in ([], [TEXTS[index] for index, _ in ranking(answer)])


@every
async def test_rerank_async(guarded: RunningDoor, model: str, mount: str, door: str) -> None:
    asked = {"model": model, "query": QUERY, "documents": TEXTS, "top_n": TOP_N}
    with guarded.hears(door):
        answer = await arerank(
            **asked, return_documents=False, api_key=KEY, api_base=guarded.url + mount
        )
    expect(guarded, model, door, answer)


@pytest.mark.parametrize(
    ("model", "mount", "door"), [each for each in PROVIDERS if each[1] not in ("", "/v1")]
)
def test_wrong_keys(guarded: RunningDoor, model: str, mount: str, door: str) -> None:
    asked = {"model": model, "query": QUERY, "documents": TEXTS, "top_n": TOP_N}
    with guarded.hears(door, outcome="UNAUTHENTICATED"), pytest.raises(AuthenticationError):
        rerank(**asked, api_key=WRONG_KEY, api_base=guarded.url + mount)
