"""Who is let in: a request that cannot be answered before its deadline is refused at once.

The measure is seconds of work: what the running requests still have to read and what the newcomer
brings, at the rate at which the model has been seen to read. A server that refuses early spends
its time on requests that end in time, so that it is as useful at ten times its capacity as at one
(Beyer et al., "Site Reliability Engineering", 2016, chapter 21, "Handling Overload").

Models share the cores, so that one has to let the others have their turns: until a request is done,
each other model gets as much of the machine as its own has, or what it has waiting if that is less.
What comes for the others later, nobody knows; but the rate of a model follows what they leave to it
within some dozens of forward passes. That they then count twice makes the queue shorter, not idle.

A request that even an idle server could not finish in time is `Overloaded`, too: nothing of it was
begun, and the message says how long it needs and how long it had. `DeadlineExceeded` is kept for
time that is over on arrival, or runs out on the way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rerank_sidecar.engine.ledger import Ledger, Ticket
from rerank_sidecar.engine.searches import NEXT_CHUNK_S, Chunk, Search, Searches
from rerank_sidecar.errors import DeadlineExceeded, Overloaded
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics

# The share of a newcomer's spare time that the work before it may fill. The estimate is wrong by
# a tenth or two and the rate sways with the load; a full queue never lets the model idle, so that
# being careful costs no throughput: tests/unit/engine/test_overload.py plays it. The newcomer's own
# work is not stretched: an idle server takes whatever fits.
_FILLED = 0.75

# A score is told when its whole forward pass is done.
_PASS_S = 0.05

# Estimate and rate are learned from what runs. So that a wrong one cannot refuse everything for
# ever, an idle server that has tried nothing for a while tries what it may have overrated; what
# fits anyway is no trial, so that small requests do not put it off.
_STALE_S = 10.0
_OVERRATED = 4.0

_LEAST_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A request that asks to be let in.

    `tokens` is what its forward passes will read, `tokens_per_s` how fast the model reads, and
    `deadline` is in seconds on the clock of the admission. `chunk` is set for a part of a search.
    """

    model: str
    tokens: int
    tokens_per_s: float
    priority: int
    deadline: float
    chunk: Chunk | None = None


