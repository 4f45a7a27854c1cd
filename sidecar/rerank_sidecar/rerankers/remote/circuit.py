"""What keeps a failing server from being hammered: a circuit breaker and a budget for retries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rerank_sidecar.errors import RemoteUnavailable
from rerank_sidecar.rerankers.remote.base import CallFailed

_FAILURES = 5
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0

_BUDGET = 10.0
_PER_SUCCESS = 0.1


class CircuitBreaker:
    """Refuses calls for a while when so many in a row have failed; belongs to one event loop.

    After the pause one call is let through. If it fails, too, the next pause is twice as long. See
    Nygard, "Release It!", 2nd edition, 2018, "Circuit Breaker". Written here because the libraries
    that are kept up let every caller through after the pause, take a cancelled call for a failed
    one, or do not tell how long the pause still is.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._pause_s = _FIRST_PAUSE_S
        self._open_until: float | None = None
        self._is_probing = False

    def check(self) -> None:
        """Refuse at once what would be refused in its turn.

        Raises:
            RemoteUnavailable: the circuit is open; it says for how long.
        """
        if self._open_until is None:
            return
        left_s = self._open_until - self._clock()
        if left_s > 0 or self._is_probing:
            raise RemoteUnavailable(
                "the remote has failed too often; it is left alone for a while",
                max(0.1, left_s),
            )

    @contextmanager
    def attempt(self, deadline: float, stall_s: float) -> Iterator[None]:
        """Watch one call.

        One that was cancelled says nothing about the server, unless it was cut off by its deadline
        after it had `stall_s` to answer.

        Raises:
            RemoteUnavailable: the circuit is open.
        """
        self.check()
        began, was_probing = self._clock(), self._open_until is not None
        self._is_probing = was_probing
        try:
            yield
        except CallFailed as failure:
            self._take(failure.is_fault, was_probing)
            raise
        except asyncio.CancelledError:
            if self._clock() >= max(deadline, began + stall_s):
                self._take(True, was_probing)
            raise
        else:
            self._take(False, was_probing)
        finally:
            if was_probing:
                self._is_probing = False

    def _take(self, is_fault: bool, was_probing: bool) -> None:
        if self._open_until is not None and not was_probing:
            return  # it began before the circuit opened
        if not is_fault:
            self._failures, self._open_until, self._pause_s = 0, None, _FIRST_PAUSE_S
            return
        self._failures += 1
        if was_probing:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if was_probing or self._failures >= _FAILURES:
            self._open_until = self._clock() + self._pause_s


class RetryBudget:
    """Lets calls be repeated only while most of them succeed.

    As gRPC throttles retries (gRFC A6): each failure costs one token, each success earns a tenth of
    one, and nothing is repeated when no more than half of ten tokens are left.
    """

    def __init__(self) -> None:
        self._tokens = _BUDGET

    def succeeded(self) -> None:
        """Take note of a call that was answered."""
        self._tokens = min(_BUDGET, self._tokens + _PER_SUCCESS)

    def failed(self) -> None:
        """Take note of a call that might be repeated."""
        self._tokens = max(0.0, self._tokens - 1)

    @property
    def is_spent(self) -> bool:
        """Tell whether nothing may be repeated now."""
        return self._tokens <= _BUDGET / 2
