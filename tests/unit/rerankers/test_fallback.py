"""The first member that can answers, alone, and whoever was passed over is counted."""

from __future__ import annotations

import asyncio
import logging
import math
import time

import pytest

from rerank_sidecar.errors import (
    BackendFailed,
    Cancelled,
    DeadlineExceeded,
    InvalidField,
    NotReady,
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
)
from rerank_sidecar.rerankers.base import ScoreOptions
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.types import Document, Score
from tests.unit.rerankers.toy_fallback import DOWN, answers, fallback, passed_over
from tests.unit.rerankers.toy_members import BROKEN, ToyMember
from tests.unit.rerankers.toy_models import outcomes_of


async def test_the_first_member_answers_if_it_can() -> None:
    first, second = ToyMember(), ToyMember("second")
    found, stood_in = await answers(fallback(first, second), "q")
    assert found == [Score(1.0), Score(2.0), Score(3.0)]
    assert stood_in is None
    assert not second.asked


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DOWN, "REMOTE_UNAVAILABLE"),
        (RemoteFailed("500"), "REMOTE_FAILED"),
        (Overloaded("429"), "OVERLOADED"),
        (NotReady("loading"), "NOT_READY"),
        (BackendFailed("kernel"), "BACKEND_FAILED"),
        (DeadlineExceeded("late"), "DEADLINE_EXCEEDED"),
        (ZeroDivisionError(), "INTERNAL"),
    ],
)
@pytest.mark.parametrize("outcomes_before_error", [0, 2])
async def test_nothing_of_a_member_that_failed_is_in_the_answer(
    error: Exception, reason: str, outcomes_before_error: int
) -> None:
    before = passed_over("toy", reason)
    first = ToyMember(error=error, outcomes_before_error=outcomes_before_error)
    reranker = fallback(first, ToyMember("second", lambda _: 7.0))
    found, stood_in = await answers(reranker, "q")
    assert found == [Score(7.0)] * 3
    assert stood_in == "second"
    assert passed_over("toy", reason) == before + 1


async def test_a_real_member_answers_in_place_of_one_that_is_down() -> None:
    texts = ["paris is the capital", "bread"]
    alone, _ = await answers(LexicalReranker(), "capital of france", texts)
    found, stood_in = await answers(
        fallback(ToyMember(error=DOWN), LexicalReranker()), "capital of france", texts
    )
    assert (found, stood_in) == (alone, "lexical")


@pytest.mark.parametrize("error", [InvalidField("top_n: no"), Cancelled("gone")])
async def test_what_is_the_callers_own_is_raised(error: Exception) -> None:
    second = ToyMember("second")
    with pytest.raises(type(error)):
        await answers(fallback(ToyMember(error=error), second), "q")
    assert not second.asked


async def test_the_last_members_error_is_the_requests() -> None:
    reranker = fallback(ToyMember(error=DOWN), ToyMember("last", error=BackendFailed("too")))
    for _ in range(2):
        with pytest.raises(BackendFailed):
            await answers(reranker, "q")


async def test_a_member_that_fails_for_every_document_has_failed() -> None:
    second = ToyMember("second", broken="2")
    reranker = fallback(ToyMember(), second)
    assert (await answers(reranker, "q", [BROKEN, "2"]))[1] is None
    found, stood_in = await answers(reranker, "r", [BROKEN, BROKEN])
    assert stood_in == "second"
    assert all(isinstance(each, BackendFailed) for each in found)


async def test_a_member_that_failed_rests() -> None:
    before = passed_over("toy", "RESTING")
    first, second = ToyMember(error=DOWN), ToyMember("second")
    reranker = fallback(first, second)
    for query in ("one", "two", "three"):
        assert (await answers(reranker, query))[1] == "second"
    assert len(first.asked) == 1
    assert passed_over("toy", "RESTING") == before + 2


async def test_after_its_rest_a_member_is_tried_again() -> None:
    first, second = ToyMember(error=DOWN), ToyMember("second")
    reranker = fallback(first, second, rest_s=0.0)
    assert (await answers(reranker, "one"))[1] == "second"
    first.error = None
    assert (await answers(reranker, "two"))[1] is None


@pytest.mark.parametrize(
    ("error", "rests"),
    [
        (RemoteUnavailable("down", retry_after_s=30.0), True),
        (RemoteFailed("500"), False),
        (Overloaded("429", retry_after_s=30.0), False),
    ],
)
async def test_a_member_that_is_away_rests_for_as_long_as_it_says(
    error: Exception, *, rests: bool
) -> None:
    first = ToyMember(error=error)
    reranker = fallback(first, ToyMember("second"), rest_s=0.0)
    await answers(reranker, "one")
    await answers(reranker, "two")
    assert len(first.asked) == (1 if rests else 2)


async def test_one_request_tries_for_all_others_whether_a_member_is_well() -> None:
    first, second = ToyMember(error=DOWN), ToyMember("second")
    reranker = fallback(first, second, rest_s=0.05)
    await answers(reranker, "one")
    await asyncio.sleep(0.06)
    first.error, first.gate = None, asyncio.Event()
    trial = asyncio.create_task(answers(reranker, "two"))
    for _ in range(2):
        await first.arrivals.get()
    assert (await answers(reranker, "three"))[1] == "second"
    first.gate.set()
    assert (await trial)[1] is None


