"""Which members of a fallback are asked: who rests after a failure, who has a search already."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

_MOST_QUERIES = 10_000

# Weaviate waits 50 s for a search. A query that is asked all the time is not one endless search: it
# has to come back to its first member some time.
_LONGEST_SEARCH_S = 50.0

# The next chunk of a search is sent as soon as one has been answered.
_NEXT_CHUNK_S = 1.0


@dataclass(slots=True)
class _Turn:
    """The first member that a query may be asked of, since when, and until when at least."""

    first: int
    since: float
    until: float


class Stickiness:
    """Remembers for some seconds who failed, who answered, and which queries were turned away.

    `clock` is in seconds. Keeps no query, only its digest.
    """

    def __init__(
        self, sticky_s: float, rest_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sticky_s = sticky_s
        self._rest_s = rest_s
        self._clock = clock
        self._turns: OrderedDict[bytes, _Turn] = OrderedDict()
        self._rests: dict[int, float] = {}
        self._answers: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def first_of(self, query: str) -> int:
        """Give the first member that a query may be asked of, from 0.

        Each time it is asked makes that stay longer, so that the last chunk of a search meets the
        same member as the first.
        """
        key = _key(query)
        turn, now = self._turns.get(key), self._clock()
        if turn is None:
            return 0
        if now >= min(turn.until, turn.since + _LONGEST_SEARCH_S):
            del self._turns[key]
            return 0
        turn.until = now + self._sticky_s
        return turn.first

    def turn(self, query: str, first: int) -> None:
        """Keep a query from all members before one."""
        if self._sticky_s <= 0 or self.first_of(query) >= first:
            return
        now = self._clock()
        self._turns[_key(query)] = _Turn(first, now, now + self._sticky_s)
        if len(self._turns) > _MOST_QUERIES:
            self._turns.popitem(last=False)

    def keep(self, query: str, member: int) -> None:
        """Take note that a member answered a chunk of a search."""
        if self._sticky_s <= 0:
            return
        key = _key(query)
        self._answers[key] = member, self._clock()
        self._answers.move_to_end(key)
        if len(self._answers) > _MOST_QUERIES:
            self._answers.popitem(last=False)

    def keeper(self, query: str, arrived: float) -> int | None:
        """Give the member that has answered a chunk of the search to which another one belongs.

        `arrived` is when the other one came, on the clock of this memory.
        """
        member, answered = self._answers.get(_key(query), (None, 0.0))
        return member if arrived - answered < min(_NEXT_CHUNK_S, self._sticky_s) else None

    def rests(self, member: int) -> bool:
        """Tell whether a member failed so lately that it should be left alone."""
        return self._clock() < self._rests.get(member, 0.0)

    def may_try(self, member: int) -> bool:
        """Tell whether a member may be asked; after a rest, one request tries for all others."""
        if self.rests(member):
            return False
        if member in self._rests:
            self._rests[member] = self._clock() + self._rest_s
        return True

    def failed(self, member: int, rest_s: float) -> None:
        """Let a member rest."""
        self._rests[member] = self._clock() + rest_s

    def answered(self, member: int) -> None:
        """Take note that a member is well."""
        self._rests.pop(member, None)


def _key(query: str) -> bytes:
    return blake2b(query.encode("utf-8", "surrogatepass"), digest_size=16).digest()
