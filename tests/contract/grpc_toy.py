"""A gRPC server over a toy reranker, and what its answers and refusals say."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Document, Score
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub

if TYPE_CHECKING:
    from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceAsyncStub

REQUEST_TEXT = "the text of a document"

WAIT_S = 20.0
"""How long a test waits for what must happen; only a failure takes as long."""


class Toy:
    """Scores a document by the number that it spells, or fails with `error`.

    The document "wait" is scored once `release` is set. `ended` is set when a request's work
    ended, however it did.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.began = asyncio.Event()
        self.release = asyncio.Event()
        self.ended = asyncio.Event()
        self.seen: list[ScoreOptions] = []
        self.info = RerankerInfo(
            *("toy", "7", "toy", ScoreKind.MAXSIM, "python", "test", 512), keep_scores=False
        )

    @property
    def tokens_per_s(self) -> float:
        return math.inf  # it runs no model

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        return 0

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        self.seen.append(options)
        self.began.set()
        try:
            async for group in documents:
                for index, document in group:
                    yield index, await self._outcome(document.text)
                    options.meter.pairs += 1
        finally:
            self.ended.set()

    async def _outcome(self, text: str) -> Outcome:
        if self.error is not None:
            raise self.error
        if text == "wait":
            await self.release.wait()
            return Score(1.0)
        return Score(float(text or "0"))


@dataclass
class Served:
    """A running server and a channel to it."""

    toy: Toy
    engine: Engine
    server: GrpcServer
    target: str
    channel: grpc.aio.Channel

    @property
    def stub(self) -> "RerankServiceAsyncStub":
        return cast("RerankServiceAsyncStub", RerankServiceStub(self.channel))

    def make_ready(self) -> None:
        self.engine.open(Registry([self.toy], any_script=self.toy))


@asynccontextmanager
async def serving(
    *, error: Exception | None = None, is_ready: bool = True, **settings: object
) -> AsyncIterator[Served]:
    chosen = Settings.model_validate({"grpc_port": 0, **settings})
    engine = Engine(chosen)
    server = GrpcServer(engine, chosen)
    unlimited = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
    ]
    target = f"127.0.0.1:{await server.start()}"
    async with grpc.aio.insecure_channel(target, unlimited) as channel:
        served = Served(Toy(error), engine, server, target, channel)
        if is_ready:
            served.make_ready()
            await server.set_serving(True)
        try:
            yield served
        finally:
            await server.stop(0)


def request(*texts: str, options: pb.RerankOptions | None = None) -> pb.RerankRequest:
    return pb.RerankRequest(
        query="query", documents=[pb.Document(text=text) for text in texts], options=options
    )


def start(options: pb.RerankOptions | None = None) -> pb.RerankStreamRequest:
    return pb.RerankStreamRequest(start=pb.RerankStreamStart(query="query", options=options))


def more(*texts: str) -> pb.RerankStreamRequest:
    documents = [pb.Document(text=text, id=f"id {text}") for text in texts]
    return pb.RerankStreamRequest(documents=pb.RerankStreamDocuments(documents=documents))


@dataclass
class Failure:
    """A failed call as the standard tools read it."""

    code: grpc.StatusCode
    message: str
    info: error_details_pb2.ErrorInfo
    field: str | None
    retry_after_s: float | None
    metadata: dict[str, str | bytes]


def failure(error: grpc.aio.AioRpcError) -> Failure:
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    status: status_pb2.Status = rpc_status.from_call(error)
    for detail in status.details:
        assert any([detail.Unpack(info), detail.Unpack(bad), detail.Unpack(retry)])
    violations = [violation.field for violation in bad.field_violations]
    return Failure(
        code=error.code(),
        message=error.details() or "",
        info=info,
        field=violations[0] if violations else None,
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() or None,
        metadata=dict(list(error.trailing_metadata())),
    )


async def refused(call: grpc.aio.UnaryUnaryCall[pb.RerankRequest, pb.RerankResponse]) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)


async def stream_refused(served: Served, *messages: pb.RerankStreamRequest) -> Failure:
    """Send messages of which the last is refused; with none, half-close at once.

    Nothing follows the refused one: grpcio's client tells a write to a call that the server has
    ended as an INTERNAL error of its own.
    """
    call = served.stub.RerankStream(timeout=WAIT_S)
    for message in messages:
        await call.write(message)
    if not messages:
        await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await call.read() is not grpc.aio.EOF:
            pass
    return failure(caught.value)


async def received(
    call: grpc.aio.StreamStreamCall[pb.RerankStreamRequest, pb.RerankStreamResponse],
) -> pb.RerankStreamResponse:
    message = await call.read()
    assert isinstance(message, pb.RerankStreamResponse), "the stream has ended"
    return message


async def happened(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), WAIT_S)
