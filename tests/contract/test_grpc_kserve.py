"""KServe v2 over gRPC on a real channel, over a toy: tensors, streams, metadata, refusals."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client import REGISTRY

from rerank_sidecar import __version__
from rerank_sidecar.errors import Overloaded
from rerank_sidecar.score_kinds import ScoreKind, to_unit
from rerank_sidecar.third_party import kserve_pb2 as kserve
from tests.contract.grpc_toy import Served, failure, happened, serving

_INPUT = kserve.ModelInferRequest.InferInputTensor
_OUTPUT = kserve.ModelInferRequest.InferRequestedOutputTensor


def method(served: Served, name: str) -> Callable[..., Any]:
    messages = kserve.DESCRIPTOR.message_types_by_name
    assert f"{name}Request" in messages
    return served.channel.unary_unary(
        f"/inference.GRPCInferenceService/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=getattr(kserve, f"{name}Response").FromString,
    )


def raw(texts: Sequence[str]) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def request(
    query: Sequence[str], passage: Sequence[str], *, is_raw: bool = True, **more: Any
) -> kserve.ModelInferRequest:
    message = kserve.ModelInferRequest(model_name="toy", **more)
    for name, texts in (("passage", passage), ("query", query)):
        tensor = message.inputs.add(name=name, datatype="BYTES", shape=[len(texts), 1])
        if is_raw:
            message.raw_input_contents.append(raw(texts))
        else:
            tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    return message


def unit(*scores: float) -> Any:
    return pytest.approx([to_unit(ScoreKind.MAXSIM, score, 1) for score in scores])


def numbers(response: kserve.ModelInferResponse) -> dict[str, list[float]]:
    types = {"FP32": "<f4", "INT32": "<i4"}
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {each.name: np.frombuffer(data, types[each.datatype]).tolist() for each, data in pairs}


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)


async def test_tensors_of_bytes_are_answered_by_bytes(served: Served) -> None:
    response = await method(served, "ModelInfer")(request(["q"] * 3, ["1", "-1", "0"], id="42"))
    assert (response.model_name, response.model_version, response.id) == ("toy", "7", "42")
    assert numbers(response) == {"score": unit(1, -1, 0)}
    assert response.outputs[0].shape == [3, 1]


async def test_typed_contents_are_answered_by_typed_contents(served: Served) -> None:
    outputs = [_OUTPUT(name="index"), _OUTPUT(name="score")]
    asked = request(["q"], ["1", "-1"], is_raw=False, outputs=outputs)
    index, score = (await method(served, "ModelInfer")(asked)).outputs
    assert list(index.contents.int_contents) == [0, 1]
    assert list(score.contents.fp32_contents) == unit(1, -1)


async def test_each_passage_may_have_a_query_of_its_own(served: Served) -> None:
    outputs = [_OUTPUT(name="logit"), _OUTPUT(name="score")]
    asked = request(["a", "b", "a"], ["1", "-1", "0"], outputs=outputs)
    response = await method(served, "ModelInfer")(asked)
    assert numbers(response) == {"logit": [1, -1, 0], "score": unit(1, -1, 0)}
    assert len(served.toy.seen) == 2


async def test_parameters_of_all_integer_kinds_are_read(served: Served) -> None:
    asked = request(["q"], ["1"])
    asked.parameters["priority"].uint64_param = 1
    asked.parameters["timeout"].int64_param = 10_000_000
    asked.parameters["truncate"].string_param = "end"
    asked.parameters["sequence_start"].bool_param = True
    asked.parameters["not_set"].SetInParent()
    await method(served, "ModelInfer")(asked)
    [options] = served.toy.seen
    assert options.priority == 1


async def test_the_timeout_of_a_request_ends_its_work(served: Served) -> None:
    asked = request(["q"], ["wait"])
    asked.parameters["timeout"].int64_param = 20_000
    failed = await refusal(method(served, "ModelInfer")(asked))
    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await happened(served.toy.ended)


async def test_a_passage_that_fails_alone_is_named() -> None:
    async with serving(max_document_bytes=10) as served:
        asked = request(["a", "b", "b"], ["1", "0" * 11, "-1"])
        response = await method(served, "ModelInfer")(asked)
        assert numbers(response) == {"score": [1, 0, 0]}
        named = response.parameters["failed_documents"].string_param
        assert named == "1;reason=LIMIT_EXCEEDED"
        asked.parameters["truncate"].string_param = "NONE"
        failed = await refusal(method(served, "ModelInfer")(asked))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "passage[1]")


def broken(**fields: Any) -> kserve.ModelInferRequest:
    message = request(["q"], ["1"])
    message.inputs[0].MergeFrom(_INPUT(**fields))
    return message


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (kserve.ModelInferRequest(), "inputs"),
        (broken(name="text"), "inputs[0].name"),
        (broken(datatype="INT64"), "inputs[0].datatype"),
        (broken(shape=[1]), "inputs[0].shape"),
        (kserve.ModelInferRequest(raw_input_contents=[b""]), "raw_input_contents"),
        (request(["a", "b"], ["1", "1", "1"]), "inputs[1].shape"),
        (request(["q"], ["1"], outputs=[_OUTPUT(name="nope")]), "outputs[0].name"),
    ],
)
async def test_a_wrong_field_is_named(
    served: Served, message: kserve.ModelInferRequest, field: str
) -> None:
    failed = await refusal(method(served, "ModelInfer")(message))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert failed.message.startswith(field)


@pytest.mark.parametrize("is_raw", [True, False])
async def test_texts_that_are_not_utf_8_are_refused(served: Served, is_raw: bool) -> None:
    message = request(["q"], ["1"], is_raw=is_raw)
    if is_raw:
        message.raw_input_contents[0] = b"\x01\0\0\0\xff"
    else:
        message.inputs[0].contents.bytes_contents[0] = b"\xff"
    failed = await refusal(method(served, "ModelInfer")(message))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "inputs[0]")


async def test_an_unknown_model_is_not_found() -> None:
    async with serving(unknown_model="error") as served:
        message = request(["q"], ["1"])
        message.model_name = "nope"
        failed = await refusal(method(served, "ModelInfer")(message))
        assert failed.code is grpc.StatusCode.NOT_FOUND
        ready = await method(served, "ModelReady")(kserve.ModelReadyRequest(name="nope"))
        assert not ready.ready


async def test_overload_is_told_with_a_time_to_come_again() -> None:
    async with serving(error=Overloaded("too much", retry_after_s=2)) as served:
        failed = await refusal(method(served, "ModelInfer")(request(["q"], ["1"])))
    assert (failed.code, failed.retry_after_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 2)


# Streams


def stream(served: Served) -> Callable[..., Any]:
    return served.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=kserve.ModelInferRequest.SerializeToString,
        response_deserializer=kserve.ModelStreamInferResponse.FromString,
    )


async def test_a_request_of_a_stream_that_fails_does_not_end_it(served: Served) -> None:
    bad = request(["a", "b"], ["1", "1", "1"], id="bad")
    messages = [
        request(["q"], ["1"], id="1"),
        bad,
        request(["q"], ["crash"]),
        request(["q"], ["0"]),
    ]
    first, second, third, last = [each async for each in stream(served)(iter(messages))]
    assert (first.error_message, first.infer_response.id) == ("", "1")
    assert numbers(first.infer_response) == {"score": unit(1)}
    assert second.error_message.startswith("inputs[1].shape: ")
    assert (second.infer_response.id, len(second.infer_response.outputs)) == ("bad", 0)
    assert "crash" not in third.error_message
    assert third.error_message.startswith("internal error")
    assert numbers(last.infer_response) == {"score": unit(0)}


async def test_a_stream_answers_before_it_ends(served: Served) -> None:
    call = stream(served)()
    await call.write(request(["q"], ["1"]))
    assert numbers((await call.read()).infer_response) == {"score": unit(1)}
    await call.write(request(["q"], ["-1"]))
    assert numbers((await call.read()).infer_response) == {"score": unit(-1)}
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_bytes_that_are_no_message_end_a_stream(served: Served) -> None:
    call: Any = served.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [each async for each in call(iter([b"\xff\xff"]))]
    assert failure(caught.value).info.reason == "MALFORMED_BODY"


async def test_requests_of_a_stream_are_counted(served: Served) -> None:
    def count(outcome: str) -> float:
        labels = {"door": "grpc_kserve", "outcome": outcome}
        return REGISTRY.get_sample_value("rerank_sidecar_requests_total", labels) or 0.0

    before = count("OK"), count("INVALID_FIELD")
    messages = [request(["q"], ["1"]), request([], ["1"]), request(["q"], ["1"])]
    _ = [each async for each in stream(served)(iter(messages))]
    assert (count("OK"), count("INVALID_FIELD")) == (before[0] + 2, before[1] + 1)


# What is asked of a server


async def test_a_server_describes_itself_and_its_models(served: Served) -> None:
    assert (await method(served, "ServerLive")(kserve.ServerLiveRequest())).live
    assert (await method(served, "ServerReady")(kserve.ServerReadyRequest())).ready
    server = await method(served, "ServerMetadata")(kserve.ServerMetadataRequest())
    assert server.version == __version__
    assert (await method(served, "ModelReady")(kserve.ModelReadyRequest(name="toy"))).ready
    metadata = await method(served, "ModelMetadata")(kserve.ModelMetadataRequest(name="toy"))
    assert (metadata.name, metadata.versions) == ("toy", ["7"])
    assert [each.name for each in metadata.inputs] == ["query", "passage"]
    names = [each.name for each in metadata.outputs]
    assert names == ["score", "logit", "index", "token_count"]
    asked = kserve.ModelConfigRequest(name="toy", version="1")
    config = (await method(served, "ModelConfig")(asked)).config
    assert (config.name, config.max_batch_size) == ("toy", 10_000)
    assert [each.name for each in config.output] == names
    assert config.output[0].data_type == kserve.TYPE_FP32


async def test_before_it_is_ready_a_server_is_alive_and_says_so() -> None:
    async with serving(is_ready=False) as served:
        assert (await method(served, "ServerLive")(kserve.ServerLiveRequest())).live
        assert not (await method(served, "ServerReady")(kserve.ServerReadyRequest())).ready
        assert not (await method(served, "ModelReady")(kserve.ModelReadyRequest())).ready
        failed = await refusal(method(served, "ModelInfer")(request(["q"], ["1"])))
        assert failed.code is grpc.StatusCode.UNAVAILABLE


SERVICES = ("inference.GRPCInferenceService", "tei.v1.Rerank", "tei.v1.Info")


async def test_health_knows_every_service(served: Served) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)
    for name in SERVICES:
        told = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert told.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_describes_every_service(served: Served) -> None:
    def look() -> dict[str, list[str]]:
        with grpc.insecure_channel(served.target) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert set(SERVICES) <= set(database.get_services())
            files = [database.FindFileContainingSymbol(name) for name in SERVICES]
        return {
            f"{file.package}.{service.name}": [each.name for each in service.method]
            for file in files
            for service in file.service
        }

    found = await asyncio.to_thread(look)
    assert "RerankStream" in found["tei.v1.Rerank"]
    assert "ModelInfer" in found["inference.GRPCInferenceService"]


async def test_tokens_are_asked_for_here_too() -> None:
    async with serving(auth_tokens="a-token") as served:
        infer = method(served, "ModelInfer")
        failed = await refusal(infer(request(["q"], ["1"])))
        assert failed.code is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream(served)(iter([request(["q"], ["1"])])).read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", "Bearer a-token"),)
        assert (await infer(request(["q"], ["1"]), metadata=metadata)).outputs
        call = stream(served)(iter([request(["q"], ["1"])]), metadata=metadata)
        assert [each.error_message async for each in call] == [""]


async def test_the_door_can_be_switched_off() -> None:
    async with serving(disabled_doors=("kserve",)) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(served, "ServerLive")(kserve.ServerLiveRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_may_carry_nothing(served: Served) -> None:
    async def nothing() -> AsyncIterator[kserve.ModelInferRequest]:
        return
        yield

    assert [each async for each in stream(served)(nothing())] == []
