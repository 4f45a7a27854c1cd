"""A real Infinity server with a tiny model as the far side, beside sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rerank_sidecar.types import Score
from tests.integration.real_servers import free_ports, running
from tests.models.tiny_models import WORDS, edit_json, save_tiny_model
from tests.unit.rerankers.remote.stand_in import opened
from tests.unit.rerankers.toy_models import outcomes_of

COMMAND = os.environ.get("INFINITY_COMMAND")

pytestmark = pytest.mark.skipif(
    COMMAND is None,
    reason="needs INFINITY_COMMAND: infinity_emb[server] wants older packages than the tests have, "
    "so its command comes from an environment of its own",
)

QUERY = "who lives in the city of apple"
TEXTS = [" ".join(WORDS[start : start + 7]) for start in range(0, 40, 5)] + [""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"), "bert")
    # The name that transformers 5 writes is not known to the version that Infinity has.
    edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    return folder


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    [port] = free_ports(1)
    assert COMMAND is not None
    command = [COMMAND, "v2", "--model-id", str(folder), "--served-model-name", "tiny"]
    command += [
        "--port",
        str(port),
        "--device",
        "cpu",
        "--engine",
        "torch",
        "--no-bettertransformer",
    ]
    command += ["--no-model-warmup", "--dtype", "float32", "--lengths-via-tokenize"]
    quiet = {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    address = f"http://127.0.0.1:{port}"
    with running(command, [f"{address}/health"], tmp_path_factory.mktemp("infinity"), quiet):
        yield address


@pytest.mark.parametrize("kind", ["RAW_LOGIT", "PROBABILITY"])
async def test_scores_are_those_of_sentence_transformers(kind: str, folder: Path, url: str) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    wanted = torch.nn.Identity() if kind == "RAW_LOGIT" else torch.nn.Sigmoid()
    model = CrossEncoder(str(folder), device="cpu")
    expected = model.predict([(QUERY, text) for text in TEXTS], activation_fn=wanted)
    source = f"infinity:{url}#tiny"
    async with opened(source, score_kind=kind, max_documents_per_call=4) as reranker:
        scored = await outcomes_of(reranker, QUERY, TEXTS)
    assert all(isinstance(each, Score) for each in scored)
    values = [each.value for each in scored if isinstance(each, Score)]
    assert values == pytest.approx(expected.tolist(), abs=1e-4)


async def test_a_text_that_infinity_refuses_is_cut(url: str) -> None:
    long = "apple " * 25_000
    body = {"query": QUERY, "documents": [long]}
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{url}/rerank", json=body)).status_code == 422
    async with opened(f"infinity:{url}#tiny") as reranker:
        [scored] = await outcomes_of(reranker, QUERY, [long])
    assert isinstance(scored, Score)
    assert scored.truncated
