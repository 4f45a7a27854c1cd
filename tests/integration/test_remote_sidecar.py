"""A real sidecar as the far side: every wire against the mount that speaks it, and two in a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from rerank_sidecar.score_kinds import ScoreKind, to_unit
from rerank_sidecar.types import Score
from tests.contract.running import RunningSidecar, running_sidecar
from tests.unit.rerankers.remote.stand_in import opened
from tests.unit.rerankers.toy_models import outcomes_of

QUERY = "a red fruit"
TEXTS = [
    "The sky is blue above the sea.",
    "An apple is a red fruit that grows on trees.",
    "",
    "Bread is baked from flour.",
    "Äpfel sind rot 🍎",
]


@pytest.fixture(scope="module")
def far() -> Iterator[RunningSidecar]:
    with running_sidecar() as sidecar:
        yield sidecar


@pytest.fixture(scope="module")
def native(far: RunningSidecar) -> list[float]:
    """What the far side says in its own words."""
    url = f"http://127.0.0.1:{far.http_port}/api/v1/rerank"
    body = {"query": QUERY, "documents": [{"text": text} for text in TEXTS]}
    results = httpx.post(url, json=body).raise_for_status().json()["results"]
    found = {each["index"]: float(each["score"]["value"]) for each in results}
    return [found[index] for index in range(len(TEXTS))]


def _matches(scored: list[Any], expected: list[float]) -> None:
    assert all(isinstance(each, Score) for each in scored)
    assert [each.value for each in scored] == pytest.approx(expected, abs=1e-5)


PROBABILITIES = [
    *("cohere", "jina", "voyage", "mixedbread", "pinecone", "vllm", "vllm-score", "xinference"),
]


@pytest.mark.parametrize("engine", PROBABILITIES)
async def test_wires_that_carry_probabilities(
    engine: str, far: RunningSidecar, native: list[float]
) -> None:
    mount = engine.removesuffix("-score")
    source = f"{engine}:http://127.0.0.1:{far.http_port}/{mount}#embedded"
    async with opened(source, max_documents_per_call=2) as reranker:
        scored = await outcomes_of(reranker, QUERY, TEXTS)
    _matches(scored, [to_unit(ScoreKind.MAXSIM, each, 1) for each in native])


@pytest.mark.parametrize("engine", ["tei", "infinity", "llamacpp", "kserve"])
async def test_wires_that_carry_the_models_own_scores(
    engine: str, far: RunningSidecar, native: list[float]
) -> None:
    source = f"{engine}:http://127.0.0.1:{far.http_port}/{engine}#embedded"
    async with opened(source, max_documents_per_call=2) as reranker:
        _matches(await outcomes_of(reranker, QUERY, TEXTS), native)


async def test_nvidia_whose_passages_are_never_empty(
    far: RunningSidecar, native: list[float]
) -> None:
    source = f"nvidia:http://127.0.0.1:{far.http_port}/nvidia#embedded"
    async with opened(source, takes_empty=True) as reranker:
        _matches(await outcomes_of(reranker, QUERY, TEXTS), native)


@pytest.mark.parametrize("source", ["tei:grpc://{}", "kserve:grpc://{}#embedded"])
async def test_wires_over_grpc(source: str, far: RunningSidecar, native: list[float]) -> None:
    address = f"127.0.0.1:{far.grpc_port}"
    async with opened(source.format(address), max_documents_per_call=2) as reranker:
        _matches(await outcomes_of(reranker, QUERY, TEXTS), native)


async def test_another_sidecar(far: RunningSidecar, native: list[float]) -> None:
    async with opened(f"sidecar:grpc://127.0.0.1:{far.grpc_port}") as reranker:
        _matches(await outcomes_of(reranker, QUERY, TEXTS), native)
        info = reranker.info
    assert info.score_kind is ScoreKind.MAXSIM
    assert info.version.startswith("embedded@")


def test_one_sidecar_gives_weaviate_the_reranker_of_another(
    far: RunningSidecar, native: list[float]
) -> None:
    with ExitStack() as stack:
        source = f"sidecar:grpc://127.0.0.1:{far.grpc_port}#embedded"
        near = stack.enter_context(running_sidecar("--model", source))
        body = {"query": QUERY, "documents": TEXTS, "property": ""}
        answers = []
        for sidecar in (near, far):
            url = f"http://127.0.0.1:{sidecar.http_port}/rerank"
            answers.append(httpx.post(url, json=body).raise_for_status().json()["scores"])
    assert [each["score"] for each in answers[0]] == pytest.approx(
        [each["score"] for each in answers[1]]
    )
    assert [each["score"] for each in answers[1]] == pytest.approx(native)
