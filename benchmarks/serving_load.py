"""Rows of benchmarks/serving.py about load: past saturation, and memory over many requests."""

from __future__ import annotations

import asyncio
import statistics
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from benchmarks.machine import progress, table
from benchmarks.serving_setup import (
    Setup,
    drive_whole,
    median_ms,
    memory_mb,
    p99_ms,
    probe_ready,
    reached,
    send_all,
)
from rerank_sidecar.load.driver import drive
from rerank_sidecar.load.measurement import Measurement
from rerank_sidecar.load.own_server import OwnServer
from rerank_sidecar.load.requests import LoadRequest, make_requests
from rerank_sidecar.load.schedule import ClosedLoop, OpenLoop
from rerank_sidecar.load.targets import Door, Target, open_target
from rerank_sidecar.load.texts import MadeTexts, Texts

FACTORS = (1, 2, 5, 10)
FEW_REFUSALS = 5


@dataclass(frozen=True)
class Step:
    """One offered load, and how long /.well-known/ready took meanwhile."""

    measured: Measurement
    ready_s: list[float]


def overload(setup: Setup) -> Iterator[str]:
    """1, 2, 5 and 10 times the capacity, with deadlines, on gRPC's and on Weaviate's door."""
    yield "## Offered load past capacity, with deadlines\n"
    yield f"Poisson arrivals, each request with a deadline of {setup.deadline_s:g} s. Capacity is"
    yield "what callers that wait get done (16, on Weaviate's door 4), anew in each round. Goodput"
    yield "is what was answered in time, on Weaviate's door whole searches (chunks of 32, 2 at"
    yield "once). Ready is asked every 50 ms from a process of its own. The generator shares the"
    yield "cores with the server: what it takes at 10 times is missing from the goodput."
    heads = (
        "offered",
        "per s",
        "goodput/s",
        "of 1×",
        "target: 0.95",
        "refused",
        "refusal median ms",
        "target: 20",
        "other failures",
        "answered p50 ms",
        "p99 ms",
        "ready p99 ms",
        "target: 50",
        "generator, of a core",
    )
    for door, documents in ((Door.GRPC, 20), (Door.WEAVIATE, 100)):
        with setup.serve() as server:
            steps, capacity = _steps(setup, server, door, documents)
        yield f"\n{door}, {documents} documents, capacity {capacity:.1f}/s:"
        yield from table(heads, _overload_rows(steps))


def _steps(
    setup: Setup, server: OwnServer, door: Door, documents: int
) -> tuple[dict[int, list[Step]], float]:
    found: dict[int, list[Step]] = defaultdict(list)
    capacities = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as prober:
        for seed in range(setup.rounds):
            capacity, steps = asyncio.run(_ladder(setup, server, door, documents, seed, prober))
            capacities.append(capacity)
            for factor, step in steps.items():
                found[factor].append(step)
    return found, statistics.median(capacities)


async def _ladder(  # noqa: PLR0913, PLR0917
    setup: Setup,
    server: OwnServer,
    door: Door,
    documents: int,
    seed: int,
    prober: ProcessPoolExecutor,
) -> tuple[float, dict[int, Step]]:
    requests = setup.requests(documents, seed)
    steps = {}
    address = server.grpc if door is Door.GRPC else server.http
    async with open_target(door, address) as target:
        progress(f"overload: capacity on {door}, round {seed + 1}")
        plan = setup.plan(10)
        callers = ClosedLoop(4 if door is Door.WEAVIATE else 16)
        closed = await drive_whole(callers, target, requests, plan)
        for factor in FACTORS:
            progress(f"overload: {factor} times on {door}, round {seed + 1}")
            rate = OpenLoop(factor * closed.goodput_per_s)
            plan = setup.plan(15, timeout_s=setup.deadline_s)
            loop = asyncio.get_running_loop()
            probes = loop.run_in_executor(prober, probe_ready, server.http, plan.end_s)
            measured = await drive(rate, target, requests, plan)
            steps[factor] = Step(measured, await probes)
    return closed.goodput_per_s, steps


