"""The gRPC door as a client meets it: a real server on a free port and a real channel."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from prometheus_client import REGISTRY

from rerank_sidecar.api.grpc_server import SERVICE_NAME, GrpcServer
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.errors import Overloaded
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Score
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
        self.info = RerankerInfo("toy", "7", "toy", ScoreKind.MAXSIM, "python", "test", 512)

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


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


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


# Unary calls


async def test_results_come_best_first_with_all_that_the_contract_names(served: Served) -> None:
    message = pb.RerankRequest(
        query="query",
        documents=[
            pb.Document(text="0.25", id="a"),
            pb.Document(text="0.5", id=""),
            pb.Document(text="0.25"),
        ],
    )
    response = await served.stub.Rerank(message)
    assert [result.index for result in response.results] == [1, 0, 2]
    assert [result.score.value for result in response.results] == [0.5, 0.25, 0.25]
    assert [result.HasField("id") for result in response.results] == [True, True, False]
    assert not any(result.HasField("document") for result in response.results)
    assert not any(result.score.HasField("best_window") for result in response.results)
    summary = response.summary
    assert (summary.model.name, summary.model.version) == ("toy", "7")
    assert summary.score_kind == pb.SCORE_KIND_MAXSIM
    assert summary.normalization == pb.NORMALIZATION_NONE
    assert summary.usage.pairs == 3
    assert summary.timing.total_us > 0


async def test_options_reach_the_engine(served: Served) -> None:
    options = pb.RerankOptions(
        model="toy",
        top_n=1,
        return_documents=True,
        truncation=pb.Truncation(max_tokens_per_document=9, side=pb.TRUNCATION_SIDE_LEFT),
        long_document_policy=pb.LONG_DOCUMENT_POLICY_CHUNK,
        priority=-3,
        normalization=pb.NORMALIZATION_UNIT,
    )
    response = await served.stub.Rerank(request("0.5", "1", options=options), timeout=WAIT_S)
    (best,) = response.results
    assert (best.index, best.document.text, best.score.value) == (1, "1", 1.0)
    assert response.summary.normalization == pb.NORMALIZATION_UNIT
    (seen,) = served.toy.seen
    assert (seen.truncation.max_tokens_per_document, seen.truncation.side) == (9, "left")
    assert (seen.long_document_policy, seen.priority) == ("chunk", -3)
    assert seen.deadline is not None


async def test_unset_differs_from_zero(served: Served) -> None:
    unset = await served.stub.Rerank(request("-1", "1"))
    zero = await served.stub.Rerank(
        request("-1", "1", options=pb.RerankOptions(score_threshold=0.0))
    )
    assert [len(response.results) for response in (unset, zero)] == [2, 1]
    assert served.toy.seen[0].deadline is None
    failed = await refused(served.stub.Rerank(request("1", options=pb.RerankOptions(top_n=0))))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "options.top_n")


async def test_no_documents_give_no_results(served: Served) -> None:
    response = await served.stub.Rerank(request())
    assert not response.results
    assert response.summary.model.name == "toy"


async def test_a_document_that_fails_alone_carries_its_error() -> None:
    async with serving(max_document_bytes=8) as served:
        response = await served.stub.Rerank(request("0.1", "0" * 9, "0.2"))
    assert [result.index for result in response.results] == [2, 0, 1]
    alone = response.results[2]
    assert alone.WhichOneof("outcome") == "error"
    assert alone.error.reason == "LIMIT_EXCEEDED"
    assert "000" not in alone.error.message


async def test_models_are_listed_default_first(served: Served) -> None:
    (model,) = (await served.stub.ListModels(pb.ListModelsRequest())).models
    assert (model.model.name, model.model.version, model.family) == ("toy", "7", "toy")
    assert model.score_kind == pb.SCORE_KIND_MAXSIM
    assert (model.max_tokens, model.is_default) == (512, True)
    assert model.comparable_across_requests
    assert model.default_long_document_policy == pb.LONG_DOCUMENT_POLICY_TRUNCATE


async def test_many_calls_at_once_keep_their_answers_apart(served: Served) -> None:
    async def top(number: int) -> float:
        response = await served.stub.Rerank(request(str(number), "0.5"), timeout=WAIT_S)
        return response.results[0].score.value

    numbers = range(1, 201)
    assert await asyncio.gather(*(top(number) for number in numbers)) == list(numbers)


async def test_messages_may_be_larger_than_grpc_allows_by_default(served: Served) -> None:
    texts = ["0" * 100_000] * 100
    options = pb.RerankOptions(return_documents=True)
    response = await served.stub.Rerank(request(*texts, options=options))
    assert response.ByteSize() > 10_000_000


async def test_a_message_over_the_limit_is_refused() -> None:
    async with serving(max_body_bytes=10_000) as served:
        assert len((await served.stub.Rerank(request("0" * 9_000))).results) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.Rerank(request("0" * 10_000))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# Streams


async def test_scores_come_back_before_the_client_has_half_closed(served: Served) -> None:
    call = served.stub.RerankStream(timeout=WAIT_S)
    await call.write(start(pb.RerankOptions(top_n=2)))
    await call.write(more("0.1", "0.2"))
    early = [await received(call), await received(call)]
    assert [message.result.score.value for message in early] == [0.1, 0.2]
    await call.write(more())
    await call.write(more("0.3"))
    late = await received(call)
    assert (late.result.index, late.result.id, late.result.score.value) == (2, "id 0.3", 0.3)
    await call.done_writing()
    end = await received(call)
    assert list(end.summary.order) == [2, 1]
    assert end.summary.summary.usage.pairs == 3
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("messages", [[start()], [start(), more()]])
async def test_a_stream_without_documents_ends_with_an_empty_summary(
    served: Served, messages: list[pb.RerankStreamRequest]
) -> None:
    answers = [each async for each in served.stub.RerankStream(iter(messages), timeout=WAIT_S)]
    assert [each.WhichOneof("message") for each in answers] == ["summary"]
    assert not answers[0].summary.order
    assert answers[0].summary.summary.model.name == "toy"


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "start"),
        ([more("1")], "start"),
        ([pb.RerankStreamRequest()], "start"),
        ([start(), more("1"), start()], "start"),
        ([start(), pb.RerankStreamRequest()], "documents"),
        ([start(pb.RerankOptions(top_n=0))], "options.top_n"),
    ],
)
async def test_a_stream_that_breaks_the_rules_is_refused(
    served: Served, messages: list[pb.RerankStreamRequest], field: str
) -> None:
    failed = await stream_refused(served, *messages)
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert failed.info.reason == "INVALID_FIELD"


async def test_a_stream_may_not_carry_more_documents_than_a_request() -> None:
    async with serving(max_documents=3) as served:
        failed = await stream_refused(served, start(), more("1", "2"), more("3", "4"))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "documents")
    assert failed.info.reason == "LIMIT_EXCEEDED"


# Deadlines and cancellation


async def test_work_ends_when_the_deadline_passes(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Rerank(request("wait"), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await happened(served.toy.ended)


async def test_work_ends_when_the_caller_cancels(served: Served) -> None:
    call = served.stub.Rerank(request("wait"))
    await happened(served.toy.began)
    assert not served.toy.ended.is_set()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await happened(served.toy.ended)


async def test_work_ends_when_the_caller_leaves_a_stream(served: Served) -> None:
    call = served.stub.RerankStream()
    await call.write(start())
    await call.write(more("1", "wait"))
    assert (await received(call)).result.index == 0
    call.cancel()
    await happened(served.toy.ended)


async def test_work_ends_when_a_caller_leaves_who_never_read(served: Served) -> None:
    large = start(pb.RerankOptions(return_documents=True))
    documents = more(*["0" * 1_000_000] * 20)
    call = served.stub.RerankStream()
    await call.write(large)
    await call.write(documents)
    await happened(served.toy.began)
    await asyncio.sleep(0.5)  # until flow control holds the server up in the middle of a write
    assert not served.toy.ended.is_set()
    call.cancel()
    await happened(served.toy.ended)


# Errors


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (pb.RerankOptions(normalization=99), "options.normalization"),  # type: ignore[arg-type]
        (pb.RerankOptions(long_document_policy=99), "options.long_document_policy"),  # type: ignore[arg-type]
        (pb.RerankOptions(truncation=pb.Truncation(side=99)), "options.truncation.side"),  # type: ignore[arg-type]
        (
            pb.RerankOptions(truncation=pb.Truncation(max_tokens_per_document=0)),
            "options.truncation.max_tokens_per_document",
        ),
        (pb.RerankOptions(score_threshold=float("nan")), "options.score_threshold"),
    ],
)
async def test_a_wrong_option_is_named(
    served: Served, options: pb.RerankOptions, field: str
) -> None:
    failed = await refused(served.stub.Rerank(request("1", options=options)))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert (failed.info.reason, failed.info.domain) == ("INVALID_FIELD", "rerank-sidecar")


async def test_an_unknown_model_is_not_found(served: Served) -> None:
    options = pb.RerankOptions(model="nosuch" * 5_000)
    failed = await refused(served.stub.Rerank(request("1", options=options)))
    assert (failed.code, failed.field) == (grpc.StatusCode.NOT_FOUND, "options.model")
    assert failed.info.reason == "MODEL_NOT_FOUND"


async def test_a_server_that_is_not_ready_says_when_to_come_back() -> None:
    async with serving(is_ready=False) as served:
        failed = await refused(served.stub.Rerank(request("1")))
        with pytest.raises(grpc.aio.AioRpcError) as listing:
            await served.stub.ListModels(pb.ListModelsRequest())
        assert (await stream_refused(served, start())).info.reason == "NOT_READY"
    assert failed.code is listing.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failed.info.reason == "NOT_READY"
    assert failed.retry_after_s is not None
    assert "grpc-retry-pushback-ms" not in failed.metadata


async def test_a_draining_server_says_so(served: Served) -> None:
    await served.engine.drain(0)
    failed = await refused(served.stub.Rerank(request("1")))
    assert (failed.code, failed.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_overload_pushes_back() -> None:
    async with serving(error=Overloaded("the queue is full", retry_after_s=2.5)) as served:
        failed = await refused(served.stub.Rerank(request("1")))
    assert (failed.code, failed.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert failed.retry_after_s == 2.5
    assert failed.metadata["grpc-retry-pushback-ms"] == "2500"


async def test_a_surprise_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(error=ValueError(REQUEST_TEXT)) as served:
        with caplog.at_level(logging.DEBUG):
            unary = await refused(served.stub.Rerank(request("1")))
            stream = await stream_refused(served, start(), more("1"))
    for failed in (unary, stream):
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert REQUEST_TEXT not in failed.message
    assert "ValueError" in caplog.text
    assert REQUEST_TEXT not in caplog.text


async def test_a_surprise_in_the_door_is_told_without_its_text_too(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ValueError(REQUEST_TEXT)

    monkeypatch.setattr(served.engine, "models", broken)
    with caplog.at_level(logging.DEBUG), pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ListModels(pb.ListModelsRequest())
    assert failure(caught.value).info.reason == "INTERNAL"
    assert REQUEST_TEXT not in f"{caught.value} {caplog.text}"
    assert "ValueError" in caplog.text
    assert "in broken" in caplog.text


async def test_bytes_that_are_no_message_fail_alone(served: Served) -> None:
    invalid_utf8_in_query = b"\x0a\x01\xff"
    raw: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary(
        f"/{SERVICE_NAME}/Rerank"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(invalid_utf8_in_query)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure(caught.value).info.reason == "MALFORMED_BODY"
    assert (await served.stub.Rerank(request("1"))).results


async def test_bytes_that_are_no_message_end_their_stream(served: Served) -> None:
    raw: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = served.channel.stream_stream(
        f"/{SERVICE_NAME}/RerankStream"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in raw(iter([b"\xff\xff\xff"])):
            pass
    assert failure(caught.value).info.reason == "MALFORMED_BODY"


async def test_calls_are_counted_by_outcome(served: Served) -> None:
    def counted(outcome: str) -> float:
        labels = {"door": "grpc", "outcome": outcome}
        return REGISTRY.get_sample_value("rerank_sidecar_requests_total", labels) or 0.0

    before = counted("OK"), counted("INVALID_FIELD"), counted("CANCELLED")
    await served.stub.Rerank(request("1"))
    await refused(served.stub.Rerank(request("1", options=pb.RerankOptions(top_n=0))))
    served.toy.began.clear()
    call = served.stub.Rerank(request("wait"))
    await happened(served.toy.began)
    served.toy.ended.clear()
    call.cancel()
    await happened(served.toy.ended)
    await served.stub.Rerank(request("1"))
    now = counted("OK"), counted("INVALID_FIELD"), counted("CANCELLED")
    assert now == (before[0] + 2, before[1] + 1, before[2] + 1)


# The server around the service


async def health_of(served: Served, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(served.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return cast("int", response.status)


@pytest.mark.parametrize("service", ["", SERVICE_NAME])
async def test_health_follows_the_server(service: str) -> None:
    statuses = health_pb2.HealthCheckResponse
    async with serving(is_ready=False) as served:
        assert await health_of(served, service) == statuses.NOT_SERVING
        watch = health_pb2_grpc.HealthStub(served.channel).Watch(
            health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S
        )
        seen = [(await watch.read()).status]
        await served.server.set_serving(True)
        assert await health_of(served, service) == statuses.SERVING
        seen.append((await watch.read()).status)
        stopping = asyncio.create_task(served.server.stop(WAIT_S))
        seen.append((await watch.read()).status)
        watch.cancel()
        await stopping
    assert seen == [statuses.NOT_SERVING, statuses.SERVING, statuses.NOT_SERVING]


async def test_reflection_describes_the_contract(served: Served) -> None:
    def described() -> tuple[set[str], str]:
        with grpc.insecure_channel(served.target) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol(SERVICE_NAME)
            return set(database.get_services()), file.name

    services, file = await asyncio.to_thread(described)
    assert {SERVICE_NAME, "grpc.health.v1.Health"} <= services
    assert file == "rerank_sidecar/v1/rerank.proto"


async def test_stopping_lets_running_calls_finish_and_takes_no_new_ones(served: Served) -> None:
    running = served.stub.Rerank(request("wait"))
    await happened(served.toy.began)
    stopping = asyncio.create_task(served.server.stop(WAIT_S))
    await asyncio.sleep(0.1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Rerank(request("1"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    served.toy.release.set()
    assert (await running).results[0].score.value == 1.0
    await stopping


async def test_stopping_ends_calls_that_outlast_the_grace(served: Served) -> None:
    running = served.stub.Rerank(request("wait"))
    await happened(served.toy.began)
    await served.server.stop(0.1)
    with pytest.raises(grpc.aio.AioRpcError):
        await running
    await happened(served.toy.ended)


async def test_a_taken_port_is_an_error(served: Served) -> None:
    settings = Settings.model_validate({"grpc_port": int(served.target.rpartition(":")[2])})
    second = GrpcServer(served.engine, settings)
    with pytest.raises(RuntimeError, match="bind"):
        await second.start()
    await second.stop(0)
