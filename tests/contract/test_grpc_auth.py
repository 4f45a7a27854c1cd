"""Tokens over gRPC: in metadata, for every service but health checks and reflection."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rerank_adapters import AsyncRerankClient, RerankCallError, RerankClient
from rerank_sidecar.api.grpc_server import SERVICE_NAME
from rerank_sidecar.v1 import rerank_pb2 as pb
from tests.contract.grpc_toy import Served, failure, more, refused, request, serving, start

TOKEN = "a-token"  # noqa: S105


@pytest.fixture
async def guarded() -> AsyncIterator[Served]:
    async with serving(auth_tokens=f"other,{TOKEN}") as served:
        yield served


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("authorization", f"Bearer {TOKEN}"),
        ("authorization", f"bearer {TOKEN}"),
        ("authorization", "Bearer other"),
        ("x-api-key", TOKEN),
    ],
)
async def test_a_token_is_taken_from_the_metadata(guarded: Served, key: str, value: str) -> None:
    answer = await guarded.stub.Rerank(request("1"), metadata=((key, value),))
    assert len(answer.results) == 1
    stream = guarded.stub.RerankStream(iter([start(), more("1")]), metadata=((key, value),))
    assert [message async for message in stream]


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer wrong"),),
        (("authorization", "Bearer "),),
        (("authorization", TOKEN),),
        (("api-key", TOKEN),),
        (("authorization-bin", f"Bearer {TOKEN}".encode()),),
    ],
)
async def test_without_a_token_every_call_is_refused(
    guarded: Served, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    stub = guarded.stub
    unary = await refused(stub.Rerank(request("1"), metadata=metadata))
    with pytest.raises(grpc.aio.AioRpcError) as listing:
        await stub.ListModels(pb.ListModelsRequest(), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as streaming:
        await stub.RerankStream(metadata=metadata).read()
    for failed in (unary, failure(listing.value), failure(streaming.value)):
        assert (failed.code, failed.info.reason) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "UNAUTHENTICATED",
        )
        assert TOKEN not in failed.message
    assert not guarded.toy.seen


@pytest.mark.parametrize(
    "method",
    [
        f"/{SERVICE_NAME}/Rerank",
        f"/{SERVICE_NAME}/NoSuchCall",
        "/no.such.Service/Call",
        "/tei.v1.Rerank/Rerank",
        "/tei.v1.Info/Info",
        "/inference.GRPCInferenceService/ModelInfer",
        "/rerank_sidecar.v1.AdminService/LoadModel",
        "/grpc.healthy/Check",
    ],
)
async def test_names_and_bytes_are_not_looked_at_before_the_token(
    guarded: Served, method: str
) -> None:
    raw: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = guarded.channel.unary_unary(method)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_and_reflection_are_open(guarded: Served) -> None:
    health = health_pb2_grpc.HealthStub(guarded.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async for listed in reflection.ServerReflectionInfo(iter([asked])):
        assert SERVICE_NAME in {each.name for each in listed.list_services_response.service}


@pytest.mark.parametrize("call", ["ServerLive", "ServerReady"])
async def test_kserves_probes_are_open(guarded: Served, call: str) -> None:
    raw: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = guarded.channel.unary_unary(
        f"/inference.GRPCInferenceService/{call}"
    )
    assert await raw(b"") == b"\x08\x01"  # its first field: true


async def test_both_clients_send_their_token(guarded: Served) -> None:
    async with AsyncRerankClient(guarded.target, token=TOKEN) as client:
        assert len((await client.rerank("q", ["1"])).results) == 1
        assert len(await client.models()) == 1
    async with AsyncRerankClient(guarded.target, token=f"{TOKEN}1") as client:
        with pytest.raises(RerankCallError) as caught:
            await client.models()
    assert caught.value.reason == "UNAUTHENTICATED"


async def test_the_blocking_client_sends_its_token(guarded: Served) -> None:
    with RerankClient(guarded.target, token=TOKEN) as client:
        assert len((await asyncio.to_thread(client.rerank, "q", ["1"])).results) == 1
        assert len(await asyncio.to_thread(client.models)) == 1


@pytest.mark.parametrize("client", [RerankClient, AsyncRerankClient])
@pytest.mark.parametrize("token", ["", "two words", "a-token\n", "tökén"])
def test_a_token_that_cannot_be_sent_is_not_shown(
    client: type[RerankClient] | type[AsyncRerankClient], token: str
) -> None:
    with pytest.raises(ValueError, match="token: must be visible ASCII") as caught:
        client(token=token)
    assert token not in str(caught.value) or not token
