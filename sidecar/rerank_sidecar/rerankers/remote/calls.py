"""Every call to one server: in its turn, through the circuit, again if that is worth it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rerank_sidecar.errors import DeadlineExceeded, RemoteUnavailable, error_row
from rerank_sidecar.rerankers.base import Meter
from rerank_sidecar.rerankers.deadlines import cancelled_once
from rerank_sidecar.rerankers.remote.base import Answer, CallFailed, Question, Remote
from rerank_sidecar.rerankers.remote.circuit import CircuitBreaker, RetryBudget
from rerank_sidecar.rerankers.remote.turns import Turns
from rerank_sidecar.telemetry import metrics

if TYPE_CHECKING:
    from tenacity import RetryCallState

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 2.0

_STALL_S = 2.0
"""A server that has not answered for so long when the deadline comes has stalled."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call may take: `timeout_s` for each try, `max_tries` with the first."""

    timeout_s: float
    max_tries: int
    max_concurrency: int


class RemoteCalls:
    """Asks one server, with everything that keeps it and us from harm; of one event loop."""

    def __init__(self, name: str, remote: Remote, limits: CallLimits) -> None:
        self._name = name
        self._remote = remote
        self._limits = limits
        self._turns = Turns(limits.max_concurrency)
        self._circuit = CircuitBreaker()
        self._budget = RetryBudget()

    @property
    def timeout_s(self) -> float:
        """How long one try may take."""
        return self._limits.timeout_s

    @property
    def at_once(self) -> int:
        """How many calls the server gets at once."""
        return self._limits.max_concurrency

    def check(self, calls: int, deadline: float) -> None:
        """Refuse at once what is known to fail or to come too late.

        Raises:
            RemoteUnavailable: the circuit is open.
            Overloaded: so many calls would end after the deadline.
        """
        self._circuit.check()
        self._turns.check(calls, deadline)

    async def ask(self, question: Question, deadline: float, meter: Meter) -> Answer:
        """Have one question answered, by several tries if need be.

        Only what failed in passing is tried again: rerank requests change nothing at the server, so
        that one which may have been read can be sent once more.

        Raises:
            CallFailed: the last try did.
            RemoteUnavailable: the circuit is open.
            Overloaded: the server would not get to it before the deadline.
        """
        from tenacity import AsyncRetrying, retry_if_exception

        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            wait=_wait_s,
            stop=lambda state: self._is_last(state, deadline),
            reraise=True,
        )
        return await retrying(self._once, question, deadline, meter)

    async def close(self) -> None:
        """Close all connections."""
        await self._remote.close()

    async def _once(self, question: Question, deadline: float, meter: Meter) -> Answer:
        self._circuit.check()
        stall_s = min(_STALL_S, self._limits.timeout_s)
        async with self._turns.turn(deadline):
            with self._circuit.attempt(deadline, stall_s):
                meter.remote_calls += 1
                return await self._counted(question, deadline, stall_s)

    async def _counted(self, question: Question, deadline: float, stall_s: float) -> Answer:
        outcome, began = "CANCELLED", time.monotonic()
        try:
            answer = await self._timed(question, deadline, stall_s)
            outcome = "OK"
        except CallFailed as failure:
            outcome = error_row(failure.error).reason
            if failure.is_transient:
                self._budget.failed()
            raise
        finally:
            metrics.REMOTE_CALLS.labels(model=self._name, outcome=outcome).inc()
            spent_s = time.monotonic() - began
            metrics.REMOTE_CALL_SECONDS.labels(model=self._name).observe(spent_s)
        self._budget.succeeded()
        return answer

    async def _timed(self, question: Question, deadline: float, stall_s: float) -> Answer:
        left_s = deadline - time.monotonic()
        given_s = min(self._limits.timeout_s, left_s)
        try:
            async with asyncio.timeout(given_s):
                asked = replace(question, timeout_s=given_s)
                return await cancelled_once(self._remote.ask(asked))
        except TimeoutError:
            raise _stalled(given_s, left_s, stall_s) from None

    def _is_last(self, state: RetryCallState, deadline: float) -> bool:
        return (
            state.attempt_number >= self._limits.max_tries
            or self._budget.is_spent
            or time.monotonic() + state.upcoming_sleep >= deadline
        )


def _stalled(given_s: float, left_s: float, stall_s: float) -> CallFailed:
    is_fault = given_s >= stall_s
    if given_s == left_s:
        late = DeadlineExceeded("the deadline passed before the remote answered")
        return CallFailed(late, is_fault=is_fault)
    slow = RemoteUnavailable(f"the remote did not answer within {given_s:g} s")
    return CallFailed(slow, is_fault=is_fault)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, CallFailed) and error.is_transient


def _wait_s(state: RetryCallState) -> float:
    from tenacity import wait_random_exponential

    backoff = wait_random_exponential(_FIRST_WAIT_S, _LONGEST_WAIT_S)
    failure = None if state.outcome is None else state.outcome.exception()
    asked_s = failure.retry_after_s if isinstance(failure, CallFailed) else None
    return backoff(state) if asked_s is None else asked_s
