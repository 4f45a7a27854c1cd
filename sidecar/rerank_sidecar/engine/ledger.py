"""What the running requests still have to read: the account that admission is decided on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

# A request has no more than a turn in the scheduler's queue at once (Scheduler.fair_share_tokens),
# and each later turn stands where it would on an idle server. So whoever has more than a turn can
# be overtaken by who comes later. On two cores a turn is 8192 tokens, some 0.4 s; of two guesses
# each question takes the careful one.
_LEAST_TURN_S = 0.2
_MOST_TURN_S = 0.5


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's line in a ledger; `tokens` is what it still has to read, as estimated.

    `begun_at` and `slack_s` are in seconds: when it was let in, and how much later than expected it
    may end. `estimate` is what it had to read in all.
    `on_close` is called once, when the line is taken out. `takes_turns` is false for what stands
    for several small requests and so lets no others pass.
    """

    ledger: Ledger
    priority: int
    begun_at: float
    slack_s: float = math.inf
    on_close: Callable[[], None] | None = None
    takes_turns: bool = True
    tokens: int = 0
    estimate: int = 0
    _is_open: bool = True

    def add(self, tokens: int) -> None:
        """Note that more of the request has arrived."""
        self.estimate += tokens
        self._change(tokens)

    def progress(self, read_tokens: int) -> None:
        """Note how much of the request has been read in all; more than estimated counts as all."""
        self._change(max(0, self.estimate - read_tokens) - self.tokens)

    def close(self) -> None:
        """Take the line out of the ledger; whatever comes later changes nothing."""
        self._change(-self.tokens)
        was_open, self._is_open = self._is_open, False
        if was_open and self.on_close is not None:
            self.on_close()

    def _change(self, tokens: int) -> None:
        if self._is_open and tokens:
            self.tokens += tokens
            self.ledger.change(self, tokens)


@dataclass(slots=True, eq=False)
class Ledger:
    """The open tickets of one model.

    `tokens_per_s` is the model's rate when it was last asked for, which turns tokens to seconds.
    """

    tokens_per_s: float = 1.0
    _tokens: Counter[int] = field(default_factory=Counter)
    _large: set[Ticket] = field(default_factory=set)

    @property
    def tokens(self) -> int:
        """How many tokens are still to be read."""
        return self._tokens.total()

    @property
    def work_s(self) -> float:
        """How long the model is busy with what it has."""
        return self.tokens / self.tokens_per_s

    def change(self, ticket: Ticket, tokens: int) -> None:
        """Note that a ticket has got more or fewer tokens."""
        self._tokens[ticket.priority] += tokens
        if not self._tokens[ticket.priority]:
            del self._tokens[ticket.priority]
        if ticket.takes_turns and ticket.tokens > _LEAST_TURN_S * self.tokens_per_s:
            self._large.add(ticket)
        else:
            self._large.discard(ticket)

    def ahead_s(self, priority: int, tokens: int, now: float) -> float:
        """Tell how long the model works on others before a newcomer of so many tokens is done.

        Whatever has a higher priority goes first. Whatever has the same takes turns: of a large
        request only what would have been read by now on an idle server, or by the time at which
        the newcomer's own last turn stands in the queue.
        """
        ahead = sum(count for each, count in self._tokens.items() if each >= priority)
        last_turn_at = now + max(0.0, tokens / self.tokens_per_s - _LEAST_TURN_S)
        later = sum(
            self._tokens_after(each, last_turn_at)
            for each in self._large
            if each.priority == priority
        )
        return (ahead - later) / self.tokens_per_s

    def overtaken(self, priority: int, tokens: int, now: float) -> list[tuple[Ticket, float]]:
        """Tell whom a newcomer of so many tokens delays, and for how many seconds."""
        own_s = tokens / self.tokens_per_s
        delays = (
            (each, min(own_s, each.begun_at + each.estimate / self.tokens_per_s - now))
            for each in self._large
            if each.priority == priority
        )
        return [(ticket, delay_s) for ticket, delay_s in delays if delay_s > 0]

    def _tokens_after(self, ticket: Ticket, time: float) -> float:
        stands = (time - ticket.begun_at + _MOST_TURN_S) * self.tokens_per_s
        return max(0.0, min(ticket.tokens, ticket.estimate - stands))
