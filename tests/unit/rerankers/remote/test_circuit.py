"""The circuit breaker on a clock of the test's own: when it opens, for how long, how it closes."""

from __future__ import annotations

import asyncio

import pytest

from rerank_sidecar.errors import RemoteFailed, RemoteUnavailable
from rerank_sidecar.rerankers.remote.base import CallFailed
from rerank_sidecar.rerankers.remote.circuit import CircuitBreaker, RetryBudget

FAR = 1e9


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(clock)


def call(circuit: CircuitBreaker, error: BaseException | None = None) -> None:
    with circuit.attempt(FAR, 2.0):
        if error is not None:
            raise error


def fail(circuit: CircuitBreaker, times: int, *, is_fault: bool = True) -> None:
    for _ in range(times):
        with pytest.raises(CallFailed):
            call(circuit, CallFailed(RemoteFailed("no"), is_fault=is_fault))


def pause(circuit: CircuitBreaker) -> float:
    with pytest.raises(RemoteUnavailable) as refused:
        circuit.check()
    return refused.value.retry_after_s


def test_it_opens_after_five_faults_in_a_row(circuit: CircuitBreaker) -> None:
    fail(circuit, 4)
    call(circuit)
    fail(circuit, 4)
    fail(circuit, 1, is_fault=False)  # whoever refuses us is well
    fail(circuit, 4)
    circuit.check()
    fail(circuit, 1)
    assert pause(circuit) == 1.0
    with pytest.raises(RemoteUnavailable):
        call(circuit)


def test_one_call_tries_whether_it_may_close(circuit: CircuitBreaker, clock: Clock) -> None:
    fail(circuit, 5)
    clock.now += 1.0
    with circuit.attempt(FAR, 2.0):
        pause(circuit)  # to everybody else
    circuit.check()
    fail(circuit, 4)
    circuit.check()


def test_pauses_grow_to_half_a_minute(circuit: CircuitBreaker, clock: Clock) -> None:
    fail(circuit, 5)
    pauses = []
    for _ in range(7):
        pauses.append(pause(circuit))
        clock.now += pauses[-1]
        fail(circuit, 1)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    clock.now += 30
    call(circuit)
    fail(circuit, 5)
    assert pause(circuit) == 1.0


def test_what_began_before_says_nothing_after(circuit: CircuitBreaker, clock: Clock) -> None:
    early, late = circuit.attempt(FAR, 2.0), circuit.attempt(FAR, 2.0)
    early.__enter__()
    late.__enter__()
    fail(circuit, 5)
    early.__exit__(None, None, None)
    error = CallFailed(RemoteFailed("no"), is_fault=True)
    assert not late.__exit__(type(error), error, None)
    assert pause(circuit) == 1.0


def test_a_cancelled_call_says_nothing_and_lets_the_next_one_try(
    circuit: CircuitBreaker, clock: Clock
) -> None:
    fail(circuit, 5)
    clock.now += 1.0
    with pytest.raises(asyncio.CancelledError):
        call(circuit, asyncio.CancelledError())
    circuit.check()
    call(circuit)
    circuit.check()


@pytest.mark.parametrize(("stalled_s", "opens"), [(3.0, True), (1.0, False)])
def test_a_call_cut_off_by_its_deadline_counts_if_it_had_time(
    circuit: CircuitBreaker, clock: Clock, stalled_s: float, opens: bool
) -> None:
    for _ in range(5):
        deadline = clock.now + stalled_s
        with pytest.raises(asyncio.CancelledError), circuit.attempt(deadline, 2.0):
            clock.now = deadline
            raise asyncio.CancelledError
    if opens:
        pause(circuit)
    else:
        circuit.check()


def test_retries_are_paid_for_by_successes() -> None:
    budget = RetryBudget()
    for _ in range(4):
        budget.failed()
    assert not budget.is_spent
    budget.failed()
    assert budget.is_spent
    for _ in range(10):
        budget.succeeded()
    assert not budget.is_spent
