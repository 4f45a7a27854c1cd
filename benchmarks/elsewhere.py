"""Measures what it costs to have another server's model behind a sidecar: the hop, not the model.

    python -m benchmarks.elsewhere --data DIR [--output FILE]

Run it from the repository's root; benchmarks/README.md tells what it needs.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Process, SimpleQueue
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.machine import machine, progress, table, write
from benchmarks.passages import COLLECTION, DATA_VARIABLE, has_collection
from benchmarks.serving_setup import CACHES_OFF, Setup, drive_whole, median_ms, p99_ms
from rerank_sidecar.load.measurement import Measurement
from rerank_sidecar.load.own_server import own_server
from rerank_sidecar.load.schedule import ClosedLoop
from rerank_sidecar.load.targets import Door, open_target

CALLERS = (1, 16)
DIRECT = "asked directly"
FLAGS = ("--log-level", "warning", "--disabled-doors", "weaviate")
PACKAGES = ("rerank-sidecar", "grpcio", "httpx", "openai", "uvicorn")
NOTES = """\
# Models on other servers: what the hop costs

Measured: requests of {documents} passages of TREC DL19 over gRPC, contenders in turns, everything
on this one machine. The far server is a sidecar with the model `lexical`, which takes next to
nothing, so that what is added is the hop: reading, one call or several, and reading its answer. The
chat endpoint of the last row answers at once with the reverse of what it was shown; a real one
takes as long as it takes, {windows} times a request, one call after the other. Caches are off."""


def main(
    data: Annotated[
        Path | None, typer.Option(envvar=DATA_VARIABLE, help="Folder of the collections.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    documents: Annotated[int, typer.Option(help="Documents of a request.")] = 100,
    rounds: Annotated[int, typer.Option(help="How often each contender takes its turn.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One short round.")] = False,
) -> None:
    """Print one row for each way and number of callers."""
    if not data or not has_collection(data):
        typer.echo(f"Name the folder that holds {COLLECTION}/ with --data.", err=True)
        raise typer.Exit(2)
    setup = Setup("lexical", data / COLLECTION, quick, 60.0, 1 if quick else rounds)
    found = _measure(setup, documents)
    windows = len(range(0, max(documents - 20, 0), 10)) + 1
    heads = ("way", "callers", "p50 ms", "added", "p99 ms", "documents/s")
    rows = table(heads, _rows(found))
    notes = NOTES.format(documents=documents, windows=windows)
    write([notes, *rows, "## Where", "", *machine(PACKAGES)], output)


def _measure(setup: Setup, documents: int) -> dict[tuple[int, str], list[Measurement]]:
    with ExitStack() as stack:
        far = stack.enter_context(setup.serve())
        port = far.grpc.rpartition(":")[2]
        ways = {
            "`sidecar`, gRPC": f"sidecar:grpc://127.0.0.1:{port}#lexical",
            "`tei`, gRPC": f"tei:grpc://127.0.0.1:{port}",
            "`tei`, HTTP": f"tei:{far.http}/tei",
            "`cohere`, HTTP": f"cohere:{far.http}/cohere#lexical",
            "`listwise`": f"listwise:{stack.enter_context(chat_endpoint())}/v1#none",
        }
        near = {
            way: stack.enter_context(
                own_server(*FLAGS, "--model", source, environment=CACHES_OFF)
            ).grpc
            for way, source in ways.items()
        }
        return asyncio.run(_in_turns(setup, {DIRECT: far.grpc, **near}, documents))


async def _in_turns(
    setup: Setup, addresses: dict[str, str], documents: int
) -> dict[tuple[int, str], list[Measurement]]:
    found = defaultdict(list)
    async with AsyncExitStack() as stack:
        targets = {
            way: await stack.enter_async_context(open_target(Door.GRPC, address))
            for way, address in addresses.items()
        }
        for callers in CALLERS:
            for seed in range(setup.rounds):
                for way, target in targets.items():
                    progress(f"{way}, {callers} callers, round {seed + 1}")
                    requests = setup.requests(documents, seed)
                    measured = await drive_whole(
                        ClosedLoop(callers), target, requests, setup.plan(5)
                    )
                    found[callers, way].append(measured)
    return found


def _rows(found: dict[tuple[int, str], list[Measurement]]) -> Iterator[tuple[str, ...]]:
    for (callers, way), measured in found.items():
        p50_ms = median_ms(measured)
        added_ms = p50_ms - median_ms(found[callers, DIRECT])
        rate = statistics.median(each.documents_per_s for each in measured)
        yield (
            way,
            str(callers),
            f"{p50_ms:.1f}",
            "" if way == DIRECT else f"{added_ms:.1f}",
            f"{p99_ms(measured):.1f}",
            f"{rate:.0f}",
        )


class _Chat(BaseHTTPRequestHandler):
    """A chat endpoint that puts the documents of its last message in the opposite order."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer a chat completion."""
        self.rfile.read(int(self.headers["Content-Length"]))
        order = " > ".join(f"[{place}]" for place in range(20, 0, -1))
        message = {"role": "assistant", "content": order}
        body = json.dumps(
            {
                "id": "0",
                "object": "chat.completion",
                "created": 0,
                "model": "none",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def chat_endpoint() -> Iterator[str]:
    """Run the chat endpoint in a process of its own and give its address."""
    ports: SimpleQueue[int] = SimpleQueue()
    process = Process(target=_serve_chat, args=(ports,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get()}"
    finally:
        process.terminate()
        process.join()


def _serve_chat(ports: SimpleQueue[int]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Chat) as server:
        ports.put(server.server_address[1])
        server.serve_forever()


if __name__ == "__main__":
    typer.run(main)
