"""Admission by its own door, on a clock that stands still until it is moved."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY

from rerank_sidecar.engine.admission import Admission, Newcomer
from rerank_sidecar.engine.ledger import Ticket
from rerank_sidecar.errors import DeadlineExceeded, Overloaded, RerankError
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Document, RerankOptions
from tests.unit.engine.toys import Model, ask, engine_over

RATE = 1000.0


class Gate:
    """An admission on a clock of its own, before a model that reads 1000 tokens a second."""

    def __init__(self, **settings: object) -> None:
        self.now = 100.0
        both = {**Settings().model_dump(), **settings}
        self.admission = Admission(Settings.model_validate(both), lambda: self.now)

    def admit(
        self,
        tokens: int,
        timeout_s: float,
        priority: int = 0,
        rate: float = RATE,
        model: str = "model",
    ) -> Ticket:
        deadline = self.now + timeout_s
        return self.admission.admit(Newcomer(model, tokens, rate, priority, deadline))

    def refusal(self, tokens: int, timeout_s: float, priority: int = 0, **more: Any) -> Overloaded:
        with pytest.raises(Overloaded) as raised:
            self.admit(tokens, timeout_s, priority, **more)
        return raised.value


def test_what_fits_is_let_in_and_what_does_not_is_told_when_it_would() -> None:
    gate = Gate()
    waiting = [gate.admit(100, 10) for _ in range(10)]
    assert gate.admission.work_s == pytest.approx(1.0)
    refused = gate.refusal(500, 1.5)
    assert "1.5 s" in refused.message
    assert 0.1 <= refused.retry_after_s <= 1.0
    for ticket in waiting:
        ticket.progress(math.ceil(100 * refused.retry_after_s) + 1)
    gate.admit(500, 1.5)


def test_an_idle_server_takes_whatever_it_can_finish() -> None:
    gate = Gate()
    ticket = gate.admit(999, 1.0)
    ticket.close()
    refused = gate.refusal(2000, 1.0)
    assert "2 s" in refused.message
    assert "1 s" in refused.message
    assert refused.retry_after_s == pytest.approx(2.0)


def test_a_busy_server_says_so_too_when_even_an_idle_one_could_not() -> None:
    gate = Gate()
    gate.admit(100, 10)
    assert "idle server" in gate.refusal(2000, 1.0).message


def test_time_that_is_over_is_no_overload() -> None:
    with pytest.raises(DeadlineExceeded):
        Gate().admit(10, 0.0)
    with pytest.raises(DeadlineExceeded):
        Gate(admission=False).admit(10, -1.0)


def test_an_idle_server_does_not_believe_an_old_estimate_for_ever() -> None:
    gate = Gate()
    gate.admit(10, 1.0).close()
    gate.refusal(2000, 1.0)
    gate.now += 11
    gate.admit(2000, 1.0).close()  # perhaps the model is faster than it was
    gate.refusal(2000, 1.0)
    gate.now += 11
    gate.refusal(20_000, 1.0)  # but not as much faster as that


def test_small_requests_do_not_keep_an_old_estimate_alive() -> None:
    gate = Gate()
    for _ in range(11):
        gate.refusal(2000, 1.0)
        gate.now += 1
        gate.admit(10, 1.0).close()
    gate.admit(2000, 1.0)


def test_what_comes_later_must_fit_the_time_of_its_own_request_and_the_queue() -> None:
    gate = Gate(max_queue_tokens=1000)
    stream = gate.admit(500, 3.0)
    check, deadline = gate.admission.check_more, gate.now + 3.0
    check(stream, 2500, deadline)  # alone, it is bounded by its deadline only
    with pytest.raises(Overloaded, match="idle server"):
        check(stream, 2600, deadline)
    gate.admit(200, 3.0)
    check(stream, 300, deadline)
    with pytest.raises(Overloaded, match="max_queue_tokens"):
        check(stream, 400, deadline)
    gate.now += 3
    with pytest.raises(DeadlineExceeded):
        check(stream, 1, deadline)


def test_off_means_that_what_comes_later_is_let_in_too() -> None:
    gate = Gate(admission=False, max_queue_tokens=1)
    gate.admission.check_more(gate.admit(10, 1.0), 10_000, gate.now + 1)


def test_work_of_a_lower_priority_does_not_count() -> None:
    gate = Gate()
    gate.admit(5000, 30, priority=-1)
    gate.admit(500, 1.0)
    gate.refusal(500, 1.0)
    gate.admit(400, 1.0, priority=1)


def test_a_large_request_lets_small_ones_pass() -> None:
    gate = Gate()
    gate.admit(10_000, 40)
    gate.admit(10, 2.0)
    assert gate.admission.work_s > 10


def test_a_small_request_does_not_make_a_large_one_late() -> None:
    gate = Gate()
    gate.admit(10_000, 12)  # 10 s of work, and so little more than a second to spare
    refused = gate.refusal(2000, 40)
    assert "late" in refused.message
    gate.admit(500, 40)
    gate.now += 10  # by now it is ahead of all who come
    gate.admit(2000, 40)


def test_a_model_that_is_busy_gets_its_half_of_the_machine() -> None:
    gate = Gate()
    other = gate.admit(10_000, 100, model="other")
    # 0.4 s of its own work take 0.8 s, and a quarter of the spare time is kept.
    gate.admit(400, 1.0 + 0.05, model="model").close()
    gate.refusal(400, 0.9)
    other.close()
    gate.admit(400, 0.9)


def test_a_model_that_has_little_to_do_takes_no_more_than_that() -> None:
    gate = Gate()
    gate.admit(100, 100, model="other", rate=1000.0)
    gate.admit(400, 0.8)
    assert gate.admission.work_s == pytest.approx(0.5)


def test_work_before_a_request_is_slowed_by_other_models_as_well() -> None:
    gate = Gate()
    for _ in range(10):
        gate.admit(100, 10)
    gate.admit(10, 1.5).close()
    gate.admit(500, 10, model="second")
    gate.admit(500, 10, model="third")
    refused = gate.refusal(10, 1.5)
    assert refused.message.startswith("the request was refused: 2 s of work are before it")
    gate.admit(10, 3.0)


def test_two_models_in_a_flood_share_what_one_would_have() -> None:
    """Each lets in half of what it would alone, so that all of it is done in time."""
    admitted = {}
    for models in (["a"], ["a", "b"]):
        gate = Gate()
        admitted[len(models)] = 0
        for number in range(2000):
            try:
                gate.admit(10, 10, model=models[number % len(models)])
            except Overloaded:
                continue
            admitted[len(models)] += 1
    assert admitted[2] == pytest.approx(admitted[1], rel=0.02)
    assert 700 < admitted[1] < 750  # of 10 s at 100 a second, three quarters


def test_the_queue_is_bounded_in_tokens() -> None:
    gate = Gate(max_queue_tokens=1000)
    gate.admit(900, 1000)
    refused = gate.refusal(200, 1000)
    assert "max_queue_tokens is 1000" in refused.message
    gate.admit(100, 1000)


def test_a_request_larger_than_the_queue_has_an_idle_server_to_itself() -> None:
    gate = Gate(max_queue_tokens=1000)
    gate.admit(5000, 1000)
    gate.refusal(1, 1000)


def test_the_queue_holds_what_the_model_reads_in_the_usual_time() -> None:
    gate = Gate(request_timeout_s=2.0)
    gate.admit(1500, 1000)
    assert "is 2000" in gate.refusal(600, 1000).message


def test_a_faster_model_takes_more() -> None:
    gate = Gate()
    gate.admit(1000, 10)
    gate.refusal(1000, 2.0)
    deadline = gate.now + 2.0
    gate.admission.admit(Newcomer("model", 1000, 2 * RATE, 0, deadline))


def test_off_means_that_everything_is_let_in() -> None:
    gate = Gate(admission=False, max_queue_tokens=1)
    for _ in range(3):
        gate.admit(10_000, 0.1)
    assert gate.admission.work_s == pytest.approx(30.0)


def test_tokens_come_and_go_but_never_below_nothing() -> None:
    gate = Gate()
    ticket = gate.admit(100, 10)
    ticket.add(50)
    assert ticket.tokens == 150
    ticket.progress(60)
    assert ticket.tokens == 90
    ticket.progress(1000)  # the estimate was too low
    assert ticket.tokens == 0
    ticket.close()
    ticket.add(70)
    ticket.close()
    assert gate.admission.work_s == 0.0


def test_any_order_of_events_leaves_an_empty_ledger() -> None:
    chance = random.Random(1)  # noqa: S311
    gate = Gate(admission=False)
    tickets: list[Ticket] = []
    for _ in range(3000):
        gate.now += chance.random()
        if chance.random() < 0.4:
            tickets.append(gate.admit(chance.randrange(3000), 5, chance.randrange(-2, 3)))
        elif tickets:
            ticket = chance.choice(tickets)
            [ticket.add, ticket.progress][chance.random() < 0.7](chance.randrange(2000))
            if chance.random() < 0.3:
                ticket.close()
    assert gate.admission.work_s > 0
    for ticket in tickets:
        ticket.close()
    assert gate.admission.work_s == 0


def work_s() -> float:
    value = REGISTRY.get_sample_value("rerank_sidecar_admitted_work_seconds")
    assert value is not None
    return value


def refusals(reason: str) -> float:
    labels = {"reason": reason}
    return REGISTRY.get_sample_value("rerank_sidecar_refusals_total", labels) or 0.0


async def test_a_request_is_refused_before_the_model_hears_of_it() -> None:
    model = Model()
    engine = engine_over(model)
    before = refusals("deadline")
    with pytest.raises(Overloaded):
        await engine.rerank(ask(*"abcdef", options=RerankOptions(timeout_s=0.01)))
    assert not model.calls
    assert refusals("deadline") == before + 1


async def test_a_warm_server_answers_what_it_knows_however_busy_it_is() -> None:
    model = Model()
    engine = engine_over(model)
    await engine.rerank(ask("a", "bb"))
    busy = asyncio.create_task(engine.rerank(ask("wait", *["x"] * 2000)))
    await model.waits.wait()
    soon = RerankOptions(timeout_s=1.0, priority=-1)
    with pytest.raises(Overloaded):
        await engine.rerank(ask("new", options=soon))
    assert len((await engine.rerank(ask("a", "bb", options=soon))).results) == 2
    model.go.set()
    await busy


async def test_a_request_without_a_limit_of_its_own_has_the_usual_one() -> None:
    model = Model()
    with pytest.raises(Overloaded, match=r"has 0\.0"):
        await engine_over(model, request_timeout_s=0.01).rerank(ask(*"abcdef"))


async def test_later_groups_of_a_stream_count() -> None:
    model = Model()
    engine = engine_over(model)
    more = asyncio.Event()

    async def documents() -> AsyncIterator[Sequence[Document]]:
        yield [Document("a")]
        yield [Document("wait")] * 5000
        more.set()

    async def stream() -> int:
        options = RerankOptions(timeout_s=60)
        return len([event async for event in engine.stream("query", options, documents())])

    running = asyncio.create_task(stream())
    await model.waits.wait()
    assert work_s() == pytest.approx(50.0)
    model.go.set()
    assert await running == 5002
    assert work_s() == 0


async def test_however_a_request_ends_its_ticket_is_given_back() -> None:
    chance = random.Random(3)  # noqa: S311
    model = Model(tokens_per_s=1e6)
    engine = engine_over(model, score_cache_bytes=0)

    async def one(number: int) -> None:
        texts = [chance.choice(["a", "bb", "wait", "cut"]) for _ in range(chance.randrange(1, 9))]
        options = RerankOptions(timeout_s=chance.choice([0.001, 0.02, 30.0]), priority=number % 3)
        running = asyncio.create_task(engine.rerank(ask(*texts, options=options)))
        await asyncio.sleep(chance.random() * 0.02)
        if chance.random() < 0.4:
            running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            error = running.exception()
            assert error is None or isinstance(error, RerankError)

    running = asyncio.gather(*map(one, range(300)))
    await asyncio.sleep(0.05)
    assert work_s() > 0
    model.go.set()
    await running
    assert work_s() == 0