async def test_a_query_stays_with_the_member_that_it_was_turned_to() -> None:
    before = passed_over("toy", "STICKY")
    first, second = ToyMember(error=DOWN), ToyMember("second")
    reranker = fallback(first, second, rest_s=0.0)
    assert (await answers(reranker, "search"))[1] == "second"
    first.error = None
    assert (await answers(reranker, "search"))[1] == "second"
    assert (await answers(reranker, "another"))[1] is None
    assert passed_over("toy", "STICKY") == before + 1


async def test_chunks_that_run_at_once_meet_the_same_member() -> None:
    gate = asyncio.Event()
    first = ToyMember(gate=gate)
    reranker = fallback(first, ToyMember("second"))
    one = asyncio.create_task(answers(reranker, "search"))
    await first.arrivals.get()
    first.gate, first.error = None, DOWN
    assert (await answers(reranker, "search"))[1] == "second"
    gate.set()
    assert (await one)[1] == "second"


async def test_a_query_comes_back_when_its_time_is_over() -> None:
    first, second = ToyMember(error=DOWN), ToyMember("second")
    reranker = fallback(first, second, rest_s=0.0, sticky_s=0.0)
    assert (await answers(reranker, "search"))[1] == "second"
    first.error = None
    assert (await answers(reranker, "search"))[1] is None


async def test_a_member_that_stalls_is_left_after_its_time() -> None:
    first = ToyMember(gate=asyncio.Event())
    reranker = fallback(first, ToyMember("second"), timeout_s=0.05)
    assert (await answers(reranker, "q"))[1] == "second"
    assert first.closed == 1
    assert (await answers(reranker, "r"))[1] == "second"
    assert len(first.asked) == 1


async def test_a_member_that_stalls_leaves_the_last_one_its_time() -> None:
    # The last one reads 300 tokens in 0.3 s.
    reranker = fallback(ToyMember(gate=asyncio.Event()), ToyMember("second", rate=1000.0))
    deadline = time.monotonic() + 0.5
    assert (await answers(reranker, "q", deadline=deadline))[1] == "second"
    assert time.monotonic() < deadline


async def test_one_tight_deadline_does_not_send_a_member_to_rest() -> None:
    first = ToyMember(gate=asyncio.Event())
    reranker = fallback(first, ToyMember("second"))
    assert (await answers(reranker, "q", deadline=time.monotonic() + 0.05))[1] == "second"
    first.gate = None
    assert (await answers(reranker, "r"))[1] is None


async def test_a_member_that_would_be_late_is_not_asked() -> None:
    before = passed_over("toy", "TOO_SLOW")
    first = ToyMember(rate=10.0)  # 30 s for three documents
    reranker = fallback(first, ToyMember("second"), timeout_s=60.0)
    assert (await answers(reranker, "q", deadline=time.monotonic() + 5))[1] == "second"
    assert not first.asked
    assert passed_over("toy", "TOO_SLOW") == before + 1
    assert (await answers(reranker, "r", deadline=time.monotonic() + 50))[1] is None


async def test_a_last_member_that_would_be_late_keeps_no_time_for_itself() -> None:
    first, last = ToyMember(), ToyMember("last", rate=10.0)  # 30 s for three documents
    assert (await answers(fallback(first, last), "q", deadline=time.monotonic() + 5))[1] is None
    assert (await answers(fallback(first, last), "q", deadline=time.monotonic() + 31))[1] is None


async def test_a_fallback_within_a_fallback_tells_who_answered() -> None:
    inner = fallback(ToyMember(error=DOWN), ToyMember("deep"))
    assert (await answers(fallback(inner, ToyMember("last")), "q"))[1] == "deep"


async def test_costs_of_all_members_are_summed() -> None:
    options = ScoreOptions()
    reranker = fallback(ToyMember(error=DOWN), ToyMember("second"))
    await outcomes_of(reranker, "q", ["1", "2"], options=options)
    assert options.meter.tokens == 400


async def test_a_caller_who_leaves_leaves_nothing_running() -> None:
    first = ToyMember(gate=asyncio.Event())
    reranker = fallback(first, ToyMember("second"))
    leaving = asyncio.create_task(answers(reranker, "q"))
    await first.arrivals.get()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert first.closed == 1


async def test_admission_counts_on_the_fastest_member_that_is_well() -> None:
    first = ToyMember(error=DOWN)
    reranker = fallback(first, ToyMember("second", rate=500.0))
    assert math.isinf(reranker.tokens_per_s)
    await answers(reranker, "q")
    assert reranker.tokens_per_s == 500.0
    assert reranker.estimate_tokens("q", [Document("1")], ScoreOptions()) == 100


async def test_no_text_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    reranker = fallback(ToyMember(error=ValueError("hidden")), ToyMember("second"))
    await answers(reranker, "secret", ["1 hidden"])
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text
    assert "hidden" not in caplog.text


async def test_who_is_not_known_to_need_any_time_is_left_some() -> None:
    reranker = fallback(ToyMember(gate=asyncio.Event()), ToyMember("second"))
    deadline = time.monotonic() + 0.4
    assert (await answers(reranker, "q", deadline=deadline))[1] == "second"
    assert time.monotonic() < deadline
