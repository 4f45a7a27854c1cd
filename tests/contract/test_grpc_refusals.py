"""What gRPC refuses and how it says so; health, reflection and shutdown, on a real channel."""

import asyncio
import logging
from typing import TYPE_CHECKING, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client import REGISTRY

from rerank_sidecar.api.grpc_server import SERVICE_NAME, GrpcServer
from rerank_sidecar.errors import Overloaded
from rerank_sidecar.settings import Settings
from rerank_sidecar.v1 import rerank_pb2 as pb

if TYPE_CHECKING:
    pass

from tests.contract.grpc_toy import (
    REQUEST_TEXT,
    WAIT_S,
    Served,
    failure,
    happened,
    more,
    refused,
    request,
    serving,
    start,
    stream_refused,
)

# Errors


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (pb.RerankOptions(normalization=99), "options.normalization"),  # type: ignore[arg-type]
        (pb.RerankOptions(long_document_policy=99), "options.long_document_policy"),  # type: ignore[arg-type]
        (pb.RerankOptions(truncation=pb.Truncation(side=99)), "options.truncation.side"),  # type: ignore[arg-type]
        (
            pb.RerankOptions(truncation=pb.Truncation(max_tokens_per_document=0)),
            "options.truncation.max_tokens_per_document",
        ),
        (pb.RerankOptions(score_threshold=float("nan")), "options.score_threshold"),
    ],
)
async def test_a_wrong_option_is_named(
    served: Served, options: pb.RerankOptions, field: str
) -> None:
    failed = await refused(served.stub.Rerank(request("1", options=options)))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert (failed.info.reason, failed.info.domain) == ("INVALID_FIELD", "rerank-sidecar")


async def test_an_unknown_model_is_not_found() -> None:
    options = pb.RerankOptions(model="nosuch" * 5_000)
    async with serving(unknown_model="error") as served:
        failed = await refused(served.stub.Rerank(request("1", options=options)))
    assert (failed.code, failed.field) == (grpc.StatusCode.NOT_FOUND, "options.model")
    assert failed.info.reason == "MODEL_NOT_FOUND"


async def test_a_server_that_is_not_ready_says_when_to_come_back() -> None:
    async with serving(is_ready=False) as served:
        failed = await refused(served.stub.Rerank(request("1")))
        with pytest.raises(grpc.aio.AioRpcError) as listing:
            await served.stub.ListModels(pb.ListModelsRequest())
        assert (await stream_refused(served, start())).info.reason == "NOT_READY"
    assert failed.code is listing.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failed.info.reason == "NOT_READY"
    assert failed.retry_after_s is not None
    assert "grpc-retry-pushback-ms" not in failed.metadata


