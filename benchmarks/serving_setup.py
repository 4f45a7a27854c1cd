"""What the rows of benchmarks/serving.py have in common: servers, texts, loads, probes."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import numpy as np

from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import Overloaded, RerankError, error_row
from rerank_sidecar.load.driver import Plan, drive
from rerank_sidecar.load.measurement import Measurement
from rerank_sidecar.load.own_server import OwnServer, own_server
from rerank_sidecar.load.requests import LoadRequest, make_requests
from rerank_sidecar.load.schedule import ClosedLoop
from rerank_sidecar.load.targets import ANSWERED, Answer, Target
from rerank_sidecar.load.texts import GivenTexts, Texts, read_texts
from rerank_sidecar.types import Document, RerankOptions, RerankRequest

CACHES_OFF: Mapping[str, str] = MappingProxyType(
    {
        "RERANK_SIDECAR_SCORE_CACHE_BYTES": "0",
        "RERANK_SIDECAR_TOKEN_MATRIX_CACHE_BYTES": "0",
    }
)

LONG_SHARE = 10
"""In the long mix, one document of so many is long."""

LONG_WORDS = (1000, 3000)


@dataclass(frozen=True)
class Setup:
    """The model, the collection's folder, how long to measure, and the deadline past capacity."""

    model: str
    folder: Path
    quick: bool
    deadline_s: float
    rounds: int

    def plan(self, seconds: float, timeout_s: float = 60.0) -> Plan:
        """Measure so long after a warm-up of a fifth of it; briefly with --quick."""
        seconds = min(seconds, 4.0) if self.quick else seconds
        return Plan(seconds, timeout_s, warm_up_s=seconds / 5)

    def serve(
        self, environment: Mapping[str, str] = CACHES_OFF
    ) -> AbstractContextManager[OwnServer]:
        """Run a server of this model."""
        flags = ("--log-level", "warning", "--model", self.model)
        return own_server(*flags, environment=environment)

    def texts(self, seed: int, *, long: bool = False) -> Texts:
        """Give the collection's passages, or the mix with long documents, in the seed's order."""
        rng = np.random.default_rng(seed)
        given = read_texts(self.folder, rng)
        return _LongMix(given, rng) if long else given

    def requests(self, documents: int, seed: int, *, long: bool = False) -> Iterator[LoadRequest]:
        """Give requests of so many of these documents; the same ones for the same seed."""
        texts = self.texts(seed, long=long)
        return make_requests(texts, documents, np.random.default_rng(seed))


class _LongMix:
    """Every tenth document is passages joined to between 1,000 and 3,000 words."""

    def __init__(self, given: GivenTexts, rng: np.random.Generator) -> None:
        self._given = given
        self._rng = rng
        self._count = 0

    @property
    def source(self) -> str:
        return f"{self._given.source}, every {LONG_SHARE}th joined to {LONG_WORDS} words"

    def query(self) -> str:
        return self._given.query()

    def documents(self, count: int) -> tuple[str, ...]:
        return tuple(self._next() for _ in range(count))

    def _next(self) -> str:
        self._count += 1
        words = 0 if self._count % LONG_SHARE else int(self._rng.integers(*LONG_WORDS))
        joined = self._given.documents(1)[0].split()
        while len(joined) < words:
            joined += self._given.documents(1)[0].split()
        return " ".join(joined[:words] if words else joined)


class EngineTarget(Target):
    """The engine in this process, with no server around it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ask(self, request: LoadRequest, timeout_s: float) -> Answer:
        """Rerank by a plain call."""
        documents = tuple(Document(text) for text in request.documents)
        options = RerankOptions(timeout_s=timeout_s)
        try:
            await self._engine.rerank(RerankRequest(request.query, documents, options))
        except RerankError as error:
            return Answer(error_row(error).reason, isinstance(error, Overloaded))
        return ANSWERED

    async def close(self) -> None:
        """Do nothing: the engine belongs to others."""


async def drive_whole(
    load: ClosedLoop, target: Target, requests: Iterator[LoadRequest], plan: Plan
) -> Measurement:
    """Measure callers each of whose requests must be answered, or the figures would mean nothing.

    Takes four times as long, and again, if the time was too short for a single request.
    """
    while True:
        measured = await drive(load, target, requests, plan)
        if measured.failures():
            raise SystemExit(f"{load}: {measured.failures()}")
        if measured.samples:
            return measured
        plan = replace(plan, duration_s=4 * plan.duration_s)


async def send_all(
    target: Target, requests: Iterator[LoadRequest], count: int, callers: int
) -> None:
    """Send exactly so many requests by so many callers; each must be answered."""
    left = iter(range(count))

    async def call() -> None:
        for _ in left:
            answer = await target.ask(next(requests), 60.0)
            if answer != ANSWERED:
                raise SystemExit(f"a request was not answered: {answer.reason}")

    await asyncio.gather(*(call() for _ in range(callers)))


def median_ms(measurements: Sequence[Measurement]) -> float:
    """Give the median latency of all requests of several rounds, in milliseconds."""
    return 1000 * float(np.median(np.concatenate([each.latencies_s for each in measurements])))


def p99_ms(measurements: Sequence[Measurement]) -> float:
    """Give the 99th percentile of the same."""
    found = np.concatenate([each.latencies_s for each in measurements])
    return 1000 * float(np.percentile(found, 99, method="inverted_cdf"))


def probe_ready(address: str, duration_s: float, period_s: float = 0.05) -> list[float]:
    """Ask /.well-known/ready every 50 ms over one kept connection, as an orchestrator might.

    Gives the seconds that each answer took from when it was due; infinity for one that was not 200
    or 204, or that failed. To be run in a process of its own, whose clock no load disturbs.
    """
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=5)
    began = time.perf_counter()
    found = []
    for number in range(int(duration_s / period_s)):
        due = began + number * period_s
        time.sleep(max(0.0, due - time.perf_counter()))
        found.append(time.perf_counter() - due if _is_ready(connection) else float("inf"))
    return found


def _is_ready(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/.well-known/ready")
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    return answer.status in {200, 204}


def memory_mb(process_id: int, field: str = "VmRSS") -> float:
    """Read the resident memory of a process (`VmRSS`) or the most it ever had (`VmHWM`), in MB."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"/proc tells no {field}: this row needs Linux")


def reached(fulfilled: bool) -> str:
    """Say whether a target was reached."""
    return "reached" if fulfilled else "**missed**"