def _overload_rows(steps: dict[int, list[Step]]) -> Iterator[tuple[str, ...]]:
    base = [step.measured.goodput_per_s for step in steps[1]]
    for factor, held in steps.items():
        all_measured = [step.measured for step in held]
        goodput = statistics.median(each.goodput_per_s for each in all_measured)
        share = (
            statistics.median(
                each.goodput_per_s / one for each, one in zip(all_measured, base, strict=True)
            )
            if all(base)
            else 0.0
        )
        refusals_ms = _failures_ms(all_measured, refused=True)
        others = _failures_ms(all_measured, refused=False)
        ready = 1000 * float(np.percentile([t for step in held for t in step.ready_s], 99))
        refusal = statistics.median(refusals_ms) if refusals_ms else 0.0
        some = any(each.answered for each in all_measured)
        yield (
            f"{factor}×",
            f"{statistics.median(each.offered_per_s for each in all_measured):.1f}",
            f"{goodput:.1f}",
            f"{share:.2f}",
            reached(share >= 0.95),
            str(len(refusals_ms)),
            f"{refusal:.1f}" if refusals_ms else "-",
            reached(refusal < 20) if len(refusals_ms) >= FEW_REFUSALS else "",
            str(len(others)),
            f"{median_ms(all_measured):.0f}" if some else "-",
            f"{p99_ms(all_measured):.0f}" if some else "-",
            f"{ready:.1f}",
            reached(ready < 50),
            f"{statistics.median(each.generator_share for each in all_measured):.0%}",
        )


def _failures_ms(measurements: Sequence[Measurement], *, refused: bool) -> list[float]:
    return [
        1000 * sample.latency_s
        for each in measurements
        for sample in each.samples
        if sample.answer.reason is not None and sample.answer.refused is refused
    ]


def memory(setup: Setup) -> Iterator[str]:
    """Resident memory over 10,000 requests once the score cache is full, without matrix cache."""
    count = 300 if setup.quick else 10_000
    environment = {"RERANK_SIDECAR_TOKEN_MATRIX_CACHE_BYTES": "0"}
    if setup.quick:
        environment["RERANK_SIDECAR_SCORE_CACHE_BYTES"] = "1000000"
    yield f"## Resident memory over {count} requests, score cache full\n"
    yield "The score cache is filled with short documents first, until it grows no more. Then:"
    yield "10 documents of 20 words a request over gRPC, 8 callers, every other request a"
    yield "repeated one. The matrix cache is off. VmRSS after each tenth of the requests."
    with setup.serve(environment) as server:
        began = memory_mb(server.process_id)
        cached, rows = asyncio.run(_memory(server, count))
        most = memory_mb(server.process_id, "VmHWM")
    spread = max(rows[1:]) / min(rows[1:]) - 1
    yield f"\nThe score cache held {cached / 1e6:.1f} MB."
    heads = ("at start MB", *(f"{tenth * 10} %" for tenth in range(1, 11)))
    yield from table(heads, [(f"{began:.0f}", *(f"{mb:.0f}" for mb in rows))])
    yield from table(
        ("largest over smallest, from 20 % on", "target: 5 %", "most ever MB", "target: 400 MB"),
        [(f"{spread:.1%}", reached(spread <= 0.05), f"{most:.0f}", reached(most < 400))],
    )


async def _memory(server: OwnServer, count: int) -> tuple[float, list[float]]:
    rng = np.random.default_rng(3)
    found = []
    async with open_target(Door.GRPC, server.grpc) as target:
        cached = await _fill_score_cache(server, target, MadeTexts(rng, mean_words=6), rng)
        mixed = _half_repeated(MadeTexts(rng, mean_words=20), rng)
        for tenth in range(10):
            progress(f"memory: {tenth * 10} % of {count} requests")
            await send_all(target, mixed, count // 10, 8)
            found.append(memory_mb(server.process_id))
    return cached, found


async def _fill_score_cache(
    server: OwnServer, target: Target, texts: Texts, rng: np.random.Generator
) -> float:
    """Send new documents until they displace older ones, and give the bytes that are then held."""
    requests = make_requests(texts, 500, rng)
    before, now = -1.0, 0.0
    while now > 1.01 * before:
        progress(f"memory: filling the score cache, {now / 1e6:.1f} MB")
        await send_all(target, requests, 16, 4)
        before, now = now, await asyncio.to_thread(_score_cache_bytes, server.http)
    return now


def _score_cache_bytes(address: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics") as answer:  # noqa: S310 - our own server
        lines = answer.read().decode().splitlines()
    name = 'rerank_sidecar_cache_bytes{cache="score"} '
    return next((float(each.removeprefix(name)) for each in lines if each.startswith(name)), 0.0)


def _half_repeated(texts: Texts, rng: np.random.Generator) -> Iterator[LoadRequest]:
    new = make_requests(texts, 10, rng)
    known = [next(new) for _ in range(100)]
    while True:
        yield next(new)
        yield known[int(rng.integers(len(known)))]
