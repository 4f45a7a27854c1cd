"""A server in a box: admission as it is, a model that reads at a fixed rate, a clock of its own.

The queue is the scheduler's: higher priority first, then by age; a request has no more than a turn
of tokens in it at once, and the next turn is as old as it would be on an idle server. Nothing here
waits for real time, so that an overload of minutes is played in moments and always ends the same.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from rerank_sidecar.engine.admission import Admission, Newcomer
from rerank_sidecar.engine.ledger import Ticket
from rerank_sidecar.engine.searches import Chunk
from rerank_sidecar.errors import Overloaded
from rerank_sidecar.settings import Settings

TOKENS_PER_S = 20_000.0
TURN_TOKENS = 8192
BATCH_TOKENS = 2048
TOKENS_OF_DOCUMENT = 100
SEARCH_TIMEOUT_S = 4.0


@dataclass(eq=False)
class Job:
    """A request that was let in."""

    ticket: Ticket
    to_read: int
    deadline: float
    then: Callable[[bool], None]
    arrived_at: float
    waiting: int = 0
    read: int = 0


@dataclass
class Server:
    """Reads what was let in, batch after batch; a job ends well if it ends in time."""

    settings: Settings = field(default_factory=Settings)
    now: float = 0.0
    busy_s: float = 0.0
    late: int = 0
    jobs: set[Job] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.admission = Admission(self.settings, lambda: self.now)
        self._random = random.Random(7)  # noqa: S311
        self._numbers = count()
        self._arrivals: list[tuple[float, int, Callable[[], object]]] = []
        self._queue: list[tuple[int, float, int, int, Job]] = []

    def at(self, time: float, arrive: Callable[[], object]) -> None:
        heapq.heappush(self._arrivals, (time, next(self._numbers), arrive))

    def ask(
        self,
        documents: int,
        timeout_s: float,
        then: Callable[[bool], None],
        chunk: Chunk | None = None,
        priority: int = 0,
    ) -> None:
        """Bring a request; `then` is told whether it was answered in time, if it was let in.

        Raises:
            Overloaded: it was not.
        """
        tokens = documents * TOKENS_OF_DOCUMENT
        deadline = self.now + timeout_s
        ticket = self.admission.admit(
            Newcomer("toy", tokens, TOKENS_PER_S, priority, deadline, chunk)
        )
        to_read = round(tokens * self._random.uniform(0.9, 1.1))  # estimates are not exact
        job = Job(ticket, to_read, deadline, then, self.now)
        self.jobs.add(job)
        self._submit(job)

    def run(self, until: float) -> None:
        while self.now < until:
            while self._arrivals and self._arrivals[0][0] <= self.now:
                heapq.heappop(self._arrivals)[2]()
            if self._queue:
                self._read_batch()
            elif self._arrivals:
                self.now = self._arrivals[0][0]
            else:
                return

    def _submit(self, job: Job) -> None:
        tokens = min(TURN_TOKENS - job.waiting, job.to_read - job.read - job.waiting)
        if tokens > 0:
            job.waiting += tokens
            age = min(self.now, job.arrived_at + (job.read + job.waiting - tokens) / TOKENS_PER_S)
            place = (-job.ticket.priority, age, next(self._numbers), tokens, job)
            heapq.heappush(self._queue, place)

    def _read_batch(self) -> None:
        left, served = BATCH_TOKENS, list[Job]()
        while left and self._queue:
            priority, age, number, tokens, job = heapq.heappop(self._queue)
            part = min(left, tokens)
            left -= part
            job.read += part
            job.waiting -= part
            served.append(job)
            if tokens > part:
                heapq.heappush(self._queue, (priority, age, number, tokens - part, job))
        seconds = (BATCH_TOKENS - left) / TOKENS_PER_S
        self.now += seconds
        self.busy_s += seconds
        for job in dict.fromkeys(served):
            job.ticket.progress(job.read)
            self._submit(job)
            if job.read >= job.to_read:
                self._end(job)

    def _end(self, job: Job) -> None:
        job.ticket.close()
        self.jobs.remove(job)
        in_time = self.now <= job.deadline
        self.late += not in_time
        job.then(in_time)


@dataclass
class Outcomes:
    """How many came, how many were refused, how many were answered in time."""

    offered: int = 0
    refused: int = 0
    good: int = 0


def poisson(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Give the times of arrivals that know nothing of each other."""
    chance = random.Random(seed)  # noqa: S311
    time = chance.expovariate(rate)
    while time < seconds:
        yield time
        time += chance.expovariate(rate)


class Search:
    """One search as Weaviate sends it: in chunks of 32, some at once; one refusal fails it."""

    def __init__(
        self, server: Server, query: int, documents: int, at_once: int, outcomes: Outcomes
    ) -> None:
        self._server = server
        self._query = query
        self._chunks = [min(32, documents - start) for start in range(0, documents, 32)]
        self._outcomes = outcomes
        self._answered = 0
        self._sent = 0
        outcomes.offered += 1
        for _ in range(min(at_once, len(self._chunks))):
            self._send()

    def _send(self) -> None:
        if self._sent == len(self._chunks):
            return
        documents = self._chunks[self._sent]
        chunk = Chunk(self._query.to_bytes(16, "big"), self._sent, documents)
        self._sent += 1
        try:
            self._server.ask(documents, SEARCH_TIMEOUT_S, self._on_answer, chunk)
        except Overloaded:
            self._outcomes.refused += 1
            self._sent = len(self._chunks)

    def _on_answer(self, in_time: bool) -> None:
        self._answered += in_time
        if self._answered == len(self._chunks):
            self._outcomes.good += 1
        if in_time:
            self._send()
