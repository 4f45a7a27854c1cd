"""What the components for all frameworks do when a call fails, or cannot be made."""

import asyncio
import logging
import math
import os
import subprocess
import sys
from typing import Any

import pytest
from haystack.utils import Secret

from rerank_adapters import (
    AsyncRerankClient,
    ModelNotFound,
    RerankClient,
    Unauthenticated,
    Unavailable,
    WeightedSum,
)
from rerank_adapters.lost_in_the_middle import lost_in_the_middle
from tests.contract.conftest import Running
from tests.contract.grpc_toy import happened, serving
from tests.contract.running import running_sidecar
from tests.integration.frameworks import (
    HAYSTACK,
    NOBODY,
    NUMBERS,
    QUERY,
    TEXTS,
    Framework,
    assert_same,
    both_ways,
    closed,
    every_framework,
)

pytestmark = [every_framework]

TOKEN = "a-token"  # noqa: S105


@pytest.fixture
def target(sidecar: Running) -> str:
    return f"127.0.0.1:{sidecar.grpc_port}"


@pytest.fixture(scope="module")
def expected(sidecar: Running) -> list[tuple[str, float]]:
    """Texts and scores as the client gives them."""
    with RerankClient(f"127.0.0.1:{sidecar.grpc_port}") as client:
        results = client.rerank(QUERY, TEXTS).results
    return [(TEXTS[each.index], each.score or math.nan) for each in results]


async def ended_in_mid_query(framework: Framework, is_async: bool, on_error: str) -> list[Any]:
    """Ask for what is never scored, and end the server when it has begun."""
    async with serving() as server:
        component = framework.make(target=server.target, top_n=2, on_error=on_error, timeout_s=20.0)
        rows = framework.rows(("1", "wait", "3"))
        asked = asyncio.create_task(framework.ask(is_async, component, rows))
        await happened(server.toy.began)
        await server.server.stop(0)
    try:
        return await asked
    finally:
        await closed(component)


@both_ways
async def test_a_sidecar_that_dies_is_an_error(framework: Framework, is_async: bool) -> None:
    with pytest.raises(Unavailable):
        await ended_in_mid_query(framework, is_async, "raise")


