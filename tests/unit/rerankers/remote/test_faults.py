"""A server that fails: what is tried again, what is told, what is left alone."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from rerank_sidecar.errors import (
    DeadlineExceeded,
    NonFiniteScore,
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
    RerankError,
)
from rerank_sidecar.rerankers.base import Meter, ScoreOptions
from rerank_sidecar.types import Score
from tests.unit.rerankers.remote.stand_in import (
    StandIn,
    cohere_scores,
    like_cohere,
    opened,
    says,
    standing_in,
)
from tests.unit.rerankers.toy_models import outcomes_of

TEXTS = ["0.25", "0.75"]
SCORES = [Score(0.25), Score(0.75)]


async def reset(request: web.Request) -> web.StreamResponse:
    """Break the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """Break the connection in the middle of the answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"results": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def stall(request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def then_close(request: web.Request) -> web.StreamResponse:
    """Answer, promise to keep the connection, and close it."""
    response = await like_cohere(request)
    response.force_close()
    response.headers["Connection"] = "keep-alive"
    return response


async def asked(server: StandIn, meter: Meter | None = None, **options: Any) -> list[Any]:
    how = ScoreOptions(deadline=time.monotonic() + 20, meter=meter or Meter())
    async with opened(f"cohere:{server.url}#m", **options) as reranker:
        return await outcomes_of(reranker, "query", TEXTS, options=how)


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param([says("busy", 429)], id="429"),
        pytest.param([says("busy", 429, Retry_After="0")], id="429 with Retry-After"),
        pytest.param([says("<html>", 502)], id="502"),
        pytest.param([says("", 503, Retry_After="0")], id="503"),
        pytest.param([says("", 504)], id="504"),
        pytest.param([reset], id="reset"),
        pytest.param([half], id="broken answer"),
        pytest.param([reset, says("", 502)], id="twice"),
    ],
)
async def test_what_fails_in_passing_is_tried_again(failing: list[Any]) -> None:
    meter = Meter()
    async with standing_in(like_cohere, *failing) as server:
        assert await asked(server, meter) == SCORES
    assert len(server.asked) == meter.remote_calls == len(failing) + 1
    assert all(each.body == server.asked[0].body for each in server.asked)


@pytest.mark.parametrize(
    ("failing", "error", "told", "tries"),
    [
        pytest.param(says("oops", 500), RemoteFailed, "status 500", 1, id="500"),
        pytest.param(says("TEXT", 400), RemoteFailed, "status 400", 2, id="400"),
        pytest.param(says("", 401), RemoteFailed, "another API key", 1, id="401"),
        pytest.param(says("", 404), RemoteFailed, "no such path or model", 1, id="404"),
        pytest.param(says("", 422), RemoteFailed, "status 422", 2, id="422"),
        pytest.param(says("", 302, Location="/"), RemoteFailed, "status 302", 1, id="redirect"),
        pytest.param(says("", 502), RemoteFailed, "status 502", 3, id="502"),
        pytest.param(says("", 503), RemoteUnavailable, "status 503", 3, id="503"),
        pytest.param(says("", 429), Overloaded, "status 429", 3, id="429"),
        pytest.param(reset, RemoteUnavailable, "cannot be reached", 3, id="reset"),
    ],
)
async def test_what_goes_on_failing_is_told(
    failing: Any, error: type[RerankError], told: str, tries: int
) -> None:
    async with standing_in(failing) as server:
        with pytest.raises(error, match=told) as raised:
            await asked(server)
    assert len(server.asked) == tries
    assert "TEXT" not in raised.value.message


async def test_a_server_that_is_not_there_is_told() -> None:
    async with standing_in(like_cohere) as server:
        pass
    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        await asked(server)


async def test_a_retry_hint_that_fits_is_obeyed_and_one_that_does_not_is_passed_on() -> None:
    async with standing_in(like_cohere, says("", 429, Retry_After="1")) as server:
        began = time.monotonic()
        assert await asked(server) == SCORES
        assert time.monotonic() - began >= 1
    async with standing_in(says("", 429, Retry_After="30")) as server:
        with pytest.raises(Overloaded) as raised:
            await asked(server)
    assert len(server.asked) == 1
    assert raised.value.retry_after_s == 30


async def test_a_retry_hint_may_be_a_date() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    async with standing_in(says("", 503, Retry_After=then)) as server:
        with pytest.raises(RemoteUnavailable) as raised:
            await asked(server)
    assert 50 < raised.value.retry_after_s <= 60
    assert len(server.asked) == 1


@pytest.mark.parametrize("hint", ["soon", "-1", "1e3", "", "²"])
async def test_a_hint_that_is_none_counts_as_not_given(hint: str) -> None:
    async with standing_in(like_cohere, says("", 429, Retry_After=hint)) as server:
        assert await asked(server) == SCORES


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param("<html>it works</html>", id="no JSON"),
        pytest.param("[" * 100_000, id="too deep"),
        pytest.param("9" * 10_000, id="a number of many digits"),
        pytest.param([], id="another form"),
        pytest.param({"results": None}, id="no results"),
        pytest.param({"results": [7]}, id="no objects"),
        pytest.param({"results": [{"index": 0}]}, id="no score"),
        pytest.param({"results": [{"relevance_score": 0.5}]}, id="no index"),
        pytest.param({"results": [{"index": 2, "relevance_score": 0.5}]}, id="out of range"),
        pytest.param({"results": [{"index": -1, "relevance_score": 0.5}]}, id="negative"),
        pytest.param({"results": [{"index": True, "relevance_score": 0.5}]}, id="true"),
        pytest.param({"results": [{"index": 0.0, "relevance_score": 0.5}]}, id="fraction"),
        pytest.param({"results": [{"index": 0, "relevance_score": "good"}]}, id="a word"),
        pytest.param({"results": [{"index": 0, "relevance_score": True}]}, id="a truth"),
        pytest.param({"results": [{"index": 0, "relevance_score": 0.5}] * 2}, id="twice"),
    ],
)
async def test_garbage_fails_the_request_and_is_not_asked_for_again(garbage: Any) -> None:
    async with standing_in(says(garbage)) as server:
        with pytest.raises(RemoteFailed, match="cannot be understood"):
            await asked(server)
    assert len(server.asked) == 1


async def test_half_the_results_leave_the_others_without_a_score() -> None:
    answer = {"results": [{"index": 1, "relevance_score": 0.75}]}
    async with standing_in(says(answer)) as server:
        first, second = await asked(server)
    assert isinstance(first, RemoteFailed)
    assert second == Score(0.75)


@pytest.mark.parametrize(
    "score", ["NaN", "Infinity", "-Infinity", "null", '"NaN"', "1e999", "1" + "0" * 400]
)
async def test_what_is_not_finite_fails_alone(score: str) -> None:
    text = '{"results": [{"index": 0, "relevance_score": %s}, {"index": 1, "relevance_score": 1}]}'
    async with standing_in(says(text % score)) as server:
        first, second = await asked(server)
    assert isinstance(first, NonFiniteScore)
    assert second == Score(1.0)


async def test_a_score_that_is_no_probability_fails_alone_and_says_what_to_do() -> None:
    async with standing_in(says(cohere_scores(["4.1", "1.0004"]))) as server:
        first, second = await asked(server)
    assert isinstance(first, RemoteFailed)
    assert "score_kind" in first.message
    assert second == Score(1.0)  # half precision rounds so
    async with standing_in(says(cohere_scores(["4.1", "-1"]))) as server:
        assert await asked(server, score_kind="RAW_LOGIT") == [Score(4.1), Score(-1.0)]


async def test_a_stall_ends_with_the_time_of_one_call_and_is_not_repeated() -> None:
    async with standing_in(stall) as server:
        with pytest.raises(RemoteUnavailable, match=r"within 0\.2 s"):
            await asked(server, timeout_s=0.2)
    assert len(server.asked) == 1


async def test_a_stall_ends_with_the_deadline() -> None:
    async with standing_in(stall) as server, opened(f"cohere:{server.url}#m") as reranker:
        how = ScoreOptions(deadline=time.monotonic() + 0.2)
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, "query", TEXTS, options=how)
        late = ScoreOptions(deadline=time.monotonic())
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, "query", TEXTS, options=late)
    assert len(server.asked) == 1


async def test_connections_are_kept_and_one_that_was_closed_is_replaced() -> None:
    async with standing_in(like_cohere) as server, opened(f"cohere:{server.url}#m") as reranker:
        for _ in range(3):
            assert await outcomes_of(reranker, "query", TEXTS) == SCORES
        assert len({each.connection for each in server.asked}) == 1
        server.usual = then_close
        for _ in range(3):
            assert await outcomes_of(reranker, "query", TEXTS) == SCORES
    assert len({each.connection for each in server.asked}) == 3


async def test_a_failing_server_is_left_alone_until_one_call_succeeds() -> None:
    async with standing_in(says("", 500)) as server, opened(f"cohere:{server.url}#m") as reranker:

        async def ask() -> list[Any]:
            return await outcomes_of(reranker, "query", TEXTS)

        for _ in range(5):
            with pytest.raises(RemoteFailed):
                await ask()
        for _ in range(3):
            with pytest.raises(RemoteUnavailable) as refused:
                await ask()
            assert 0 < refused.value.retry_after_s <= 1
        assert len(server.asked) == 5
        server.usual = like_cohere
        while len(server.asked) == 5:
            await asyncio.sleep(0.05)
            try:
                assert await ask() == SCORES
            except RemoteUnavailable:
                continue
        assert await ask() == SCORES


async def test_refusals_of_ours_do_not_open_the_circuit() -> None:
    async with standing_in(says("", 400)) as server, opened(f"cohere:{server.url}#m") as reranker:
        for _ in range(8):
            with pytest.raises(RemoteFailed):
                await outcomes_of(reranker, "query", TEXTS)
    assert len(server.asked) == 8 * 2


async def test_calls_are_repeated_only_while_most_of_them_succeed() -> None:
    async with (
        standing_in(says("", 429, Retry_After="0")) as server,
        opened(f"cohere:{server.url}#m", max_tries=100) as reranker,
    ):
        for _ in range(4):
            with pytest.raises(Overloaded):
                await outcomes_of(reranker, "query", TEXTS)
    assert len(server.asked) == 5 + 3


async def test_the_key_is_in_no_error_log_or_repr(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("MY_KEY", "secret-1")
    async with standing_in(says("secret-1", 401)) as server:
        with pytest.raises(RemoteFailed) as raised:
            await asked(server, api_key_env="MY_KEY")
    assert server.asked[0].headers["authorization"] == "Bearer secret-1"
    errors: list[BaseException | None] = [raised.value, raised.value.__cause__]
    assert "secret-1" not in caplog.text + "".join(repr(vars(each)) for each in errors if each)
    assert "query" not in caplog.text
    assert json.dumps(TEXTS[0]) not in caplog.text


@pytest.mark.parametrize(
    "hint", ["9" * 400, "9" * 30, "1e20", "Thu, 01 Jan 2026 00:00:00 +99999999999999"]
)
@pytest.mark.parametrize(("status", "error"), [(429, Overloaded), (503, RemoteUnavailable)])
async def test_no_caller_is_told_to_wait_for_ages(
    hint: str, status: int, error: type[Overloaded | RemoteUnavailable]
) -> None:
    async with standing_in(says("", status, Retry_After=hint)) as server:
        with pytest.raises(error) as raised:
            await asked(server)
    assert raised.value.retry_after_s <= 86_400


@pytest.mark.parametrize("told", [10**30, -1, "7", 1.5, None])
async def test_a_count_of_tokens_that_can_be_none_is_not_summed_up(told: object) -> None:
    answer = cohere_scores(TEXTS)
    answer["meta"]["tokens"] = {"input_tokens": told}
    meter = Meter()
    async with standing_in(says(answer)) as server, opened(f"cohere:{server.url}#m") as reranker:
        found = await outcomes_of(reranker, "q", TEXTS, options=ScoreOptions(meter=meter))
    assert found == SCORES
    assert meter.tokens == 0
