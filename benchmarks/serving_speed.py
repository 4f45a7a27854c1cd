"""Rows of benchmarks/serving.py about speed: latency, throughput, searches, warm caches, start."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.machine import progress, table
from benchmarks.serving_setup import (
    CACHES_OFF,
    EngineTarget,
    Setup,
    drive_whole,
    median_ms,
    p99_ms,
    reached,
    send_all,
)
from rerank_sidecar.app import build_engine
from rerank_sidecar.load.measurement import Measurement
from rerank_sidecar.load.requests import LoadRequest, make_requests
from rerank_sidecar.load.schedule import ClosedLoop
from rerank_sidecar.load.targets import Door, Target, open_target
from rerank_sidecar.load.texts import MadeTexts, Texts
from rerank_sidecar.settings import read_settings

ONE = ClosedLoop(1)

PATIENCE_S = 600.0
"""What callers are ready to wait where throughput alone counts, so that none is refused."""


def latency(setup: Setup) -> Iterator[str]:
    """20 passages, one caller, nothing else: gRPC and HTTP in turn."""
    yield "## Latency of 20 documents, idle server\n"
    yield "One caller, one request after the other, the doors in turn."
    rows = []
    with setup.serve() as server:
        for long in (False, True):
            found = asyncio.run(_latency(setup, server.grpc, server.http, long))
            for door, measured in found.items():
                p50 = median_ms(measured)
                verdict = "" if long else reached(p50 <= 100)
                rows.append((_mix(long), door, f"{p50:.1f}", f"{p99_ms(measured):.1f}", verdict))
    yield from table(("documents", "door", "p50 ms", "p99 ms", "target: p50 100 ms"), rows)


async def _latency(setup: Setup, grpc: str, http: str, long: bool) -> dict[Door, list[Measurement]]:
    found = defaultdict(list)
    async with open_target(Door.GRPC, grpc) as first, open_target(Door.HTTP, http) as second:
        for seed in range(setup.rounds):
            for door, target in ((Door.GRPC, first), (Door.HTTP, second)):
                progress(f"latency: {door}, {_mix(long)}, round {seed + 1}")
                requests = setup.requests(20, seed, long=long)
                found[door].append(await drive_whole(ONE, target, requests, setup.plan(5)))
    return found


def throughput(setup: Setup) -> Iterator[str]:
    """1 to 64 callers through gRPC, and as many by plain calls of the engine, in turn."""
    yield "## Throughput through the server, against the engine alone\n"
    yield "Requests of 20 documents over gRPC, and by plain calls of an engine in the generator's"
    yield "own process, in turn. The generator shares the cores with the server; the last column"
    yield "is what it takes, which the engine alone does not have to share."
    for long, callers in ((False, (1, 4, 16, 64)), (True, (1, 16))):
        yield f"\n{_mix(long)}:"
        patient = {**CACHES_OFF, "RERANK_SIDECAR_REQUEST_TIMEOUT_S": f"{PATIENCE_S}"}
        with setup.serve(patient) as server:
            found = asyncio.run(_throughput(setup, server.grpc, long, callers))
        yield from table(
            (
                "callers",
                "engine docs/s",
                "server docs/s",
                "server/engine",
                "target: 0.95",
                "not falling",
                "server p50 ms",
                "p99 ms",
                "generator, of a core",
            ),
            _throughput_rows(found),
        )


async def _throughput(
    setup: Setup, address: str, long: bool, callers: tuple[int, ...]
) -> dict[int, list[tuple[Measurement, Measurement]]]:
    found = defaultdict(list)
    settings = read_settings(
        model=setup.model,
        score_cache_bytes=0,
        token_matrix_cache_bytes=0,
        request_timeout_s=PATIENCE_S,
    )
    async with build_engine(settings) as engine, open_target(Door.GRPC, address) as server:
        for seed in range(setup.rounds):
            for count in callers:
                progress(f"throughput: {count} callers, {_mix(long)}, round {seed + 1}")
                pair = [
                    await drive_whole(
                        ClosedLoop(count),
                        target,
                        setup.requests(20, seed, long=long),
                        setup.plan(8, timeout_s=PATIENCE_S),
                    )
                    for target in (EngineTarget(engine), server)
                ]
                found[count].append((pair[0], pair[1]))
    return found


def _throughput_rows(
    found: dict[int, list[tuple[Measurement, Measurement]]],
) -> Iterator[tuple[str, ...]]:
    best = 0.0
    for callers, pairs in found.items():
        engine, server = (
            statistics.median(each[side].documents_per_s for each in pairs) for side in (0, 1)
        )
        ratio = statistics.median(s.documents_per_s / e.documents_per_s for e, s in pairs)
        through = [pair[1] for pair in pairs]
        yield (
            str(callers),
            f"{engine:.0f}",
            f"{server:.0f}",
            f"{ratio:.2f}",
            reached(ratio >= 0.95),
            reached(server >= 0.97 * best),
            f"{median_ms(through):.0f}",
            f"{p99_ms(through):.0f}",
            f"{statistics.median(each.generator_share for each in through):.0%}",
        )
        best = max(best, server)


def search(setup: Setup) -> Iterator[str]:
    """One Weaviate search of 100 in chunks, against one request of 100."""
    yield "## One Weaviate search of 100 documents\n"
    yield "Chunks of 32, so many at once, against one HTTP request of 100; in turn, same texts."
    with setup.serve() as server:
        found = asyncio.run(_search(setup, server.http))
    whole = found[0]
    rows = [("one request of 100", f"{median_ms(whole):.1f}", f"{p99_ms(whole):.1f}", "", "")]
    for at_once in (2, 4):
        ratio = statistics.median(
            median_ms([each]) / median_ms([one])
            for each, one in zip(found[at_once], whole, strict=True)
        )
        p50, p99 = median_ms(found[at_once]), p99_ms(found[at_once])
        name = f"chunks of 32, {at_once} at once"
        rows.append((name, f"{p50:.1f}", f"{p99:.1f}", f"{ratio:.2f}", reached(ratio <= 1.15)))
    yield from table(("", "p50 ms", "p99 ms", "against one request", "target: 1.15"), rows)


async def _search(setup: Setup, address: str) -> dict[int, list[Measurement]]:
    found = defaultdict(list)
    async with (
        open_target(Door.HTTP, address) as one,
        open_target(Door.WEAVIATE, address, chunks_at_once=2) as two,
        open_target(Door.WEAVIATE, address, chunks_at_once=4) as four,
    ):
        targets: dict[int, Target] = {0: one, 2: two, 4: four}
        for seed in range(setup.rounds):
            for at_once, target in targets.items():
                progress(f"search: {at_once or 'not cut, all'} at once, round {seed + 1}")
                requests = setup.requests(100, seed)
                found[at_once].append(await drive_whole(ONE, target, requests, setup.plan(6)))
    return found


def warm(setup: Setup) -> Iterator[str]:
    """Late interaction: documents whose token matrices are in the cache, under new queries."""
    yield "## Late interaction, 100 documents, matrix cache warm and cold\n"
    yield "The score cache is off, the matrix cache as it is by default. Documents are made from"
    yield "the package's passages (56 words on average), so that no cold one was ever seen; warm"
    yield "are 20 sets of 100, sent once beforehand, and every query is new."
    rows = []
    environment = {"RERANK_SIDECAR_SCORE_CACHE_BYTES": "0"}
    with setup.serve(environment) as server:
        for door, address in ((Door.GRPC, server.grpc), (Door.HTTP, server.http)):
            cold, hot = asyncio.run(_warm(setup, door, address))
            p50, ratio = median_ms(hot), median_ms(cold) / median_ms(hot)
            figures = (f"{median_ms(cold):.1f}", f"{p50:.1f}", f"{p99_ms(hot):.1f}", f"{ratio:.1f}")
            rows.append((door, *figures, reached(ratio >= 30), reached(p50 <= 10)))
    heads = ("door", "cold p50 ms", "warm p50 ms", "warm p99 ms", "times as fast")
    yield from table((*heads, "target: 30 times", "target: 10 ms"), rows)


async def _warm(
    setup: Setup, door: Door, address: str
) -> tuple[list[Measurement], list[Measurement]]:
    cold, hot = [], []
    rng = np.random.default_rng([len(door), 7])
    texts = MadeTexts(rng)
    new = make_requests(texts, 100, rng)
    sets = [next(new) for _ in range(4 if setup.quick else 20)]
    async with open_target(door, address) as target:
        for seed in range(setup.rounds):
            progress(f"warm: {door}, round {seed + 1}")
            cold.append(await drive_whole(ONE, target, new, setup.plan(5)))
            await send_all(target, iter(sets), len(sets), 1)
            hot.append(await drive_whole(ONE, target, _again(sets, texts, rng), setup.plan(5)))
    return cold, hot


def _again(
    sets: Sequence[LoadRequest], texts: Texts, rng: np.random.Generator
) -> Iterator[LoadRequest]:
    while True:
        yield LoadRequest(texts.query(), sets[int(rng.integers(len(sets)))].documents)


def start(setup: Setup) -> Iterator[str]:
    """From nothing to ready, with an empty cache folder and then with what is in it."""
    yield "## Start to ready\n"
    yield "From the start of the process to the first answer of /.well-known/ready, which is asked"
    yield "every 10 ms. `first` has an empty `cache_dir`; files are in the page cache in both."
    first: list[float] = []
    later: list[float] = []
    for number in range(2 if setup.quick else 7):
        progress(f"start: {number + 1}")
        with tempfile.TemporaryDirectory() as folder:
            environment = {**CACHES_OFF, "RERANK_SIDECAR_CACHE_DIR": folder}
            for found in (first, later):
                with setup.serve(environment) as server:
                    found.append(server.ready_s)
    rows = [
        (
            name,
            f"{statistics.median(found):.2f}",
            f"{max(found):.2f}",
            reached(statistics.median(found) <= 2),
        )
        for name, found in (("first", first), ("later", later))
    ]
    yield from table(("start", "median s", "max s", "target: 2 s"), rows)


def _mix(long: bool) -> str:
    return "10 % long" if long else "passages"
