"""The steps of a call, against a server that is a function and a clock that is a number."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_adapters import (
    BodyTooLarge,
    DeadlineExceeded,
    Document,
    DocumentError,
    LimitExceeded,
    Model,
    Overloaded,
    RequestError,
    RerankCallError,
    RerankOptions,
    RerankResponse,
    RerankResult,
    Timing,
    Unavailable,
    Usage,
)
from rerank_adapters.errors import ERRORS
from rerank_adapters.rerank import OnError
from rerank_adapters.transport.calls import Answer, Ask, Call, ListModels, Wait, advance
from rerank_adapters.transport.policy import Policy
from tests.unit.adapters.every_client import error_of_reason as refusal

TIMEOUT_S = 30.0
MODEL = Model("m", "1", "toy", "MAXSIM", None, True, True, "truncate", (), True)


@dataclass
class Server:
    """Scores the text "0.5" with 0.5 and fails "bad" alone; as slow and as small as it is told."""

    limit: int = 1_000_000
    models: tuple[Model, ...] = (MODEL,)
    refusals: list[RerankCallError] = field(default_factory=list)
    seconds: float = 0.0
    now: float = 100.0
    asked: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    versions: Callable[[int], str] = lambda _: "1"

    def rerank(
        self,
        documents: list[str | Document],
        policy: Policy | None = None,
        on_error: OnError = "raise",
        timeout_s: float = TIMEOUT_S,
        options: RerankOptions | None = None,
    ) -> RerankResponse:
        call = Call("query", documents, options or {}, self.now + timeout_s, lambda: self.now)
        steps = call.steps(policy or Policy(), on_error)
        outcome: Answer | RerankCallError = None
        while not isinstance(step := advance(steps, outcome), RerankResponse):
            try:
                outcome = self.perform(step)
            except RerankCallError as error:
                outcome = error
        return step

    def perform(self, step: Ask | ListModels | Wait) -> Answer:
        if isinstance(step, Wait):
            self.waited.append(step.seconds)
            self.now += step.seconds
            return None
        assert step.timeout_s > 0
        if isinstance(step, ListModels):
            return self.models
        self.asked.append(len(step.documents))
        self.now += self.seconds
        if self.refusals:
            raise self.refusals.pop(0)
        if len(step.documents) > self.limit:
            code = grpc.StatusCode.INVALID_ARGUMENT
            raise LimitExceeded(code, "LIMIT_EXCEEDED", "documents: more", "documents")
        return self.answer(step)

    def answer(self, step: Ask) -> RerankResponse:
        results = [scored(index, each) for index, each in enumerate(step.documents)]
        best_first = sorted(
            (each for each in results if each.score is not None),
            key=lambda each: -(each.score or 0),
        )
        failed = [each for each in results if each.error]
        count = len(self.asked)
        return RerankResponse(
            results=(*best_first[: step.options.get("top_n")], *failed),
            model="m",
            model_version=self.versions(count),
            score_kind="MAXSIM",
            normalization="none",
            query_truncated=True,
            usage=Usage(10 * len(step.documents), len(step.documents), 1),
            timing=Timing(count, 2, 3, 4),
        )


def scored(index: int, given: str | Document) -> RerankResult:
    document = given if isinstance(given, Document) else Document(given)
    error = DocumentError("LIMIT_EXCEEDED", f"documents[{index}]: too long")
    is_bad = document.text == "bad"
    return RerankResult(
        index=index,
        id=document.id,
        score=None if is_bad else float(document.text),
        error=error if is_bad else None,
        best_window=None,
        truncated=False,
        window_count=1,
        document=None,
    )


def told(response: RerankResponse) -> RerankResponse:
    """The answer without what differs between one call and several."""
    return replace(response, timing=Timing(0, 0, 0, 0), usage=replace(response.usage, cache_hits=0))


TEXTS = st.lists(st.sampled_from(["0.1", "0.2", "0.3", "bad"]), min_size=1, max_size=40)


@given(TEXTS, st.integers(1, 50), st.integers(1, 50), st.none() | st.integers(1, 50))
def test_a_split_call_is_answered_as_if_it_were_whole(
    texts: list[str], server_limit: int, client_limit: int, top_n: int | None
) -> None:
    documents: list[str | Document] = [Document(text, str(at)) for at, text in enumerate(texts)]
    options: RerankOptions = {"top_n": top_n}
    whole = Server().rerank(documents, options=options)
    small = Server(limit=server_limit)
    policy = Policy(max_documents_per_call=client_limit)
    split = small.rerank(documents, policy, options=options)
    assert told(split) == told(whole)
    answered = [count for count in small.asked if count <= server_limit]
    assert sum(answered) == len(texts)
    assert max(small.asked) <= client_limit


def test_a_split_calls_times_and_usage_are_sums() -> None:
    response = Server(limit=2).rerank(["0.1"] * 5, Policy(max_documents_per_call=2))
    assert response.usage == Usage(50, 5, 3)
    assert response.timing == Timing(3, 6, 9, 12)
    assert response.query_truncated


def test_a_call_within_the_limit_is_not_split() -> None:
    server = Server()
    server.rerank(["0.1"] * 5, Policy(max_documents_per_call=5))
    assert server.asked == [5]


def test_scores_that_cannot_be_compared_are_not_put_together() -> None:
    server = Server(models=(replace(MODEL, comparable_across_requests=False),), limit=3)
    with pytest.raises(LimitExceeded):
        server.rerank(["0.1"] * 5)
    assert server.asked == [5, 3, 5]


def test_a_model_that_is_not_listed_is_not_known_to_compare() -> None:
    server = Server(models=(replace(MODEL, name="other"),))
    response = server.rerank(["0.1"] * 5, Policy(max_documents_per_call=3))
    assert server.asked == [3, 5]
    assert [each.index for each in response.results] == [0, 1, 2, 3, 4]


def test_a_model_that_changes_meanwhile_is_no_answer() -> None:
    server = Server(limit=2, versions=str)
    with pytest.raises(Unavailable, match="changed"):
        server.rerank(["0.1"] * 4, Policy(max_documents_per_call=2))


def test_a_message_that_is_too_large_is_split_too() -> None:
    too_large = BodyTooLarge(grpc.StatusCode.RESOURCE_EXHAUSTED, None, "larger than max")
    server = Server(refusals=[too_large, too_large])
    assert len(server.rerank(["0.1"] * 8).results) == 8
    assert server.asked == [8, 4, 2, 2, 2, 2]


@pytest.mark.parametrize("count", [1, 5])
def test_a_limit_that_fewer_documents_do_not_help_is_told(count: int) -> None:
    code = grpc.StatusCode.INVALID_ARGUMENT
    about_the_query = LimitExceeded(code, "LIMIT_EXCEEDED", "query: too long", "query")
    server = Server(refusals=[about_the_query])
    with pytest.raises(LimitExceeded, match="query"):
        server.rerank(["0.1"] * count)
    assert server.asked == [count]


def test_a_single_document_that_is_too_much_is_told() -> None:
    server = Server(limit=0)
    with pytest.raises(LimitExceeded):
        server.rerank(["0.1"] * 3)
    assert server.asked == [3, 2, 1]


def test_an_overloaded_server_is_asked_again_when_it_says() -> None:
    server = Server(refusals=[refusal("OVERLOADED", 2.0), refusal("OVERLOADED", 3.0)])
    assert server.rerank(["0.1"]).results
    assert server.waited == [2.0, 3.0]


@pytest.mark.parametrize(
    ("hint_s", "timeout_s"), [(None, 30.0), (30.0, 30.0), (60.0, 30.0), (2.0, 1.0)]
)
def test_a_hint_that_does_not_fit_the_deadline_is_not_waited_for(
    hint_s: float | None, timeout_s: float
) -> None:
    server = Server(refusals=[refusal("OVERLOADED", hint_s)])
    with pytest.raises(Overloaded) as caught:
        server.rerank(["0.1"], timeout_s=timeout_s)
    assert caught.value.retry_after_s == hint_s
    assert server.waited == []


def test_the_deadline_is_that_of_all_attempts_together() -> None:
    server = Server(seconds=4.0, refusals=[refusal("OVERLOADED", 3.0), refusal("OVERLOADED", 3.0)])
    with pytest.raises(Overloaded):
        server.rerank(["0.1"], timeout_s=13.0)
    assert server.waited == [3.0]


@pytest.mark.parametrize("attempts", [1, 3])
def test_attempts_are_counted(attempts: int) -> None:
    server = Server(refusals=[refusal("OVERLOADED", 0.0)] * 9)
    with pytest.raises(Overloaded):
        server.rerank(["0.1"], Policy(max_attempts=attempts))
    assert len(server.asked) == attempts


def test_parts_share_one_deadline() -> None:
    server = Server(seconds=10.0)
    with pytest.raises(DeadlineExceeded):
        server.rerank(["0.1"] * 5, Policy(max_documents_per_call=1))
    assert server.asked == [1, 1, 1]


def test_a_time_that_is_over_is_not_asked_for() -> None:
    server = Server()
    with pytest.raises(DeadlineExceeded):
        server.rerank(["0.1"], timeout_s=0.0)
    assert server.asked == []


@pytest.mark.parametrize("reason", ERRORS)
def test_all_but_the_callers_mistakes_are_passed_through(reason: str) -> None:
    server = Server(refusals=[refusal(reason)])
    if issubclass(ERRORS[reason][0], RequestError):
        with pytest.raises(RequestError):
            server.rerank(["0.1"], on_error="passthrough")
    else:
        response = server.rerank(["0.1"], on_error="passthrough")
        assert response.passed_through is not None
        assert response.passed_through.reason == reason


@given(TEXTS, st.none() | st.integers(1, 50), st.booleans())
def test_what_is_passed_through_is_as_it_came(
    texts: list[str], top_n: int | None, shown: bool
) -> None:
    documents: list[str | Document] = [
        Document(text, str(at)) if at % 2 else text for at, text in enumerate(texts)
    ]
    options: RerankOptions = {"return_documents": shown, "top_n": top_n}
    server = Server(refusals=[refusal("NOT_READY")])
    results = server.rerank(documents, on_error="passthrough", options=options).results
    assert [each.index for each in results] == list(range(len(texts)))[:top_n]
    assert all(each.score is None and each.error is None for each in results)
    assert [each.id for each in results][1::2] == [str(each.index) for each in results][1::2]
    expected = texts[:top_n] if shown else [None] * len(results)
    assert [each.document and each.document.text for each in results] == expected


def test_a_part_that_fails_fails_the_whole_call() -> None:
    policy = Policy(max_documents_per_call=1)
    late = Server(seconds=20.0)
    response = late.rerank(["0.1", "0.2", "0.3"], policy, on_error="passthrough")
    assert isinstance(response.passed_through, DeadlineExceeded)
    assert [each.score for each in response.results] == [None] * 3
