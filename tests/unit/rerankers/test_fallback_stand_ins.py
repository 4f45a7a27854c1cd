"""Who may stand in for a member of a fallback, and who may not."""

from __future__ import annotations

import asyncio

import pytest

from rerank_sidecar.errors import (
    LimitExceeded,
    NotSupportedByModel,
    RemoteFailed,
    RemoteUnavailable,
)
from tests.unit.rerankers.toy_fallback import DOWN, answers, fallback, passed_over
from tests.unit.rerankers.toy_members import ToyMember

CANNOT = NotSupportedByModel("the remote cannot be told to chunk long documents")


async def test_a_member_that_does_not_read_the_script_is_passed_over() -> None:
    second = ToyMember("second", described={"scripts": frozenset({"Latin"})})
    reranker = fallback(ToyMember(error=DOWN), second, ToyMember("third"))
    assert (await answers(reranker, "什么"))[1] == "third"
    assert (await answers(reranker, "what"))[1] == "second"


async def test_what_the_first_member_cannot_do_is_the_callers_to_change() -> None:
    second = ToyMember("second")
    with pytest.raises(NotSupportedByModel):
        await answers(fallback(ToyMember(error=CANNOT), second), "q")
    assert not second.asked


@pytest.mark.parametrize(
    ("error", "reason"),
    [(CANNOT, "NOT_SUPPORTED_BY_MODEL"), (LimitExceeded("too much for it"), "LIMIT_EXCEEDED")],
)
async def test_a_stand_in_that_cannot_do_it_is_passed_over(error: Exception, reason: str) -> None:
    before = passed_over("second", reason)
    second = ToyMember("second", error=error)
    reranker = fallback(ToyMember(error=DOWN), second, ToyMember("third"))
    assert (await answers(reranker, "q"))[1] == "third"
    assert passed_over("second", reason) == before + 1
    second.error = None  # for a request that asks for less
    assert (await answers(reranker, "r"))[1] == "second"


async def test_a_server_that_refuses_one_request_is_asked_the_next() -> None:
    first = ToyMember(error=RemoteFailed("status 422", is_refusal=True))
    reranker = fallback(first, ToyMember("second"))
    assert (await answers(reranker, "too long for it"))[1] == "second"
    first.error = None
    assert (await answers(reranker, "short"))[1] is None
    first.error = RemoteFailed("status 500")
    assert (await answers(reranker, "another"))[1] == "second"
    first.error = None
    assert (await answers(reranker, "while it rests"))[1] == "second"


async def test_that_nobody_can_stand_in_is_no_fault_of_the_callers() -> None:
    reranker = fallback(ToyMember(error=DOWN), ToyMember("last", error=CANNOT))
    for query in ("q", "while the first one rests"):
        with pytest.raises(RemoteUnavailable, match="toy cannot answer now, and last cannot"):
            await answers(reranker, query)


async def test_a_search_that_a_member_began_fails_with_it_rather_than_meet_other_scores() -> None:
    first, second = ToyMember(), ToyMember("second")
    reranker = fallback(first, second)
    assert (await answers(reranker, "search", is_chunk=True))[1] is None
    first.error = DOWN
    assert (await answers(reranker, "another", is_chunk=True))[1] == "second"
    for _ in range(2):  # though the first member rests by now
        with pytest.raises(RemoteUnavailable):
            await answers(reranker, "search", is_chunk=True)
    assert (await answers(reranker, "search"))[1] == "second"


async def test_a_chunk_that_fails_while_another_is_answered_fails_the_search() -> None:
    first, gate = ToyMember(), asyncio.Event()
    reranker = fallback(first, ToyMember("second"))
    first.gate, first.error = gate, DOWN
    late = asyncio.create_task(answers(reranker, "search", is_chunk=True))
    await first.arrivals.get()
    first.gate, first.error = None, None
    assert (await answers(reranker, "search", is_chunk=True))[1] is None
    gate.set()
    with pytest.raises(RemoteUnavailable):
        await late