class Admission:
    """Lets requests in or refuses them; belongs to one thread.

    `clock` is that of the deadlines. With the setting `admission` off it only keeps account.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._ledgers: dict[str, Ledger] = {}
        self._searches = Searches(settings.search_window_s)
        self._tried_at = clock()
        metrics.ADMITTED_WORK_SECONDS.set_function(lambda: self.work_s)

    @property
    def work_s(self) -> float:
        """How long the models are busy with what was let in, and with what was promised a place."""
        self._searches.settle(self._clock())
        return sum(ledger.work_s for ledger in self._ledgers.values())

    def admit(self, newcomer: Newcomer) -> Ticket:
        """Let a request in; whoever holds the ticket has to close it.

        The ticket's priority is that at which the request should run.

        Raises:
            Overloaded: it could not be answered in time, or would make another one late.
            DeadlineExceeded: its time is over already.
        """
        now = self._clock()
        self._searches.settle(now)
        ledger = self._ledgers.setdefault(newcomer.model, Ledger())
        ledger.tokens_per_s = max(1.0, newcomer.tokens_per_s)
        if newcomer.chunk is not None:
            ticket = self._admit_chunk(ledger, newcomer, newcomer.chunk, now)
        else:
            slack_s = self._judge(ledger, newcomer, 0, now)
            ticket = Ticket(ledger, newcomer.priority, now, slack_s)
        ticket.add(newcomer.tokens)
        return ticket

    def check_more(self, ticket: Ticket, tokens: int, deadline: float) -> None:
        """Check what a request brings after it was let in, before it is added to its ticket.

        Raises:
            Overloaded: the request alone could not be answered in time, or the queue is full.
            DeadlineExceeded: its time is over.
        """
        if not self._settings.admission:
            return
        ledger, left_s = ticket.ledger, deadline - self._clock()
        if left_s <= 0:
            raise DeadlineExceeded("the deadline passed before every document had arrived")
        _check_own(ledger, ticket.tokens + tokens, left_s, left_s)
        if ledger.tokens > ticket.tokens:
            self._check_queue(ledger, tokens)

    def _admit_chunk(self, ledger: Ledger, newcomer: Newcomer, chunk: Chunk, now: float) -> Ticket:
        search = self._searches.find_promised(chunk, now)
        if search is None:
            search = self._begin(ledger, newcomer, chunk, now)
        search.join(chunk, now)
        # A chunk that the client held back until another was answered takes its search's place in
        # the queue: before all that came after. One sent with the first stands right behind it.
        priority = newcomer.priority + search.answered
        leave = partial(self._leave, chunk, search)
        return Ticket(ledger, priority, self._clock(), on_close=leave)

    def _begin(self, ledger: Ledger, newcomer: Newcomer, chunk: Chunk, now: float) -> Search:
        left_s = newcomer.deadline - now
        if self._searches.was_refused(chunk, left_s, now):
            raise _refusal("search", "another part of the same search was refused", NEXT_CHUNK_S)
        tokens_of_chunk = chunk.tokens_of_full(newcomer.tokens)
        rest = round(self._searches.usual_rest(chunk) * tokens_of_chunk)
        try:
            self._judge(ledger, newcomer, rest, now)
        except Overloaded:
            self._searches.refuse(chunk, left_s, now)
            raise
        reserved = Ticket(ledger, newcomer.priority, now, takes_turns=False)
        reserved.add(rest)
        return self._searches.begin(chunk, tokens_of_chunk, reserved, now)

    def _leave(self, chunk: Chunk, search: Search) -> None:
        self._searches.leave(chunk, search, self._clock())

    def _judge(self, ledger: Ledger, newcomer: Newcomer, rest: int, now: float) -> float:
        """Refuse a newcomer that does not fit; `rest` is what its search will bring besides.

        Returns how many seconds later than expected it may end.
        """
        left_s = newcomer.deadline - now
        if left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the request was begun")
        if not self._settings.admission:
            return math.inf
        work_s = newcomer.tokens / ledger.tokens_per_s
        is_idle = not any(each.tokens for each in self._ledgers.values())
        is_trial = is_idle and now - self._tried_at > _STALE_S
        _check_own(ledger, newcomer.tokens, left_s, left_s * (_OVERRATED if is_trial else 1))
        if work_s > left_s:
            self._tried_at = now
        if is_idle:
            return _FILLED * (left_s - work_s)
        if ledger.tokens:
            self._check_queue(ledger, newcomer.tokens + rest)
        return self._check_time(ledger, newcomer, rest, now)

    def _check_queue(self, ledger: Ledger, tokens: int) -> None:
        limit = self._settings.max_queue_tokens
        if limit is None:
            limit = int(ledger.tokens_per_s * self._settings.request_timeout_s)
        over = ledger.tokens + tokens - limit
        if over > 0:
            raise _refusal(
                "queue",
                f"the queue is full: max_queue_tokens is {limit}",
                over / ledger.tokens_per_s,
            )

    def _check_time(self, ledger: Ledger, newcomer: Newcomer, rest: int, now: float) -> float:
        tokens = newcomer.tokens + rest
        work_s = newcomer.tokens / ledger.tokens_per_s
        left_s = newcomer.deadline - now
        before_s = ledger.ahead_s(newcomer.priority, tokens, now) + rest / ledger.tokens_per_s
        before_s += self._turns_s(ledger, before_s + work_s)
        slack_s = _FILLED * (left_s - work_s) - before_s - _PASS_S
        if slack_s < 0:
            raise _refusal(
                "backlog",
                f"{before_s:.3g} s of work are before it and it takes {work_s:.3g} s itself, "
                f"which is too much for the {left_s:.3g} s that it has",
                -slack_s,
            )
        overtaken = ledger.overtaken(newcomer.priority, tokens, now)
        if any(0 <= ticket.slack_s < delay_s for ticket, delay_s in overtaken):
            raise _refusal("backlog", "it would make a request late that was let in before", work_s)
        for ticket, delay_s in overtaken:
            ticket.slack_s -= delay_s
        return slack_s

    def _turns_s(self, ledger: Ledger, own_s: float) -> float:
        """Tell how long other models work while one works for so many seconds."""
        return sum(min(own_s, each.work_s) for each in self._ledgers.values() if each is not ledger)


def _check_own(ledger: Ledger, tokens: int, left_s: float, most_s: float) -> None:
    work_s = tokens / ledger.tokens_per_s
    if work_s > most_s:
        raise _refusal(
            "deadline",
            f"it would take about {work_s:.3g} s on an idle server and has {left_s:.3g} s; "
            "give it more time or fewer documents",
            work_s,
        )


def _refusal(reason: str, why: str, retry_after_s: float) -> Overloaded:
    metrics.REFUSALS.labels(reason=reason).inc()
    return Overloaded(f"the request was refused: {why}", max(_LEAST_RETRY_S, retry_after_s))
