"""Calls over gRPC: messages and streams, deadlines and cancellation, on a real channel."""

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from rerank_sidecar.v1 import rerank_pb2 as pb

if TYPE_CHECKING:
    pass

from tests.contract.grpc_toy import (
    WAIT_S,
    Served,
    happened,
    more,
    received,
    refused,
    request,
    serving,
    start,
    stream_refused,
)

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
    failed = await refused(served.stub.Rerank(request("1", options=pb.RerankOptions(top_n=0))))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "options.top_n")


async def test_a_call_without_a_deadline_has_the_servers() -> None:
    async with serving(request_timeout_s=0.3) as served:
        failed = await refused(served.stub.Rerank(request("wait")))
        await happened(served.toy.ended)
    assert (failed.code, failed.info.reason) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
    )


async def test_large_messages_are_read_and_written_like_small_ones(served: Served) -> None:
    texts = [str(number) for number in range(2000)]
    options = pb.RerankOptions(return_documents=True)
    response = await served.stub.Rerank(request(*texts, options=options))
    assert [result.document.text for result in response.results] == texts[::-1]
    answers = served.stub.RerankStream(iter([start(), more(*texts)]), timeout=WAIT_S)
    ids = [each.result.id async for each in answers if each.HasField("result")]
    assert sorted(ids) == sorted(f"id {text}" for text in texts)


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
