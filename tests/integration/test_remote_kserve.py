"""Real servers of KServe v2, Triton and MLServer: texts scored there, and tokens run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rerank_sidecar.types import Score
from tests.integration.real_servers import free_ports, running
from tests.unit.loading.test_triton import opened as opened_triton
from tests.unit.rerankers.remote.stand_in import opened
from tests.unit.rerankers.toy_models import bert_tokenizer, outcomes_of

MLSERVER = os.environ.get("MLSERVER_COMMAND")
TRITON = os.environ.get("PYTRITON_PYTHON")

SERVERS = [
    pytest.param(
        "mlserver",
        marks=pytest.mark.skipif(
            MLSERVER is None,
            reason="needs MLSERVER_COMMAND: mlserver holds older packages than the tests have, so "
            "its command comes from an environment of its own",
        ),
    ),
    pytest.param(
        "triton",
        marks=pytest.mark.skipif(
            TRITON is None,
            reason="needs PYTRITON_PYTHON: nvidia-pytriton, which has Triton in it, is too large "
            "for the tests, so the interpreter comes from an environment of its own",
        ),
    ),
]

MLSERVER_MODELS = """
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

TRITON_MODELS = """
import sys
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

def column(scores):
    return np.array(scores, dtype=np.float32).reshape(-1, 1)

@batch
def texts(query, passage):
    rows = zip(query[:, 0], passage[:, 0], strict=True)
    return {"logit": column([len(p.decode()) - len(q.decode()) / 4 for q, p in rows])}

@batch
def tokens(input_ids, attention_mask):
    return {"logits": column((input_ids * attention_mask).sum(axis=1) / 64)}

def bound(triton, function, inputs, output):
    scores = Tensor(name=output, dtype=np.float32, shape=(1,))
    triton.bind(
        model_name=function.__name__,
        infer_func=function,
        inputs=inputs,
        outputs=[scores],
        config=ModelConfig(max_batch_size=2),
    )

http_port, grpc_port, metrics_port = map(int, sys.argv[1:])
config = TritonConfig(
    http_address="127.0.0.1",
    grpc_address="127.0.0.1",
    http_port=http_port,
    grpc_port=grpc_port,
    metrics_port=metrics_port,
)
with Triton(config=config) as triton:
    text = [Tensor(name=name, dtype=bytes, shape=(1,)) for name in ("query", "passage")]
    ids = [Tensor(name=n, dtype=np.int64, shape=(-1,)) for n in ("input_ids", "attention_mask")]
    bound(triton, texts, text, "logit")
    bound(triton, tokens, ids, "logits")
    triton.serve()
"""

QUERY = "the city"
TEXTS = ["paris", "", "a river of bread"]


@dataclass(frozen=True)
class Running:
    name: str
    http_port: int
    grpc_port: int


def _tensor(name: str, datatype: str) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": [-1, 1]}


def _write_models(folder: Path) -> None:
    (folder / "toy_runtime.py").write_text(MLSERVER_MODELS)
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


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp(request.param)
    ports = free_ports(3)
    command = {"mlserver": _mlserver, "triton": _triton}[request.param](folder, ports)
    models = [f"http://127.0.0.1:{ports[0]}/v2/models/{name}" for name in ("texts", "tokens")]
    ready = [f"{model}/ready" for model in models]
    with running(command, ready, folder, {"PYTHONPATH": str(folder)}):
        yield Running(request.param, *ports[:2])


def _mlserver(folder: Path, ports: list[int]) -> list[str]:
    _write_models(folder)
    settings = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    settings_file = {"host": "127.0.0.1", "parallel_workers": 0, **settings}
    (folder / "settings.json").write_text(json.dumps(settings_file))
    assert MLSERVER is not None
    return [MLSERVER, "start", str(folder)]


def _triton(folder: Path, ports: list[int]) -> list[str]:
    (folder / "models.py").write_text(TRITON_MODELS)
    assert TRITON is not None
    return [TRITON, "models.py", *map(str, ports)]


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
        assert server.name in reranker.info.engine
    sums = [sum(tokenizer.encode(QUERY, text).ids) / 64 for text in TEXTS]
    assert scored == [Score(each) for each in sums]
