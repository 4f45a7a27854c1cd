"""What the components for all frameworks answer, over a real sidecar."""

import copy
import math
from collections.abc import Iterator

import pytest

from rerank_adapters import (
    AsyncRerankClient,
    RerankClient,
    WeightedSum,
)
from rerank_adapters.lost_in_the_middle import lost_in_the_middle
from rerank_sidecar.in_process import InProcessRerankClient
from rerank_sidecar.settings import read_settings
from tests.contract.conftest import Running
from tests.contract.grpc_toy import serving
from tests.integration.frameworks import (
    NOBODY,
    NUMBERS,
    QUERY,
    TEXTS,
    Framework,
    assert_same,
    both_ways,
    closed,
    every_framework,
    store_score,
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


@pytest.fixture(scope="module")
def twin() -> Iterator[InProcessRerankClient]:
    with InProcessRerankClient(read_settings(model="embedded")) as client:
        yield client


@both_ways
async def test_rows_come_back_best_first_with_the_models_scores(
    framework: Framework, is_async: bool, target: str, expected: list[tuple[str, float]]
) -> None:
    rows = framework.rows(TEXTS)
    before = copy.deepcopy(rows)
    found = await framework.ask(is_async, framework.make(target=target), rows)
    assert_same(framework, found, expected)
    assert found[0] is not rows[TEXTS.index(expected[0][0])]
    assert [framework.error(row) for row in found] == [None] * len(TEXTS)
    assert rows == before, "the caller's rows were changed"


@both_ways
async def test_the_http_door_answers_the_same(
    framework: Framework, is_async: bool, sidecar: Running, expected: list[tuple[str, float]]
) -> None:
    component = framework.make(target=f"http://127.0.0.1:{sidecar.http_port}")
    found = await framework.ask(is_async, component, framework.rows(TEXTS))
    assert_same(framework, found, expected)
    await closed(component)


@both_ways
async def test_a_given_client_is_asked(
    framework: Framework, is_async: bool, target: str, expected: list[tuple[str, float]]
) -> None:
    with RerankClient(target) as blocking:
        async with AsyncRerankClient(target) as waiting:
            component = framework.make(sidecar=blocking, async_sidecar=waiting)
            found = await framework.ask(is_async, component, framework.rows(TEXTS))
    assert_same(framework, found, expected)


@both_ways
async def test_the_twin_in_this_process_is_asked_both_ways(
    framework: Framework,
    is_async: bool,
    twin: InProcessRerankClient,
    expected: list[tuple[str, float]],
) -> None:
    component = framework.make(sidecar=twin)
    found = await framework.ask(is_async, component, framework.rows(TEXTS))
    assert_same(framework, found, expected)


@both_ways
async def test_top_n_is_how_many_come_back(
    framework: Framework, is_async: bool, target: str, expected: list[tuple[str, float]]
) -> None:
    component = framework.make(target=target, top_n=2)
    found = await framework.ask(is_async, component, framework.rows(TEXTS))
    assert_same(framework, found, expected[:2])


@both_ways
async def test_for_a_prompt_the_best_are_first_and_last(
    framework: Framework, is_async: bool, target: str, expected: list[tuple[str, float]]
) -> None:
    component = framework.make(target=target, top_n=3, lost_in_the_middle=True)
    found = await framework.ask(is_async, component, framework.rows(TEXTS))
    assert_same(framework, found, lost_in_the_middle(expected[:3]))
    assert framework.text(found[-1]) == expected[1][0]


@both_ways
async def test_ties_stay_in_the_order_of_the_store(framework: Framework, is_async: bool) -> None:
    async with serving() as server:
        component = framework.make(target=server.target)
        found = await framework.ask(is_async, component, framework.rows(("2", "1", "2", "2")))
        await closed(component)
    ids = [str(getattr(row, "id", None) or row.node.node_id) for row in found]
    assert ids == ["0", "2", "3", "1"]


@both_ways
async def test_reciprocal_ranks_let_the_stores_order_count(
    framework: Framework, is_async: bool
) -> None:
    async with serving() as server:
        component = framework.make(target=server.target, fuse="reciprocal_rank")
        found = await framework.ask(is_async, component, framework.rows(NUMBERS))
        await closed(component)
    ranks = ((1, 4), (2, 1), (3, 3), (4, 2))  # in the store's order, in the model's
    sums = [1 / (60 + store) + 1 / (60 + model) for store, model in ranks]
    order = sorted(range(4), key=lambda index: -sums[index])
    assert framework.texts(found) == [NUMBERS[index] for index in order]
    assert [framework.score(row) for row in found] == pytest.approx([sums[at] for at in order])


@both_ways
async def test_weighted_sums_use_the_stores_scores(
    framework: Framework, is_async: bool, target: str
) -> None:
    with RerankClient(target) as client:
        results = client.rerank(QUERY, TEXTS, normalization="unit").results
    model_scores = {each.index: each.score or math.nan for each in results}
    sums = [0.25 * model_scores[at] + 0.75 * store_score(at) for at in range(len(TEXTS))]
    component = framework.make(target=target, fuse=WeightedSum(0.25, "unit"))
    found = await framework.ask(is_async, component, framework.rows(TEXTS))
    order = sorted(range(len(TEXTS)), key=lambda index: -sums[index])
    assert framework.texts(found) == [TEXTS[index] for index in order]
    assert [framework.score(row) for row in found] == pytest.approx([sums[at] for at in order])


@both_ways
async def test_without_rows_nobody_is_asked(framework: Framework, is_async: bool) -> None:
    component = framework.make(target=NOBODY)
    assert await framework.ask(is_async, component, []) == []


@both_ways
async def test_two_thousand_rows(framework: Framework, is_async: bool) -> None:
    texts = [str(number) for number in range(2000)]
    async with serving(max_documents=1000) as server:
        component = framework.make(target=server.target, top_n=10)
        found = await framework.ask(is_async, component, framework.rows(texts))
        await closed(component)
    assert framework.texts(found) == texts[:-11:-1]
