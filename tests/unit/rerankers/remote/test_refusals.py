"""A document that the server will not have fails alone, whatever it was sent along with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.errors import RemoteFailed
from rerank_sidecar.rerankers.base import Meter, ScoreOptions
from rerank_sidecar.rerankers.remote.refusals import Refusals
from rerank_sidecar.types import Document, Score
from tests.unit.rerankers.remote.stand_in import (
    Reply,
    StandIn,
    cohere_scores,
    opened,
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
@pytest.mark.parametrize("places", [{0}, {39}, {3, 4, 17}, set(range(3, 12))])
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
async def test_a_server_that_refuses_everything_fails_the_request_soon(count: int) -> None:
    async with standing_in(refusing(400, lambda _: True)) as server:
        with pytest.raises(RemoteFailed, match="status 400"):
            await asked(server, ["0.5"] * count)
    assert len(server.asked) <= 14


async def test_a_request_costs_a_bounded_number_of_refused_calls() -> None:
    texts = [BAD if place % 2 else "0.5" for place in range(400)]
    async with standing_in(refusing(400)) as server:
        with pytest.raises(RemoteFailed, match="status 400"):
            await asked(server, texts)
    assert len(server.asked) <= 2 * 64


async def test_what_is_too_long_need_not_be_sent() -> None:
    texts = ["0.25" + "0" * 500, "0.75"]
    async with standing_in(refusing(400, lambda text: len(text) > 4)) as server:
        outcomes, _ = await asked(server, texts, max_characters=4)
    assert outcomes == [Score(0.25, truncated=True), Score(0.75)]
    assert len(server.asked) == 1


@given(bad=st.sets(st.integers(0, 30), max_size=4), count=st.integers(1, 31))
def test_every_document_is_settled_once(bad: set[int], count: int) -> None:
    refusals, found = Refusals(), []
    error = RemoteFailed("refused")
    left = [[(place, Document("text")) for place in range(count)]]
    bad = {each for each in bad if each < count}
    while left:
        part = left.pop(0)
        if any(place in bad for place, _ in part):
            try:
                left[:0] = map(list, refusals.refused(part, error))
            except RemoteFailed:
                assert len(bad) >= 3
                return
        else:
            refusals.scored()
            found += [place for place, _ in part]
        found += [place for place, _ in refusals.settled()]
    if bad == set(range(count)):
        assert refusals.verdict() is error
    else:
        assert refusals.verdict() is None
        assert sorted(found) == list(range(count))


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
