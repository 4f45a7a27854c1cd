"""Passing through: flagged, counted, announced, and never for the caller's own mistakes."""

import asyncio
import logging
from typing import Any

import pytest

from rerank_adapters import (
    Document,
    InvalidField,
    ModelNotFound,
    RerankCallError,
    RerankResponse,
    Unauthenticated,
    Unreachable,
)
from rerank_sidecar import errors
from tests.unit.adapters.every_client import (
    GRPC,
    HTTP,
    Sidecar,
    asked,
    asking,
    client_of,
    failure,
    in_thread,
    listening,
)
from tests.unit.adapters.scripted import Scripted

TEXT = "a text of the caller's own"


@pytest.fixture(params=(*GRPC, *HTTP))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def gone() -> Sidecar:
    async with listening() as sidecar:
        pass
    return sidecar


async def test_the_callers_order_comes_back_flagged_and_counted(
    kind: str, gone: Sidecar, caplog: pytest.LogCaptureFixture
) -> None:
    announced: list[RerankCallError] = []
    client = client_of(
        kind, gone, on_error="passthrough", on_passthrough=announced.append, max_attempts=1
    )
    ask = asked(client)
    with caplog.at_level(logging.WARNING, "rerank_adapters"):
        responses: list[RerankResponse] = [
            await ask("rerank", TEXT, [TEXT, Document("b", "id")], **options)
            for options in ({}, {"top_n": 1, "return_documents": True})
        ]
    whole, cut = responses
    assert [(each.index, each.id, each.score) for each in whole.results] == [
        (0, None, None),
        (1, "id", None),
    ]
    assert [each.document for each in cut.results] == [Document(TEXT)]
    assert [each.passed_through for each in responses] == announced
    assert [type(each) for each in announced] == [Unreachable] * 2
    assert client.passthrough_count == 2
    assert caplog.messages == ["not reranked: UNAVAILABLE"] * 2
    assert (whole.model, whole.score_kind, whole.usage.pairs) == ("", "UNSPECIFIED", 0)
    await close(client)


@pytest.mark.parametrize("top_n", [0, -1])
async def test_a_mistake_is_raised_though_nobody_answers(
    kind: str, gone: Sidecar, top_n: int
) -> None:
    async with asking(kind, gone, max_attempts=1, on_error="passthrough") as ask:
        assert type(await failure(ask("rerank", "q", ["a", "b"], top_n=top_n))) is InvalidField


async def test_a_call_may_choose_for_itself(kind: str, gone: Sidecar) -> None:
    async with asking(kind, gone, max_attempts=1) as ask:
        assert type(await failure(ask("rerank", "q", ["a"]))) is Unreachable
        assert (await ask("rerank", "q", ["a"], on_error="passthrough")).passed_through
    async with asking(kind, gone, max_attempts=1, on_error="passthrough") as ask:
        assert (await ask("rerank", "q", ["a"], on_error=None)).passed_through
        assert type(await failure(ask("rerank", "q", ["a"], on_error="raise"))) is Unreachable


@pytest.mark.parametrize(
    ("error", "documents", "options", "raised"),
    [
        (None, ["a"], {"top_n": 0}, InvalidField),
        (None, ["a"], {"model": "no such model"}, ModelNotFound),
        (None, [1], {}, TypeError),
        (None, ["a"], {"normalization": "minmax"}, ValueError),
        (errors.BackendFailed("broken"), ["a"], {}, None),
        (errors.InternalError("broken"), ["a"], {}, None),
        (errors.DeadlineExceeded("late"), ["a"], {}, None),
        (errors.Overloaded("busy", 60.0), ["a"], {}, None),
        (errors.ModelUnavailable("no files"), ["a"], {}, None),
    ],
    ids=str,
)
async def test_mistakes_are_raised_and_all_else_passes_through(
    kind: str,
    error: Exception | None,
    documents: list[Any],
    options: dict[str, Any],
    raised: type[Exception] | None,
) -> None:
    reranker = Scripted(*([] if error is None else [error]))
    async with (
        listening(reranker=reranker, unknown_model="error") as sidecar,
        asking(kind, sidecar, on_error="passthrough") as ask,
    ):
        if raised is not None:
            with pytest.raises(raised):
                await ask("rerank", "q", documents, **options)
        else:
            response = await ask("rerank", "q", documents, **options)
            assert type(response.passed_through).__name__ == type(error).__name__


async def test_a_token_that_is_wrong_is_a_mistake(kind: str) -> None:
    async with (
        listening(auth_tokens="right") as sidecar,
        asking(kind, sidecar, on_error="passthrough", token="wrong") as ask,  # noqa: S106
    ):
        assert type(await failure(ask("rerank", "q", ["a"]))) is Unauthenticated


async def test_one_document_that_fails_alone_is_not_passed_through(kind: str) -> None:
    async with (
        listening(max_document_bytes=3) as sidecar,
        asking(kind, sidecar, on_error="passthrough") as ask,
    ):
        response = await ask("rerank", "q", ["long", "a"])
    assert response.passed_through is None
    assert [each.index for each in response.results] == [1, 0]


async def test_what_the_callback_raises_is_raised(kind: str, gone: Sidecar) -> None:
    def refuse(error: RerankCallError) -> None:
        raise LookupError(error.code.name)

    async with asking(
        kind, gone, on_error="passthrough", on_passthrough=refuse, max_attempts=1
    ) as ask:
        with pytest.raises(LookupError, match="UNAVAILABLE"):
            await ask("rerank", "q", ["a"])


async def test_cancelling_is_not_passed_through() -> None:
    reranker = Scripted()
    async with listening(reranker=reranker) as sidecar:
        for kind in ("grpc async", "http async"):
            async with asking(kind, sidecar, on_error="passthrough") as ask:
                call = asyncio.create_task(ask("rerank", "q", ["wait"]))
                await reranker.began.wait()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call


async def close(client: Any) -> None:
    closing = client.close
    if asyncio.iscoroutinefunction(closing):
        await closing()
    else:
        await in_thread(closing)
