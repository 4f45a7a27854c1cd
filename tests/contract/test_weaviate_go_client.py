"""An unmodified Weaviate against the real server on the embedded model.

Scores are compared for equality: with static int8 ranges a row does not depend on its neighbours.
"""

import json
import math
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from rerank_sidecar.settings import Settings
from tests.contract.go_client import CHUNK, GoClient, GoError, go_json, send

QUERY = "which fruit is red and grows on trees"
TEXTS = [
    "Apples are red or green fruits that grow on trees.",
    "The sky is blue because air scatters short waves.",
    "Tomaten sind rot, wachsen aber an Sträuchern: äöüß.",
    "Les cerises mûres sont rouges et sucrées.",
    "Красные яблоки растут на деревьях.",
    "Τα κόκκινα μήλα είναι φρούτα.",
    "التفاح الأحمر فاكهة تنمو على الأشجار",
    "תפוחים אדומים גדלים על עצים",
    "लाल सेब पेड़ों पर उगते हैं",
    "แอปเปิลสีแดงเติบโตบนต้นไม้",
    "딥러닝을 활용한 최신 추천 시스템 연구가 등장했다",
    "りんごは赤い果物です。",
    "苹果是长在树上的红色水果。",
    "🍎🍒 red 👩🏽‍🌾 e\u0301 \ufb01 \u202e",
    "",
    " \t\n",
    '\x00\x01\x1f\x7f\u2028\u2029 controls <b>&amp;</b> "quoted" \\',
    "x",
    "apple " * 12,
]


def search(count: int) -> list[str]:
    """Make up so many documents, the same ones each time, with duplicates."""
    chosen = random.Random(count).choices(TEXTS, k=count)  # noqa: S311 - not a secret
    return [f"{text} {at % 7}" if at % 3 else text for at, text in enumerate(chosen)]


def at_once(port: int, query: str, documents: list[str]) -> list[float]:
    """Score all documents in one request."""
    client = GoClient(port, 1)
    status, body = client.do("POST", "/rerank", go_json(query, documents))
    client.close()
    assert status == 200, body
    return [each["score"] for each in json.loads(body)["scores"]]


@pytest.fixture
def weaviate(http_port: int) -> Iterator[GoClient]:
    client = GoClient(http_port, cores=4)
    yield client
    client.close()


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1, 100])
def test_scores_do_not_depend_on_how_a_search_is_cut(
    http_port: int, count: int, cores: int
) -> None:
    documents = search(count)
    client = GoClient(http_port, cores)
    scores = client.rank(QUERY, documents)
    client.close()
    assert all(math.isfinite(score) for score in scores)
    assert scores == at_once(http_port, QUERY, documents)


def test_passages_of_every_length_score_alike_however_they_are_cut(http_port: int) -> None:
    words = ["the", "of", "ripe", "apple", "orchard", "grows", "red", "sunny", "valleys", "farms"]
    draw = random.Random(7)  # noqa: S311 - not a secret
    documents = [" ".join(draw.choices(words, k=length)) for length in range(1, 250, 2)]
    draw.shuffle(documents)
    client = GoClient(http_port, cores=4)
    scores = client.rank(QUERY, documents)
    client.close()
    assert scores == at_once(http_port, QUERY, documents)
    alone = [at_once(http_port, QUERY, [document])[0] for document in documents[:20]]
    assert scores[:20] == alone


def test_a_thousand_documents(http_port: int) -> None:
    documents = search(1000)
    client = GoClient(http_port, cores=16)
    scores = client.rank(QUERY, documents)
    client.close()
    assert scores == at_once(http_port, QUERY, documents)
    first = dict(zip(documents[::-1], scores[::-1], strict=True))
    assert scores == [first[text] for text in documents], "duplicates score alike"
    assert len({round(score, 3) for score in scores}) > 10, "different texts score differently"


