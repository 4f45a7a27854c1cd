"""AdminService over gRPC: off unless wanted, behind the tokens, and it drops no request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.engine.administration import Administration
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.repository import ModelRepository
from rerank_sidecar.errors import ModelUnavailable
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import Settings, read_settings
from rerank_sidecar.v1 import admin_pb2 as admin
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.admin_pb2_grpc import AdminServiceStub
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub
from tests.contract.grpc_toy import WAIT_S, Failure, failure, happened, request
from tests.unit.engine.shelf import WAITS, Shelf

if TYPE_CHECKING:
    from rerank_sidecar.v1.admin_pb2_grpc import AdminServiceAsyncStub
    from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceAsyncStub

TABLES = [
    {"name": "a", "source": "a", "aliases": ["rerank-*"]},
    {"name": "b", "source": "b", "load": "lazy"},
]


@dataclass
class Administered:
    """A running server over a shelf of toys, and channels to its services."""

    shelf: Shelf
    engine: Engine
    administration: Administration
    repository: ModelRepository
    channel: grpc.aio.Channel

    @property
    def stub(self) -> "AdminServiceAsyncStub":
        return cast("AdminServiceAsyncStub", AdminServiceStub(self.channel))

    @property
    def rerank(self) -> "RerankServiceAsyncStub":
        return cast("RerankServiceAsyncStub", RerankServiceStub(self.channel))

    async def make_ready(self) -> None:
        await self.repository.apply(self.engine.settings)
        self.engine.open(self.repository.registry)
        self.administration.open(self.repository)

    async def load(self, name: str) -> admin.LoadModelResponse:
        return await self.stub.LoadModel(admin.LoadModelRequest(name=name))

    async def unload(self, name: str) -> admin.UnloadModelResponse:
        return await self.stub.UnloadModel(admin.UnloadModelRequest(name=name))

    async def ask(self, text: str, model: str) -> pb.RerankResponse:
        asked = request(text, options=pb.RerankOptions(model=model))
        return await self.rerank.Rerank(asked, timeout=WAIT_S)


@asynccontextmanager
async def starting(settings: Settings) -> AsyncIterator[Administered]:
    engine, administration = Engine(settings), Administration(settings)
    server = GrpcServer(engine, settings, administration=administration)
    shelf = Shelf()
    repository = ModelRepository(shelf.load, LexicalReranker())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start()}") as channel:
        try:
            yield Administered(shelf, engine, administration, repository, channel)
        finally:
            await server.stop(0)
            await repository.close()


@asynccontextmanager
async def ready(**settings: Any) -> AsyncIterator[Administered]:
    given = {"admin": True, "models": TABLES, **settings}
    async with starting(read_settings(None, grpc_port=0, **given)) as server:
        await server.make_ready()
        yield server


async def refused(call: Any) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)


async def test_load_replaces_and_unload_frees() -> None:
    async with ready() as server:
        model = (await server.load("a")).model
        assert (model.model.name, model.model.version, list(model.aliases)) == (
            "a",
            "2",
            ["rerank-*"],
        )
        assert model.is_default
        assert model.is_loaded
        assert (await server.load("b")).model.is_loaded
        await server.unload("b")
        assert server.shelf.open("b") == []
        assert server.shelf.open("a") == [2]


async def test_errors_of_an_operator_are_told_in_full() -> None:
    async with ready() as server:
        unknown = await refused(server.unload("nobody"))
        assert unknown.code is grpc.StatusCode.NOT_FOUND
        assert unknown.field == "name"
        assert "there are a, b, lexical" in unknown.message
        server.shelf.faults["b"] = ModelUnavailable("model folder b does not exist")
        broken = await refused(server.load("b"))
        assert broken.code is grpc.StatusCode.FAILED_PRECONDITION
        assert broken.info.reason == "MODEL_UNAVAILABLE"
        assert broken.message == "model folder b does not exist"
        fixed = await refused(server.unload("lexical"))
        assert fixed.info.reason == "NOT_SUPPORTED_BY_MODEL"


async def test_a_starting_server_says_so() -> None:
    async with starting(read_settings(None, grpc_port=0, admin=True, models=TABLES)) as server:
        assert (await refused(server.load("a"))).info.reason == "NOT_READY"


async def test_it_is_off_by_default() -> None:
    async with ready(admin=False) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.load("a")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "rerank_sidecar.v1.AdminService" not in await services_of(server)


async def test_it_is_told_by_reflection_and_health() -> None:
    async with ready() as server:
        assert "rerank_sidecar.v1.AdminService" in await services_of(server)
        health = health_pb2_grpc.HealthStub(server.channel)
        asked = health_pb2.HealthCheckRequest(service="rerank_sidecar.v1.AdminService")
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def services_of(server: Administered) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    [answer] = [each async for each in stub.ServerReflectionInfo(iter([asked]))]
    return {each.name for each in answer.list_services_response.service}


async def test_it_wants_the_token_that_all_calls_want() -> None:
    async with ready(auth_tokens="secret") as server:
        assert (await refused(server.load("a"))).code is grpc.StatusCode.UNAUTHENTICATED
        loaded = await server.stub.LoadModel(
            admin.LoadModelRequest(name="a"), metadata=(("authorization", "Bearer secret"),)
        )
        assert loaded.model.model.version == "2"


async def test_reading_the_file_again(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.toml"
    file.write_text('[[models]]\nname = "a"\nsource = "a"\n')
    settings = read_settings(file, admin=True, grpc_port=0)
    async with starting(settings) as server:
        await server.make_ready()
        file.write_text('http_port = 1\n[[models]]\nname = "c"\nsource = "c"\n')
        told = await server.stub.ReloadConfig(admin.ReloadConfigRequest())
        assert (list(told.added), list(told.removed), list(told.changed)) == (["c"], ["a"], [])
        assert list(told.needs_restart) == ["http_port"]
        file.write_text("[[")
        broken = await refused(server.stub.ReloadConfig(admin.ReloadConfigRequest()))
        assert broken.info.reason == "INVALID_SETTING"
        assert "cannot be read" in broken.message


async def test_a_request_that_runs_is_answered_by_the_model_that_it_found() -> None:
    async with ready() as server:
        [model] = server.shelf.models["a"]
        waiting = asyncio.create_task(server.ask(WAITS, model="rerank-english"))
        await happened(model.waiting)
        await server.load("a")
        unloading = asyncio.create_task(server.unload("a"))
        while server.engine.models()[0].is_loaded:
            await server.rerank.ListModels(pb.ListModelsRequest())
        assert (await server.ask("text", model="b")).summary.model.name == "b"
        gone = await refused(server.ask("text", model="a"))
        assert (gone.code, gone.info.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
        assert server.shelf.open("a") == [1]
        assert not unloading.done()
        server.shelf.released.set()
        assert (await waiting).summary.model.version == "1"
        await unloading
        models = (await server.rerank.ListModels(pb.ListModelsRequest())).models
        assert [(each.model.name, each.is_loaded) for each in models] == [
            ("a", False),
            ("b", True),
            ("lexical", True),
        ]
