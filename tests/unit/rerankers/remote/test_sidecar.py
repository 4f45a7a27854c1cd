"""Another sidecar as a reranker: what is passed on, what comes back, what it may not do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from rerank_sidecar.errors import (
    LimitExceeded,
    ModelUnavailable,
    NonFiniteScore,
    Overloaded,
    RemoteFailed,
)
from rerank_sidecar.rerankers.base import Meter, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import LongDocumentPolicy, Score, Truncation, TruncationSide, Window
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import (
    RerankServiceServicer,
    add_RerankServiceServicer_to_server,
)
from tests.unit.rerankers.remote.grpc_stand_in import Asked, Refusal
from tests.unit.rerankers.remote.stand_in import opened
from tests.unit.rerankers.toy_models import outcomes_of


def model(name: str, **fields: Any) -> pb.Model:
    known: dict[str, Any] = {
        "model": pb.ModelReference(name=name, version="7"),
        "score_kind": pb.SCORE_KIND_RAW_LOGIT,
        "comparable_across_requests": True,
        "default_long_document_policy": pb.LONG_DOCUMENT_POLICY_CHUNK,
        "max_tokens": 512,
        "is_loaded": True,
    }
    return pb.Model(**(known | fields))


class Sidecar(Asked, RerankServiceServicer):
    """A sidecar by the contract; a text spells its score, or names what becomes of it."""

    def __init__(self, *models: pb.Model) -> None:
        super().__init__()
        self.models = list(models)
        self.kind = pb.SCORE_KIND_RAW_LOGIT
        self.change: Any = lambda answer: None

    async def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=self.models)

    async def Rerank(self, request: Any, context: Any) -> pb.RerankResponse:
        for each in self.models:
            each.is_loaded = True
        await self.take(request, context)
        results = [_result(i, each.text) for i, each in enumerate(request.documents)]
        results.sort(key=lambda each: each.score.value, reverse=True)
        usage = pb.Usage(tokens=11, pairs=len(results))
        summary = pb.RerankSummary(score_kind=self.kind, usage=usage, query_truncated=True)
        answer = pb.RerankResponse(results=results, summary=summary)
        self.change(answer)
        return answer

    def RerankStream(self, request_iterator: Any, context: Any) -> Any:
        raise NotImplementedError


def _result(index: int, text: str) -> pb.RerankResult:
    if text.isupper():
        error = pb.DocumentError(reason=text, message="about documents[0]")
        return pb.RerankResult(index=index, error=error)
    if text == "long":
        window = pb.Window(start=3, end=9)
        score = pb.Score(value=0.5, best_window=window, truncated=True, window_count=4)
        return pb.RerankResult(index=index, score=score)
    return pb.RerankResult(index=index, score=pb.Score(value=float(text or 0), window_count=1))


@asynccontextmanager
async def running(sidecar: Sidecar) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_RerankServiceServicer_to_server(sidecar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"sidecar:grpc://127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_all_that_is_asked_is_passed_on_and_all_that_is_told_comes_back() -> None:
    sidecar, meter = Sidecar(model("other"), model("big", is_default=True)), Meter()
    how = ScoreOptions(
        meter=meter,
        priority=3,
        long_document_policy=LongDocumentPolicy.REJECT,
        truncation=Truncation(max_tokens_per_document=64, side=TruncationSide.LEFT),
    )
    async with running(sidecar) as source, opened(f"{source}#big") as reranker:
        scored = await outcomes_of(reranker, "red fruit", ["-1.5", "long", "2"], options=how)
        info = reranker.info
    assert scored == [Score(-1.5), Score(0.5, Window(3, 9), True, 4), Score(2.0)]
    [call] = sidecar.calls
    assert call == pb.RerankRequest(
        query="red fruit",
        documents=[pb.Document(text=text) for text in ("-1.5", "long", "2")],
        options=pb.RerankOptions(
            model="big",
            normalization=pb.NORMALIZATION_NONE,
            priority=3,
            long_document_policy=pb.LONG_DOCUMENT_POLICY_REJECT,
            truncation=pb.Truncation(max_tokens_per_document=64, side=pb.TRUNCATION_SIDE_LEFT),
        ),
    )
    assert (meter.tokens, meter.pairs, meter.query_truncated) == (11, 3, True)
    assert info.version.startswith("big@7-")
    assert info.score_kind is ScoreKind.RAW_LOGIT
    assert info.max_tokens == 512
    assert info.default_long_document_policy is LongDocumentPolicy.CHUNK


@pytest.mark.parametrize(
    ("name", "found"),
    [("", "b"), ("default", "b"), ("a", "a"), ("anything-a", "a")],
)
async def test_a_model_is_found_by_its_name_its_aliases_or_as_the_default(
    name: str, found: str
) -> None:
    sidecar = Sidecar(model("b", is_default=True), model("a", aliases=["anything-*"]))
    async with running(sidecar) as source, opened(f"{source}#{name}") as reranker:
        assert reranker.info.version.startswith(f"{found}@7-")


async def test_a_model_that_is_not_there() -> None:
    async with running(Sidecar(model("a", is_default=True))) as source:
        with pytest.raises(ModelUnavailable, match="no model of that name"):
            async with opened(f"{source}#b"):
                pass


async def test_a_model_that_is_not_in_memory_is_loaded() -> None:
    sidecar = Sidecar(model("a", is_default=True, is_loaded=False))
    async with running(sidecar) as source, opened(source) as reranker:
        assert reranker.info.score_kind is ScoreKind.RAW_LOGIT
    assert len(sidecar.calls) == 1


_FAILED = ["LIMIT_EXCEEDED", "NON_FINITE_SCORE", "SOMETHING_NEW"]


async def test_documents_that_failed_there_fail_alone_here() -> None:
    sidecar, texts = Sidecar(model("a", is_default=True)), [*_FAILED, "1"]
    async with running(sidecar) as source, opened(source) as reranker:
        scored = await outcomes_of(reranker, "q", texts)
    assert [type(each) for each in scored] == [LimitExceeded, NonFiniteScore, RemoteFailed, Score]
    assert "SOMETHING_NEW" in str(scored[2])
    assert "documents[0]" not in str(scored[0])


def _twice(answer: pb.RerankResponse) -> None:
    answer.results[0].index = answer.results[1].index


def _far(answer: pb.RerankResponse) -> None:
    answer.results[0].index = 7


@pytest.mark.parametrize("change", [_twice, _far])
async def test_garbage(change: Any) -> None:
    sidecar = Sidecar(model("a", is_default=True))
    sidecar.change = change
    async with running(sidecar) as source, opened(source) as reranker:
        with pytest.raises(RemoteFailed, match="cannot be understood"):
            await outcomes_of(reranker, "q", ["1", "2"])


async def test_half_the_results_and_none_that_is_finite() -> None:
    sidecar = Sidecar(model("a", is_default=True))
    async with running(sidecar) as source, opened(source) as reranker:
        scored = await outcomes_of(reranker, "q", ["nan", "2"])
        assert [type(each) for each in scored] == [NonFiniteScore, Score]
        sidecar.change = lambda answer: answer.results.pop()
        scored = await outcomes_of(reranker, "q", ["1", "2"])
        assert [type(each) for each in scored] == [RemoteFailed, Score]


async def test_a_model_of_another_kind_is_not_taken_for_the_old_one() -> None:
    sidecar = Sidecar(model("a", is_default=True))
    async with running(sidecar) as source, opened(source) as reranker:
        sidecar.kind = pb.SCORE_KIND_PROBABILITY
        with pytest.raises(RemoteFailed, match="another kind"):
            await outcomes_of(reranker, "q", ["1"])


async def test_scores_that_mean_something_in_one_request_only_are_asked_for_in_one() -> None:
    sidecar = Sidecar(
        model(
            "a",
            is_default=True,
            comparable_across_requests=False,
            score_kind=pb.SCORE_KIND_RANK,
        )
    )
    sidecar.kind = pb.SCORE_KIND_RANK
    async with (
        running(sidecar) as source,
        opened(source, max_documents_per_call=1) as reranker,
    ):
        scored = await outcomes_of(reranker, "q", ["1", "2"], ["3"])
        assert await outcomes_of(reranker, "q") == []
        assert not reranker.info.comparable_across_requests
        assert not reranker.info.keep_scores
    assert scored == [Score(1.0), Score(2.0), Score(3.0)]
    assert [len(each.documents) for each in sidecar.calls] == [3]


async def test_an_overloaded_sidecar_says_when_to_come_back() -> None:
    sidecar = Sidecar(model("a", is_default=True))
    async with running(sidecar) as source, opened(source, max_tries=1) as reranker:
        sidecar.refusals = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 2.5)]
        with pytest.raises(Overloaded) as refused:
            await outcomes_of(reranker, "q", ["1"])
    assert refused.value.retry_after_s == 2.5


def _stands_in(answer: pb.RerankResponse) -> None:
    answer.summary.fallback_for = "big"
    answer.summary.model.name, answer.summary.model.version = "small", "3"
    answer.summary.score_kind = pb.SCORE_KIND_MAXSIM


async def test_a_model_that_stands_in_there_is_named_here() -> None:
    sidecar, meter = Sidecar(model("big")), Meter()
    sidecar.change = _stands_in
    async with running(sidecar) as source, opened(f"{source}#big") as reranker:
        scored = await outcomes_of(reranker, "q", ["0.5"], options=ScoreOptions(meter=meter))
    assert scored == [Score(0.5)]
    assert meter.answered_by is not None
    assert (meter.answered_by.name, meter.answered_by.version) == ("small", "3")
    assert meter.answered_by.score_kind is ScoreKind.MAXSIM


async def test_a_request_that_two_models_answered_fails() -> None:
    sidecar = Sidecar(model("big"))
    answers = 0

    def sometimes(answer: pb.RerankResponse) -> None:
        nonlocal answers
        answers += 1
        if answers == 2:
            _stands_in(answer)

    sidecar.change = sometimes
    async with (
        running(sidecar) as source,
        opened(f"{source}#big", max_documents_per_call=1) as reranker,
    ):
        with pytest.raises(RemoteFailed, match="different models"):
            await outcomes_of(reranker, "q", ["0.5", "0.25"])


@pytest.mark.parametrize(
    ("family", "kept"), [("cross_encoder", True), ("fallback", False), ("remote", False)]
)
async def test_scores_are_kept_only_of_models_that_always_answer(
    family: str, *, kept: bool
) -> None:
    sidecar = Sidecar(model("big", family=family))
    async with running(sidecar) as source, opened(f"{source}#big") as reranker:
        assert reranker.info.keep_scores is kept


async def test_a_score_kind_of_a_later_version_is_told_at_the_start() -> None:
    async with running(Sidecar(model("big", score_kind=99))) as source:
        with pytest.raises(ModelUnavailable, match="score kind"):
            async with opened(f"{source}#big"):
                pass
