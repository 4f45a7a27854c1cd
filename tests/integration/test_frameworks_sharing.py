"""Components for all frameworks that threads, tasks, event loops and copies share."""

import asyncio
import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from rerank_adapters import (
    RerankClient,
)
from tests.contract.conftest import Running
from tests.contract.grpc_toy import happened, serving
from tests.integration.frameworks import (
    QUERY,
    TEXTS,
    Framework,
    assert_same,
    both_ways,
    closed,
    every_framework,
)

pytestmark = [every_framework]


@pytest.fixture
def target(sidecar: Running) -> str:
    return f"127.0.0.1:{sidecar.grpc_port}"


@pytest.fixture(scope="module")
def expected(sidecar: Running) -> list[tuple[str, float]]:
    """Texts and scores as the client gives them."""
    with RerankClient(f"127.0.0.1:{sidecar.grpc_port}") as client:
        results = client.rerank(QUERY, TEXTS).results
    return [(TEXTS[each.index], each.score or math.nan) for each in results]


def test_threads_share_a_component(
    framework: Framework, target: str, expected: list[tuple[str, float]]
) -> None:
    component, rows = framework.make(target=target), framework.rows(TEXTS)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(framework.run, component, rows, QUERY) for _ in range(40)]
    for each in asked:
        assert_same(framework, each.result(), expected)
    component.close()


async def test_tasks_share_a_component(
    framework: Framework, target: str, expected: list[tuple[str, float]]
) -> None:
    component, rows = framework.make(target=target), framework.rows(TEXTS)
    asked = (framework.arun(component, rows, QUERY) for _ in range(40))
    for each in await asyncio.gather(*asked):
        assert_same(framework, each, expected)
    await closed(component)


async def test_cancelling_one_call_ends_it_on_the_server_and_no_other(
    framework: Framework,
) -> None:
    async with serving() as server:
        component = framework.make(target=server.target)
        waiting = asyncio.create_task(framework.arun(component, framework.rows(["wait"]), QUERY))
        await happened(server.toy.began)
        waiting.cancel()
        await happened(server.toy.ended)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        found = await framework.arun(component, framework.rows(["1", "2"]), QUERY)
        await closed(component)
    assert framework.texts(found) == ["2", "1"]


def test_event_loops_share_a_component(
    framework: Framework, target: str, expected: list[tuple[str, float]]
) -> None:
    component, rows = framework.make(target=target), framework.rows(TEXTS)
    for _ in range(3):
        found = asyncio.run(framework.arun(component, rows, QUERY))
        assert_same(framework, found, expected)
    asyncio.run(closed(component))


@both_ways
async def test_a_closed_component_opens_again(
    framework: Framework, is_async: bool, target: str, expected: list[tuple[str, float]]
) -> None:
    component, rows = framework.make(target=target), framework.rows(TEXTS)
    for _ in range(2):
        assert_same(framework, await framework.ask(is_async, component, rows), expected)
        await closed(component)


async def test_closing_leaves_a_given_client_open(framework: Framework, target: str) -> None:
    with RerankClient(target) as client:
        component = framework.make(sidecar=client)
        await closed(component)
        assert client.rerank(QUERY, TEXTS).results


def test_a_copy_has_clients_of_its_own(
    framework: Framework, target: str, expected: list[tuple[str, float]]
) -> None:
    component, rows = framework.make(target=target), framework.rows(TEXTS)
    assert_same(framework, framework.run(component, rows, QUERY), expected)
    other = copy.deepcopy(component)
    component.close()
    assert_same(framework, framework.run(other, rows, QUERY), expected)
    other.close()