async def test_a_draining_server_says_so(served: Served) -> None:
    await served.engine.drain(0)
    failed = await refused(served.stub.Rerank(request("1")))
    assert (failed.code, failed.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_overload_pushes_back() -> None:
    async with serving(error=Overloaded("the queue is full", retry_after_s=2.5)) as served:
        failed = await refused(served.stub.Rerank(request("1")))
    assert (failed.code, failed.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert failed.retry_after_s == 2.5
    assert failed.metadata["grpc-retry-pushback-ms"] == "2500"


async def test_a_surprise_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(error=ValueError(REQUEST_TEXT)) as served:
        with caplog.at_level(logging.DEBUG):
            unary = await refused(served.stub.Rerank(request("1")))
            stream = await stream_refused(served, start(), more("1"))
    for failed in (unary, stream):
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert REQUEST_TEXT not in failed.message
    assert "ValueError" in caplog.text
    assert REQUEST_TEXT not in caplog.text


async def test_a_surprise_in_the_door_is_told_without_its_text_too(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ValueError(REQUEST_TEXT)

    monkeypatch.setattr(served.engine, "models", broken)
    with caplog.at_level(logging.DEBUG), pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ListModels(pb.ListModelsRequest())
    assert failure(caught.value).info.reason == "INTERNAL"
    assert REQUEST_TEXT not in f"{caught.value} {caplog.text}"
    assert "ValueError" in caplog.text
    assert "in broken" in caplog.text


async def test_bytes_that_are_no_message_fail_alone(served: Served) -> None:
    invalid_utf8_in_query = b"\x0a\x01\xff"
    raw: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary(
        f"/{SERVICE_NAME}/Rerank"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(invalid_utf8_in_query)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure(caught.value).info.reason == "MALFORMED_BODY"
    assert (await served.stub.Rerank(request("1"))).results


async def test_bytes_that_are_no_message_end_their_stream(served: Served) -> None:
    raw: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = served.channel.stream_stream(
        f"/{SERVICE_NAME}/RerankStream"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in raw(iter([b"\xff\xff\xff"])):
            pass
    assert failure(caught.value).info.reason == "MALFORMED_BODY"


async def test_calls_are_counted_by_outcome(served: Served) -> None:
    def counted(outcome: str) -> float:
        labels = {"door": "grpc", "outcome": outcome}
        return REGISTRY.get_sample_value("rerank_sidecar_requests_total", labels) or 0.0

    before = counted("OK"), counted("INVALID_FIELD"), counted("CANCELLED")
    await served.stub.Rerank(request("1"))
    await refused(served.stub.Rerank(request("1", options=pb.RerankOptions(top_n=0))))
    served.toy.began.clear()
    call = served.stub.Rerank(request("wait"))
    await happened(served.toy.began)
    served.toy.ended.clear()
    call.cancel()
    await happened(served.toy.ended)
    await served.stub.Rerank(request("1"))
    now = counted("OK"), counted("INVALID_FIELD"), counted("CANCELLED")
    assert now == (before[0] + 2, before[1] + 1, before[2] + 1)


# The server around the service


async def health_of(served: Served, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(served.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return cast("int", response.status)


@pytest.mark.parametrize("service", ["", SERVICE_NAME])
async def test_health_follows_the_server(service: str) -> None:
    statuses = health_pb2.HealthCheckResponse
    async with serving(is_ready=False) as served:
        assert await health_of(served, service) == statuses.NOT_SERVING
        watch = health_pb2_grpc.HealthStub(served.channel).Watch(
            health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S
        )
        seen = [(await watch.read()).status]
        await served.server.set_serving(True)
        assert await health_of(served, service) == statuses.SERVING
        seen.append((await watch.read()).status)
        stopping = asyncio.create_task(served.server.stop(WAIT_S))
        seen.append((await watch.read()).status)
        watch.cancel()
        await stopping
    assert seen == [statuses.NOT_SERVING, statuses.SERVING, statuses.NOT_SERVING]


async def test_reflection_describes_the_contract(served: Served) -> None:
    def described() -> tuple[set[str], str]:
        with grpc.insecure_channel(served.target) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol(SERVICE_NAME)
            return set(database.get_services()), file.name

    services, file = await asyncio.to_thread(described)
    assert {SERVICE_NAME, "grpc.health.v1.Health"} <= services
    assert file == "rerank_sidecar/v1/rerank.proto"


async def test_stopping_lets_running_calls_finish_and_takes_no_new_ones(served: Served) -> None:
    running = served.stub.Rerank(request("wait"))
    await happened(served.toy.began)
    stopping = asyncio.create_task(served.server.stop(WAIT_S))
    await asyncio.sleep(0.1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Rerank(request("1"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    served.toy.release.set()
    assert (await running).results[0].score.value == 1.0
    await stopping


async def test_stopping_ends_calls_that_outlast_the_grace(served: Served) -> None:
    running = served.stub.Rerank(request("wait"))
    await happened(served.toy.began)
    await served.server.stop(0.1)
    with pytest.raises(grpc.aio.AioRpcError):
        await running
    await happened(served.toy.ended)


async def test_a_taken_port_is_an_error(served: Served) -> None:
    settings = Settings.model_validate({"grpc_port": int(served.target.rpartition(":")[2])})
    second = GrpcServer(served.engine, settings)
    with pytest.raises(RuntimeError, match="bind"):
        await second.start()
    await second.stop(0)