@both_ways
async def test_or_the_rows_are_passed_through(
    framework: Framework, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rerank_adapters"):
        found = await ended_in_mid_query(framework, is_async, "passthrough")
    assert framework.texts(found) == ["1", "wait"]
    assert [framework.error(row) for row in found] == ["UNAVAILABLE"] * 2
    assert [framework.score(row) for row in found] in ([None, None], [0.9, 0.8])
    assert "not reranked: UNAVAILABLE" in caplog.text
    assert QUERY not in caplog.text


async def test_a_killed_process_is_noticed_at_the_next_query(framework: Framework) -> None:
    with running_sidecar() as process:
        options = {"target": f"127.0.0.1:{process.grpc_port}", "timeout_s": 20.0}
        raising = framework.make(**options)
        passing = framework.make(**options, on_error="passthrough")
        rows = framework.rows(TEXTS)
        reranked = framework.texts(framework.run(raising, rows, QUERY))
        assert framework.texts(await framework.arun(passing, rows, QUERY)) == reranked
        assert reranked != list(TEXTS)
        process.process.kill()
        process.process.wait()
        with pytest.raises(Unavailable):
            framework.run(raising, rows, QUERY)
        with pytest.raises(Unavailable):
            await framework.arun(raising, rows, QUERY)
        assert framework.texts(framework.run(passing, rows, QUERY)) == list(TEXTS)
        assert framework.texts(await framework.arun(passing, rows, QUERY)) == list(TEXTS)
    await closed(raising)
    await closed(passing)


@both_ways
async def test_nobody_there_is_an_error_or_passed_through(
    framework: Framework, is_async: bool
) -> None:
    rows = framework.rows(TEXTS)
    with pytest.raises(Unavailable) as caught:
        await framework.ask(is_async, framework.make(target=NOBODY), rows)
    assert QUERY not in str(caught.value)
    passing = framework.make(target=NOBODY, on_error="passthrough")
    assert framework.texts(await framework.ask(is_async, passing, rows)) == list(TEXTS)


@both_ways
async def test_what_was_passed_through_once_can_be_reranked_later(
    framework: Framework, is_async: bool, target: str, expected: list[tuple[str, float]]
) -> None:
    passing = framework.make(target=NOBODY, on_error="passthrough", lost_in_the_middle=True)
    passed = await framework.ask(is_async, passing, framework.rows(TEXTS))
    assert framework.texts(passed) == lost_in_the_middle(TEXTS)
    found = await framework.ask(is_async, framework.make(target=target), passed)
    assert_same(framework, found, expected)
    assert {framework.error(row) for row in found} == {None}


@both_ways
async def test_the_callers_own_mistake_is_never_passed_through(
    framework: Framework, is_async: bool, target: str
) -> None:
    component = framework.make(target=target, model="unheard-of", on_error="passthrough")
    with pytest.raises(ModelNotFound):
        await framework.ask(is_async, component, framework.rows(TEXTS))


@both_ways
async def test_a_text_that_fails_alone_is_last_and_says_why(
    framework: Framework, is_async: bool, target: str
) -> None:
    rows = framework.rows(("x" * 200_001, *TEXTS))
    found = await framework.ask(is_async, framework.make(target=target), rows)
    assert [framework.error(row) for row in found] == [None] * len(TEXTS) + ["LIMIT_EXCEEDED"]
    assert framework.score(found[-1]) == framework.score(found[-2])


@both_ways
async def test_the_token_is_shown(framework: Framework, is_async: bool) -> None:
    async with serving(auth_tokens=TOKEN) as server:
        knows = framework.make(target=server.target, token=a_token(framework))
        does_not = framework.make(target=server.target)
        found = await framework.ask(is_async, knows, framework.rows(NUMBERS))
        with pytest.raises(Unauthenticated):
            await framework.ask(is_async, does_not, framework.rows(NUMBERS))
        await closed(knows)
        await closed(does_not)
    assert framework.texts(found) == ["3", "3", "2", "1"]
    assert TOKEN not in repr(knows)


async def test_what_cannot_be_used_is_refused_at_once(framework: Framework, target: str) -> None:
    async with AsyncRerankClient(target) as waiting:
        with pytest.raises(ValueError, match="target"):
            framework.make(target=target, async_sidecar=waiting)
        with pytest.raises(ValueError, match="token"):
            framework.make(token=a_token(framework), async_sidecar=waiting)
        with pytest.raises(TypeError, match="only async_sidecar was given"):
            framework.run(framework.make(async_sidecar=waiting), framework.rows(TEXTS), QUERY)
    with pytest.raises(ValueError, match="top_"):
        framework.make(top_n=0)
    with pytest.raises(ValueError, match="timeout_s"):
        framework.make(timeout_s=-1.0)
    with pytest.raises(ValueError, match="target"):
        framework.make(target=["no address", NOBODY])
    with pytest.raises(ValueError, match="fuse"):
        framework.make(fuse="somehow")


def test_no_refusal_shows_the_token(framework: Framework) -> None:
    for options in ({"top_n": 0}, {"timeout_s": -1.0}, {"fuse": "somehow"}):
        with pytest.raises(ValueError, match=next(iter(options))[:3]) as caught:
            framework.make(token=a_token(framework), **options)
        assert TOKEN not in str(caught.value)
    unusable = a_token(framework, "no-token, with spaces")
    with pytest.raises(ValueError, match="token: must be visible ASCII") as caught:
        framework.run(framework.make(token=unusable), framework.rows(TEXTS), QUERY)
    assert "no-token" not in str(caught.value)


async def test_a_weighted_sum_needs_scores(framework: Framework, target: str) -> None:
    rows = framework.rows(TEXTS)
    for row in rows:
        forget_score(row)
    component = framework.make(target=target, fuse=WeightedSum(0.5, "unit"))
    with pytest.raises(ValueError, match="score"):
        framework.run(component, rows, QUERY)


def test_a_missing_framework_is_named_with_what_installs_it(framework: Framework) -> None:
    program = f"""
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {framework.package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
import rerank_adapters.{framework.name}
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    extra = framework.name.replace("_", "-")
    assert f"ImportError: rerank_adapters.{framework.name} needs" in ran.stderr
    assert f"pip install 'rerank-sidecar[{extra}]'" in ran.stderr


def test_importing_one_imports_no_other(framework: Framework) -> None:
    others = {"langchain_core", "llama_index", "haystack"} - {framework.package}
    program = f"""
import sys, rerank_adapters.{framework.name}
print(*sorted({others!r} & set(sys.modules)))
"""
    environment = {**os.environ, "HAYSTACK_TELEMETRY_ENABLED": "False"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert ran.stdout.strip() == ""


def a_token(framework: Framework, token: str = TOKEN) -> Secret | str:
    return Secret.from_token(token) if framework is HAYSTACK else token


def forget_score(row: Any) -> None:
    """Take a store's score away again."""
    if hasattr(row, "page_content"):
        row.metadata.pop("store_score")
    else:
        object.__setattr__(row, "score", None)
