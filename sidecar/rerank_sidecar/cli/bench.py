"""`rerank-sidecar bench`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from rerank_sidecar.cli.bench_output import print_report, watched_loads
from rerank_sidecar.cli.output import complain, print_json
from rerank_sidecar.load.bench import Bench, BenchJob, BenchReport
from rerank_sidecar.load.driver import Plan
from rerank_sidecar.load.measurement import Measurement
from rerank_sidecar.load.own_server import own_server
from rerank_sidecar.load.plot import plot, require_plotting
from rerank_sidecar.load.requests import Repeat
from rerank_sidecar.load.schedule import ClosedLoop, Load, OpenLoop
from rerank_sidecar.load.targets import Door
from rerank_sidecar.load.texts import MEAN_WORDS

_DEFAULT_CONCURRENCY = "1,4,16"
_DAY_S = 86_400
_MOST = 100_000
_DEFAULT_PORTS = {Door.GRPC: 50051, Door.HTTP: 8080, Door.WEAVIATE: 8080}


def bench(  # noqa: PLR0913 - a parameter is a flag
    *,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A running server: HOST:PORT, or http://HOST:PORT. Unset: one of its own, which "
            "has the settings of the environment, and ends with the measurement.",
            rich_help_panel="Server",
            show_default=False,
        ),
    ] = None,
    door: Annotated[
        Door,
        typer.Option(
            help="What is spoken: `grpc`, `http` (native JSON), or `weaviate` (its form, in chunks "
            "of 32; a search counts once, and only if none of its chunks fails).",
            rich_help_panel="Server",
        ),
    ] = Door.GRPC,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to ask for, or what its own server is to serve.",
            rich_help_panel="Server",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="RERANK_SIDECAR_TOKEN",
            help="What a server that asks for tokens is shown; better in the environment, because "
            "other users of the machine see flags.",
            rich_help_panel="Server",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]",
            help="Callers, each of which asks again as soon as it was answered. One load after "
            f"the other. Default: {_DEFAULT_CONCURRENCY}.",
            rich_help_panel="Load",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="R[,R...]",
            help="Instead of callers: requests per second, at random moments (Poisson), whether or "
            "not the earlier ones were answered.",
            rich_help_panel="Load",
            show_default=False,
        ),
    ] = None,
    duration: Annotated[
        float,
        typer.Option(min=0.1, max=_DAY_S, help="Seconds of each load.", rich_help_panel="Load"),
    ] = 10.0,
    warm_up: Annotated[
        float,
        typer.Option(
            min=0, max=_DAY_S, help="Seconds before, which are not counted.", rich_help_panel="Load"
        ),
    ] = 2.0,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=_DAY_S,
            help="Deadline of each request in seconds, told to the server.",
            rich_help_panel="Load",
        ),
    ] = 10.0,
    chunks_at_once: Annotated[
        int,
        typer.Option(
            min=1,
            help="Calls of one search that Weaviate has in flight: as many as its host has cores.",
            rich_help_panel="Load",
        ),
    ] = 2,
    documents: Annotated[
        int, typer.Option(min=1, help="Documents of each request.", rich_help_panel="Texts")
    ] = 20,
    words: Annotated[
        int,
        typer.Option(
            min=1,
            help="Mean words of a document that is made here; 56 as in MS MARCO.",
            rich_help_panel="Texts",
        ),
    ] = MEAN_WORDS,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Documents to send instead, as they are: JSON Lines with `text`, plain lines, or "
            "a BEIR-style folder. After the last comes the first again.",
            rich_help_panel="Texts",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[
        Repeat,
        typer.Option(
            help="What comes again, and so is found in a cache: nothing, `documents` under new "
            "queries, or whole `requests`.",
            rich_help_panel="Texts",
        ),
    ] = Repeat.NONE,
    distinct: Annotated[
        int,
        typer.Option(min=1, help="With --repeat: how many there are.", rich_help_panel="Texts"),
    ] = 100,
    seed: Annotated[
        int, typer.Option(min=0, help="Draws other texts and moments.", rich_help_panel="Texts")
    ] = 0,
    plot_file: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.png",
            help="Draw the latencies and rates, too.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure how a server holds up under load: what it gets done, how soon, what it refuses.

    Goodput is what was answered within the deadline. Latency counts from the moment a request was
    due, not from when it could be sent. All requests are made of the package's own passages and
    differ, so that no cache helps unless `--repeat` says so. The generator takes processor time,
    too: on another machine than the server's it takes none of the server's.
    """
    job = BenchJob(
        door=door,
        model=model if target else None,
        token=token if target else None,
        chunks_at_once=chunks_at_once,
        documents=documents,
        mean_words=words,
        texts=texts,
        repeat=repeat,
        distinct=distinct,
        loads=_loads(concurrency, rate),
        plan=Plan(duration, timeout, warm_up, seed),
    )
    if job.model and door is Door.WEAVIATE:
        raise typer.BadParameter("Weaviate's form names no model", param_hint="--model")
    if plot_file:
        require_plotting()
    report, measured = _run(Bench(job), job, target, model)
    if plot_file:
        plot(measured, f"{report.target}, {door}, {documents} documents", plot_file)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
    if not all(each.answered for each in measured):
        complain("no request was answered" + (" in some loads" if len(measured) > 1 else ""))
        raise typer.Exit(1)


def _run(
    bench: Bench, job: BenchJob, target: str | None, model: str | None
) -> tuple[BenchReport, list[Measurement]]:
    if target is None:
        serving = ("--model", model) if model else ()
        with own_server("--log-level", "warning", *serving) as server:
            return _run(bench, job, server.grpc if job.door is Door.GRPC else server.http, None)
    address = _address(job.door, target)
    with watched_loads(job.plan) as watch:
        measured = asyncio.run(bench.run(address, watch))
    return bench.report(address, measured), measured


def _loads(concurrency: str | None, rate: str | None) -> tuple[Load, ...]:
    if concurrency and rate:
        raise typer.BadParameter("not together with --concurrency", param_hint="--rate")
    if rate:
        return tuple(OpenLoop(each) for each in _numbers(rate, "--rate", whole=False))
    callers = _numbers(concurrency or _DEFAULT_CONCURRENCY, "--concurrency", whole=True)
    return tuple(ClosedLoop(int(each)) for each in callers)


def _numbers(given: str, flag: str, *, whole: bool) -> list[float]:
    try:
        numbers = [int(part) if whole else float(part) for part in given.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number <= _MOST for number in numbers):
        kind = f"{'whole ' if whole else ''}numbers above 0, at most {_MOST}"
        raise typer.BadParameter(f"{given!r}: must be {kind}, with commas between", param_hint=flag)
    return numbers


def _address(door: Door, target: str) -> str:
    is_url = target.startswith(("http://", "https://"))
    if door is Door.GRPC and is_url:
        raise typer.BadParameter(
            "the gRPC door takes HOST:PORT; for a URL add --door http", param_hint="--target"
        )
    has_port = target.rpartition(":")[2].isdecimal()
    with_port = target if has_port or is_url else f"{target}:{_DEFAULT_PORTS[door]}"
    return with_port if is_url or door is Door.GRPC else f"http://{with_port}"
