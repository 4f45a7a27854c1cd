"""A document that the server will not have fails alone, whatever it was sent along with."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.errors import (
    DeadlineExceeded,
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
    RerankError,
)
from rerank_sidecar.rerankers.base import Meter, ScoreOptions
from rerank_sidecar.rerankers.remote.refusals import Refusals
from rerank_sidecar.types import Document, Score
from tests.unit.rerankers.remote.stand_in import (
    Reply,
    StandIn,
    cohere_scores,
    opened,
    says,
    standing_in,
)
from tests.unit.rerankers.toy_models import outcomes_of

BAD = "too long"


def refusing(status: int, is_bad: Callable[[str], bool] = lambda text: text == BAD) -> Reply:
    """Score as Cohere does, unless there is a text that is not taken."""

    async def reply(request: web.Request) -> web.StreamResponse:
        texts = json.loads(await request.read())["documents"]
        if any(map(is_bad, texts)):
            return web.json_response({"message": "TEXT"}, status=status)
        return web.json_response(cohere_scores(texts))

    return reply


async def asked(server: StandIn, texts: list[str], **options: Any) -> tuple[list[Any], Meter]:
    meter = Meter()
    async with opened(f"cohere:{server.url}#m", **options) as reranker:
        how = ScoreOptions(meter=meter)
        return await outcomes_of(reranker, "query", texts, options=how), meter


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("places", [{0}, {39}, {3, 4, 17}, set(range(12)), set(range(1, 40))])
async def test_only_what_is_refused_fails(status: int, places: set[int]) -> None:
    texts = [BAD if place in places else f"0.{place:02}" for place in range(40)]
    async with standing_in(refusing(status)) as server:
        outcomes, meter = await asked(server, texts)
    failed = {place for place, outcome in enumerate(outcomes) if isinstance(outcome, RemoteFailed)}
    assert failed == places
    assert all(outcomes[each] == Score(each / 100) for each in set(range(40)) - places)
    assert meter.pairs == 40 - len(places)
    assert meter.remote_calls == len(server.asked)
    assert not any("TEXT" in outcomes[each].message for each in places)


async def test_calls_that_are_refused_leave_other_calls_of_the_request_alone() -> None:
    texts = [BAD, "0.1", "0.2", "0.3"]
    async with standing_in(refusing(422)) as server:
        outcomes, _ = await asked(server, texts, max_documents_per_call=2)
    assert isinstance(outcomes[0], RemoteFailed)
    assert outcomes[1:] == [Score(0.1), Score(0.2), Score(0.3)]


@pytest.mark.parametrize("count", [1, 2, 3, 100])
async def test_a_query_that_is_refused_fails_the_request_soon(count: int) -> None:
    async with standing_in(refusing(400, lambda _: True)) as server:
        with pytest.raises(RemoteFailed, match="status 400"):
            await asked(server, ["0.5"] * count)
    assert len(server.asked) == 2


async def test_calls_that_are_refused_at_the_same_time_doubt_the_query_once() -> None:
    texts = [BAD] * 6
    async with standing_in(refusing(400)) as server:
        outcomes, meter = await asked(server, texts, max_documents_per_call=1)
    assert [type(each) for each in outcomes] == [RemoteFailed] * 6
    assert len(server.asked) == meter.remote_calls == 6 + 1
    assert meter.pairs == 0


@pytest.mark.parametrize("text", ["0.5" + "0" * 50, ""])
async def test_many_that_are_too_long_or_empty_fail_no_other(text: str) -> None:
    texts = [text if place % 8 == 0 else "0.25" for place in range(200)]
    async with standing_in(refusing(400, lambda each: each == text)) as server:
        outcomes, _ = await asked(server, texts)
    failed = [isinstance(outcome, RemoteFailed) for outcome in outcomes]
    assert failed == [each == text for each in texts]


async def test_a_call_costs_a_bounded_number_of_refused_ones() -> None:
    texts = [" 0.25" if place % 2 else "0.125" for place in range(400)]
    async with standing_in(refusing(400, lambda text: text == " 0.25")) as server:
        outcomes, _ = await asked(server, texts)
    assert len(server.asked) <= 2 * 64 + 1
    assert {type(each) for each in outcomes} <= {Score, RemoteFailed}
    assert not any(isinstance(outcomes[each], Score) for each in range(1, 400, 2))


@pytest.mark.parametrize(
    ("then", "error"), [(429, Overloaded), (500, RemoteFailed), (503, RemoteUnavailable)]
)
async def test_what_fails_after_a_refusal_fails_the_request(
    then: int, error: type[RerankError]
) -> None:
    async with standing_in(says("", then), says("", 400)) as server:
        with pytest.raises(error, match=str(then)):
            await asked(server, ["0.5", "0.25"], max_tries=1)
    assert len(server.asked) == 2


async def test_a_deadline_that_passes_between_halves_is_told() -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return await refusing(400)(request)

    texts = [BAD, *["0.5"] * 100]
    async with standing_in(slowly) as server, opened(f"cohere:{server.url}#m") as reranker:
        how = ScoreOptions(deadline=time.monotonic() + 0.25)
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, "query", texts, options=how)
    assert 2 <= len(server.asked) <= 4


async def test_a_server_that_takes_less_in_a_call_is_asked_in_smaller_ones() -> None:
    async def small(request: web.Request) -> web.StreamResponse:
        texts = json.loads(await request.read())["documents"]
        many = web.json_response({}, status=413)
        return many if len(texts) > 10 else web.json_response(cohere_scores(texts))

    async with standing_in(small) as server:
        outcomes, _ = await asked(server, [str(place / 256) for place in range(200)])
    assert outcomes == [Score(place / 256) for place in range(200)]


async def test_what_is_too_long_need_not_be_sent() -> None:
    texts = ["0.25" + "0" * 500, "0.75"]
    async with standing_in(refusing(400, lambda text: len(text) > 4)) as server:
        outcomes, _ = await asked(server, texts, max_characters=4)
    assert outcomes == [Score(0.25, truncated=True), Score(0.75)]
    assert len(server.asked) == 1


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=300), most=st.integers(0, 9))
def test_every_document_is_settled_once_and_those_that_fit_are_scored(
    lengths: list[int], most: int
) -> None:
    refusals, scored, failed = Refusals(), list[int](), list[int]()
    waiting = [[(place, Document("x" * length)) for place, length in enumerate(lengths)]]
    while waiting:
        part = waiting.pop(0)
        if max(len(document.text) for _, document in part) <= most:
            scored += [place for place, _ in part]
        elif halves := refusals.halves(part):
            waiting += map(list, halves)
        else:
            failed += [place for place, _ in part]
    assert sorted(scored + failed) == list(range(len(lengths)))
    fit = sum(length <= most for length in lengths)
    assert fit - len(lengths) // 16 <= len(scored) <= fit


TOO_LARGE = (
    "input (4004 tokens) is too large to process. increase the physical batch size (current batch "
    "size: 512)"
)


async def test_what_llamacpp_finds_too_long_is_no_fault_of_its() -> None:
    async def llamacpp(request: web.Request) -> web.StreamResponse:
        texts = json.loads(await request.read())["documents"]
        if BAD in texts:
            error = {"code": 500, "message": TOO_LARGE, "type": "server_error"}
            return web.json_response({"error": error}, status=500)
        return web.json_response(cohere_scores(texts))

    async with standing_in(llamacpp) as server, opened(f"llamacpp:{server.url}") as reranker:
        for _ in range(8):  # five faults would open the circuit
            scored = await outcomes_of(reranker, "query", ["0.5", BAD, "0.75"])
            assert [type(each) for each in scored] == [Score, RemoteFailed, Score]
