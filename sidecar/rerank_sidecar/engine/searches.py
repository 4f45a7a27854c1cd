"""Searches that come in parts: once the first part is in, the others are let in, too.

Weaviate cuts the documents of a search into chunks of 32 and sends each as a request of its own,
as many at once as its host has cores, the rest as answers come back. It never says how many there
are, and one refused chunk fails the whole search. So chunks with the same model and query within
some seconds count as one search. Admission looks at the whole search when its first chunk comes,
at as many chunks as searches have usually had; the ledger keeps room for those not seen yet.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from rerank_sidecar.engine.ledger import Ticket
from rerank_sidecar.types import Document

FULL_CHUNK = 32
"""Documents of a chunk after which more may come; fewer are a search's last."""

# Chunks of one search are sent within milliseconds, the next one as soon as an answer is there.
NEXT_CHUNK_S = 0.25

# A query that very many ask at once looks like one endless search. So a promise covers a few
# times the usual number of chunks, and at least a search of 1,000 documents; the next chunk is
# judged like a first one.
_LEAST_PROMISED = 32
_PROMISED_TIMES_USUAL = 4

# 100 documents are four chunks; what is usual here is learned, each search counting for a fifth.
_USUAL_AFTER_FULL = 4.0
_USUAL_AFTER_LAST = 1.0
_LEARNING_RATE = 0.2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some documents of a search: a digest of model and query, and what tells chunks apart."""

    search: bytes
    part: int
    document_count: int

    @classmethod
    def of(cls, model: str, query: str, documents: Sequence[Document], arrived: int) -> Chunk:
        """Tell which part of which search some documents are, of `arrived` ones that it brought.

        No text is kept.
        """
        asked = f"{model!r}{query}".encode("utf-8", "surrogatepass")
        # Taken for another chunk's twin, a chunk costs a bit of room in the ledger and no more.
        ends = ((len(text), text[:64], text[-64:]) for text in (each.text for each in documents))
        return cls(blake2b(asked, digest_size=16).digest(), hash(tuple(ends)), arrived)

    @property
    def is_full(self) -> bool:
        """Tell whether more chunks may follow."""
        return self.document_count >= FULL_CHUNK

    def tokens_of_full(self, tokens: int) -> int:
        """Tell from its own tokens what a full chunk of its search has."""
        return tokens * FULL_CHUNK // max(1, min(self.document_count, FULL_CHUNK))


@dataclass(slots=True, eq=False)
class Search:
    """A search whose first chunk was let in; `promised` more will be, come what may."""

    begun_full: bool
    promised: int
    reserved: Ticket
    tokens_of_chunk: int
    last_at: float
    running: int = 0
    answered: bool = False
    parts: set[int] = field(default_factory=set)

    def join(self, chunk: Chunk, now: float) -> None:
        """Note a chunk that was let in, which uses up some of what was reserved."""
        self.promised -= 1
        self.running += 1
        self.last_at = now
        if self.parts and chunk.part not in self.parts:
            self.reserved.add(-min(self.tokens_of_chunk, self.reserved.tokens))
        self.parts.add(chunk.part)


class Searches:
    """The searches of the last seconds; all times are on one clock, in seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._searches: OrderedDict[bytes, Search] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._quiet: deque[tuple[float, Search]] = deque()
        self._usual = {True: _USUAL_AFTER_FULL, False: _USUAL_AFTER_LAST}

    def find_promised(self, chunk: Chunk, now: float) -> Search | None:
        """Give the search that a chunk belongs to, if that chunk was promised a place."""
        search = self._searches.get(chunk.search)
        if search is None or search.promised <= 0 or self._is_over(search, now):
            return None
        return search

    def usual_rest(self, chunk: Chunk) -> float:
        """Tell how many more chunks a search usually has that begins with this one."""
        return max(0.0, self._usual[chunk.is_full] - 1)

    def begin(self, chunk: Chunk, tokens_of_chunk: int, reserved: Ticket, now: float) -> Search:
        """Promise the chunks to come a place, now that the first has one."""
        usual = self._usual[chunk.is_full]
        promised = max(_LEAST_PROMISED, round(_PROMISED_TIMES_USUAL * usual))
        before = self._searches.pop(chunk.search, None)
        if before is not None:
            self._end(before)
        search = Search(chunk.is_full, promised, reserved, tokens_of_chunk, now)
        search.answered = before is not None and before.running > 0 and before.answered
        self._searches[chunk.search] = search
        return search

    def leave(self, chunk: Chunk, search: Search, now: float) -> None:
        """Note that a chunk was answered, or was given up."""
        search.running -= 1
        search.answered = True
        search.last_at = now
        if self._searches.get(chunk.search) is search:
            self._searches.move_to_end(chunk.search)
        if not search.running:
            self._quiet.append((now, search))

    def refuse(self, chunk: Chunk, left_s: float, now: float) -> None:
        """Note that a search with so much time left was refused, and is lost as a whole."""
        refused_at, longest_s = self._refused.get(chunk.search, (now, left_s))
        self._refused[chunk.search] = refused_at, max(longest_s, left_s)

    def was_refused(self, chunk: Chunk, left_s: float, now: float) -> bool:
        """Tell whether another chunk of the search was refused a moment ago.

        Who asks the same with clearly more time left is somebody else.
        """
        refused_at, longest_s = self._refused.get(chunk.search, (-math.inf, 0.0))
        return now - refused_at <= NEXT_CHUNK_S and left_s <= longest_s + NEXT_CHUNK_S

    def settle(self, now: float) -> None:
        """Give up what was reserved for chunks that did not come, and forget what is over."""
        while self._quiet and now - self._quiet[0][0] > NEXT_CHUNK_S:
            _, search = self._quiet.popleft()
            if not search.running and now - search.last_at > NEXT_CHUNK_S:
                search.reserved.close()
        while self._refused and now - next(iter(self._refused.values()))[0] > NEXT_CHUNK_S:
            self._refused.popitem(last=False)
        while self._searches and self._is_over(next(iter(self._searches.values())), now):
            self._end(self._searches.popitem(last=False)[1])

    def _is_over(self, search: Search, now: float) -> bool:
        return not search.running and now - search.last_at > self._window_s

    def _end(self, search: Search) -> None:
        search.reserved.close()
        usual = self._usual[search.begun_full]
        self._usual[search.begun_full] += _LEARNING_RATE * (len(search.parts) - usual)
