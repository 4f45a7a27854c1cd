"""Fixtures of a stand-in that is wired to the session's sidecar, and of applications on it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from examples.labelled_set import vector
from tests.contract.conftest import Running as Sidecar
from tests.integration.weaviate_app import Application, Server, application, labelled
from tests.integration.weaviate_stand_in import Running, modules_for, weaviate_stand_in


def server_of(running: Running, http_port: int, grpc_port: int) -> Server:
    url = f"http://127.0.0.1:{http_port}"
    return Server(running.connect, running.connect_async, url, f"127.0.0.1:{grpc_port}", url)


@pytest.fixture(scope="module")
def running(sidecar: Sidecar) -> Iterator[Running]:
    with weaviate_stand_in(*modules_for(sidecar.http_port), vectorize=vector) as running:
        yield running


@pytest.fixture(scope="module")
def server(running: Running, sidecar: Sidecar) -> Server:
    return server_of(running, sidecar.http_port, sidecar.grpc_port)


@pytest.fixture
async def by_module(server: Server) -> AsyncIterator[Application]:
    async with application(server, labelled()) as app:
        yield app


@pytest.fixture
async def by_sidecar(server: Server) -> AsyncIterator[Application]:
    async with application(server, labelled(), by_sidecar=True) as app:
        yield app
