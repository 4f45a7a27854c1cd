"""A real server of the Open Inference Protocol (MLServer): texts scored there, and tokens run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rerank_sidecar.types import Score
from tests.unit.loading.test_triton import opened as opened_triton
from tests.unit.rerankers.remote.stand_in import opened
from tests.unit.rerankers.toy_models import bert_tokenizer, outcomes_of

COMMAND = os.environ.get("MLSERVER_COMMAND")

pytestmark = pytest.mark.skipif(
    COMMAND is None,
    reason="needs MLSERVER_COMMAND: mlserver holds older packages than the tests have, so its "
    "command comes from an environment of its own",
)

RUNTIME = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse

class Texts(MLModel):
    async def predict(self, payload):
        queries, passages = (StringCodec.decode_input(each) for each in payload.inputs)
        scores = [len(p) - len(q) / 4 for q, p in zip(queries, passages, strict=True)]
        return answer(self, "logit", scores)

class Tokens(MLModel):
    async def predict(self, payload):
        ids, mask = (NumpyCodec.decode_input(each) for each in payload.inputs)
        return answer(self, "logits", (ids * mask).sum(axis=1) / 64)

def answer(model, name, scores):
    tensor = np.array(scores, dtype=np.float32).reshape(-1, 1)
    output = NumpyCodec.encode_output(name, tensor)
    return InferenceResponse(model_name=model.name, outputs=[output])
"""

QUERY = "the city"
TEXTS = ["paris", "", "a river of bread"]


@dataclass(frozen=True)
class Running:
    http_port: int
    grpc_port: int


def _tensor(name: str, datatype: str) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": [-1, 1]}


def _write_models(folder: Path) -> None:
    (folder / "toy_runtime.py").write_text(RUNTIME)
    models = {
        "texts": ("Texts", [_tensor("query", "BYTES"), _tensor("passage", "BYTES")], "logit"),
        "tokens": (
            "Tokens",
            [_tensor("input_ids", "INT64"), _tensor("attention_mask", "INT64")],
            "logits",
        ),
    }
    for name, (runtime, inputs, output) in models.items():
        (folder / name).mkdir()
        settings = {"name": name, "implementation": f"toy_runtime.{runtime}", "inputs": inputs}
        settings["outputs"] = [_tensor(output, "FP32")]
        (folder / name / "model-settings.json").write_text(json.dumps(settings))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("mlserver")
    _write_models(folder)
    http_port, grpc_port, metrics_port = _free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": http_port, "grpc_port": grpc_port}
    settings |= {"metrics_port": metrics_port, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    log = tmp_path_factory.mktemp("log") / "mlserver.log"
    assert COMMAND is not None
    with (
        log.open("w") as output,
        subprocess.Popen(
            [COMMAND, "start", str(folder)],
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait(f"http://127.0.0.1:{http_port}/v2/health/ready", process, log)
            yield Running(http_port, grpc_port)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            httpx.get(url, timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(log.read_text())


def _address(scheme: str, server: Running) -> str:
    port = server.http_port if scheme == "http" else server.grpc_port
    return f"{scheme}://127.0.0.1:{port}"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_texts(scheme: str, server: Running) -> None:
    source = f"kserve:{_address(scheme, server)}#texts"
    async with opened(source, max_documents_per_call=2) as reranker:
        scored = await outcomes_of(reranker, QUERY, TEXTS)
    assert scored == [Score(len(text) - len(QUERY) / 4) for text in TEXTS]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_tokens(scheme: str, server: Running, tmp_path: Path) -> None:
    tokenizer = bert_tokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    source = f"triton:{_address(scheme, server)}#tokens"
    async with opened_triton(source, tokenizer=str(tmp_path), max_tokens=64) as reranker:
        scored = await outcomes_of(reranker, QUERY, TEXTS)
        assert "mlserver" in reranker.info.engine
    sums = [sum(tokenizer.encode(QUERY, text).ids) / 64 for text in TEXTS]
    assert scored == [Score(each) for each in sums]
