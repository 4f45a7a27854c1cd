"""TEI's gRPC services on a real channel, over a toy: scores, streams, metadata, refusals."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from rerank_sidecar import __version__
from rerank_sidecar.errors import BackendFailed, NonFiniteScore, Overloaded
from rerank_sidecar.score_kinds import ScoreKind, to_unit
from rerank_sidecar.third_party import tei_pb2 as tei
from rerank_sidecar.types import LongDocumentPolicy, TruncationSide
from tests.contract.grpc_toy import WAIT_S, Served, failure, happened, serving

LEFT = tei.TRUNCATION_DIRECTION_LEFT


def rerank(served: Served) -> Callable[..., Any]:
    return served.channel.unary_unary(
        "/tei.v1.Rerank/Rerank",
        request_serializer=tei.RerankRequest.SerializeToString,
        response_deserializer=tei.RerankResponse.FromString,
    )


def stream(served: Served) -> Callable[..., Any]:
    return served.channel.stream_unary(
        "/tei.v1.Rerank/RerankStream",
        request_serializer=tei.RerankStreamRequest.SerializeToString,
        response_deserializer=tei.RerankResponse.FromString,
    )


def ranks(response: tei.RerankResponse) -> list[tuple[int, Any]]:
    return [(each.index, pytest.approx(each.score, abs=1e-6)) for each in response.ranks]


def unit(score: float) -> float:
    return to_unit(ScoreKind.MAXSIM, score, 1)


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)


async def test_texts_are_ranked_best_first_in_0_to_1(served: Served) -> None:
    request = tei.RerankRequest(query="q", texts=["-1", "1", "0", "1"])
    response = await rerank(served)(request)
    assert ranks(response) == [(1, 1), (3, 1), (2, 0.5), (0, 0)]
    assert not any(each.HasField("text") for each in response.ranks)


async def test_raw_scores_and_texts_are_given_if_asked_for(served: Served) -> None:
    request = tei.RerankRequest(query="q", texts=["-1", "1"], raw_scores=True, return_text=True)
    response = await rerank(served)(request)
    assert [(each.text, each.score) for each in response.ranks] == [("1", 1), ("-1", -1)]


@pytest.mark.parametrize(
    ("request_", "policy", "side"),
    [
        (tei.RerankRequest(), LongDocumentPolicy.REJECT, TruncationSide.RIGHT),
        (tei.RerankRequest(truncate=True), LongDocumentPolicy.TRUNCATE, TruncationSide.RIGHT),
        (
            tei.RerankRequest(truncate=True, truncation_direction=LEFT),
            LongDocumentPolicy.TRUNCATE,
            TruncationSide.LEFT,
        ),
    ],
)
async def test_nothing_is_cut_unless_asked_for(
    served: Served, request_: tei.RerankRequest, policy: LongDocumentPolicy, side: TruncationSide
) -> None:
    request_.texts.append("1")
    await rerank(served)(request_)
    [options] = served.toy.seen
    assert (options.long_document_policy, options.truncation.side) == (policy, side)


async def test_what_it_cost_is_told_in_the_answer_and_in_metadata(served: Served) -> None:
    call = rerank(served)(tei.RerankRequest(query="query", texts=["1", "0.5"]))
    metadata = dict(list(await call.initial_metadata()))
    response = await call
    assert metadata["x-compute-type"] == "gpu+optimized"
    assert metadata["x-compute-characters"] == "14"
    assert {"x-total-time", "x-queue-time", "x-inference-time", "x-compute-tokens"} <= set(metadata)
    assert response.metadata.compute_chars == 14
    assert response.metadata.total_time_ns > 0


async def test_a_text_over_a_limit_fails_the_call_unless_texts_may_be_cut() -> None:
    texts = ["1", "0" * 11]
    async with serving(max_document_bytes=10) as served:
        failed = await refusal(rerank(served)(tei.RerankRequest(texts=texts)))
        assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "texts[1]")
        assert failed.message == "texts[1]: over 10 bytes"
        call = rerank(served)(tei.RerankRequest(texts=texts, truncate=True))
        assert ranks(await call) == [(0, 1), (1, 0)]
        trailing = dict(list(await call.trailing_metadata()))
        assert trailing["x-rerank-failed-documents"] == "1;reason=LIMIT_EXCEEDED"


async def test_no_texts_are_an_error(served: Served) -> None:
    failed = await refusal(rerank(served)(tei.RerankRequest(query="q")))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "texts")


async def test_a_direction_that_is_none_is_refused(served: Served) -> None:
    request = tei.RerankRequest(texts=["1"])
    request.truncation_direction = 7  # type: ignore[assignment]
    failed = await refusal(rerank(served)(request))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.field == "truncation_direction"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackendFailed("broke"), grpc.StatusCode.FAILED_PRECONDITION),
        (NonFiniteScore("score is NaN"), grpc.StatusCode.FAILED_PRECONDITION),
        (Overloaded("too much"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (KeyError("secret"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_errors_have_the_codes_of_tei(error: Exception, code: grpc.StatusCode) -> None:
    async with serving(error=error) as served:
        failed = await refusal(rerank(served)(tei.RerankRequest(texts=["1"])))
    assert failed.code is code
    assert failed.info.domain == "rerank-sidecar"
    assert "secret" not in failed.message


async def test_before_it_is_ready_a_server_is_unavailable() -> None:
    async with serving(is_ready=False) as served:
        failed = await refusal(rerank(served)(tei.RerankRequest(texts=["1"])))
        assert failed.code is grpc.StatusCode.UNAVAILABLE
        failed = await refusal(info(served)(tei.InfoRequest()))
        assert failed.code is grpc.StatusCode.UNAVAILABLE


# Streams


def one(text: str, query: str = "q", **more: Any) -> tei.RerankStreamRequest:
    return tei.RerankStreamRequest(query=query, text=text, **more)


async def test_a_stream_is_answered_once_after_its_end(served: Served) -> None:
    call = stream(served)()
    for text in ("-1", "1", "0"):
        await call.write(one(text))
    assert not served.toy.began.is_set()
    await call.done_writing()
    assert ranks(await call) == [(1, 1), (2, 0.5), (0, 0)]


async def test_each_message_has_its_own_query_and_truncation(served: Served) -> None:
    messages = [
        one("1", "a", truncate=True, raw_scores=True, return_text=True),
        one("0.5", "b"),
        one("-1", "a", truncate=True, truncation_direction=LEFT),
        one("0.25", "a", truncate=True),
    ]
    response = await stream(served)(iter(messages))
    assert [(each.index, each.text, each.score) for each in response.ranks] == [
        (0, "1", 1),
        (1, "0.5", 0.5),
        (3, "0.25", 0.25),
        (2, "-1", -1),
    ]
    policies = {(each.long_document_policy, each.truncation.side) for each in served.toy.seen}
    assert policies == {
        (LongDocumentPolicy.TRUNCATE, TruncationSide.RIGHT),
        (LongDocumentPolicy.TRUNCATE, TruncationSide.LEFT),
        (LongDocumentPolicy.REJECT, TruncationSide.RIGHT),
    }


async def test_only_a_text_that_may_not_be_cut_fails_a_stream() -> None:
    async with serving(max_document_bytes=10) as served:
        messages = [one("1"), one("0" * 11, truncate=True)]
        assert ranks(await stream(served)(iter(messages))) == [(0, 1), (1, 0)]
        failed = await refusal(stream(served)(iter([*messages, one("0" * 11)])))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "texts[2]")


async def test_a_stream_of_nothing_is_an_error(served: Served) -> None:
    failed = await refusal(stream(served)(iter(())))
    assert (failed.code, failed.field) == (grpc.StatusCode.INVALID_ARGUMENT, "texts")


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_documents": 2}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"max_body_bytes": 1000}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_stream_has_the_limits_of_a_message(limits: Any, code: grpc.StatusCode) -> None:
    async with serving(**limits) as served:
        failed = await refusal(stream(served)(iter([one("0" * 400)] * 3)))
    assert failed.code is code


async def test_a_stream_that_does_not_end_in_time_is_ended() -> None:
    never = asyncio.Event()

    async def messages() -> AsyncIterator[tei.RerankStreamRequest]:
        yield one("1")
        await never.wait()

    async with serving(request_timeout_s=0.05) as served:
        failed = await refusal(stream(served)(messages()))
    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_bytes_that_are_no_message_are_refused(served: Served) -> None:
    unary: Callable[..., Any] = served.channel.unary_unary("/tei.v1.Rerank/Rerank")
    failed = await refusal(unary(b"\xff\xff"))
    assert (failed.code, failed.info.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MALFORMED_BODY",
    )
    collecting: Callable[..., Any] = served.channel.stream_unary("/tei.v1.Rerank/RerankStream")
    failed = await refusal(collecting(iter([one("1").SerializeToString(), b"\xff\xff"])))
    assert (failed.code, failed.info.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MALFORMED_BODY",
    )


async def test_who_goes_away_ends_the_work(served: Served) -> None:
    call = stream(served)(iter([one("wait")]))
    await happened(served.toy.began)
    call.cancel()
    await happened(served.toy.ended)


async def test_calls_are_counted_by_door(served: Served) -> None:
    def count() -> float:
        labels = {"door": "grpc_tei", "outcome": "OK"}
        return REGISTRY.get_sample_value("rerank_sidecar_requests_total", labels) or 0.0

    before = count()
    await rerank(served)(tei.RerankRequest(texts=["1"]), timeout=WAIT_S)
    assert count() == before + 1


# Info, tokens, the switch


def info(served: Served) -> Callable[..., Any]:
    return served.channel.unary_unary(
        "/tei.v1.Info/Info",
        request_serializer=tei.InfoRequest.SerializeToString,
        response_deserializer=tei.InfoResponse.FromString,
    )


async def test_a_server_describes_itself() -> None:
    async with serving(max_documents=77) as served:
        told = await info(served)(tei.InfoRequest())
    assert (told.model_id, told.model_sha, told.version) == ("toy", "7", __version__)
    assert told.model_type == tei.MODEL_TYPE_RERANKER
    assert (told.max_input_length, told.max_client_batch_size) == (512, 77)
    assert not told.HasField("docker_label")


async def test_tokens_are_asked_for_here_too() -> None:
    async with serving(auth_tokens="a-token") as served:
        for call in (
            rerank(served)(tei.RerankRequest(texts=["1"])),
            stream(served)(iter([one("1")])),
            info(served)(tei.InfoRequest()),
        ):
            assert (await refusal(call)).code is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", "Bearer a-token"),)
        assert (await rerank(served)(tei.RerankRequest(texts=["1"]), metadata=metadata)).ranks
        assert (await stream(served)(iter([one("1")]), metadata=metadata)).ranks


async def test_the_door_can_be_switched_off() -> None:
    async with serving(disabled_doors=("tei",)) as served:
        for call in (
            rerank(served)(tei.RerankRequest(texts=["1"])),
            info(served)(tei.InfoRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
