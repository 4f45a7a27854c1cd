"""One suite for every way in: whatever the wire, the same question has the same answer."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.conftest import Running
from tests.contract.entries import Entry, Grpc, InProcess, NativeHttp, Refused

FRUIT = "which fruit is red"
TEXTS = ["the sky is blue", "a ripe apple is red", "", "grass", "a ripe apple is red"]
LONG = "nothing to see here. " * 150 + "A ripe apple is a red fruit. " + "nothing at all. " * 150


@pytest.fixture(scope="module", params=["in process", "gRPC", "HTTP"])
def entry(request: pytest.FixtureRequest, sidecar: Running) -> Entry:
    entries: dict[str, Entry] = {
        "in process": InProcess(sidecar.engine, sidecar.loop),
        "gRPC": Grpc(sidecar.grpc_port),
        "HTTP": NativeHttp(sidecar.http_port),
    }
    chosen: Entry = entries[request.param]
    return chosen


def test_best_first_ties_in_input_order(entry: Entry) -> None:
    answer = entry.rerank(FRUIT, TEXTS)
    assert answer.order[:2] == [1, 4]
    assert sorted(answer.order) == [0, 1, 2, 3, 4]
    scores = [item.score for item in answer.items if item.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert (answer.model, answer.score_kind, answer.pairs) == ("embedded", "MAXSIM", 5)
    assert answer.tokens > 0


def test_ids_and_documents_come_back_when_asked(entry: Entry) -> None:
    texts = [("sky", "the sky is blue"), ("apple", "a ripe apple is red")]
    [best, other] = entry.rerank(FRUIT, texts, return_documents=True).items
    assert (best.id, best.text) == ("apple", "a ripe apple is red")
    assert (other.id, other.text) == ("sky", "the sky is blue")
    assert entry.rerank(FRUIT, texts).items[0].text is None


def test_top_n_and_threshold(entry: Entry) -> None:
    whole = entry.rerank(FRUIT, TEXTS)
    assert entry.rerank(FRUIT, TEXTS, top_n=2).items == whole.items[:2]
    limit = whole.items[1].score
    assert entry.rerank(FRUIT, TEXTS, score_threshold=limit).order == [1, 4]
    assert entry.rerank(FRUIT, TEXTS, score_threshold=1.5).items == ()


def test_unit_scores_are_the_fixed_mapping(entry: Entry) -> None:
    native = entry.rerank(FRUIT, TEXTS)
    unit = entry.rerank(FRUIT, TEXTS, normalization="unit")
    assert [item.score for item in unit.items] == [
        (item.score + 1) / 2 for item in native.items if item.score is not None
    ]


def test_no_documents_no_results(entry: Entry) -> None:
    assert entry.rerank(FRUIT, []).items == ()


def test_the_passage_that_earned_the_score_can_be_quoted(entry: Entry) -> None:
    [item] = entry.rerank(FRUIT, [LONG]).items
    assert item.window_count > 1
    assert not item.truncated
    assert item.best_window is not None
    assert "A ripe apple is a red fruit." in LONG[slice(*item.best_window)]


def test_truncate_reads_one_side_and_says_so(entry: Entry) -> None:
    [whole] = entry.rerank(FRUIT, [LONG]).items
    for side in ("right", "left"):
        options = {"long_document_policy": "truncate", "truncation_side": side}
        [item] = entry.rerank(FRUIT, [LONG], **options).items
        assert item.truncated
        assert item.window_count == 1
        assert item.best_window is not None
        assert (item.best_window[0] == 0) == (side == "right")
        assert item.score is not None
        assert whole.score is not None
        assert item.score < whole.score
    [short] = entry.rerank(FRUIT, ["a ripe apple is red"], max_tokens_per_document=2).items
    assert short.truncated


def test_more_than_sixteen_windows_are_flagged(entry: Entry) -> None:
    [item] = entry.rerank(FRUIT, ["word " * 6000]).items
    assert item.truncated
    assert item.window_count == 16


def test_a_long_query_is_cut_and_flagged(entry: Entry) -> None:
    assert entry.rerank("apple " * 500, TEXTS).query_truncated
    assert not entry.rerank("apple", TEXTS).query_truncated


def test_a_query_in_another_script_is_answered_by_the_lexical_model(entry: Entry) -> None:
    texts = [
        "배고플 때 먹을 수 있는 간단한 음식",
        "김oo 교수가 최근에 발표한 BERT를 활용한 자연어 처리 연구",
        "딥러닝을 활용한 최신 추천 시스템 연구가 등장했다",
    ]
    answer = entry.rerank("딥러닝 기반 추천 시스템 최신 연구", texts)
    assert answer.order == [2, 1, 0]
    assert (answer.model, answer.score_kind) == ("lexical", "LEXICAL")


def test_a_document_that_is_too_long_fails_alone(entry: Entry) -> None:
    answer = entry.rerank(FRUIT, ["x" * 200_001, "a ripe apple is red", "y" * 200_001], top_n=1)
    assert answer.order == [1, 0, 2]
    assert [item.reason for item in answer.items] == [None, "LIMIT_EXCEEDED", "LIMIT_EXCEEDED"]


@pytest.mark.parametrize(
    ("options", "reason", "field"),
    [
        ({"top_n": 0}, "INVALID_FIELD", "top_n"),
        ({"top_n": -3}, "INVALID_FIELD", "top_n"),
        (
            {"max_tokens_per_document": 0},
            "INVALID_FIELD",
            "truncation.max_tokens_per_document",
        ),
        ({"model": "no-such-model"}, "MODEL_NOT_FOUND", "model"),
    ],
)
def test_bad_options_are_refused_with_their_field(
    entry: Entry, options: dict[str, object], reason: str, field: str
) -> None:
    with pytest.raises(Refused) as refused:
        entry.rerank(FRUIT, TEXTS, **options)
    assert (refused.value.reason, refused.value.field) == (reason, field)


def test_too_many_documents_are_refused(entry: Entry) -> None:
    if isinstance(entry, Grpc):  # its client hears the refusal and sends them in parts
        assert len(entry.rerank(FRUIT, ["a"] * 1001).items) == 1001
        return
    with pytest.raises(Refused) as refused:
        entry.rerank(FRUIT, ["a"] * 1001)
    assert (refused.value.reason, refused.value.field) == ("LIMIT_EXCEEDED", "documents")


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(query=st.text(max_size=40), texts=st.lists(st.text(max_size=60), max_size=8))
def test_any_text_scores_finitely_and_alike(
    entry: Entry, sidecar: Running, query: str, texts: list[str]
) -> None:
    answer = entry.rerank(query, texts)
    assert sorted(answer.order) == list(range(len(texts)))
    assert all(item.score is not None and math.isfinite(item.score) for item in answer.items)
    direct = InProcess(sidecar.engine, sidecar.loop).rerank(query, texts)
    assert [item.score for item in answer.items] == [item.score for item in direct.items]
