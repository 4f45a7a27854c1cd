"""One model answers; what the other one would have said is counted and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from rerank_sidecar.errors import BackendFailed, RemoteFailed
from rerank_sidecar.rerankers.base import Reranker, ScoreOptions, TokenCounter
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.rerankers.shadow import ShadowConfig, ShadowReranker
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, Score
from tests.unit.rerankers.toy_members import BROKEN, ToyMember, number
from tests.unit.rerankers.toy_models import outcomes_of

ALL = ShadowConfig(share=1.0)


@asynccontextmanager
async def shadowed(
    first: Reranker, second: Reranker, **config: Any
) -> AsyncIterator[ShadowReranker]:
    info = replace(first.info, name="watched", family="shadow")
    reranker = ShadowReranker(info, first, second, replace(ALL, **config))
    try:
        yield reranker
    finally:
        await reranker.close()


def counted(result: str) -> float:
    labels = {"model": "watched", "result": result}
    return REGISTRY.get_sample_value("rerank_sidecar_shadow_requests_total", labels) or 0.0


def total(measure: str) -> float:
    labels = {"model": "watched", "measure": measure}
    return REGISTRY.get_sample_value("rerank_sidecar_shadow_agreement_sum", labels) or 0.0


async def until_counted(result: str, count: float) -> None:
    async with asyncio.timeout(10):
        while counted(result) < count:  # noqa: ASYNC110 - a metric cannot be waited for
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("scored", "kind", "tau"),
    [
        (number, ScoreKind.RAW_LOGIT, 1.0),
        (lambda text: -number(text), ScoreKind.RAW_LOGIT, -1.0),
        (number, ScoreKind.RANK, 1.0),
    ],
)
async def test_agreement_is_measured(scored: Any, kind: ScoreKind, tau: float) -> None:
    before, tau_before, overlap_before = (
        counted("compared"),
        total("kendall_tau"),
        total("overlap_at_10"),
    )
    second = ToyMember("second", scored, kind)
    async with shadowed(ToyMember(), second) as reranker:
        found = await outcomes_of(reranker, "q", ["3", "1"], ["2", BROKEN])
        assert found[:3] == [Score(3.0), Score(1.0), Score(2.0)]
        assert isinstance(found[3], BackendFailed)
        await until_counted("compared", before + 1)
    assert total("kendall_tau") == pytest.approx(tau_before + (1 + tau) / 2)
    assert total("overlap_at_10") == pytest.approx(overlap_before + 1.0)


async def test_the_answer_is_the_first_models_and_does_not_wait() -> None:
    second = ToyMember("second", len, gate=asyncio.Event())
    texts = ["paris is the capital", "bread"]
    async with shadowed(LexicalReranker(), second) as reranker:
        alone = await outcomes_of(LexicalReranker(), "capital", texts)
        options = ScoreOptions(priority=3)
        assert await outcomes_of(reranker, "capital", texts, options=options) == alone
        await asyncio.sleep(0)
        cost = options.meter.tokens
    assert second.closed == 1  # given up, with the gate still shut
    assert options.meter.tokens == cost
    assert second.told[0].priority < options.priority
    assert second.told[0].meter is not options.meter


async def test_requests_that_come_while_enough_are_running_are_dropped() -> None:
    before = counted("busy")
    second = ToyMember("second", gate=asyncio.Event())
    async with shadowed(ToyMember(), second, max_running=2) as reranker:
        for _ in range(5):
            await outcomes_of(reranker, "q", ["1", "2"])
            await asyncio.sleep(0)
    assert len(second.asked) == 2
    assert counted("busy") == before + 3


@pytest.mark.parametrize("error", [RemoteFailed("secret"), ValueError("secret")])
async def test_a_shadow_that_fails_harms_nobody(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted("failed")
    async with shadowed(ToyMember(), ToyMember("second", error=error)) as reranker:
        assert await outcomes_of(reranker, "q", ["1"]) == [Score(1.0)]
        await until_counted("failed", before + 1)
    assert "second" in caplog.text or "a shadow" in caplog.text
    assert "secret" not in caplog.text


async def test_a_shadow_that_stalls_is_given_up() -> None:
    before = counted("failed")
    second = ToyMember("second", gate=asyncio.Event())
    async with shadowed(ToyMember(), second, timeout_s=0.02) as reranker:
        await outcomes_of(reranker, "q", ["1"])
        await until_counted("failed", before + 1)
    assert second.closed == 1


async def test_a_request_that_fails_has_no_shadow() -> None:
    second = ToyMember("second")
    async with shadowed(ToyMember(error=RemoteFailed("down")), second) as reranker:
        with pytest.raises(RemoteFailed):
            await outcomes_of(reranker, "q", ["1"])
        await asyncio.sleep(0)
    assert not second.asked


async def test_no_share_no_shadow() -> None:
    second = ToyMember("second")
    async with shadowed(ToyMember(), second, share=0.0) as reranker:
        for _ in range(20):
            await outcomes_of(reranker, "q", ["1"])
        await asyncio.sleep(0)
    assert not second.asked


async def test_it_counts_tokens_if_the_first_model_does() -> None:
    async with shadowed(LexicalReranker(), ToyMember()) as reranker:
        assert isinstance(reranker, TokenCounter)
        assert reranker.count_tokens("q", [Document("two words")], ScoreOptions()) == [2]
    async with shadowed(ToyMember(), LexicalReranker()) as reranker:
        assert not isinstance(reranker, TokenCounter)


async def test_equal_scores_are_nothing_to_compare() -> None:
    before = counted("alike")
    async with shadowed(ToyMember(scored=lambda _: 1.0), ToyMember("second")) as reranker:
        await outcomes_of(reranker, "q", ["1", "2"])
        await until_counted("alike", before + 1)


async def test_a_shadow_is_not_asked_what_it_cannot_read() -> None:
    before = counted("other_script")
    second = ToyMember("second", described={"scripts": frozenset({"Latin"})})
    async with shadowed(ToyMember(), second) as reranker:
        await outcomes_of(reranker, "什么", ["1", "2"])
        await until_counted("other_script", before + 1)
    assert not second.asked


async def test_only_numbers_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = counted("compared")
    async with shadowed(ToyMember(), ToyMember("second")) as reranker:
        await outcomes_of(reranker, "secret", ["1 hidden", "2 hidden"])
        await until_counted("compared", before + 1)
    assert "kendall_tau 1.000, overlap_at_10 1.000" in caplog.text
    assert "secret" not in caplog.text
    assert "hidden" not in caplog.text
