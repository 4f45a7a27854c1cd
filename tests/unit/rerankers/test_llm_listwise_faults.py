"""A chat model's server fails as servers do."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from email.utils import formatdate

import pytest
from prometheus_client import REGISTRY

from rerank_sidecar.errors import (
    DeadlineExceeded,
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
    RerankError,
)
from rerank_sidecar.rerankers.base import IndexedDocuments, ScoreOptions
from rerank_sidecar.rerankers.listwise.call_queue import CallQueue
from rerank_sidecar.rerankers.listwise.chat_endpoint import ChatConfig, ChatEndpoint
from rerank_sidecar.rerankers.listwise.sliding_window import SlidingWindow
from rerank_sidecar.rerankers.llm_listwise import ListwiseConfig, ListwiseReranker
from tests.unit.rerankers.chat_server import (
    Asked,
    ChatServer,
    Reply,
    breaks_off,
    chat_client,
    hangs_up,
    refuses,
    says,
    sends,
    stalls,
)
from tests.unit.rerankers.toy_chat import INFO, USUAL, listwise, places
from tests.unit.rerankers.toy_models import arriving, outcomes_of


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(refuses(500), id="500"),
        pytest.param(refuses(503), id="503"),
        pytest.param(refuses(429, Retry_After="0.01"), id="429"),
        pytest.param(refuses(408), id="408"),
        pytest.param(hangs_up, id="hangs up"),
        pytest.param(breaks_off, id="breaks off"),
        pytest.param(sends(b"<html>"), id="not JSON"),
        pytest.param(sends(b'{"choices": []}'), id="no choices"),
        pytest.param(sends(b"Bad Gateway", Content_Type="text/plain"), id="text"),
    ],
)
async def test_a_fault_that_passes_is_tried_again(fault: Reply) -> None:
    options, before = ScoreOptions(), calls_counted()
    async with listwise(fault, fault, says("[2] > [1]")) as (reranker, _):
        assert places(await outcomes_of(reranker, "q", ["a", "b"], options=options)) == [2, 1]
    assert options.meter.remote_calls == 3
    assert calls_counted() == before + 3


@pytest.mark.parametrize(
    ("fault", "error", "tries"),
    [
        pytest.param(refuses(500), RemoteFailed, 3, id="500"),
        pytest.param(refuses(503), RemoteUnavailable, 3, id="503"),
        pytest.param(refuses(429), Overloaded, 3, id="429"),
        pytest.param(refuses(400), RemoteFailed, 1, id="400"),
        pytest.param(refuses(401), RemoteFailed, 1, id="401"),
        pytest.param(refuses(404), RemoteFailed, 1, id="404"),
        pytest.param(hangs_up, RemoteUnavailable, 3, id="hangs up"),
        pytest.param(breaks_off, RemoteUnavailable, 3, id="breaks off"),
        *(
            pytest.param(sends(body), RemoteFailed, 3, id=repr(body))
            for body in (
                b"",
                b"<html>",
                b"[]",
                b"null",
                b'"hello"',
                b'{"choices": "none"}',
                b'{"choices": [{"message": null}]}',
                b'{"choices": [{"message": {"content": 3}}]}',
                b'{"choices": ' + b"[" * 20_000,
                b'{"error": "overloaded"}',
                b"\xff\xfe",
            )
        ),
    ],
)
async def test_a_fault_that_stays_is_an_error_of_the_request(
    fault: Reply, error: type[RerankError], tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    options = ScoreOptions()
    caplog.set_level(logging.INFO)
    async with listwise(fault) as (reranker, _):
        with pytest.raises(error) as raised:
            await outcomes_of(reranker, "secret", ["hidden", "b"], options=options)
    assert options.meter.remote_calls == tries
    for told in (raised.value.message, caplog.text):
        assert "secret" not in told
        assert "hidden" not in told


@pytest.mark.parametrize("told", ["30", lambda: formatdate(time.time() + 30, usegmt=True)])
async def test_a_pause_that_outlasts_the_deadline_is_not_waited_for(
    told: str | Callable[[], str],
) -> None:
    header = told if isinstance(told, str) else told()
    options = ScoreOptions(deadline=time.monotonic() + 10)
    async with listwise(refuses(429, Retry_After=header), says("[1]")) as (reranker, server):
        with pytest.raises(Overloaded) as raised:
            await outcomes_of(reranker, "q", ["a", "b"], options=options)
    assert 20 < raised.value.retry_after_s <= 30
    assert len(server.asked) == 1


async def test_a_server_that_stalls_is_given_up_after_its_time() -> None:
    chat = ChatConfig("m", timeout_s=0.1, max_tries=2, pause_s=0.001)
    async with listwise(stalls, chat=chat) as (reranker, server):
        with pytest.raises(RemoteFailed, match="did not answer"):
            await outcomes_of(reranker, "q", ["a", "b"])
    assert len(server.asked) == 2


async def test_a_server_that_stalls_is_given_up_at_the_deadline() -> None:
    options = ScoreOptions(deadline=time.monotonic() + 0.2)
    async with listwise(stalls) as (reranker, _):
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, "q", ["a", "b"], options=options)


async def test_a_server_that_is_not_there() -> None:
    async with listwise(says("[1]")) as (reranker, server):
        gone = server.url
    async with chat_client(ChatServer((), url=gone)) as client:
        reranker = ListwiseReranker(
            INFO, ChatEndpoint("chat", client, USUAL), CallQueue(1), ListwiseConfig()
        )
        with pytest.raises(RemoteUnavailable):
            await outcomes_of(reranker, "q", ["a", "b"])


async def test_no_more_calls_at_once_than_allowed() -> None:
    async with listwise(slowly("[1] > [2]"), at_once=2) as (reranker, server):
        await asyncio.gather(*(outcomes_of(reranker, "q", ["a", "b"]) for _ in range(6)))
    assert (len(server.asked), server.most_at_once) == (6, 2)


async def test_who_would_wait_too_long_is_told_at_once() -> None:
    async with listwise(slowly("[1] > [2]"), at_once=1) as (reranker, server):
        await outcomes_of(reranker, "q", ["a", "b"])  # so that it is known what a call takes
        running = asyncio.create_task(outcomes_of(reranker, "q", ["a", "b"]))
        for _ in range(2):
            await server.arrivals.get()
        options = ScoreOptions(deadline=time.monotonic() + 0.02)
        with pytest.raises(Overloaded):
            await outcomes_of(reranker, "q", ["a", "b"], options=options)
        await running
    assert len(server.asked) == 2


async def test_a_caller_who_leaves_leaves_no_call_behind() -> None:
    async with listwise(stalls, at_once=1) as (reranker, server):
        leaving = asyncio.create_task(outcomes_of(reranker, "q", ["a", "b"]))
        await server.arrivals.get()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        server.replies = (says("[2] > [1]"),)
        assert places(await outcomes_of(reranker, "q", ["a", "b"])) == [2, 1]


async def test_documents_are_closed_when_the_deadline_passes() -> None:
    closed = False

    async def documents() -> AsyncIterator[IndexedDocuments]:
        nonlocal closed
        try:
            async for group in arriving(["a", "b"]):
                yield group
        finally:
            closed = True

    async with listwise(stalls) as (reranker, _):
        options = ScoreOptions(deadline=time.monotonic() + 0.1)
        async with aclosing(reranker.score("q", documents(), options)) as outcomes:
            with pytest.raises(DeadlineExceeded):
                await anext(outcomes)
    assert closed


def slowly(answer: str) -> Reply:
    """Answer after a while."""
    reply = says(answer)

    async def wait_and_reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        await reply(asked, writer)

    return wait_and_reply


def calls_counted() -> float:
    labels = {"model": "chat"}
    return REGISTRY.get_sample_value("rerank_sidecar_remote_call_seconds_count", labels) or 0.0


async def test_dear_answers_keep_nobody_away_for_ever() -> None:
    config = ListwiseConfig(max_total_tokens=2000)
    dear = says("[2] > [1]", prompt_tokens=100, completion_tokens=90_000)
    async with listwise(dear, dear, says("[2] > [1]"), config=config) as (reranker, server):
        for _ in range(3):
            assert places(await outcomes_of(reranker, "q", ["a", "b"])) == [2, 1]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "usage",
    [
        b"null",
        b"{}",
        b"[]",
        b'"much"',
        b'{"prompt_tokens": null, "completion_tokens": null}',
        b'{"prompt_tokens": "12", "completion_tokens": NaN}',
        b'{"prompt_tokens": -5, "completion_tokens": 1}',
        b'{"prompt_tokens": 1000000000000000000000000000000, "completion_tokens": 1}',
    ],
)
async def test_a_count_of_tokens_that_can_be_none_is_taken_for_untold(usage: bytes) -> None:
    options = ScoreOptions()
    body = b'{"choices": [{"message": {"content": "[2] > [1]"}}], "usage": ' + usage + b"}"
    async with listwise(sends(body)) as (reranker, server):
        assert places(await outcomes_of(reranker, "q", ["a", "b"], options=options)) == [2, 1]
    assert 0 < options.meter.tokens < 1000
    assert len(server.asked) == 1


async def test_of_an_answer_in_parts_the_text_counts_and_not_the_thoughts() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "[1] > [2]"}]}
    content = [thought, {"type": "text", "text": "[2] >"}, {"type": "text", "text": " [1]"}]
    body = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
    async with listwise(sends(body)) as (reranker, _):
        assert places(await outcomes_of(reranker, "q", ["a", "b"])) == [2, 1]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_window_that_the_server_refuses_keeps_its_order(status: int) -> None:
    labels = {"model": "chat", "result": "refused"}
    name = "rerank_sidecar_listwise_windows_total"
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    config = ListwiseConfig(SlidingWindow(2, 2))
    replies = (refuses(status), says("[2] > [1]"))
    async with listwise(*replies, config=config) as (reranker, _):
        assert places(await outcomes_of(reranker, "q", list("abcd"))) == [2, 1, 3, 4]
    assert REGISTRY.get_sample_value(name, labels) == before + 1


async def test_a_server_that_refuses_every_window_fails_the_request() -> None:
    config = ListwiseConfig(SlidingWindow(2, 2))
    async with listwise(refuses(400), config=config) as (reranker, server):
        with pytest.raises(RemoteFailed, match="status 400"):
            await outcomes_of(reranker, "q", list("abcd"))
    assert len(server.asked) == 2
