"""How a client treats its calls: how long they may take, how often they are tried, what if not."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

from rerank_adapters.errors import RerankCallError
from rerank_adapters.rerank import OnError

DEFAULT_TIMEOUT_S = 30.0

_LONGEST_S = 1_000_000.0

_MOST_ATTEMPTS = 5
"""gRPC makes no more, whatever it is told."""

FIRST_BACKOFF_S = 0.1
MOST_BACKOFF_S = 2.0
BACKOFF_FACTOR = 2
"""What is waited after the first attempt that failed, at most, and by how much more each time."""

THROTTLE_TOKENS = 10
THROTTLE_RATIO = 0.1
"""Failed attempts take a token each, others give back a part; with half of them retries end."""


def backoff_s(attempt: int) -> float:
    """Give what gRPC waits after so many attempts, give or take a fifth (gRFC A6)."""
    usual_s: float = min(FIRST_BACKOFF_S * BACKOFF_FACTOR ** (attempt - 1), MOST_BACKOFF_S)
    return usual_s * random.uniform(0.8, 1.2)  # noqa: S311 - so that callers do not come together


class ClientOptions(TypedDict, total=False):
    """The keyword arguments that every client has.

    `on_error` says what becomes of a call that fails: "raise", the default, or "passthrough", which
    gives the documents back in their order, without scores. That never hides the caller's own
    mistakes: a `RequestError` is always raised. `on_passthrough` is called with the error each time
    before the documents are given back, to log or to count; what it raises is raised.

    `max_attempts` is how often a call is tried, 1 to 5, while the server cannot be reached or is
    too busy. `max_documents_per_call` is the server's `max_documents`: a call with more is split if
    the model's scores mean the same in every request, and sent whole if they do not.
    """

    on_error: OnError
    on_passthrough: Callable[[RerankCallError], None] | None
    max_attempts: int
    max_documents_per_call: int


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of a client, checked; `ClientOptions` explains them.

    Raises:
        TypeError: there is no such option.
        ValueError: a value is out of range; the message names it.
    """

    timeout_s: float = DEFAULT_TIMEOUT_S
    on_error: OnError = "raise"
    on_passthrough: Callable[[RerankCallError], None] | None = None
    max_attempts: int = 4
    max_documents_per_call: int = 10_000

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < math.inf:
            raise ValueError("timeout_s: must be a positive number of seconds")
        if self.on_error not in {"raise", "passthrough"}:
            raise ValueError('on_error: must be "raise" or "passthrough"')
        if not 1 <= self.max_attempts <= _MOST_ATTEMPTS:
            raise ValueError(f"max_attempts: must be within 1 and {_MOST_ATTEMPTS}")
        if self.max_documents_per_call < 1:
            raise ValueError("max_documents_per_call: must be at least 1")

    def until(self, timeout_s: float | None) -> float:
        """Give the end of a call that begins now, on the clock of `time.monotonic`.

        A time that is over already is no mistake: the call will end with `DeadlineExceeded`.
        One of more than eleven days is cut to that, which clocks and headers can still carry.

        Raises:
            ValueError: the time is no finite number.
        """
        chosen = self.timeout_s if timeout_s is None else timeout_s
        if not -math.inf < chosen < math.inf:
            raise ValueError("timeout_s: must be a number of seconds")
        return time.monotonic() + min(chosen, _LONGEST_S)
