"""Triton's clients over HTTP and gRPC, with tensors as bytes and as JSON.

NVIDIA's reranking NIM is asked in the same way: `query` and `passage` in, `logit` out.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.grpc.service_pb2
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from rerank_sidecar.third_party import kserve_pb2
from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, RunningDoor

PASSAGES = np.array([[text.encode()] for text in TEXTS], dtype=np.object_)
QUERIES = np.array([[QUERY.encode()]] * len(TEXTS), dtype=np.object_)


def inputs(wire: ModuleType, **how: bool) -> list[Any]:
    given = {"query": QUERIES, "passage": PASSAGES}
    tensors = [wire.InferInput(name, each.shape, "BYTES") for name, each in given.items()]
    for tensor, each in zip(tensors, given.values(), strict=True):
        tensor.set_data_from_numpy(each, **how)
    return tensors


def outputs(wire: ModuleType, *names: str, **how: bool) -> list[Any]:
    return [wire.InferRequestedOutput(name, **how) for name in names]


def expect(sidecar: RunningDoor, tensor: np.ndarray[Any, Any], scale: str = "unit") -> None:
    assert (tensor.shape, tensor.dtype) == ((len(TEXTS), 1), np.float32)
    np.testing.assert_allclose(tensor[:, 0], getattr(sidecar, scale), atol=1e-6)


@pytest.fixture
def http(sidecar: RunningDoor) -> Iterator[Any]:
    with closing(tritonclient.http.InferenceServerClient(sidecar.url[7:])) as client:
        yield client


@pytest.fixture
def grpc(sidecar: RunningDoor) -> Iterator[Any]:
    with grpc_client(sidecar) as client:
        yield client


def grpc_client(sidecar: RunningDoor) -> AbstractContextManager[Any]:
    return closing(tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{sidecar.grpc_port}"))


def test_http_in_bytes_both_ways(sidecar: RunningDoor, http: Any) -> None:
    with sidecar.hears("kserve"):
        answer = http.infer("embedded", inputs(tritonclient.http), request_id="7")
    expect(sidecar, answer.as_numpy("score"))
    assert answer.get_response()["id"] == "7"
    assert answer.get_response()["model_name"] == "embedded"


def test_http_in_json_both_ways(sidecar: RunningDoor, http: Any) -> None:
    asked = inputs(tritonclient.http, binary_data=False)
    wanted = outputs(tritonclient.http, "score", "logit", binary_data=False)
    answer = http.infer("embedded", asked, outputs=wanted, model_version="1")
    expect(sidecar, answer.as_numpy("score"))
    expect(sidecar, answer.as_numpy("logit"), "logit")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_http_compressed(sidecar: RunningDoor, http: Any, algorithm: str) -> None:
    answer = http.infer(
        "embedded",
        inputs(tritonclient.http),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    expect(sidecar, answer.as_numpy("score"))


def test_http_at_once(sidecar: RunningDoor, http: Any) -> None:
    waiting = http.async_infer(
        "embedded", inputs(tritonclient.http), priority=1, timeout=30_000_000
    )
    expect(sidecar, waiting.get_result().as_numpy("score"))


async def test_http_async(sidecar: RunningDoor) -> None:
    async with tritonclient.http.aio.InferenceServerClient(sidecar.url[7:]) as client:
        with sidecar.hears("kserve"):
            answer = await client.infer("embedded", inputs(tritonclient.http))
        expect(sidecar, answer.as_numpy("score"))


def test_http_under_the_mount(sidecar: RunningDoor) -> None:
    url = f"{sidecar.url[7:]}/kserve"
    with closing(tritonclient.http.InferenceServerClient(url)) as client:
        expect(sidecar, client.infer("embedded", inputs(tritonclient.http)).as_numpy("score"))


def test_grpc(sidecar: RunningDoor, grpc: Any) -> None:
    wanted = outputs(tritonclient.grpc, "score", "logit", "index", "token_count")
    with sidecar.hears("grpc_kserve"):
        answer = grpc.infer(
            "embedded", inputs(tritonclient.grpc), outputs=wanted, request_id="7", priority=1
        )
    expect(sidecar, answer.as_numpy("score"))
    expect(sidecar, answer.as_numpy("logit"), "logit")
    assert answer.as_numpy("index")[:, 0].tolist() == list(range(len(TEXTS)))
    assert answer.as_numpy("token_count").shape == (len(TEXTS),)
    assert (answer.get_response().id, answer.get_response().model_name) == ("7", "embedded")


async def test_grpc_async(sidecar: RunningDoor) -> None:
    address = f"127.0.0.1:{sidecar.grpc_port}"
    async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
        with sidecar.hears("grpc_kserve"):
            answer = await client.infer("embedded", inputs(tritonclient.grpc))
        expect(sidecar, answer.as_numpy("score"))


def test_grpc_stream(sidecar: RunningDoor, grpc: Any) -> None:
    answers: list[Any] = []
    grpc.start_stream(lambda result, error: answers.append(error or result))
    for _ in range(2):
        grpc.async_stream_infer("embedded", inputs(tritonclient.grpc))
    grpc.stop_stream()
    assert len(answers) == 2
    for each in answers:
        expect(sidecar, each.as_numpy("score"))


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_what_a_server_tells(request: pytest.FixtureRequest, wire: str) -> None:
    client = request.getfixturevalue(wire)
    as_json = {"as_json": True} if wire == "grpc" else {}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("embedded")
    assert client.is_model_ready("embedded", "1")
    assert "binary_tensor_data" in client.get_server_metadata(**as_json)["extensions"]
    described = client.get_model_metadata("embedded", **as_json)
    assert [each["name"] for each in described["inputs"]] == ["query", "passage"]
    config = client.get_model_config("embedded", **as_json)
    assert (config["config"] if wire == "grpc" else config)["name"] == "embedded"


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_a_wrong_request(request: pytest.FixtureRequest, wire: str) -> None:
    client = request.getfixturevalue(wire)
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[wire]
    with pytest.raises(InferenceServerException, match="passage"):
        client.infer("embedded", inputs(module)[:1])


def test_http_keys(guarded: RunningDoor) -> None:
    with closing(tritonclient.http.InferenceServerClient(guarded.url[7:])) as client:
        asked = inputs(tritonclient.http)
        answer = client.infer("embedded", asked, headers={"Authorization": f"Bearer {KEY}"})
        expect(guarded, answer.as_numpy("score"))
        with (
            guarded.hears("kserve", outcome="UNAUTHENTICATED"),
            pytest.raises(InferenceServerException, match="token"),
        ):
            client.infer("embedded", asked, headers={"Authorization": f"Bearer {WRONG_KEY}"})
        assert client.is_server_ready()


def test_grpc_keys(guarded: RunningDoor) -> None:
    with grpc_client(guarded) as client:
        asked = inputs(tritonclient.grpc)
        answer = client.infer("embedded", asked, headers={"authorization": f"Bearer {KEY}"})
        expect(guarded, answer.as_numpy("score"))
        with pytest.raises(InferenceServerException, match="token") as caught:
            client.infer("embedded", asked, headers={"authorization": f"Bearer {WRONG_KEY}"})
        assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        assert client.is_server_live()


def test_http_statistics(http: Any) -> None:
    statistics = http.get_inference_statistics("embedded")
    assert [each["name"] for each in statistics["model_stats"]] == ["embedded"]


def test_its_messages_live_beside_ours_in_one_process() -> None:
    theirs = tritonclient.grpc.service_pb2.ModelInferRequest(model_name="m", id="7")
    ours = kserve_pb2.ModelInferRequest.FromString(theirs.SerializeToString())
    assert (ours.model_name, ours.id) == ("m", "7")
    assert ours.DESCRIPTOR.full_name == theirs.DESCRIPTOR.full_name
    assert ours.DESCRIPTOR.file.pool is not theirs.DESCRIPTOR.file.pool
