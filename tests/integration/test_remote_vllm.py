"""A real vLLM server with tiny models as the far side, beside sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from rerank_sidecar.errors import RemoteFailed, error_row
from rerank_sidecar.rerankers.base import Outcome, ScoreOptions
from rerank_sidecar.types import Score
from tests.integration.real_servers import free_ports, running
from tests.models.tiny_models import MAX_TOKENS, WORDS, edit_json, save_tiny_model
from tests.unit.rerankers.remote.stand_in import opened
from tests.unit.rerankers.toy_models import outcomes_of

COMMAND = os.environ.get("VLLM_COMMAND")

pytestmark = [
    pytest.mark.skipif(
        COMMAND is None,
        reason="needs VLLM_COMMAND: vllm is too large for the tests, so its command comes from an "
        "environment of its own",
    ),
    pytest.mark.parametrize("wire", ["vllm", "vllm-score"]),
]

QUERY = "who lives in the city of apple"
TEXTS = [" ".join(WORDS[start : start + 7]) for start in range(0, 40, 5)]
LONG = " ".join(WORDS * 3)
MANY = [" ".join(WORDS[i * step % len(WORDS)] for step in (1, 3, 7)) for i in range(100)]


@dataclass(frozen=True)
class Running:
    url: str
    model: Path


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    model = save_tiny_model(tmp_path_factory.mktemp("tiny"), request.param)
    # vLLM's attention on CPUs knows heads of 32 numbers and more.
    edit_json(model / "config.json", num_attention_heads=2)
    [port] = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    environment = {**quiet, "VLLM_CPU_KVCACHE_SPACE": "1"}
    folder = tmp_path_factory.mktemp("vllm")
    with running(_command(model, port), [f"{address}/health"], folder, environment):
        yield Running(address, model)


def _command(model: Path, port: int) -> list[str]:
    assert COMMAND is not None
    command = [COMMAND, "serve", str(model), "--served-model-name", "tiny", "--runner", "pooling"]
    command += ["--dtype", "float32", "--max-model-len", str(MAX_TOKENS), "--enforce-eager"]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


def _expected(model: Path, query: str, texts: Sequence[str], kind: str) -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    wanted = torch.nn.Identity() if kind == "RAW_LOGIT" else torch.nn.Sigmoid()
    pairs = [(query, text) for text in texts]
    scores = CrossEncoder(str(model), device="cpu").predict(pairs, activation_fn=wanted)
    return pytest.approx(scores.tolist(), abs=1e-4)


def _values(outcomes: Sequence[Outcome]) -> list[float]:
    scores = [each for each in outcomes if isinstance(each, Score)]
    assert len(scores) == len(outcomes)
    return [each.value for each in scores]


@pytest.mark.parametrize("kind", ["RAW_LOGIT", "PROBABILITY"])
@pytest.mark.parametrize("query", [QUERY, LONG])
async def test_scores_are_those_of_sentence_transformers(
    query: str, kind: str, wire: str, server: Running
) -> None:
    texts = [*TEXTS, LONG]
    async with opened(f"{wire}:{server.url}#tiny", score_kind=kind) as reranker:
        scored = await outcomes_of(reranker, query, texts)
    assert _values(scored) == _expected(server.model, query, texts, kind)


async def test_many_documents_go_in_several_calls(wire: str, server: Running) -> None:
    options = ScoreOptions()
    async with opened(f"{wire}:{server.url}", max_documents_per_call=32) as reranker:
        scored = await outcomes_of(reranker, QUERY, MANY, options=options)
    assert options.meter.remote_calls == 4
    assert _values(scored) == _expected(server.model, QUERY, MANY, "PROBABILITY")


async def test_vllm_cuts_only_when_asked(wire: str, server: Running) -> None:
    asked = {
        "vllm": ("/rerank", {"query": QUERY, "documents": [LONG]}),
        "vllm-score": ("/score", {"text_1": QUERY, "text_2": [LONG]}),
    }
    path, body = asked[wire]
    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.post(path, json=body)).status_code == 400
    async with opened(f"{wire}:{server.url}") as reranker:
        [scored] = await outcomes_of(reranker, QUERY, [LONG])
    assert isinstance(scored, Score)


async def test_an_empty_document_harms_no_other(wire: str, server: Running) -> None:
    async with opened(f"{wire}:{server.url}") as reranker:
        first, *others = _values(await outcomes_of(reranker, QUERY, ["", *TEXTS]))
    assert 0 < first < 1
    assert others == _expected(server.model, QUERY, TEXTS, "PROBABILITY")


async def test_an_unknown_model(wire: str, server: Running) -> None:
    async with opened(f"{wire}:{server.url}#another") as reranker:
        with pytest.raises(RemoteFailed) as failed:
            await outcomes_of(reranker, QUERY, TEXTS)
    assert error_row(failed.value).reason == "REMOTE_FAILED"
    assert str(failed.value) == "the remote answered with status 404: it has no such path or model"
