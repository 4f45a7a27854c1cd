"""The engine through its own door, over toy rerankers that behave and misbehave on purpose."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.errors import (
    BackendFailed,
    DeadlineExceeded,
    InternalError,
    InvalidField,
    LimitExceeded,
    ModelNotFound,
    NonFiniteScore,
    NotReady,
    RequestError,
    ShuttingDown,
)
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    Normalization,
    RankedDocument,
    RerankOptions,
    RerankRequest,
    RerankResult,
    Score,
    StreamSummary,
    Truncation,
)

Rule = Callable[[Document], Outcome | None]


class Toy:
    """Scores by a rule; None keeps a document for ever unscored; exceptions fly."""

    def __init__(
        self, rule: Rule, name: str = "toy", scripts: frozenset[str] | None = None
    ) -> None:
        self.rule = rule
        self.seen: list[ScoreOptions] = []
        self.info = RerankerInfo(
            name=name,
            version="1",
            family="toy",
            score_kind=ScoreKind.MAXSIM,
            engine="python",
            source="test",
            scripts=scripts,
            keep_scores=False,
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
        async for group in documents:
            for index, document in reversed(group):
                outcome = self.rule(document)
                options.meter.pairs += 1
                if outcome is not None:
                    yield index, outcome


def by_number(document: Document) -> Outcome:
    return Score(float(document.text))


def engine_with(rule: Rule = by_number, **settings: object) -> Engine:
    engine = Engine(Settings.model_validate({**Settings().model_dump(), **settings}))
    toy = Toy(rule)
    engine.open(Registry([toy], any_script=toy))
    return engine


def request(*texts: str, **options: object) -> RerankRequest:
    documents = tuple(Document(text, id=f"id {text[:9]}") for text in texts)
    return RerankRequest("query", documents, replace(RerankOptions(), **options))  # type: ignore[arg-type]


def indexes(result: RerankResult) -> list[int]:
    return [each.index for each in result.results]


async def test_best_first_ties_in_input_order() -> None:
    result = await engine_with().rerank(request("0.1", "0.7", "0.1", "0.9", "0.7"))
    assert indexes(result) == [3, 1, 4, 0, 2]
    assert result.results[0].id == "id 0.9"
    assert result.results[0].document is None
    assert result.summary.usage.pairs == 5


async def test_top_n_threshold_and_return_documents() -> None:
    engine = engine_with()
    cut = await engine.rerank(request("0.1", "0.3", "0.2", top_n=2, return_documents=True))
    assert [each.document and each.document.text for each in cut.results] == ["0.3", "0.2"]
    kept = await engine.rerank(request("0.0", "-0.5", "0.2", score_threshold=0.0))
    assert indexes(kept) == [2, 0]


async def test_unit_scores_are_thresholded_as_returned() -> None:
    options = {"normalization": Normalization.UNIT, "score_threshold": 0.6}
    result = await engine_with().rerank(request("0.1", "0.5", **options))
    assert [each.score and each.score.value for each in result.results] == [0.75]


async def test_probabilities_are_thresholded_as_the_logits_that_are_returned() -> None:
    engine, toy = Engine(Settings()), Toy(by_number)
    toy.info = replace(toy.info, score_kind=ScoreKind.PROBABILITY)
    engine.open(Registry([toy], any_script=toy))
    options = {"normalization": Normalization.LOGIT, "score_threshold": -1.2}
    result = await engine.rerank(request("0.2", "1.0", "0.75", "0.25", **options))
    values = [each.score.value for each in result.results if each.score]
    assert values == pytest.approx([36.74, math.log(3), -math.log(3)], abs=0.01)
    assert result.summary.normalization is Normalization.LOGIT


async def test_nothing_in_nothing_out() -> None:
    assert (await engine_with().rerank(request())).results == ()


async def test_a_document_that_fails_leaves_its_neighbours() -> None:
    def rule(document: Document) -> Outcome | None:
        if document.text == "broken":
            return BackendFailed("no")
        if document.text == "lost":
            return None
        return Score(math.nan if document.text == "nan" else float(document.text))

    engine = engine_with(rule, max_document_bytes=12)
    texts = ("0.1", "broken", "nan", "0.2", "lost", "한국어한국어", "0.3")
    result = await engine.rerank(request(*texts, top_n=2))
    assert indexes(result) == [6, 3, 1, 2, 4, 5]
    errors = [type(each.error) for each in result.results[2:]]
    assert errors == [BackendFailed, NonFiniteScore, InternalError, LimitExceeded]


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        ({"top_n": 0}, InvalidField, "top_n"),
        ({"score_threshold": math.nan}, InvalidField, "score_threshold"),
        (
            {"truncation": Truncation(max_tokens_per_document=0)},
            InvalidField,
            "truncation.max_tokens_per_document",
        ),
        ({"model": "other"}, ModelNotFound, "model"),
    ],
)
async def test_bad_options_name_their_field(
    options: dict[str, object], error: type[RequestError], field: str
) -> None:
    with pytest.raises(error) as raised:
        await engine_with(unknown_model="error").rerank(request("0.1", **options))
    assert raised.value.field == field


async def test_limits() -> None:
    engine = engine_with(max_documents=2, max_query_bytes=4)
    with pytest.raises(LimitExceeded, match="2") as raised:
        await engine.rerank(RerankRequest("q", (Document("1"),) * 3))
    assert raised.value.field == "documents"
    with pytest.raises(LimitExceeded, match="4 bytes") as raised:
        await engine.rerank(request("1"))
    assert raised.value.field == "query"


@pytest.mark.parametrize("name", [None, "", "default", "toy"])
async def test_names_of_the_default_model(name: str | None) -> None:
    assert (await engine_with().rerank(request("1", model=name))).summary.model.name == "toy"


async def test_the_policy_comes_from_request_then_settings_then_model() -> None:
    for setting, asked, want in (
        (None, None, None),  # each member of a combination has a default of its own
        ("chunk", None, LongDocumentPolicy.CHUNK),
        ("chunk", LongDocumentPolicy.TRUNCATE, LongDocumentPolicy.TRUNCATE),
    ):
        toy = Toy(by_number)
        engine = Engine(Settings.model_validate({"long_document_policy": setting}))
        engine.open(Registry([toy], any_script=toy))
        await engine.rerank(request("1", long_document_policy=asked))
        assert toy.seen[0].long_document_policy is want


async def test_a_query_in_an_unread_script_goes_to_the_reranker_of_any_script() -> None:
    latin, other = Toy(by_number, "latin", frozenset({"Latin"})), Toy(by_number, "any")
    engine = Engine(Settings())
    engine.open(Registry([latin, other], any_script=other))
    for query, name in (("red fruit", "latin"), ("빨간 과일", "any"), ("1 + 1?", "latin")):
        result = await engine.rerank(RerankRequest(query, (Document("1"),)))
        assert result.summary.model.name == name


async def test_the_deadline_ends_a_call_that_hangs() -> None:
    class Hanging(Toy):
        async def score(
            self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
        ) -> AsyncGenerator[tuple[int, Outcome], None]:
            await asyncio.Event().wait()
            yield 0, Score(0.0)

    engine = Engine(Settings())
    toy = Hanging(by_number)
    engine.open(Registry([toy], any_script=toy))
    for timeout_s in (0.02, 0.0, -1.0):
        with pytest.raises(DeadlineExceeded):
            await engine.rerank(request("1", timeout_s=timeout_s))
    await engine.drain(0.1)


async def test_a_fault_of_ours_tells_nothing() -> None:
    def rule(document: Document) -> Outcome:
        raise RuntimeError(f"secret {document.text}")

    with pytest.raises(InternalError) as raised:
        await engine_with(rule).rerank(request("text"))
    assert "text" not in str(raised.value).replace("details", "")


async def test_scores_flow_before_the_last_document_has_come() -> None:
    more = asyncio.Event()

    async def documents() -> AsyncIterator[Sequence[Document]]:
        yield [Document("0.1"), Document("0.2")]
        await more.wait()
        yield [Document("0.3")]

    events = engine_with().stream("query", RerankOptions(top_n=2), documents())
    first = [await anext(events), await anext(events)]
    assert {each.index for each in first if isinstance(each, RankedDocument)} == {0, 1}
    more.set()
    last = [event async for event in events][-1]
    assert isinstance(last, StreamSummary)
    assert last.order == (2, 1)


async def test_not_ready_then_ready_then_draining() -> None:
    engine = Engine(Settings())
    with pytest.raises(NotReady):
        await engine.rerank(request("1"))
    toy = Toy(by_number)
    engine.open(Registry([toy], any_script=toy))
    assert engine.is_ready
    await engine.drain(1.0)
    assert not engine.is_ready
    with pytest.raises(ShuttingDown):
        await engine.rerank(request("1"))


async def test_drain_waits_for_what_runs() -> None:
    go = asyncio.Event()

    async def documents() -> AsyncIterator[Sequence[Document]]:
        await go.wait()
        yield [Document("1")]

    engine = engine_with()

    async def call() -> list[object]:
        return [event async for event in engine.stream("query", RerankOptions(), documents())]

    running = asyncio.create_task(call())
    await asyncio.sleep(0)
    draining = asyncio.create_task(engine.drain(30.0))
    await asyncio.sleep(0)
    assert not draining.done()
    go.set()
    await draining
    assert len(await running) == 2