def test_the_best_is_the_best(weaviate: GoClient) -> None:
    documents = [*TEXTS[1:10], "x", TEXTS[0]]
    scores = weaviate.rank(QUERY, documents)
    assert max(range(len(scores)), key=scores.__getitem__) == len(documents) - 1


def test_a_query_in_another_script_is_cut_alike(http_port: int, weaviate: GoClient) -> None:
    query, documents = "딥러닝 기반 추천 시스템 최신 연구", search(70)
    assert weaviate.rank(query, documents) == at_once(http_port, query, documents)


def test_documents_come_back_as_they_were_sent(weaviate: GoClient) -> None:
    status, body = weaviate.do("POST", "/rerank", go_json(QUERY, TEXTS))
    assert status == 200
    assert [each["document"] for each in json.loads(body)["scores"]] == TEXTS


def test_very_long_documents(http_port: int, weaviate: GoClient) -> None:
    long = " ".join(TEXTS[:13])
    documents = ["short", long * (100_000 // len(long.encode())), "", "word" * 25_000]
    assert all(len(text.encode()) > 90_000 for text in documents[1::2])
    scores = weaviate.rank(QUERY, documents)
    assert all(math.isfinite(score) for score in scores)
    assert scores == at_once(http_port, QUERY, documents)


def test_searches_at_the_same_time_keep_their_scores_apart(
    http_port: int, weaviate: GoClient
) -> None:
    queries = [QUERY, "why is the sky blue", "rote Tomaten", "красные яблоки"]
    documents = search(40)
    with ThreadPoolExecutor(len(queries)) as users:
        found = list(users.map(lambda query: weaviate.rank(query, documents), queries))
    for query, scores in zip(queries, found, strict=True):
        assert scores == at_once(http_port, query, documents)


def test_a_pooled_connection_that_broke_is_replaced(weaviate: GoClient) -> None:
    documents = search(100)
    scores = weaviate.rank(QUERY, documents)
    broken = weaviate.break_idle()
    assert broken > 0
    assert weaviate.rank(QUERY, documents) == scores
    assert weaviate.resent == broken


def test_a_request_whose_answer_was_lost_may_be_sent_again(
    http_port: int, weaviate: GoClient
) -> None:
    documents = search(CHUNK)
    for _ in range(5):
        lost = HTTPConnection("127.0.0.1", http_port)
        send(lost, "POST", "/rerank", go_json(QUERY, documents))
        lost.sock.shutdown(socket.SHUT_RDWR)
        lost.close()
    assert weaviate.rank(QUERY, documents) == at_once(http_port, QUERY, documents)


def test_idle_connections_are_used_again(weaviate: GoClient) -> None:
    for _ in range(5):
        weaviate.rank(QUERY, ["apple"])
    assert (weaviate.opened, weaviate.resent) == (1, 0)


def test_idle_connections_outlive_gos_pool() -> None:
    assert Settings.model_fields["keep_alive_timeout_s"].default > 90


def test_errors_are_strings_that_go_can_read(weaviate: GoClient) -> None:
    too_many = Settings.model_fields["max_documents"].default + 1
    status, body = weaviate.do("POST", "/rerank", go_json(QUERY, [""] * too_many))
    assert status == 400
    assert "documents" in json.loads(body)["error"]
    with pytest.raises(GoError, match="fail with status 400: query"):
        weaviate.rank("x" * (Settings.model_fields["max_query_bytes"].default + 1), ["a"])


def test_startup_and_meta(weaviate: GoClient) -> None:
    assert weaviate.do("GET", "/.well-known/ready") == (204, b"")
    status, body = weaviate.do("GET", "/meta")
    assert (status, type(json.loads(body))) == (200, dict)


def test_readiness_is_told_while_searches_run(http_port: int, weaviate: GoClient) -> None:
    searching = threading.Thread(target=weaviate.rank, args=(QUERY, search(200)))
    searching.start()
    probe = GoClient(http_port, 1)
    while searching.is_alive():
        assert probe.do("GET", "/.well-known/ready")[0] == 204
    probe.close()
    searching.join()
